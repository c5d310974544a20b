"""Stages on which the contract is played: one engine adapter each, before a replica that can be disturbed.

Another adapter is one more class with these few members, named in STAGES.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import uvloop
from foreign_stage import ForeignStage
from replica_process import ReplicaProcess
from tiny_model import VOCAB, write_tiny_model

from holdfast.domain.address import UnixAddress
from holdfast.domain.ports import Line
from holdfast.domain.request import Chunk, Finish, Generation
from holdfast.engine.embedded import dial
from holdfast.host.clock import MonotonicClock
from holdfast.pearl.listen import claim
from holdfast.pearl.server import ReplicaServer, ServerOptions
from holdfast.sim.scripted import Mishap, Script, ScriptedCore

SLOTS, QUEUE, CONTEXT = 4, 2, 512
CLOCK = MonotonicClock()


class Scene(Protocol):
    """One running replica and a line to it, for one story."""

    line: Line

    async def another_line(self) -> Line: ...

    async def sever(self) -> None:
        """End the connection as a crash would."""
        ...

    async def drain(self) -> None:
        """Tell the replica to leave."""
        ...


Story = Callable[[Any], Awaitable[None]]


@dataclass
class ScriptedScene:
    line: Line
    core: ScriptedCore
    server: ReplicaServer
    address: str

    async def another_line(self) -> Line:
        return await dial(self.address, CLOCK, 5.0)

    async def sever(self) -> None:
        for connection in tuple(self.server._connections):
            connection.cut("severed by the test")

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


class ScriptedStage:
    """The embedded engine's adapter before a scripted core, all in one event loop."""

    vocab_size = SCRIPT.vocab_size
    reading_steps = 5  # that pings tell apart, at least, while a long prompt is read

    def __init__(self, folder: Path, runner: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self._folder, self._runner = folder, runner

    def play(self, story: Story) -> None:
        async def run() -> None:
            async with scripted_scene(self._folder) as scene:
                await story(scene)

        self._runner(run())

    def end(self) -> None: ...


@dataclass
class ProcessScene:
    line: Line
    process: ReplicaProcess
    address: str

    async def another_line(self) -> Line:
        return await dial(self.address, CLOCK, 5.0)

    async def sever(self) -> None:
        self.process.send(signal.SIGKILL)

    async def drain(self) -> None:
        self.process.send(signal.SIGTERM)


class PearlStage:
    """The embedded engine's adapter before pearl, in a process of its own, on a tiny model with random weights."""

    vocab_size = VOCAB
    reading_steps = 5

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: ReplicaProcess | None = None
        write_tiny_model(folder / "tiny")

    def play(self, story: Story) -> None:
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


@dataclass
class Heard:
    """An answer as it came."""

    ids: list[int] = field(default_factory=list)
    finish: Finish | None = None
    chunks: list[Chunk] = field(default_factory=list)


async def listen_to(line: Line, generation: Generation, heard: Heard | None = None) -> Heard:
    """The whole answer. Pass `heard` to see what had come when a fault ends it."""
    heard = Heard() if heard is None else heard
    async with aclosing(line.generate(generation)) as chunks:
        async for chunk in chunks:
            assert heard.finish is None, "a chunk came after the finish"
            heard.ids += chunk.ids
            heard.chunks.append(chunk)
            heard.finish = chunk.finish
    assert heard.finish is not None, "the stream ended without a finish"
    return heard
