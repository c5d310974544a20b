"""Virtual time for asyncio: a loop whose selector never waits but turns the clock forward instead.

Only public seams are used (a selector handed to SelectorEventLoop, and `time` overridden), so timers, time-outs and
`asyncio.wait` behave as on the real loop while 100 simulated seconds take as long as their callbacks. Nothing in a simulated
world may wait for a real file descriptor.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
REAL_LOOK_TURNS = 64  # a look at the real descriptors is a system call, and nothing is to come from there


class Stuck(RuntimeError):
    """Nothing is left that could ever happen, and the story has not ended: a hang, found at once."""


class _TurningSelector(selectors.SelectSelector):
    """Instead of waiting for `timeout`, adds it to the virtual time."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._turns += 1
        if timeout is None or self._turns % REAL_LOOK_TURNS == 0:
            ready = super().select(0)
            if ready:
                return ready
        if timeout is None:
            raise Stuck("the simulated world stands still: no timer and no task can run")
        if timeout > 0:
            self.now = round(
                self.now + timeout, 9
            )  # else a thousand sums drift off the exact times that stories assert
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual seconds, starting at 0."""

    def __init__(self) -> None:
        self._turning = _TurningSelector()
        super().__init__(self._turning)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._turning.now


class VirtualClock:
    """The Clock port over the running loop's time."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run(story: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time, then cancel what it left.

    Raises:
        Stuck: it can never end.
    """
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story)
