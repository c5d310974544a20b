"""The life of a replica, as a table. The supervisor moves along it; the docs draw it; nothing else defines it."""

from enum import IntEnum, StrEnum

from msgspec import Struct


class ReplicaState(StrEnum):
    """STARTING: process runs, not ready. SERVING: takes traffic. WARM: could, and stands by until another is lost or more are
    needed. SUSPECT: silent, takes none, streams have moved.
    DRAINING: finishes or hands over, takes none. DOWN: no process; may be started. QUARANTINED: not to be started before
    somebody has looked: it died too often, it can't be started, or it answered wrongly."""

    STARTING = "starting"
    SERVING = "serving"
    WARM = "warm"
    SUSPECT = "suspect"
    DRAINING = "draining"
    DOWN = "down"
    QUARANTINED = "quarantined"


class Happening(StrEnum):
    """What can happen to a replica."""

    STARTED = "started"
    READY = "ready"
    RESTED = "rested"  # ready, or serving, and enough others serve
    CALLED = "called"
    SILENT = "silent"
    MOVED = "moved"  # it showed progress again
    TOLD_TO_LEAVE = "told to leave"
    DIED = "died"
    GAVE_UP = "gave up"  # restart intensity exceeded
    PARDONED = "pardoned"  # somebody has looked at it: what it did before counts no more


S, H = ReplicaState, Happening
MOVES: dict[tuple[ReplicaState, Happening], ReplicaState] = {
    (S.DOWN, H.STARTED): S.STARTING,
    (S.DOWN, H.GAVE_UP): S.QUARANTINED,
    (S.STARTING, H.READY): S.SERVING,
    (S.STARTING, H.RESTED): S.WARM,
    (S.STARTING, H.SILENT): S.SUSPECT,
    (S.STARTING, H.TOLD_TO_LEAVE): S.DRAINING,
    (S.STARTING, H.DIED): S.DOWN,
    (S.SERVING, H.RESTED): S.WARM,
    (S.SERVING, H.SILENT): S.SUSPECT,
    (S.SERVING, H.TOLD_TO_LEAVE): S.DRAINING,
    (S.SERVING, H.DIED): S.DOWN,
    (S.WARM, H.CALLED): S.SERVING,
    (S.WARM, H.SILENT): S.SUSPECT,
    (S.WARM, H.TOLD_TO_LEAVE): S.DRAINING,
    (S.WARM, H.DIED): S.DOWN,
    (S.SUSPECT, H.MOVED): S.SERVING,
    (S.SUSPECT, H.TOLD_TO_LEAVE): S.DRAINING,
    (S.SUSPECT, H.DIED): S.DOWN,
    (S.DRAINING, H.DIED): S.DOWN,
    (S.DOWN, H.PARDONED): S.DOWN,
    (S.QUARANTINED, H.STARTED): S.STARTING,
    (S.QUARANTINED, H.PARDONED): S.DOWN,
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
    """What a replica says of itself. `step` counts engine steps since boot: it is the evidence of progress.

    `paced_steps` counts those since boot that only made tokens (none that read a prompt), and `paced_s` how long they took,
    each from its own beginning to that of the next: the one figure by which replicas can be compared.
    """

    step: int = 0
    running: int = 0
    queued: int = 0
    slots: int = 1
    cache_tokens: int = 0  # token places in use
    cache_tokens_max: int = 0
    draining: bool = False
    paced_steps: int = 0
    paced_s: float = 0.0


class Probe(Struct, frozen=True):
    """One look at a replica: is it ready, how loaded, and a sentence."""

    ready: bool
    load: Load
    why: str = ""


class StartFault(IntEnum):
    """Exit codes of a child whose start can't succeed until somebody changes something. Its last words say what."""

    SETTINGS = 2
    MODEL = 3  # the folder, a file in it, or the weights
    ADDRESS = 4  # the socket or port is somebody else's
    MEMORY = 5
    DEVICE = 6  # the GPU is not there, or can't be used


AWAY = 75  # exit code of a replica whose engine outside can't be reached any more (sysexits.h: EX_TEMPFAIL); it is waited for
