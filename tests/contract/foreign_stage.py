"""The stage of a foreign engine: a replica's server over ForeignCore over a scripted engine, all in one event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.domain.address import UnixAddress
from holdfast.domain.engine import Ability
from holdfast.domain.ports import Line
from holdfast.domain.release import Exactness
from holdfast.engine.embedded import dial
from holdfast.engine.foreign import ForeignCore, Limits
from holdfast.host.clock import MonotonicClock
from holdfast.pearl.listen import claim
from holdfast.pearl.server import ReplicaServer, ServerOptions
from holdfast.sim.foreign import ScriptedForeign
from holdfast.sim.scripted import Mishap, Script, ScriptedCore
from holdfast.testing.engine_contract import Mishap as Contract
from holdfast.testing.engine_contract import Stage

CLOCK = MonotonicClock()
SCRIPT = Script(slots=4, queue_max=2, context_tokens_max=512, prefill_chunk_tokens=16, vocab_size=512, token_s=0.0005)


class EngineEnded(Exception):
    """What the replica of this stage ends with."""


@dataclass
class ForeignScene:
    line: Line
    engine: ScriptedForeign
    core: ForeignCore
    server: ReplicaServer
    serving: "asyncio.Task[None]"
    address: str

    async def another_line(self) -> Line:
        return await dial(self.address, CLOCK, 5.0)

    def befall(self, kind: str, after_tokens: int = 0) -> None:
        self.engine.core.befall(Mishap(kind, after_tokens))


@asynccontextmanager
async def foreign_scene(
    folder: Path, script: Script = SCRIPT, make: type[ScriptedForeign] = ScriptedForeign, **limits: Any
) -> AsyncIterator[ForeignScene]:
    """A real server on a unix socket."""
    engine = make(ScriptedCore(script), CLOCK)
    bounds = Limits(
        slots=script.slots, queue_max=script.queue_max, context_tokens_max=script.context_tokens_max, **limits
    )
    core = ForeignCore(engine, engine.core.release(), CLOCK, bounds, ended=EngineEnded)
    options = ServerOptions(replica="r", boot="b1", context_tokens_max=script.context_tokens_max)
    server = ReplicaServer(core, CLOCK, options)
    address = f"unix:{folder}/r.sock"
    serving = asyncio.create_task(server.serve(claim(UnixAddress(f"{folder}/r.sock"))))
    watching = asyncio.create_task(core.watch())
    line = await dial(address, CLOCK, 5.0)
    try:
        yield ForeignScene(line, engine, core, server, serving, address)
    finally:
        await line.close()
        server.drain(0.0)
        watching.cancel()
        await asyncio.gather(serving, watching, return_exceptions=True)
        await core.close()


MISHAPS = {
    Contract.REFUSED: "refuse",
    Contract.REJECTED: "bad",
    Contract.FAULT: "fault",
    Contract.UNFINISHED: "forget",
    Contract.STALLED: "stall",
}


@dataclass
class StoryScene:
    """The scene as the contract's stories want it: the engine under test is the line."""

    engine: Line
    behind: ForeignScene

    async def befall(self, mishap: Contract, after_tokens: int = 0) -> None:
        if mishap is Contract.GONE:
            self.behind.engine.break_all("the scripted engine was killed", dead=True)
        elif mishap is Contract.FROZEN:
            self.behind.engine.core.frozen = True
        else:
            self.behind.befall(MISHAPS[mishap], after_tokens)

    async def relent(self) -> None:
        self.behind.engine.core.relent()

    async def working(self) -> int:
        return self.behind.engine.core.load().running + self.behind.core.load().queued

    async def another(self) -> Line:
        return await self.behind.another_line()

    async def drain(self) -> None:
        self.behind.server.drain(30.0)


class ForeignStage(Stage):
    """For stories that are played on every stage."""

    vocab_size, context, slots, queue = SCRIPT.vocab_size, SCRIPT.context_tokens_max, SCRIPT.slots, SCRIPT.queue_max
    exactness = Exactness.EXACT
    abilities = frozenset((*Stage.abilities, Ability.SEED, Ability.LOGPROBS, Ability.COUNTERS))
    mishaps = frozenset((*MISHAPS, Contract.GONE))  # frozen, it leaves pings unanswered: test_foreign_core.py
    reading_steps = 1  # its counters are read ten times a second, and the prompt sooner

    def __init__(self, folder: Path, runner: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._folder, self._runner = folder, runner

    def play(self, story: Any) -> None:
        async def run() -> None:
            async with foreign_scene(self._folder) as scene:
                await story(StoryScene(scene.line, scene))

        self._runner(run())

    def end(self) -> None: ...
