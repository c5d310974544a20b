"""Balance: which replica gets this attempt? The one with the least work before it that has room, is not suspect, fenced off
or doubted; new faces first.

Work is counted in tokens (prompts that are to be read, and twice what is expected to be made), as a share of the replica's
slots: from the gateway's own book (policy/room.py) it needs no scrape and can't be stale. Preference, strictly in this order:
replicas this answer has not left yet, those whose breaker is closed, those with room, those that are not crowded, those that
nobody doubts, least work, longest not picked. A replica that the answer has left is taken again only when there is no other.
One of a release that must not go on with it (policy/mixture.py) is never taken.

Nobody is given more than it can hold: where the best has no room, the answer waits (Crowded). A crowded one (its lane is full,
or a suspect is on trial there) comes last for new work; answers that need the lane or a cell of their own (`patient`) wait for
it instead, rather than go back to where they came from.

Two refinements for new work. Affinity: a replica that has the prompt's beginning in its cache goes before the others, unless
its load is more than `bound` times the average (consistent hashing with bounded loads: Mirrokni, Thorup and Zadimoghaddam,
2016), so that a hot prefix can't sink it. Slow start: a fresh replica's share grows from SLOW_START_FROM to full.

Among more than FEW replicas two are drawn and the better one is taken (the power of two choices: Mitzenmacher, 2001): nearly
as even as looking at all of them, and the cost of a decision does not grow with their number.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from msgspec import Struct

FEW = 8
DRAWS = 4  # pairs that are drawn before everybody is looked at
SLOW_START_FROM = 0.1


class Candidate(Struct, frozen=True):
    """One live line, as pick sees it. `boot` tells a restarted replica from the one that an answer left."""

    replica: str
    boot: str
    running: int  # answers that it holds
    slots: int
    suspect: bool = False
    open: bool = False  # its breaker is open
    picked_at: int = 0  # the pick counter when it was last chosen
    weight: float = 1.0
    doubtful: bool = False  # quieter than it should be, not yet suspect: others first
    crowded: str = ""  # why it should not begin with this answer now
    full: str = ""  # why it can't hold this answer now
    work: int = 0  # tokens that it has before it
    share: float = 1.0  # of its weight, while it is fresh
    barred: str = ""  # why this answer must not go there, whatever happens (policy/mixture.py)

    @property
    def plain(self) -> bool:
        """Nothing speaks against it."""
        against = self.suspect or self.open or self.doubtful or self.crowded or self.full or self.barred
        return not (against or self.weight <= 0)


class Picked(Struct, frozen=True):
    replica: str
    boot: str
    why: str


class NonePicked(Struct, frozen=True):
    why: str


class Crowded(Struct, frozen=True):
    """Somebody could be chosen, but not yet."""

    why: str


class Field(Protocol):
    """Who is there, for `choose`: it looks at as few as it can."""

    def count(self) -> tuple[int, int]:
        """How many have room and can be drawn, and how many there are."""
        ...

    def at(self, number: int) -> Candidate:
        """One of those with room."""
        ...

    def named(self, boot: str) -> Candidate | None:
        """A replica by its boot; None when it is not there."""
        ...

    def everybody(self) -> Iterable[Candidate]:
        """All of them, those included that can't be drawn."""
        ...

    def load(self) -> tuple[int, int]:
        """Answers that all of them hold, and slots that they have."""
        ...


class Ask(Struct, frozen=True):
    """What is to be placed. `near`: boots that may have its beginning cached, best first, in groups of equals."""

    tried: frozenset[str] = frozenset()
    patient: bool = False
    near: Sequence[Sequence[str]] = ()
    bound: float = 1.25


NOTHING_SPECIAL = Ask()


def share_of(age_s: float, slow_start_s: float) -> float:
    """How much of its weight a replica has that has been there for so long."""
    if age_s >= slow_start_s:
        return 1.0
    return max(SLOW_START_FROM, age_s / slow_start_s)


def pick(
    candidates: Iterable[Candidate], tried: frozenset[str], patient: bool = False
) -> Picked | NonePicked | Crowded:
    """Choose among these, or say why nobody can be chosen, or not yet."""
    best: Candidate | None = None
    best_rank: tuple[bool, bool, bool, bool, bool, float, float, int] | None = None
    seen, suspect, barred = 0, 0, ""
    for candidate in candidates:
        seen += 1
        if candidate.suspect or candidate.weight <= 0:
            suspect += 1
            continue
        if candidate.barred:
            barred = candidate.barred
            continue
        room = candidate.slots * candidate.weight * candidate.share
        rank = (
            candidate.boot in tried,
            candidate.open,
            bool(candidate.full),
            bool(candidate.crowded),
            candidate.doubtful,
            candidate.work / room,
            candidate.running / room,
            candidate.picked_at,
        )
        if best_rank is None or rank < best_rank:
            best, best_rank = candidate, rank
    if best is None:
        if seen == 0:
            return NonePicked("no replica is connected")
        if barred:
            return NonePicked(f"none of {seen} replicas may go on with it: {barred}")
        return NonePicked(f"none of {seen} replicas may take traffic: {suspect} silent or draining")
    if best.full:
        return Crowded(f"{best.replica}: {best.full}")
    if patient and best.crowded:
        return Crowded(best.crowded)
    return Picked(best.replica, best.boot, "least work")


def choose(field: Field, ask: Ask, draw: Callable[[], float]) -> Picked | NonePicked | Crowded:
    """Choose a replica for an attempt, or say why nobody can be chosen, or not yet. `draw` gives numbers in [0, 1)."""
    if ask.near:
        near = _near(field, ask)
        if near is not None:
            return near
    count, total = field.count()
    if total > FEW:
        if count == 0 and (slots := field.load()[1]):
            return Crowded(f"all {slots} slots of the replicas are taken")
        drawn = [(int(draw() * count), int(draw() * count)) for _ in range(DRAWS)] if count > FEW else [range(count)]
        for numbers in drawn:
            found = [field.at(number) for number in numbers]
            fit = [one for one in found if one.plain and one.boot not in ask.tried]
            if fit:
                return pick(fit, ask.tried)
    return pick(field.everybody(), ask.tried, ask.patient)


def _near(field: Field, ask: Ask) -> Picked | None:
    """The least loaded of the first group in which one is fit and has not more than `bound` times the average load, and one."""
    running, slots = field.load()
    if slots <= 0:
        return None
    for boots in ask.near:
        best: Candidate | None = None
        for boot in boots:
            one = field.named(boot)
            if one is None or not one.plain or one.boot in ask.tried:
                continue
            limit = (ask.bound * running * one.slots * one.weight / slots + 1) * one.share
            if one.running <= limit and (best is None or one.running * best.slots < best.running * one.slots):
                best = one
        if best is not None:
            return Picked(best.replica, best.boot, "it has the prompt's beginning")
    return None
