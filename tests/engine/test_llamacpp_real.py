"""The contract, and token for token the embedded engine's answers, before a real llama.cpp server with the shipped model."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from llamacpp_process import ABSENT, PYTHON, SHIPPED, LlamaCppProcess

from holdfast.domain.engine import Ability
from holdfast.domain.release import Exactness
from holdfast.engine.http import HttpDoor
from holdfast.engine.llamacpp import LlamaCppEngine
from holdfast.engine.serving import Serving
from holdfast.engine.spelling import Spelling
from holdfast.host.clock import MonotonicClock
from holdfast.pearl.gguf import write_gguf
from holdfast.testing.engine_contract import ForeignContract, Mishap, PlainScene, Stage

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason=ABSENT)

CONTEXT, SLOTS, VOCAB = 512, 4, 1280
CLOCK = MonotonicClock()
SERVING = Serving(model="pearl", digest="d" * 64, answer_s=1.0)


@dataclass
class RealScene(PlainScene):
    """A server that can be stopped, and killed."""

    engine: LlamaCppEngine
    process: LlamaCppProcess

    async def befall(self, mishap: Mishap, after_tokens: int = 0) -> None:
        self.process.send(signal.SIGSTOP if mishap is Mishap.SILENT else signal.SIGKILL)

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
        self._spelling = Spelling(SHIPPED)
        self._process: LlamaCppProcess | None = None

    def play(self, story: Callable[[Any], Awaitable[None]]) -> None:
        asyncio.run(self._played(story))

    async def _played(self, story: Callable[[Any], Awaitable[None]]) -> None:
        process = self._running()
        engine = LlamaCppEngine(HttpDoor(process.url, CLOCK), SERVING, self._spelling)
        try:
            await engine.learn()
            await story(RealScene(engine, process))
        finally:
            await engine.close()

    def _running(self) -> LlamaCppProcess:
        if self._process is None or self._process.popen.poll() is not None:
            self.end()
            options = f"--slots {SLOTS} --context {CONTEXT} --exact".split()
            self._process = LlamaCppProcess(self._model, *options)
        return self._process

    def end(self) -> None:
        if self._process is not None:
            self._process.end()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "pearl.gguf"
    write_gguf(SHIPPED, path)
    return path


@pytest.fixture(scope="module")
def stage(model: Path) -> Iterator[RealStage]:
    opened = RealStage(model)
    yield opened
    opened.end()


class TestLlamaCpp(ForeignContract):
    """Before the real server."""
