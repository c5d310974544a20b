"""The contract's stage before a real llama.cpp server with the shipped model, for the adapters that can speak to it."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamacpp_process import SHIPPED, LlamaCppProcess

from holdfast.domain.engine import Ability
from holdfast.domain.ports import ForeignEngine
from holdfast.domain.release import Exactness
from holdfast.engine.http import HttpDoor
from holdfast.engine.llamacpp import LlamaCppEngine
from holdfast.engine.openai import OpenAiEngine
from holdfast.engine.serving import Serving
from holdfast.engine.spelling import Spelling
from holdfast.host.clock import MonotonicClock
from holdfast.testing.engine_contract import Mishap, PlainScene, Stage

CONTEXT, SLOTS, VOCAB = 512, 4, 1280
CLOCK = MonotonicClock()
SPELLING = Spelling(SHIPPED)
SERVING = Serving(model="pearl", digest="d" * 64, answer_s=1.0)
WORDS = tuple(
    id for id in range(300, 900) if SPELLING.bytes_of(id).startswith(b" ") and SPELLING.bytes_of(id)[1:].islower()
)


@dataclass
class RealScene(PlainScene):
    """A server that can be stopped, and killed."""

    engine: ForeignEngine
    process: LlamaCppProcess

    async def befall(self, mishap: Mishap, after_tokens: int = 0) -> None:
        if mishap is Mishap.SILENT:
            self.process.stop()
        else:
            self.process.kill()

    async def relent(self) -> None:
        self.process.send(signal.SIGCONT)


class RealStage(Stage):
    """One server for all stories; another one after it was killed."""

    vocab_size, context, slots = VOCAB, CONTEXT, SLOTS
    exactness = Exactness.GREEDY
    abilities = frozenset((*Stage.abilities, Ability.SEED, Ability.GRAMMAR, Ability.LOGPROBS, Ability.COUNTERS))
    mishaps = frozenset((Mishap.SILENT, Mishap.GONE))

    def __init__(self, model: Path) -> None:
        self._model = model
        self._process: LlamaCppProcess | None = None

    def play(self, story: Callable[[Any], Awaitable[None]]) -> None:
        asyncio.run(self._played(story))

    async def _played(self, story: Callable[[Any], Awaitable[None]]) -> None:
        process = self._running()
        engine = self.adapter(HttpDoor(process.url, CLOCK))
        try:
            await engine.learn()
            await story(RealScene(engine, process))
        finally:
            await engine.close()
            process.send(signal.SIGCONT)  # whatever became of the story

    def adapter(self, door: HttpDoor) -> ForeignEngine:
        return LlamaCppEngine(door, SERVING, SPELLING)

    def _running(self) -> LlamaCppProcess:
        if self._process is None or self._process.popen.poll() is not None:
            self.end()
            options = f"--slots {SLOTS} --context {CONTEXT} --exact".split()
            self._process = LlamaCppProcess(self._model, *options)
        return self._process

    def end(self) -> None:
        if self._process is not None:
            self._process.end()


class OpenAiRealStage(RealStage):
    """The same server, by its OpenAI-compatible route."""

    slots = 0
    exactness = Exactness.FAIR
    abilities = frozenset((Ability.IDS_IN, Ability.SEED))
    plain_ids = WORDS

    def adapter(self, door: HttpDoor) -> ForeignEngine:
        return OpenAiEngine(door, SERVING, SPELLING)
