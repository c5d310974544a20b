"""The life of a replica, as a table. The supervisor moves along it; the docs draw it; nothing else defines it."""

from enum import StrEnum

from msgspec import Struct


class ReplicaState(StrEnum):
    """STARTING: process runs, not ready. SERVING: takes traffic. SUSPECT: silent, takes none, streams have moved.
    DRAINING: finishes or hands over, takes none. DOWN: no process; may be started. QUARANTINED: died too often."""

    STARTING = "starting"
    SERVING = "serving"
    SUSPECT = "suspect"
    DRAINING = "draining"
    DOWN = "down"
    QUARANTINED = "quarantined"


class Happening(StrEnum):
    """What can happen to a replica."""

    STARTED = "started"
    READY = "ready"
    SILENT = "silent"
    MOVED = "moved"  # it showed progress again
    TOLD_TO_LEAVE = "told to leave"
    DIED = "died"
    GAVE_UP = "gave up"  # restart intensity exceeded


S, H = ReplicaState, Happening
MOVES: dict[tuple[ReplicaState, Happening], ReplicaState] = {
    (S.DOWN, H.STARTED): S.STARTING,
    (S.DOWN, H.GAVE_UP): S.QUARANTINED,
    (S.STARTING, H.READY): S.SERVING,
    (S.STARTING, H.SILENT): S.SUSPECT,
    (S.STARTING, H.TOLD_TO_LEAVE): S.DRAINING,
    (S.STARTING, H.DIED): S.DOWN,
    (S.SERVING, H.SILENT): S.SUSPECT,
    (S.SERVING, H.TOLD_TO_LEAVE): S.DRAINING,
    (S.SERVING, H.DIED): S.DOWN,
    (S.SUSPECT, H.MOVED): S.SERVING,
    (S.SUSPECT, H.TOLD_TO_LEAVE): S.DRAINING,
    (S.SUSPECT, H.DIED): S.DOWN,
    (S.DRAINING, H.DIED): S.DOWN,
    (S.QUARANTINED, H.STARTED): S.STARTING,
}


class IllegalMove(ValueError):
    """A happening that the table does not know for that state."""


def move(state: ReplicaState, happening: Happening) -> ReplicaState:
    """The state after a happening.

    Raises:
        IllegalMove: the table has no such row; the state is unchanged.
    """
    try:
        return MOVES[state, happening]
    except KeyError:
        raise IllegalMove(f"a replica that is {state} can't be {happening!s}") from None


class Load(Struct, frozen=True, array_like=True):
    """What a replica says of itself. `step` counts engine steps since boot: it is the evidence of progress."""

    step: int = 0
    running: int = 0
    queued: int = 0
    slots: int = 1
    cache_tokens: int = 0  # token places in use
    cache_tokens_max: int = 0
    draining: bool = False


class Probe(Struct, frozen=True):
    """One look at a replica: is it ready, how loaded, and a sentence."""

    ready: bool
    load: Load
    why: str = ""
