"""Has Triton's model loaded anew when its process is dead or frozen, as far as policy/mending.py lets it.

Now and then Triton itself dies of that, and its connections are cut a moment before it is gone. Then its death is what happened,
and is told by whoever watches the process; that nothing was mended only follows from it.
"""

import sys

from holdfast.domain.fault import EngineLost
from holdfast.domain.ports import Clock
from holdfast.engine.triton import TritonEngine
from holdfast.host.engine_process import EngineProcess
from holdfast.host.triton_stubs import end_stubs, stubs_of
from holdfast.policy.mending import End, Mending

DYING_S = 2.0  # an abort may take so long, with all that it writes down


class Mender:
    """Call it to mend. `crash` is set when the replica has to end instead: what its black box is to say."""

    def __init__(self, engine: TritonEngine, process: EngineProcess, clock: Clock) -> None:
        self.crash = ""
        self._engine, self._process, self._clock = engine, process, clock
        self._mending = Mending("triton")
        engine.alive = self._runs

    async def __call__(self) -> str:
        """What was done, as a sentence. What is left of the old process is ended first: a frozen one would keep its memory.

        Raises:
            EngineLost: it is no better, or must not be mended again.
        """
        verdict = self._mending.judge(not self._runs(), self._clock.now())
        if isinstance(verdict, End):
            self.crash = verdict.crash
            raise EngineLost(verdict.why)
        killed = end_stubs(self._process.pid, self._engine.model)
        try:
            told = f"{verdict.why}; {killed}; {await self._engine.repair()}"
        except EngineLost:
            await self._may_die()
            raise
        print(f"holdfast replica: {told}", file=sys.stderr, flush=True)
        return told

    async def _may_die(self) -> None:
        """Returns when Triton has ended, or seems to live on."""
        until = self._clock.now() + DYING_S
        while self._process.exit is None and self._clock.now() < until:
            await self._clock.sleep(0.02)

    def _runs(self) -> bool:
        """Whether a process of this Triton runs the model."""
        return bool(stubs_of(self._process.pid, self._engine.model))
