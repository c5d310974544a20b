"""The stage of a foreign engine: a replica's server over ForeignCore over a scripted engine, all in one event loop."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from holdfast.domain.address import UnixAddress
from holdfast.domain.ports import Line
from holdfast.engine.embedded import dial
from holdfast.engine.foreign import ForeignCore, Limits
from holdfast.host.clock import MonotonicClock
from holdfast.pearl.listen import claim
from holdfast.pearl.server import ReplicaServer, ServerOptions
from holdfast.sim.foreign import ScriptedForeign
from holdfast.sim.scripted import Mishap, Script, ScriptedCore

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

    async def sever(self) -> None:
        """The engine dies, and the replica with it."""
        self.engine.break_all("the scripted engine was killed", dead=True)

    async def drain(self) -> None:
        self.server.drain(30.0)

    def befall(self, kind: str, after_tokens: int = 0) -> None:
        self.engine.core.befall(Mishap(kind, after_tokens))


@asynccontextmanager
async def foreign_scene(folder: Path, script: Script = SCRIPT, **limits: Any) -> AsyncIterator[ForeignScene]:
    """A real server on a unix socket."""
    engine = ScriptedForeign(ScriptedCore(script), CLOCK)
    bounds = Limits(
        slots=script.slots, queue_max=script.queue_max, context_tokens_max=script.context_tokens_max, **limits
    )
    core = ForeignCore(engine, CLOCK, bounds, EngineEnded)
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


class ForeignStage:
    """For stories that are played on every stage."""

    vocab_size = SCRIPT.vocab_size
    reading_steps = 1  # its counters are read ten times a second, and the prompt sooner

    def __init__(self, folder: Path, runner: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._folder, self._runner = folder, runner

    def play(self, story: Any) -> None:
        async def run() -> None:
            async with foreign_scene(self._folder) as scene:
                await story(scene)

        self._runner(run())

    def end(self) -> None: ...
