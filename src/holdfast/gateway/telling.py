"""What a worker tells the others, ten times a second; and the board of a worker that has no others.

The teller reads what the layers keep anyway and adds the two things that need time: rates. It decides nothing, and nobody
waits for it: with its worker frozen, the others see an old view and leave it out.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec import Struct, structs

from holdfast.domain.board import Board, ReplicaView, TenantView, WorkerView
from holdfast.domain.ports import Clock
from holdfast.gateway.lines import Known, Lines
from holdfast.gateway.vitals import resident_bytes

EVERY_S = 0.1
RATES_S = 1.0  # rates are those of the last second
MEMORY_S = 1.0  # reading it is a system call and some text


class OwnBoard:
    """The Board of a worker that is alone: nobody else has anything in flight, and its view is read by itself only."""

    def __init__(self) -> None:
        self._view: WorkerView | None = None

    def put(self, boot: str, streams: int, tokens: int) -> None:
        return

    def others(self, boot: str) -> tuple[int, int]:
        return 0, 0

    def tell(self, view: WorkerView) -> None:
        self._view = view

    def told(self) -> list[WorkerView]:
        return [] if self._view is None else [self._view]


class _Sample(Struct, frozen=True):
    """What was told at one moment, and the total of tokens that replicas had made until then."""

    view: WorkerView
    tokens: int


@dataclass
class Teller:
    """Builds this worker's view. `gate` tells what waits and runs, `rung` where the ladder stands, `tokens` the total made."""

    worker: str
    board: Board
    clock: Clock
    lines: Lines
    gate: Callable[[float], WorkerView]
    rung: Callable[[], tuple[int, str]] = lambda: (0, "")
    tokens: Callable[[], int] = lambda: 0
    resident_bytes: Callable[[], int] = resident_bytes
    _samples: deque[_Sample] = field(default_factory=deque)
    _memory: tuple[float, float] = (float("-inf"), 0.0)

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            self.board.tell(self.view())
            await self.clock.sleep(EVERY_S)

    def view(self) -> WorkerView:
        """This worker, now."""
        now = self.clock.now()
        rung, why = self.rung()
        if now - self._memory[0] >= MEMORY_S:
            self._memory = now, self.resident_bytes() / 2**20
        view = structs.replace(
            self.gate(now),
            worker=self.worker,
            at=now,
            rung=rung,
            rung_why=why,
            memory_mib=self._memory[1],
            replicas=replica_views(self.lines),
        )
        newest, samples = _Sample(view, self.tokens()), self._samples
        samples.append(newest)
        while len(samples) > 2 and now - samples[1].view.at >= RATES_S:
            samples.popleft()
        return with_rates(newest.view, samples[0].view, newest.tokens - samples[0].tokens)


def with_rates(view: WorkerView, before: WorkerView, tokens: int) -> WorkerView:
    """The view with what happened each second since the one before. Who wasn't told of then has no rates yet."""
    span_s = view.at - before.at
    if span_s <= 0:
        return view
    refused_per_s = _refused_per_s(view.refused, before.refused, span_s)
    admitted_per_s = (view.admitted - before.admitted) / span_s
    earlier = {one.tenant: one for one in before.tenants}
    return structs.replace(
        view,
        requests_per_s=admitted_per_s + sum(refused_per_s.values()),
        admitted_per_s=admitted_per_s,
        failed_per_s=(view.failed - before.failed) / span_s,
        refused_per_s=refused_per_s,
        tokens_per_s=tokens / span_s,
        tenants=tuple(_tenant_with_rates(one, earlier.get(one.tenant), span_s) for one in view.tenants),
    )


def _refused_per_s(refused: dict[str, int], before: dict[str, int], span_s: float) -> dict[str, float]:
    """By limit, without those that refused nobody."""
    return {name: more / span_s for name, count in refused.items() if (more := count - before.get(name, 0)) > 0}


def _tenant_with_rates(one: TenantView, before: TenantView | None, span_s: float) -> TenantView:
    if before is None:
        return one
    return structs.replace(
        one,
        admitted_per_s=(one.admitted - before.admitted) / span_s,
        refused_per_s=_refused_per_s(one.refused, before.refused, span_s),
        served_per_s=(one.served_tokens - before.served_tokens) / span_s,
    )


def replica_views(lines: Lines) -> tuple[ReplicaView, ...]:
    """Every line, as the layers see it."""
    found, room = [], lines.room
    for name, known in lines.known().items():
        load, boot = known.line.last_load, known.line.boot
        place = room.places.get(boot)
        view = ReplicaView(
            replica=name,
            boot=boot,
            running=known.line.in_flight,
            slots=load.slots,
            outstanding_tokens=place.work if place else 0,
            held_tokens=place.tokens if place else 0,
            tokens_max=load.cache_tokens_max,
            state=state_of(known),
        )
        found.append(view)
    return tuple(found)


def state_of(known: Known) -> str:
    """Whether this worker gives it work, or what keeps it from that, and why: one word or two, then a colon and the rest."""
    if known.line.gone:
        return "lost"
    if known.suspected_at is not None:
        return f"suspect: {known.suspected_of}"
    if known.place.leaving or known.line.last_load.draining:
        return "leaving"
    if known.place.warm:
        return "warm"
    if known.breaker.is_open:
        return f"breaker open: {known.breaker.why}"
    return "serving" if known.place.weight > 0 else "leaving"
