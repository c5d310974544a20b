"""The screen of `holdfast top`: from a SiteLoad to lines. What somebody on call reads first stands first, and in colour.

The verdict and its causes; one line of rates, one of what is full; then replicas, tenants, refusals, workers, each with the
one that has the most to do on top. A narrow terminal loses columns, a low one rows of tenants.
"""

from collections.abc import Iterable
from datetime import datetime

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from holdfast.domain.limits import BY_NAME, is_ours
from holdfast.fleet.load import NOISE_PER_S, SiteLoad, TenantLoad, amount

WORDS = {
    "ok": "bold white on green",
    "queueing": "bold white on blue",
    "refusing": "bold black on yellow",
    "failing": "bold white on red",
    "degraded": "bold black on yellow",
    "down": "bold white on red",
}
STATES = {"serving": "green", "warm": "cyan", "starting": "cyan", "draining": "cyan", "leaving": "cyan"}
WIDE, NARROW = 100, 80
OWN = "embedded"  # where all are, nobody has to be told
FULL, NEARLY = 0.95, 0.8
A_LITTLE = 0.005
TENANTS_MIN, REFUSALS_MAX = 3, 8
NAME_CELLS, OTHER_CELLS = 24, 62  # of a tenant's row: the name at most, and what else stands there at least


def screen(load: SiteLoad, source: str, width: int, height: int = 0) -> RenderableType:
    """The lines for a terminal so wide and so high; 0 means that the height does not matter."""
    head: list[RenderableType] = [
        *_headline(load, source, width),
        Text(),
        _rates(load, width),
        _use(load, width),
        Text(),
    ]
    around = [one for one in (_replicas(load, width), _refusals(load, width), _workers(load, width)) if one is not None]
    taken = len(head) + sum(one.row_count + 2 for one in around) + 3
    tenants = _tenants(load, width, max(TENANTS_MIN, height - taken) if height else len(load.tenants))
    tables = [*around[:1], tenants, *around[1:]] if load.replicas else [tenants, *around]
    parts = head
    for table in tables:
        if table is not None:
            parts += [table, Text()]
    if load.sharing:
        parts[-1] = Text(f"rates and quotas: {load.sharing}", "dim")
    return Group(*parts)


def _headline(load: SiteLoad, source: str, width: int) -> Iterable[RenderableType]:
    verdict = load.verdict
    told = datetime.fromtimestamp(load.at).strftime("%H:%M:%S")
    states = [one.state for one in load.replicas if not one.model]
    serving, warm = states.count("serving"), states.count("warm")
    wanted = f" of {load.wanted}" if load.wanted else ""
    line = Text.assemble((f" {verdict.word.upper()} ", WORDS.get(verdict.word, "bold")), (f" {load.site} ", "bold"))
    line.append(f"{serving}{wanted} replicas serve" + (f", {warm} warm" if warm else ""))
    line.append(f" · {told}", "dim")
    if width >= WIDE or source != "the control plane":
        line.append(f" · told by {source}", "dim")
    yield line
    for number, why in enumerate(verdict.why):
        yield Padding(Text(why, "" if number == 0 else "dim"), (0, 0, 0, 2))


def _rates(load: SiteLoad, width: int) -> Text:
    refused = sum(load.refused_per_s.values())
    told = [
        ("asked", f"{amount(load.requests_per_s)}/s", ""),
        ("let in", f"{amount(load.admitted_per_s)}/s", ""),
        ("refused", f"{amount(refused)}/s", "yellow" if refused >= NOISE_PER_S else ""),
        ("failed", f"{amount(load.failed_per_s)}/s", "red" if load.failed_per_s >= NOISE_PER_S else ""),
        ("tokens", f"{amount(load.tokens_per_s)}/s", ""),
        ("wait", f"{load.wait_s:.2f} s", "cyan" if load.wait_s >= 0.1 else ""),
        *([("waiting", amount(load.waiting), "cyan" if load.waiting else "")] if width >= WIDE else []),
    ]
    if width < WIDE and load.failed_per_s < NOISE_PER_S:
        told = [one for one in told if one[0] != "failed"]  # what does not happen has no room
    pieces = [Text.assemble((f"{name} ", "dim"), (value, f"bold {style}".strip())) for name, value, style in told]
    return Text("  ", no_wrap=True).join(pieces)


def _use(load: SiteLoad, width: int) -> Text:
    length = 14 if width >= WIDE else 8
    taken = sum(one.running for one in load.replicas if one.state == "serving" and not one.model)
    pieces = [_gauge("slots", bar(taken, load.slots, length), f"{taken}/{load.slots}")]
    if load.tokens_max:
        cache = bar(load.held_tokens, load.tokens_max, length)
        pieces.append(_gauge("cache", cache, _percent(load.held_tokens, load.tokens_max)))
    if load.bucket_size:
        left = max(0.0, load.bucket_level)
        rate = bar(load.bucket_size - left, load.bucket_size, length)
        pieces.append(_gauge("site rate", rate, f"{amount(left)} left of {amount(load.bucket_size)}"))
    return Text("  ", no_wrap=True).join(pieces)


def _gauge(name: str, gauge: Text, words: str) -> Text:
    return Text.assemble((f"{name} ", "dim"), gauge, f" {words}")


def bar(used: float, size: float, length: int, colour: str = "") -> Text:
    """A bar of so many cells: green, then yellow, red when full; or of one colour. Where there is a little, there is a cell."""
    share = min(1.0, max(0.0, used / size)) if size > 0 else 0.0
    cells = min(length, round(share * length) or (1 if share > A_LITTLE else 0))
    colour = colour or ("red" if share >= FULL else "yellow" if share >= NEARLY else "green")
    return Text.assemble(("█" * cells, colour), ("░" * (length - cells), "dim"))


