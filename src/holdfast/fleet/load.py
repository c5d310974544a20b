"""The load of a whole site: what its workers have told, added up, and the one sentence that somebody on call wants first.

`GET /v1/load` and `holdfast top` show it. Nobody acts on it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct, structs

from holdfast.domain.board import ReplicaView, TenantView, WorkerView, short_name
from holdfast.domain.limits import is_ours
from holdfast.domain.site import ProcessView, Role, SiteView
from holdfast.policy.ladder import RUNGS

FROZEN_S = 2.0  # a worker tells ten times a second
NOISE_PER_S = 0.05  # one in twenty seconds is no rate
SERVING, WARM = "serving", "warm"
Number = TypeVar("Number", int, float)


class TenantLoad(Struct, frozen=True, kw_only=True):
    """One tenant in all workers. `share` is its part of the work that is done now, 0 to 1."""

    tenant: str
    running: int = 0
    waiting: int = 0
    waiting_tokens: int = 0
    held_tokens: int = 0
    served_tokens: float = 0.0
    served_per_s: float = 0.0
    share: float = 0.0
    admitted: int = 0
    admitted_per_s: float = 0.0
    refused: dict[str, int] = {}
    refused_per_s: dict[str, float] = {}
    quota_used: float = 0.0
    quota_size: float = 0.0


class ReplicaLoad(Struct, frozen=True, kw_only=True):
    """One replica. `running` and tokens are all workers'; `state` is the supervisor's word, or a worker's where that is worse;
    `engine` is its kind, with the version of a foreign one: embedded, vllm 0.32.0."""

    replica: str
    state: str = ""
    why: str = ""
    model: str = ""
    engine: str = ""
    running: int = 0
    slots: int = 0
    outstanding_tokens: int = 0
    held_tokens: int = 0
    tokens_max: int = 0


class Verdict(Struct, frozen=True):
    """What to think of it: `word` is ok, queueing, refusing, failing, degraded or down; `why` leads with the worst."""

    word: str
    why: tuple[str, ...] = ()


class SiteLoad(Struct, frozen=True, kw_only=True):
    """The site, now. `at` is unix seconds; sums are over all workers that tell, `silent` are the others that live."""

    site: str
    at: float
    verdict: Verdict
    rung: int = 0
    rung_name: str = ""
    rung_why: str = ""
    requests_per_s: float = 0.0
    admitted_per_s: float = 0.0
    failed_per_s: float = 0.0
    tokens_per_s: float = 0.0
    drain_per_s: float = 0.0
    running: int = 0
    slots: int = 0
    held_tokens: int = 0
    tokens_max: int = 0
    waiting: int = 0
    waiting_tokens: int = 0
    wait_s: float = 0.0
    admitted: int = 0
    answered: int = 0
    failed: int = 0
    refused: dict[str, int] = {}
    refused_per_s: dict[str, float] = {}
    bucket_level: float = 0.0
    bucket_size: float = 0.0
    sharing: str = ""
    wanted: int = 0
    wanted_why: str = ""
    silent: tuple[str, ...] = ()
    tenants: tuple[TenantLoad, ...] = ()
    replicas: tuple[ReplicaLoad, ...] = ()
    workers: tuple[WorkerView, ...] = ()


def site_load(name: str, views: Sequence[WorkerView], site: SiteView | None, now: float, unix_s: float) -> SiteLoad:
    """Add up. `now` is the clock of the views; `site` is what the supervisor has told, None where it has not."""
    fresh = [view for view in views if now - view.at <= FROZEN_S]
    silent = tuple(short_name(view.worker) for view in views if now - view.at > FROZEN_S)
    replicas = _replicas(views, silent, site.processes if site is not None else ())
    serving = [
        one for one in replicas if one.state == SERVING and not one.model
    ]  # a smaller model's room is another one
    top = max(fresh, key=lambda view: view.rung, default=WorkerView(worker=""))
    fullest = min(
        (view for view in fresh if view.bucket_size > 0),
        key=lambda view: view.bucket_level / view.bucket_size,
        default=WorkerView(worker=""),
    )
    load = SiteLoad(
        site=name,
        at=round(unix_s, 3),
        verdict=Verdict(""),
        rung=top.rung,
        rung_name=RUNGS[top.rung].name if top.rung < len(RUNGS) else "",
        rung_why=top.rung_why,
        requests_per_s=sum(view.requests_per_s for view in fresh),
        admitted_per_s=sum(view.admitted_per_s for view in fresh),
        failed_per_s=sum(view.failed_per_s for view in fresh),
        tokens_per_s=sum(view.tokens_per_s for view in fresh),
        drain_per_s=sum(view.drain_per_s for view in fresh),
        running=sum(view.running for view in fresh),
        slots=sum(one.slots for one in serving),
        held_tokens=sum(one.held_tokens for one in serving),
        tokens_max=sum(one.tokens_max for one in serving),
        waiting=sum(view.waiting for view in fresh),
        waiting_tokens=sum(view.waiting_tokens for view in fresh),
        wait_s=max((view.wait_s for view in fresh), default=0.0),
        admitted=sum(view.admitted for view in fresh),
        answered=sum(view.answered for view in fresh),
        failed=sum(view.failed for view in fresh),
        refused=_added(view.refused for view in fresh),
        refused_per_s=_added(view.refused_per_s for view in fresh),
        bucket_level=fullest.bucket_level,
        bucket_size=fullest.bucket_size,
        sharing=fullest.sharing,
        wanted=site.replicas if site is not None else 0,
        wanted_why=site.replicas_why if site is not None else "",
        silent=silent,
        tenants=_tenants(fresh),
        replicas=replicas,
        workers=tuple(structs.replace(view, worker=short_name(view.worker)) for view in views),
    )
    return _judged(load, bool(fresh))


def _judged(load: SiteLoad, told: bool) -> SiteLoad:
    """The load with what to think of it. Each cause adds its sentence; the worst one, which is the first, gives the word."""
    found = [(word, why) for word, why in _causes(load, told) if why]
    word = next((word for word, _ in found if word), "ok")
    return structs.replace(load, verdict=Verdict(word, tuple(why for _, why in found)))


def _causes(load: SiteLoad, told: bool) -> Iterable[tuple[str, str]]:
    """(word, sentence) of all that may be said, the worst first; an empty sentence is not the case, an empty word no trouble."""
    out = [f"{one.replica} {one.state}" for one in load.replicas if one.state not in (SERVING, WARM)]
    ours = {name: rate for name, rate in load.refused_per_s.items() if is_ours(name) and rate > NOISE_PER_S}
    own = {name: rate for name, rate in load.refused_per_s.items() if not is_ours(name) and rate > NOISE_PER_S}
    yield "down", "" if told else "no gateway worker tells anything"
    yield "down", "no replica serves" if told and not load.slots else ""
    yield "degraded", f"rung {load.rung} of {len(RUNGS) - 1}, {load.rung_name}: {load.rung_why}" if load.rung else ""
    failing = load.failed_per_s > NOISE_PER_S
    yield "failing", f"{amount(load.failed_per_s)} answers a second end in an error of ours" if failing else ""
    yield "refusing", f"we refuse {_rates(ours)}" if ours else ""
    wait = f", who is let in has waited {load.wait_s:.2f} s" if load.wait_s > 0 else ""
    yield (
        "queueing",
        f"{load.waiting} wait with {amount(load.waiting_tokens)} tokens of work{wait}" if load.waiting else "",
    )
    yield "", f"{', '.join(load.silent)}: frozen, or busy for seconds" if load.silent else ""
    yield "", f"not in service: {', '.join(out)}" if out else ""
    yield "", f"callers over limits of their own: {_rates(own)}" if own else ""


def _rates(rates: Mapping[str, float]) -> str:
    each = ", ".join(f"{name} {amount(rate)}" for name, rate in rates.items())
    return f"{amount(sum(rates.values()))}/s ({each})"


def amount(number: float) -> str:
    """A number in at most five characters, as one says it: 0.4, 312, 8.1k, 60k, 4M."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * limit:
            scaled = number / limit
            return f"{scaled:.0f}{unit}" if scaled >= 99.95 else f"{scaled:.1f}".removesuffix(".0") + unit
    return f"{number:.0f}" if number >= 9.95 else f"{number:.1f}".removesuffix(".0")


