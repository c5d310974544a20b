"""Stages on which the contract of lines is played: the embedded engine's adapter, before replicas that can be disturbed."""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop
from foreign_stage import MISHAPS, ForeignStage
from replica_process import ReplicaProcess
from tiny_model import VOCAB, write_tiny_model

from holdfast.domain.address import UnixAddress
from holdfast.domain.engine import Ability
from holdfast.domain.ports import Line
from holdfast.domain.release import Exactness
from holdfast.engine.embedded import EmbeddedEngine, dial
from holdfast.host.clock import MonotonicClock
from holdfast.pearl.listen import claim
from holdfast.pearl.server import ReplicaServer, ServerOptions
from holdfast.sim.scripted import Mishap, Script, ScriptedCore
from holdfast.testing.engine_contract import Heard, PlainScene, Stage, listen_to
from holdfast.testing.engine_contract import Mishap as Contract

__all__ = [
    "CLOCK",
    "CONTEXT",
    "QUEUE",
    "SCRIPT",
    "SLOTS",
    "STAGES",
    "Heard",
    "ScriptedScene",
    "listen_to",
    "scripted_scene",
]

SLOTS, QUEUE, CONTEXT = 4, 2, 512
CLOCK = MonotonicClock()


@dataclass
class ScriptedScene:
    line: Line
    core: ScriptedCore
    server: ReplicaServer
    address: str

    async def another_line(self) -> Line:
        return await dial(self.address, CLOCK, 5.0)

    async def drain(self) -> None:
        self.server.drain(30.0)

    def befall(self, kind: str, after_tokens: int = 0) -> None:
        self.core.befall(Mishap(kind, after_tokens))


SCRIPT = Script(
    slots=SLOTS, queue_max=QUEUE, context_tokens_max=CONTEXT, prefill_chunk_tokens=16, vocab_size=512, token_s=0.0005
)


@asynccontextmanager
async def scripted_scene(folder: Path, script: Script = SCRIPT, **limits: Any) -> AsyncIterator[ScriptedScene]:
    """A real server over a scripted core, in this event loop, on a unix socket."""
    core = ScriptedCore(script)
    options = ServerOptions(
        replica="r", boot="b1", context_tokens_max=script.context_tokens_max, pause_s=script.token_s, **limits
    )
    server = ReplicaServer(core, CLOCK, options)
    address = f"unix:{folder}/r.sock"
    serving = asyncio.create_task(server.serve(claim(UnixAddress(f"{folder}/r.sock"))))
    line = await dial(address, CLOCK, 5.0)
    try:
        yield ScriptedScene(line, core, server, address)
    finally:
        await line.close()
        server.drain(0.0)
        await asyncio.gather(serving, return_exceptions=True)


class ScriptedStage(Stage):
    """The embedded engine's adapter before a scripted core, all in one event loop."""

    vocab_size, context, slots, queue = SCRIPT.vocab_size, CONTEXT, SLOTS, QUEUE
    exactness = Exactness.EXACT
    abilities = frozenset((*Stage.abilities, Ability.SEED, Ability.LOGPROBS, Ability.COUNTERS))
    mishaps = frozenset((*MISHAPS, Contract.FROZEN, Contract.GONE))

    def __init__(self, folder: Path, runner: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._folder, self._runner = folder, runner

    def play(self, story: Callable[[Any], Awaitable[None]]) -> None:
        async def run() -> None:
            async with scripted_scene(self._folder) as scene:
                await story(ScriptedLine(scene))

        self._runner(run())

    def end(self) -> None: ...


@dataclass
class ScriptedLine:
    """A LineScene over a scripted replica."""

    replica: ScriptedScene

    @property
    def engine(self) -> Line:
        return self.replica.line

    async def befall(self, mishap: Contract, after_tokens: int = 0) -> None:
        if mishap is Contract.GONE:
            for connection in tuple(self.replica.server._connections):
                connection.cut("severed by the test")
        elif mishap is Contract.FROZEN:
            self.replica.core.frozen = True
        else:
            self.replica.core.befall(Mishap(MISHAPS[mishap], after_tokens))

    async def relent(self) -> None:
        self.replica.core.relent()

    async def working(self) -> int:
        load = self.replica.core.load()
        return load.running + load.queued

    async def another(self) -> Line:
        return await self.replica.another_line()

    async def drain(self) -> None:
        await self.replica.drain()


@dataclass
class ProcessScene(PlainScene):
    """A LineScene over a replica process."""

    engine: EmbeddedEngine
    process: ReplicaProcess
    address: str

    async def befall(self, mishap: Contract, after_tokens: int = 0) -> None:
        if mishap is Contract.GONE:
            self.process.send(signal.SIGKILL)
        else:
            self.engine._probe_timeout_s = 0.1
            self.process.popen.send_signal(signal.SIGSTOP)

    async def relent(self) -> None:
        self.engine._probe_timeout_s = 5.0
        self.process.popen.send_signal(signal.SIGCONT)

    async def another(self) -> Line:
        return await dial(self.address, CLOCK, 5.0)

    async def drain(self) -> None:
        self.process.send(signal.SIGTERM)


class PearlStage(Stage):
    """The embedded engine's adapter before pearl, in a process of its own, on a tiny model with random weights."""

    vocab_size, context, slots, queue = VOCAB, CONTEXT, SLOTS, QUEUE
    exactness = Exactness.EXACT
    abilities = ScriptedStage.abilities
    mishaps = frozenset((Contract.GONE, Contract.SILENT))

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: ReplicaProcess | None = None
        write_tiny_model(folder / "tiny")

    def play(self, story: Callable[[Any], Awaitable[None]]) -> None:
        if self._process is not None and self._process.leaving:
            self._process.wait()
        if self._process is None or self._process.popen.poll() is not None:
            self._start()

        async def run() -> None:
            assert self._process is not None
            address = f"unix:{self._folder}/p.sock"
            line = await dial(address, CLOCK, 5.0)
            try:
                await story(ProcessScene(line, self._process, address))
            finally:
                await line.close()

        try:
            uvloop.run(run())
        finally:
            if self._process is not None:
                print(self._process.stderr)  # shown by pytest if the story failed

    def end(self) -> None:
        if self._process is not None:
            self._process.end()

    def _start(self) -> None:
        self.end()
        options = f"--slots {SLOTS} --queue {QUEUE} --context {CONTEXT} --chunk 16 --drain-s 20".split()
        listen = f"unix:{self._folder}/p.sock"
        self._process = ReplicaProcess(self._folder, "--model", f"{self._folder}/tiny", "--listen", listen, *options)
        self._process.ready()


STAGES: dict[str, Callable[[Path], Any]] = {
    "embedded-scripted": lambda folder: ScriptedStage(folder, asyncio.run),
    "embedded-scripted-uvloop": lambda folder: ScriptedStage(folder, uvloop.run),
    "embedded-pearl": PearlStage,
    "foreign-scripted": lambda folder: ForeignStage(folder, uvloop.run),
}