def _percent(used: float, size: float) -> str:
    return f"{100 * used / size:.0f} %" if size > 0 else "-"


def _replicas(load: SiteLoad, width: int) -> Table | None:
    if not load.replicas:
        return None
    length = 10 if width >= WIDE else 5
    foreign = width >= NARROW and any(one.engine not in ("", OWN) for one in load.replicas)
    rows = []
    for one in load.replicas:
        slots = Text.assemble(bar(one.running, one.slots, length), f" {one.running}/{one.slots}")
        cache = Text.assemble(
            bar(one.held_tokens, one.tokens_max, length), f" {_percent(one.held_tokens, one.tokens_max)}"
        )
        rows.append(
            [
                Text(f"{one.replica} ({one.model})" if one.model else one.replica),
                Text(one.state, STATES.get(one.state, "bold red")),
                *([Text(one.engine or "-", "dim")] if foreign else []),
                slots if one.slots else Text("-", "dim"),
                cache if one.tokens_max else Text("-", "dim"),
                Text(amount(one.outstanding_tokens)),
                Text(one.why, "dim"),
            ]
        )
    engine = ("engine",) if foreign else ()
    return _table(("replica", "state", *engine, "slots", "cache", ">work", "why"), rows, width)


def _tenants(load: SiteLoad, width: int, rows_max: int) -> Table | None:
    if not load.tenants:
        return None
    shown = load.tenants if len(load.tenants) <= rows_max else load.tenants[: max(1, rows_max - 1)]
    rows = [_tenant(one, width) for one in shown]
    if len(shown) < len(load.tenants):
        rows.append([Text(f"and {len(load.tenants) - len(shown)} more", "dim"), *([Text()] * (len(rows[0]) - 1))])
    served = (">served/s",) if width >= WIDE else ()
    return _table(("tenant", "share of work", ">runs", ">waits", *served, "quota", "refused/s"), rows, width)


def _tenant(one: TenantLoad, width: int) -> list[Text]:
    length = 10 if width >= WIDE else 5
    quota = Text("-", "dim")
    if one.quota_size > 0:
        used = bar(one.quota_used, one.quota_size, 5)
        quota = Text.assemble(used, f" {_percent(one.quota_used, one.quota_size)}")
    refused = Text("-", "dim")
    if (refused_per_s := sum(one.refused_per_s.values())) >= NOISE_PER_S:
        refused = Text(f"{amount(refused_per_s)} {next(iter(one.refused_per_s))}", "yellow")
    cells = min(NAME_CELLS, max(8, width - OTHER_CELLS))
    name = one.tenant if len(one.tenant) <= cells else f"{one.tenant[: cells - 1]}…"
    return [
        Text(name, "bold" if one.waiting else ""),
        Text.assemble(bar(one.share, 1.0, length, "blue"), f" {100 * one.share:.0f} %"),
        Text(amount(one.running)),
        Text(amount(one.waiting), "cyan" if one.waiting else ""),
        *([Text(amount(one.served_per_s))] if width >= WIDE else []),
        quota,
        refused,
    ]


def _refusals(load: SiteLoad, width: int) -> Table | None:
    if not load.refused:
        return None
    ranked = sorted(load.refused, key=lambda name: (-load.refused_per_s.get(name, 0.0), -load.refused[name]))
    rows = []
    for name in ranked[:REFUSALS_MAX]:
        now_per_s, words = load.refused_per_s.get(name, 0.0), BY_NAME.get(name)
        ours, now = is_ours(name), now_per_s >= NOISE_PER_S
        rows.append(
            [
                Text(name, "bold" if now else "dim"),
                Text(amount(now_per_s), "yellow" if now else "dim"),
                Text(amount(load.refused[name])),
                Text("ours" if ours else "theirs", "red" if ours and now else "dim"),
                Text(words.meaning if words else "", "dim"),
            ]
        )
    return _table(("refused by", ">now/s", ">in all", "limit", "because"), rows, width)


def _workers(load: SiteLoad, width: int) -> Table | None:
    if not load.workers:
        return None
    rows = []
    for one in load.workers:
        frozen = one.worker in load.silent
        rows.append(
            [
                Text(f"{one.worker} (frozen)" if frozen else one.worker, "bold red" if frozen else ""),
                Text(amount(one.requests_per_s)),
                Text(amount(one.running)),
                Text(amount(one.waiting)),
                Text(f"{one.wait_s:.2f} s"),
                Text(amount(one.drain_per_s)),
                Text(f"{one.memory_mib:.0f}"),
                Text(),
            ]
        )
    return _table(("worker", ">asked/s", ">runs", ">waits", ">wait", ">drains/s", ">MiB", ""), rows, width)


def _table(columns: tuple[str, ...], rows: list[list[Text]], width: int) -> Table:
    """A table whose last column takes what the others leave. Those of numbers begin with '>' and stand on the right."""
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    left = width
    for number, column in enumerate(columns):
        name, cells = column.lstrip(">"), [row[number].cell_len for row in rows]
        wide = max(len(name), *cells)
        if number == len(columns) - 1:
            wide = max(1, min(wide, left))
        table.add_column(name, justify="right" if column != name else "left", width=wide, no_wrap=True)
        left -= wide + 2
    for row in rows:
        row[-1].truncate(max(1, left + 2 + (table.columns[-1].width or 0)), overflow="ellipsis")
        table.add_row(*row)
    return table