def _replicas(
    views: Sequence[WorkerView], silent: Sequence[str], processes: Iterable[ProcessView]
) -> tuple[ReplicaLoad, ...]:
    """All that the supervisor keeps or a worker is connected to, by name. What a frozen worker has running there still holds
    its slots, but what it thought of a replica is old."""
    seen: dict[str, list[tuple[str, ReplicaView]]] = {}
    for view in views:
        name = short_name(view.worker)
        for one in view.replicas:
            told = structs.replace(one, state=SERVING) if name in silent else one
            seen.setdefault(one.replica, []).append((name, told))
    kept = {one.name: one for one in processes if one.role is Role.REPLICA}
    return tuple(_replica(name, seen.get(name, []), kept.get(name)) for name in sorted({*seen, *kept}, key=_in_order))


def _in_order(name: str) -> tuple[str, int, str]:
    """replica-10 after replica-9."""
    stem, _, number = name.rpartition("-")
    return (stem, int(number), "") if number.isdigit() else (name, 0, name)


def _replica(name: str, seen: Sequence[tuple[str, ReplicaView]], kept: ProcessView | None) -> ReplicaLoad:
    state = str(kept.state) if kept is not None else SERVING
    complaints = {worker: one.state for worker, one in seen if one.state != SERVING}
    why = kept.why if kept is not None else ""
    if state == SERVING and complaints:
        if len(complaints) == len(seen):  # for nobody it serves
            state, _, why = next(iter(complaints.values())).partition(": ")
        else:
            why = "; ".join(f"{worker}: {complaint}" for worker, complaint in complaints.items())
    load = kept.load if kept is not None and not seen else None  # of one that no worker tells of, what it said itself
    return ReplicaLoad(
        replica=name,
        state=state,
        why=why,
        model=kept.model if kept is not None else "",
        engine=kept.engine.partition(":")[0] if kept is not None else "",
        running=load.running if load else sum(one.running for _, one in seen),
        slots=load.slots if load else max((one.slots for _, one in seen), default=0),
        outstanding_tokens=sum(one.outstanding_tokens for _, one in seen),
        held_tokens=load.cache_tokens if load else sum(one.held_tokens for _, one in seen),
        tokens_max=load.cache_tokens_max if load else max((one.tokens_max for _, one in seen), default=0),
    )


