"""holdfast limits: what applies to whom, by the settings and the keys, and what whoever goes beyond it is told."""

import argparse
import sys
from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from rich.text import Text

from holdfast.domain.key import KeyEntry
from holdfast.domain.limits import LIMITS, YOURS
from holdfast.domain.settings import BadSettings, Settings
from holdfast.domain.tenant import DEFAULT, Limits
from holdfast.fleet.load import amount
from holdfast.gateway.degrade import NO_SHEDDABLE, RESERVED
from holdfast.gateway.tenants import tenants_of
from holdfast.host.clock import unix_s
from holdfast.policy.ladder import RUNGS
from holdfast.store.folder import folder_of
from holdfast.store.keys import KeyFiles
from holdfast.store.settings_file import load_settings

WIDE = 110


class TenantLimits(Struct, frozen=True, kw_only=True):
    """One tenant. 0 means no limit of its own. `share` is its part of the work while all tenants want more than they get."""

    tenant: str
    keys: int
    priority: int
    weight: float
    share: float
    requests_per_s: float
    burst: float
    tokens_per_min: float
    tokens_burst: float
    concurrency: int
    slots_min: float
    slots_max: float
    refused_from_rung: int  # of the ladder; 0: never


class Applies(Struct, frozen=True, kw_only=True):
    """One limit: its word in refusals, the status of those, where it is set and to what, what it means."""

    limit: str
    status: int
    setting: str
    value: str
    meaning: str


