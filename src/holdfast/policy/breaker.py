"""Breaker: keeps attempts off a replica that fails, and asks it a question of our own now and then to find out.

Two ways to open. Failures in a row: with two to four replicas and a few requests a second, rates never gather enough volume
(Envoy's success-rate ejection needs 5 hosts and 100 requests an interval). And a rate: where there is volume, a replica that
fails one attempt in twenty never fails five in a row. Rates are kept for each way of failing, since a sum hides which it was:
more than `errors_share` of the attempts that ended within `window_s`, once there are `volume_min` of them, and at least three.

Nobody's answer is the trial of a replica that was bad a second ago: it is asked for one token by the gateway itself
(gateway/trial.py), `open_s` after it opened. A good answer closes the breaker, a bad one opens it again for twice as long, up
to `open_max_s`. While it is open nothing else counts; answers that were under way end as they may.

Neither counts what says nothing of the replica: a client that hangs up, a request that was wrong or past its deadline, an
answer that was asked to move. And one event is one failure, however many answers it hits: a step that fails thirty streams at
once, or a connection that breaks under them, tells no more than one that fails a single stream.

It never opens on the last replica, nor on more than half of them (policy/ejection.py): somebody has to serve.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from msgspec import Struct

from holdfast.policy.ejection import Held, may_eject

MOMENT_S = (
    0.05  # what fails within so many seconds of another failure is the same event, where failures in a row are counted
)
EVENT_S = 0.005  # the same for rates: at volume, different events come close together
FAILURES_MIN = 3  # of one way within the window: two of forty are more than 5 % too, and chance
BUCKETS = 10  # the window's resolution


class Way(StrEnum):
    """How attempts fail. DIED: process or connection gone. SILENT: taken for lost. STREAM: an error inside one answer.
    REFUSED: it took no work although it has room."""

    DIED = "died"
    SILENT = "silent"
    STREAM = "stream"
    REFUSED = "refused"


class Opened(Struct, frozen=True):
    """It has opened: attempts go elsewhere."""

    why: str


class Kept(Struct, frozen=True):
    """It should open, but somebody has to serve."""

    why: str


class Closed(Struct, frozen=True):
    """It has closed again."""

    why: str


class Peers(Struct, frozen=True):
    """The rest of the site: how many replicas are out already (by breaker or suspicion), how many are wanted, how many could
    go on serving without this one."""

    out: int = 0
    replicas: int = 2
    others: int = 1


@dataclass(slots=True)
class Window:
    """Attempts that ended within the last `window_s`, and the failures among them by their way."""

    window_s: float
    ended: list[int] = field(default_factory=lambda: [0] * BUCKETS)
    failed: dict[Way, list[int]] = field(default_factory=dict)
    total: int = 0
    totals: dict[Way, int] = field(default_factory=dict)
    turn: int = 0  # which bucket is filled, counted from the Clock's zero

    def add(self, way: Way | None, now: float) -> None:
        """One more that ended, well (None) or not."""
        turn = int(now * BUCKETS / self.window_s)
        if turn != self.turn:
            self._turn(turn)
        at = turn % BUCKETS
        self.ended[at] += 1
        self.total += 1
        if way is not None:
            self.failed.setdefault(way, [0] * BUCKETS)[at] += 1
            self.totals[way] = self.totals.get(way, 0) + 1

    def _turn(self, turn: int) -> None:
        """Empty what has become too old."""
        for old in range(max(self.turn + 1, turn - BUCKETS + 1), turn + 1):
            at = old % BUCKETS
            self.total -= self.ended[at]
            self.ended[at] = 0
            for way, counts in self.failed.items():
                self.totals[way] -= counts[at]
                counts[at] = 0
        self.turn = max(turn, self.turn)

    def clear(self) -> None:
        """Forget everything."""
        self.ended, self.failed, self.total, self.totals = [0] * BUCKETS, {}, 0, {}


@dataclass
class Breaker:
    """One replica's breaker. All times are the Clock's seconds."""

    failures_max: int = 5
    open_s: float = 1.0
    open_max_s: float = 30.0
    errors_share: float = 0.05
    window_s: float = 30.0
    volume_min: int = 20
    failures: int = 0  # in a row
    failed_at: float = float("-inf")
    counted_at: dict[Way, float] = field(default_factory=dict)
    opened_at: float | None = None
    wait_s: float = 0.0
    probing: bool = False
    why: str = ""  # it is open
    kept_at: float = float("-inf")  # when it was last told that it should open and may not

    def __post_init__(self) -> None:
        self.window = Window(self.window_s)

    @property
    def is_open(self) -> bool:
        """Whether attempts should go elsewhere at present."""
        return self.opened_at is not None

    def ended(self, now: float) -> None:
        """An attempt has ended well."""
        if self.opened_at is None:
            self.failures = 0
            self.window.add(None, now)

    def failed(self, way: Way, now: float, peers: Peers) -> Opened | Kept | None:
        """An attempt has failed, and it was the replica's doing. Says so if that opens the breaker, or would."""
        if self.opened_at is not None:
            return None
        together_s = MOMENT_S if way in (Way.DIED, Way.SILENT) else EVENT_S
        if now - self.counted_at.get(way, float("-inf")) < together_s:
            return None
        self.counted_at[way] = now
        self.window.add(way, now)
        if way is not Way.REFUSED and now - self.failed_at >= MOMENT_S:
            self.failed_at = now
            self.failures += 1
        why = self._complaint(way)
        if not why:
            return None
        held = may_eject(peers.out, peers.replicas, peers.others)
        if isinstance(held, Held):
            self.failures = 0
            if now - self.kept_at < self.window_s:
                return None
            self.kept_at = now
            return Kept(f"{why}, but it goes on: {held.why}")
        self.opened_at, self.wait_s, self.why = now, self.open_s, why
        return Opened(f"{why}: it rests, and is tried again after {self.wait_s:g} s")

    def _complaint(self, way: Way) -> str:
        """Why it should open, if it should."""
        if self.failures >= self.failures_max:
            return f"{self.failures} failures in a row, the last {way}"
        window = self.window
        failed = window.totals.get(way, 0)
        if failed >= FAILURES_MIN and window.total >= self.volume_min and failed > self.errors_share * window.total:
            share = f"{failed} of {window.total} attempts within {self.window_s:g} s"
            return f"{share} failed in one way ({way}), more than {self.errors_share:.0%}"
        return ""

    def trial_due(self, now: float) -> bool:
        """Whether it is time to ask it something. Whoever does so calls `trying`, and `tried` in the end."""
        return self.opened_at is not None and not self.probing and now - self.opened_at >= self.wait_s

    def trying(self) -> None:
        """A trial is out; there is one at a time."""
        self.probing = True

    def tried(self, fault: str | None, now: float) -> Opened | Closed | None:
        """How the trial went: `fault` is empty when it went well, None when it says nothing (a full replica refused it)."""
        self.probing = False
        if self.opened_at is None:
            return None
        if fault is None:
            self.opened_at = now
            return None
        if fault:
            self.wait_s, self.opened_at = min(self.wait_s * 2, self.open_max_s), now
            self.why = f"a trial failed: {fault}"
            return Opened(f"{self.why}; the next is after {self.wait_s:g} s")
        rested_s = now - self.opened_at
        why = f"a trial went well {rested_s:.1f} s after: {self.why}"
        self.failures, self.opened_at, self.wait_s, self.why = 0, None, 0.0, ""
        self.window.clear()
        return Closed(why)
