"""What the author of an adapter supplies: a stage, which opens scenes.

A stage says what is promised there (exactness, abilities), how big things are, and what can be made to go wrong; stories that
need more than it has are skipped with a sentence. A scene is one live engine behind the adapter, for one story.
"""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar, Protocol, TypeVar

from holdfast.domain.engine import Ability
from holdfast.domain.ports import Clock, Engine, ForeignEngine, Line
from holdfast.domain.release import Exactness
from holdfast.host.clock import MonotonicClock

S_contra = TypeVar("S_contra", contravariant=True)


class Mishap(StrEnum):
    """What can befall an engine, as its adapter meets it.

    The next attempt, on arrival: REFUSED (503, not ready), CROWDED (429, its queue is full), REJECTED (400: its own fault).
    The next attempt, once it has been given `after_tokens`: FAULT (an error object, a failed status), ABORTED (a finish that says
    that the engine aborted it), UNFINISHED (an orderly end, with `[DONE]` or its like, and no finish), CUT (the connection is
    closed), RESET (the connection is reset), GARBAGE (bytes that are not of this dialect), STALLED (this attempt gets nothing
    more until `relent`; others do, and a hang-up is heard).
    At once: FROZEN (no attempt gets anything until `relent`; the door still answers, health is green), SILENT (the door takes
    connections and says nothing until `relent`, as after SIGSTOP), GONE (the process is killed; nobody listens).
    """

    REFUSED = "refused"
    CROWDED = "crowded"
    REJECTED = "rejected"
    FAULT = "fault"
    ABORTED = "aborted"
    UNFINISHED = "unfinished"
    CUT = "cut"
    RESET = "reset"
    GARBAGE = "garbage"
    STALLED = "stalled"
    FROZEN = "frozen"
    SILENT = "silent"
    GONE = "gone"


class Scene(Protocol):
    """One live engine, seen through the adapter under test."""

    @property
    def engine(self) -> Engine: ...

    async def befall(self, mishap: Mishap, after_tokens: int = 0) -> None:
        """Only called with what the stage lists."""
        ...

    async def relent(self) -> None:
        """End what is STALLED, FROZEN or SILENT: what was held goes on."""
        ...

    async def working(self) -> int:
        """Attempts that the engine runs or queues, seen from its own side, past the adapter, where that is possible."""
        ...


class ForeignScene(Scene, Protocol):
    """A scene whose engine is somebody else's program, and has been asked to `learn` once before the story."""

    @property
    def engine(self) -> ForeignEngine: ...


class LineScene(Scene, Protocol):
    """A scene whose engine is a line to a replica of ours."""

    @property
    def engine(self) -> Line: ...

    async def another(self) -> Line:
        """A second line to the same boot; the story closes it."""
        ...

    async def drain(self) -> None:
        """Tell the replica to leave."""
        ...


@dataclass
class PlainScene:
    """A scene before an engine that can't be disturbed, nor looked at but through its adapter. Override what can be done."""

    engine: ForeignEngine

    async def befall(self, mishap: Mishap, after_tokens: int = 0) -> None:
        """Override it, and list in the stage's `mishaps` what it can do."""
        raise AssertionError(f"this scene can't be {mishap}")

    async def relent(self) -> None:
        """Override it together with `befall`."""

    async def working(self) -> int:
        """As the adapter's probe tells it."""
        load = (await self.engine.probe()).load
        return load.running + load.queued


class Stage(ABC):
    """What one engine promises behind its adapter, and a way to play a story before it. Attributes are overridden as needed."""

    vocab_size: int = 0  # ids of answers lie below it; 0: not known
    context: int = 0  # tokens that prompt and answer may fill together; 0: not known
    slots: int = 0  # attempts that run at once, as probes tell it; 0: not known
    queue: int = -1  # attempts that wait beyond those, before more are refused; -1: not known, or any number
    exactness: Exactness = Exactness.FAIR  # what is kept here, at least what its release promises
    abilities: frozenset[Ability] = frozenset((Ability.IDS_IN, Ability.IDS_OUT))
    mishaps: frozenset[Mishap] = frozenset()
    plain_ids: tuple[int, ...] = tuple(range(20, 500))  # what prompts are made of: ids of ordinary tokens, at least 100
    long_tokens: int = 500  # how long an answer is that is still running after some looks at it; at most context - 10
    reading_steps: int = 5  # that pings tell apart, at least, while a prompt of nearly `context` is read: lines only
    patience_s: float = 20.0  # a story that has not ended by then hangs
    clock: ClassVar[Clock] = MonotonicClock()

    @abstractmethod
    def play(self, story: Callable[[S_contra], Awaitable[None]]) -> None:
        """Run `story(scene)` in an event loop, before an engine that is idle and well, and close the adapter afterwards."""

    @property
    def repeats(self) -> bool:
        """Whether a greedy request that is sent twice gets the same tokens twice."""
        return self.exactness is not Exactness.FAIR