class Page(Struct, frozen=True, kw_only=True):
    """Everything that is printed."""

    site: str
    slots: int
    workers: int
    tenants: list[TenantLimits]
    limits: list[Applies]


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("limits", help="show what applies to whom", description=__doc__)
    add = parser.add_argument
    add("settings", nargs="?", default="", metavar="FILE", help="settings file (default: holdfast.toml)")
    add("--tenant", default="", metavar="NAME", help="only this tenant, with its own values")
    add("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """0: printed. 2: asked wrongly."""
    try:
        settings = load_settings(args.settings)
        ring, now = KeyFiles(folder_of(settings).keys).look().ring, unix_s()
        page = page_of(settings, args.tenant, [one for one in ring.keys if one.live(now)] if ring is not None else ())
    except BadSettings as error:
        print(f"holdfast limits: {error}", file=sys.stderr)
        return 2
    if args.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(page)).decode() + "\n")
    else:
        _print(page, Console(highlight=False))
    return 0


def page_of(settings: Settings, tenant: str = "", live: Sequence[KeyEntry] = ()) -> Page:
    """What applies, to all or to one tenant. `live`: keys of the ring; their tenants need no section in the settings.

    Raises BadSettings, also when there is no such tenant.
    """
    tenants = tenants_of(settings)
    tenants.take(b"", live, closed=bool(live))
    names = {one.tenant for one in tenants.all} | {key.tenant for key in live}
    every = [tenants.named(name) for name in sorted(names, key=lambda name: (name != DEFAULT, name))]
    chosen = [one for one in every if one.tenant == tenant] if tenant else every
    if not chosen:
        known = ", ".join(one.tenant for one in every)
        raise BadSettings(f"there is no tenant {tenant!r}. Tenants: {known}.")
    slots, weights = settings.replica.count * settings.replica.slots, sum(one.weight for one in every)
    return Page(
        site=settings.site.name,
        slots=slots,
        workers=settings.gateway.workers,
        tenants=[
            _tenant(one, settings, slots, weights, sum(key.tenant == one.tenant for key in live)) for one in chosen
        ],
        limits=[
            Applies(
                limit=one.name,
                status=one.status,
                setting=one.setting,
                value=_value(one.setting, settings, chosen[0] if tenant else None),
                meaning=one.meaning,
            )
            for one in LIMITS
        ],
    )


def _tenant(one: Limits, settings: Settings, slots: int, weights: float, keys: int) -> TenantLimits:
    """`keys`: how many of the ring are its own."""
    section = settings.tenants.get(one.tenant)
    keys += len(section.keys) if section is not None else 0
    ladder = settings.degradation.on
    return TenantLimits(
        tenant=one.tenant,
        keys=keys + (one.tenant == DEFAULT and bool(settings.gateway.key)),
        priority=one.priority,
        weight=one.weight,
        share=round(one.weight / weights, 4),
        requests_per_s=one.requests_per_s,
        burst=one.burst if one.requests_per_s else 0.0,
        tokens_per_min=one.tokens_per_min,
        tokens_burst=one.tokens_burst or one.tokens_per_min,
        concurrency=one.concurrency,
        slots_min=round(one.memory_min * slots, 1),
        slots_max=round(one.memory_max * slots, 1),
        refused_from_rung=0 if not ladder else NO_SHEDDABLE if one.priority < 0 else 0 if one.reserved else RESERVED,
    )


def _value(setting: str, settings: Settings, tenant: Limits | None) -> str:
    """What a limit is set to. Of the tenants' own limits: this tenant's, or, without one, how many have it."""
    section, _, key = setting.partition(".")
    if section != "tenants":
        found = getattr(getattr(settings, section), key)
        return str(found).lower() if isinstance(found, bool) else f"{found:,.12g}"
    without = 1.0 if key == "memory_max" else 0.0
    if tenant is not None:
        own = getattr(tenant, key)
        return "none" if own == without else f"{own:,.12g}"
    having = sum(getattr(one, key) != without for one in settings.tenants.values())
    return f"of {having} tenant{'' if having == 1 else 's'}" if having else "of nobody"


def _print(page: Page, console: Console) -> None:
    wide = console.width >= WIDE
    workers = f"{page.workers} gateway worker{'' if page.workers == 1 else 's'}"
    console.print(Text(f"site {page.site}", "bold"), Text(f"{page.slots} slots, {workers}; by settings and keys"))
    console.print(_tenants(page))
    console.print(Text(f"on the ladder: {'; '.join(_on_the_ladder(page.tenants))}\n", "dim"))
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("limit", "status", *(("set by",) if wide else ()), "to", "who meets it is told"):
        table.add_column(column, overflow="fold", no_wrap=column != "who meets it is told")
    for one in page.limits:
        section, _, key = one.setting.partition(".")
        family = f"{section}.NAME" if section == "tenants" else section
        where = (Text(f"[{family}] {key}"),) if wide else ()
        status = Text(str(one.status), "yellow" if one.status == YOURS else "red")
        table.add_row(Text(one.limit, "bold"), status, *where, Text(one.value), Text(one.meaning))
    console.print(table)
    told = "A refusal names its limit in error.limit: name, used, size, unit, frees_s. 429 is the caller's own, 503 is ours."
    console.print(Text(f"\n{told}", "dim"))


def _tenants(page: Page) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for column in ("tenant", ">keys", ">band", ">weight", ">share", ">requests/s", ">tokens/min", ">at once", ">slots"):
        table.add_column(column.lstrip(">"), justify="right" if column[0] == ">" else "left", no_wrap=True)
    for one in page.tenants:
        low = f"{one.slots_min:g} to " if one.slots_min else "to "
        table.add_row(
            Text(one.tenant, "bold"),
            str(one.keys),
            str(one.priority),
            f"{one.weight:g}",
            f"{100 * one.share:.0f} %",
            _own(one.requests_per_s, one.burst),
            _own(one.tokens_per_min, one.tokens_burst),
            str(one.concurrency) if one.concurrency else "-",
            f"{low}{one.slots_max:g}",
        )
    return table


def _own(rate: float, burst: float) -> str:
    """A rate, and in brackets what may come at once where that is another number."""
    if not rate:
        return "-"
    return amount(rate) if rate == burst else f"{amount(rate)} ({amount(burst)})"


def _on_the_ladder(tenants: Iterable[TenantLimits]) -> Iterable[str]:
    """Who is refused from which rung on."""
    by_rung: dict[int, list[str]] = {}
    for one in tenants:
        by_rung.setdefault(one.refused_from_rung, []).append(one.tenant)
    for rung, names in sorted(by_rung.items()):
        who = ", ".join(names)
        yield f"{who}: refused from rung {rung} on, {RUNGS[rung].name}" if rung else f"{who}: always served"