def _tenants(views: Sequence[WorkerView]) -> tuple[TenantLoad, ...]:
    """Every tenant that somebody tells of, those with the most to do first."""
    seen: dict[str, list[TenantView]] = {}
    for view in views:
        for one in view.tenants:
            seen.setdefault(one.tenant, []).append(one)
    now_per_s = sum(max(0.0, one.served_per_s) for ones in seen.values() for one in ones)
    found = [_tenant(name, ones, now_per_s) for name, ones in seen.items()]
    return tuple(
        sorted(found, key=lambda one: (-one.served_per_s, -one.waiting, -sum(one.refused_per_s.values()), one.tenant))
    )


def _tenant(name: str, ones: Sequence[TenantView], all_per_s: float) -> TenantLoad:
    served_per_s = sum(max(0.0, one.served_per_s) for one in ones)
    quota = max(ones, key=lambda one: one.quota_used)  # shared by the workers: each tells the same account
    return TenantLoad(
        tenant=name,
        running=sum(one.running for one in ones),
        waiting=sum(one.waiting for one in ones),
        waiting_tokens=sum(one.waiting_tokens for one in ones),
        held_tokens=sum(one.held_tokens for one in ones),
        served_tokens=sum(one.served_tokens for one in ones),
        served_per_s=served_per_s,
        share=served_per_s / all_per_s if all_per_s > 0 else 0.0,
        admitted=sum(one.admitted for one in ones),
        admitted_per_s=sum(one.admitted_per_s for one in ones),
        refused=_added(one.refused for one in ones),
        refused_per_s=_added(one.refused_per_s for one in ones),
        quota_used=quota.quota_used,
        quota_size=quota.quota_size,
    )


def _added(counts: Iterable[Mapping[str, Number]]) -> dict[str, Number]:
    """Sums by name, the largest first."""
    total: dict[str, Number] = {}
    for one in counts:
        for name, count in one.items():
            total[name] = total[name] + count if name in total else count
    return dict(sorted(total.items(), key=lambda pair: -pair[1]))
