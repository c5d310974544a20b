"""The start of a foreign engine: from its first line to its open door, or to the reason why there is none.

Loading hundreds of gigabytes takes ten minutes, and a start that hangs looks the same from outside. So the log is read as it
comes: `read` (policy/start_log.py) makes of a line a Progress, a StartFailure, or nothing.
"""

import asyncio
from collections.abc import Awaitable, Callable

from holdfast.domain.engine import Progress, StartFailure
from holdfast.domain.fault import EngineLost, EngineRefused
from holdfast.domain.ports import Clock
from holdfast.host.engine_process import EngineNotStarted, EngineProcess

ASK_S = 0.5  # between two knocks at its door
FAREWELL_S = 15.0  # one that has told why it fails is given so long to die of it
MOVING_S = 60.0  # one whose time is up goes on while it has shown progress within so many seconds,
STRETCH = 2.0  # up to so many times its start_s

Read = Callable[[str], Progress | StartFailure | None]


async def until_ready(
    process: EngineProcess,
    engine_ready: Callable[[], Awaitable[bool]],
    read: Read,
    told: Callable[[Progress], None],
    clock: Clock,
) -> None:
    """Wait until a started engine answers at its door. `told` is called with each progress that differs from the one before.

    `engine_ready` asks the engine; while it says False, or raises EngineLost, EngineRefused or OSError, it is asked again.

    Raises:
        EngineNotStarted: it died, told of a failure that is known, or was not ready within `launch.start_s`. Nothing of it
            runs any more.
    """
    start = _Start(process, read, told, clock)
    process.on_line = start.hear
    for line in process.lines():
        start.hear(line)
    asking = asyncio.create_task(_knock(engine_ready, clock), name="asking the engine")
    ended = asyncio.create_task(process.ended.wait(), name="end of the engine")
    ready = False
    try:
        while not asking.done():
            tick = asyncio.ensure_future(clock.sleep(ASK_S))
            await asyncio.wait({asking, ended, tick}, return_when=asyncio.FIRST_COMPLETED)
            tick.cancel()
            if not asking.done() or ended.done():
                start.judge()
        await asking  # an exception that is nobody's failure to start comes out here
        process.note_members()
        ready = True
    finally:
        process.on_line = None
        for one in (asking, ended):
            one.cancel()
        await asyncio.gather(asking, ended, return_exceptions=True)
        if not ready:
            process.kill()
            await process.ended.wait()


async def _knock(engine_ready: Callable[[], Awaitable[bool]], clock: Clock) -> None:
    while True:
        try:
            if await engine_ready():
                return
        except (EngineLost, EngineRefused, OSError):
            pass
        await clock.sleep(ASK_S)


class _Start:
    """What is known of one start so far."""

    def __init__(self, process: EngineProcess, read: Read, told: Callable[[Progress], None], clock: Clock) -> None:
        self._process, self._read, self._told, self._clock = process, read, told, clock
        self._began = self._moved_at = clock.now()
        self._progress: Progress | None = None
        self._failure: StartFailure | None = None
        self._failed_at = 0.0

    def hear(self, line: str) -> None:
        """One line of its log. Of several failures the first is the cause."""
        found = self._read(line)
        if isinstance(found, Progress) and found != self._progress:
            self._progress, self._moved_at = found, self._clock.now()
            self._told(found)
            self._process.note_members()
        elif isinstance(found, StartFailure) and self._failure is None:
            self._failure, self._failed_at = found, self._clock.now()

    def judge(self) -> None:
        """Raises EngineNotStarted where this start is over."""
        process, now, failure = self._process, self._clock.now(), self._failure
        if process.ended.is_set():
            if failure is not None:
                raise EngineNotStarted(failure.code, failure.why)
            how = process.exit.words() if process.exit is not None else "is gone"
            raise EngineNotStarted(None, f"the engine {how} before it was ready{self._last('; it said last: ')}")
        if failure is not None and now - self._failed_at > FAREWELL_S:
            raise EngineNotStarted(failure.code, failure.why)
        took_s, start_s = now - self._began, process.launch.start_s
        moving = self._progress is not None and now - self._moved_at < min(MOVING_S, start_s)
        if took_s > start_s * (STRETCH if moving else 1.0):
            stage = self._progress.stage if self._progress is not None else "it told of no progress"
            why = f"the engine is not ready after {took_s:.0f} s ({stage}){self._last('; it said last: ')}"
            raise EngineNotStarted(None, f"{why}. For more time: [engine] start_s")

    def _last(self, head: str) -> str:
        said = self._process.last_error()
        return f"{head}{said}" if said else ""
