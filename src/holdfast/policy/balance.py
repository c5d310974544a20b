"""Balance: which replica gets this attempt? The least loaded one that is neither suspect nor fenced off, new faces first.

Load is the gateway's own count of attempts in flight, as a share of the replica's slots: it needs no scrape and can't be
stale. Preference, strictly in this order: replicas this answer has not left yet, replicas whose breaker is closed, those
that nobody doubts, lower share, longest not picked. A replica that the answer has left is taken again only when there is no
other. A crowded one (its lane is full, or a suspect is on trial there) comes last for new work; answers that need the lane or a
cell of their own (`patient`) wait for it instead, rather than go back to where they came from.
"""

from collections.abc import Iterable

from msgspec import Struct


class Candidate(Struct, frozen=True):
    """One live line, as pick sees it. `boot` tells a restarted replica from the one that an answer left."""

    replica: str
    boot: str
    in_flight: int
    slots: int
    suspect: bool = False
    open: bool = False  # its breaker is open
    picked_at: int = 0  # the pick counter when it was last chosen
    weight: float = 1.0
    doubtful: bool = False  # quieter than it should be, not yet suspect: others first
    crowded: str = ""  # why it should not begin with this answer now


class Picked(Struct, frozen=True):
    replica: str
    why: str


class NonePicked(Struct, frozen=True):
    why: str


class Crowded(Struct, frozen=True):
    """Somebody could be chosen, but not yet."""

    why: str


def pick(
    candidates: Iterable[Candidate], tried: frozenset[str], patient: bool = False
) -> Picked | NonePicked | Crowded:
    """Choose, or say why nobody can be chosen. Only the patient get Crowded."""
    best: Candidate | None = None
    best_rank: tuple[bool, bool, bool, bool, float, int] = (True, True, True, True, 0.0, 0)
    seen = suspect = 0
    for candidate in candidates:
        seen += 1
        if candidate.suspect or candidate.weight <= 0:
            suspect += 1
            continue
        rank = (
            candidate.boot in tried,
            candidate.open,
            bool(candidate.crowded),
            candidate.doubtful,
            candidate.in_flight / (candidate.slots * candidate.weight),
            candidate.picked_at,
        )
        if best is None or rank < best_rank:
            best, best_rank = candidate, rank
    if best is None:
        if seen == 0:
            return NonePicked("no replica is connected")
        return NonePicked(f"none of {seen} replicas may take traffic: {suspect} silent or draining")
    if patient and best.crowded:
        return Crowded(best.crowded)
    return Picked(best.replica, f"least loaded: {best.in_flight} of {best.slots} slots")
