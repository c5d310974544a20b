"""Havoc: which replica is hurt next, how, and when? For drills, where the blows must be unforeseen and yet replayable.

Each choice is a function of (seed, number of the blow) alone, so a seed tells the same story as far as the site lets it. The
one mercy: a blow falls only while at least `spared` other replicas are settled, that is, listed for so long that the gateways
know them. A drill that kills everybody at once measures start-up, not failover.
"""

import hashlib
from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct


class Blow(StrEnum):
    """KILL: the process is gone at once. FREEZE: it lives, holds its connections, and does nothing.

    The others leave the process running, and only a scripted replica with levers can be made to suffer them: its connections
    are reset, or kept without a word (HALF_OPEN); all its answers fail midway once (ERROR); it sends bytes that mean nothing
    (GARBAGE); its steps take five times as long (SLOW); its tokens are others than they should be (WRONG); it answers pings
    and makes no step (LIE). MEMORY: it takes what its limit allows and dies of wanting more.
    """

    KILL = "SIGKILL"
    FREEZE = "SIGSTOP"
    MEMORY = "memory"
    RESET = "reset"
    HALF_OPEN = "half-open"
    ERROR = "error"
    GARBAGE = "garbage"
    SLOW = "slow"
    WRONG = "wrong"
    LIE = "lie"

    @property
    def word(self) -> str:
        """What it has made of a replica."""
        return _WORDS[self]

    @property
    def passes(self) -> bool:
        """Whether the replica is itself again without a restart, so that it may be struck again: at once, or when the
        workers have dialled it anew."""
        return self in (Blow.RESET, Blow.ERROR, Blow.GARBAGE, Blow.HALF_OPEN)


_WORDS = {
    Blow.KILL: "killed",
    Blow.FREEZE: "frozen",
    Blow.MEMORY: "out of memory",
    Blow.RESET: "reset",
    Blow.HALF_OPEN: "half-open",
    Blow.ERROR: "failing",
    Blow.GARBAGE: "sending garbage",
    Blow.SLOW: "slow",
    Blow.WRONG: "wrong",
    Blow.LIE: "lying",
}


class Standing(Struct, frozen=True):
    """A replica that may take traffic. `boot` changes with every start of its process; `since` is when it was first listed."""

    replica: str
    boot: str
    since: float


class Strike(Struct, frozen=True):
    """Hurt this replica now."""

    replica: str
    boot: str
    blow: Blow
    at: float
    why: str


class Hold(Struct, frozen=True):
    """Do nothing before `until`."""

    until: float
    why: str


class Pace(Struct, frozen=True, kw_only=True):
    """How wild it gets. Seconds; `freeze_share` is the share of blows that freeze instead of kill."""

    first_s: float = 1.0
    every_s_min: float = 1.5
    every_s_max: float = 4.0
    settled_s: float = 1.0
    freeze_share: float = 0.35
    spared: int = 1
    kinds: tuple[Blow, ...] = ()  # drawn from these alike, instead of kill and freeze by their share


class Havoc:
    """One run of it. `now` at construction is when it begins."""

    def __init__(self, seed: int, pace: Pace, now: float) -> None:
        self._seed = seed
        self._pace = pace
        self._due = now + pace.first_s
        self._struck: set[str] = set()
        self._count = 0

    def next(self, standing: Sequence[Standing], now: float) -> Strike | Hold:
        """The next blow, or until when to hold it. A replica that was struck is not counted as standing again: `boot` tells."""
        pace = self._pace
        if now < self._due:
            return Hold(self._due, "the next blow is not due")
        whole = [one for one in standing if one.boot not in self._struck]
        settled = sorted((one for one in whole if now - one.since >= pace.settled_s), key=lambda one: one.replica)
        if len(settled) <= pace.spared:
            return Hold(now + 0.1, f"only {len(settled)} replicas are settled, and {pace.spared} must be spared")
        victim = settled[int(self._draw("victim") * len(settled))]
        blow = self._blow()
        if not blow.passes:
            self._struck.add(victim.boot)
        self._due = now + pace.every_s_min + self._draw("pause") * (pace.every_s_max - pace.every_s_min)
        self._count += 1
        return Strike(victim.replica, victim.boot, blow, now, f"blow {self._count} of seed {self._seed}")

    def _blow(self) -> Blow:
        kinds, drawn = self._pace.kinds, self._draw("blow")
        if kinds:
            return kinds[int(drawn * len(kinds))]
        return Blow.FREEZE if drawn < self._pace.freeze_share else Blow.KILL

    def _draw(self, what: str) -> float:
        """A number in [0, 1) that depends on the seed, the blow's number and the question alone."""
        digest = hashlib.blake2b(f"{self._seed} {self._count} {what}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64
