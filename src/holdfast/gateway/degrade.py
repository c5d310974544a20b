"""Degrading: looks at what all workers of this machine tell, asks policy.ladder, and does to requests what the rung says.

All workers stand on one rung. The first of them, by name, that tells something fresh decides and says so in the log; the
others follow the rung that they read in its view. When it is gone the next one goes on from where it followed to. What is asked
of this worker alone is cheap: on rung 0 a request costs one comparison.

A client sees what was done to its answer in `x-holdfast-degraded`, and may say `x-holdfast-degrade: never`: then its answer is
whole, or it is refused.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from msgspec import Struct
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from holdfast.domain.board import WorkerView
from holdfast.domain.event import Emit, RungChanged
from holdfast.domain.ports import Clock
from holdfast.domain.settings import Settings
from holdfast.domain.tenant import Limits
from holdfast.gateway.tenants import Tenants
from holdfast.policy.error_rate import ErrorRate
from holdfast.policy.ladder import RUNGS, Ladder, Rules, Step
from holdfast.policy.pressure import Pressure, pressure_of

LOOK_S = 0.25
FRESH_S = 1.0  # a worker that told nothing for so long does not decide; it tells ten times a second
SHORTER, LESS_THINKING, NO_SHEDDABLE, SMALLER, RESERVED = range(1, 6)


class Cut(NamedTuple):
    """How long one answer may be, and in words what was taken from it."""

    max_tokens: int
    thinking_max: int = 0
    words: str = ""


class Cuts(Struct, frozen=True):
    """What the first two rungs cut answers to, in tokens."""

    max_tokens: int = 512
    thinking_tokens: int = 256


@dataclass(kw_only=True)
class Degrader:
    """One worker's part of the ladder.

    `told`: see domain.board.Board. `has_reserved`: whether any tenant has a reservation; `reserved`: whether this one has.
    `smaller_serves`: whether a smaller model is there. With `on` false nothing is ever given up.
    """

    worker: str
    told: Callable[[], list[WorkerView]]
    clock: Clock
    emit: Emit
    rules: Rules = field(default_factory=Rules)
    window_s: float = 10.0
    cuts: Cuts = field(default_factory=Cuts)
    on: bool = True
    has_reserved: bool = False
    reserved: Callable[[str], bool] = lambda tenant: False
    smaller_serves: Callable[[], bool] = lambda: False
    rung: int = 0
    why: str = RUNGS[0].name
    pressure: Pressure = field(default_factory=Pressure)
    counts: dict[str, int] = field(default_factory=dict)  # answers that were changed, by what was done to them

    def __post_init__(self) -> None:
        self._ladder = Ladder(self.rules)
        self._rate = ErrorRate(self.window_s)
        self._led_at = float("-inf")

    # what is asked for each request

    def refuses(self, limits: Limits, priority: int) -> str:
        """Why a request of this tenant and band is not served on this rung; empty when it is."""
        rung = self.rung
        if rung < NO_SHEDDABLE:
            return ""
        if rung >= RESERVED and not limits.reserved:
            return (
                f"only tenants with a reservation are served while the site stands on rung {rung}, {RUNGS[rung].name}"
            )
        if priority < 0:
            return (
                f"no request of a priority below 0 is served while the site stands on rung {rung}, {RUNGS[rung].name}"
            )
        return ""

    def cut(self, max_tokens: int, thinks: bool, model: str = "") -> Cut:
        """What an answer may be that was asked to have `max_tokens`. `model`: the smaller one, if that is to answer."""
        cuts, thinking_max, words = self.cuts, 0, []
        if self.rung >= SHORTER and max_tokens > cuts.max_tokens:
            max_tokens = cuts.max_tokens
            words.append(self._did("max_tokens", max_tokens))
        if self.rung >= LESS_THINKING and thinks and max_tokens > cuts.thinking_tokens:
            thinking_max = cuts.thinking_tokens
            words.append(self._did("thinking_tokens", thinking_max))
        if model:
            words.append(self._did("model", model))
        return Cut(max_tokens, thinking_max, ", ".join(words))

    def to_smaller(self, tenant: str) -> bool:
        """Whether this tenant's requests go to the smaller model, as far as it has room."""
        return self.rung >= SMALLER and not self.reserved(tenant) and self.smaller_serves()

    def _did(self, what: str, how: object) -> str:
        self.counts[what] = self.counts.get(what, 0) + 1
        return f"{what}={how}"

    # the looks

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.clock.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """See what everybody tells; decide, or follow who does."""
        if not self.on:
            return
        now = self.clock.now()
        views = [view for view in self.told() if now - view.at <= FRESH_S]
        self._rate.see(views, now)
        self.pressure = pressure_of(views, self._rate, now, self.reserved)
        others = [view for view in views if view.worker != self.worker]
        first = min(others, key=lambda view: view.worker, default=None)
        if first is not None and (first.worker < self.worker or now - self._led_at > FRESH_S):
            # a worker that has just come, or stood still for a while, takes over from who decided meanwhile
            self._ladder.follow(first.rung, first.rung_why)
            self._led_at = now if first.worker > self.worker else float("-inf")
        else:
            self._led_at = now
            verdict = self._ladder.look(self.pressure, now, self._without())
            if isinstance(verdict, Step):
                self.emit(RungChanged(before=verdict.before, after=verdict.after, name=verdict.name, why=verdict.why))
        self.rung, self.why = self._ladder.rung, self._ladder.why

    def _without(self) -> frozenset[int]:
        """Rungs on which nothing would be won."""
        missing = set()
        if not self.smaller_serves():
            missing.add(SMALLER)
        if not self.has_reserved:
            missing.add(RESERVED)
        return frozenset(missing)


def degrader_of(
    settings: Settings,
    worker: str,
    told: Callable[[], list[WorkerView]],
    *,
    tenants: Tenants,
    clock: Clock,
    emit: Emit,
) -> Degrader:
    """The [degradation] section. `worker` is the name that this worker's own view has."""
    degradation = settings.degradation
    return Degrader(
        worker=worker,
        told=told,
        clock=clock,
        emit=emit,
        rules=Rules(
            errors_share=degradation.errors_share,
            volume_min=degradation.volume_min,
            wait_s=settings.admission.first_token_s / 2,
            step_s=degradation.step_s,
            calm_s=degradation.calm_s,
        ),
        window_s=degradation.window_s,
        cuts=Cuts(degradation.max_tokens, degradation.thinking_tokens),
        on=degradation.on,
        has_reserved=any(one.reserved for one in tenants.all),
        reserved=lambda tenant: tenants.named(tenant).reserved,
    )


class LadderCollector(Collector):
    """Shows the ladder to Prometheus."""

    def __init__(self, degrader: Degrader) -> None:
        self._degrader = degrader

    def collect(self) -> Iterator[Metric]:
        degrader = self._degrader
        yield GaugeMetricFamily("holdfast_rung", "How far the site degrades; 0 is full service.", value=degrader.rung)
        yield GaugeMetricFamily(
            "holdfast_error_share",
            "Share of answers that ended in an error of ours.",
            value=degrader.pressure.errors.share,
        )
        changed = CounterMetricFamily("holdfast_answers_degraded", "Answers that were changed, by how.", labels=["how"])
        for how, count in sorted(degrader.counts.items()):
            changed.add_metric([how], count)
        yield changed
