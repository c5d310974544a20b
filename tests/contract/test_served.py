"""An engine outside that comes back with another model, too quickly for its door to be found shut: no token of it is given."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from holdfast.app.adapters import Address, adapter
from holdfast.domain.engine import EngineKind
from holdfast.domain.fault import EngineLost
from holdfast.domain.ports import ForeignEngine
from holdfast.domain.request import Generation, Sampling
from holdfast.engine.serving import Serving
from holdfast.engine.spelling import Spelling
from holdfast.host.clock import MonotonicClock
from holdfast.sim.foreign_model import ForeignScript
from holdfast.sim.llamacpp_server import LlamaCppServer
from holdfast.sim.openai_server import Manners, OpenAiServer
from holdfast.sim.sglang_server import SglangBuild, SglangServer
from holdfast.sim.vllm_server import VllmServer
from holdfast.testing.engine_contract import listen_to

CLOCK = MonotonicClock()
PEARL = Path(__file__).parents[2] / "src/holdfast/shipped/pearl"
SPELLING = Spelling(PEARL)
SCRIPT = ForeignScript(model="first", vocab_size=1280, context_tokens_max=512, vocabulary=tuple(range(300, 500)))
SERVING = Serving(model="ours", digest="d" * 64, vocab_size=1280, answer_s=5.0, outside=True)
ASKED = Generation(id="g", prompt_ids=[0, 301, 302], sampling=Sampling(temperature=0), max_tokens=12, stop_ids=(1,))
SERVERS: dict[EngineKind, Callable[[ForeignScript], Any]] = {
    EngineKind.VLLM: lambda script: VllmServer(script, CLOCK),
    EngineKind.SGLANG: lambda script: SglangServer(script, CLOCK, SglangBuild()),
    EngineKind.LLAMACPP: lambda script: LlamaCppServer(script, CLOCK),
    EngineKind.OPENAI: lambda script: OpenAiServer(
        script, CLOCK, Manners(encode=SPELLING.encode, decode=SPELLING.text_of)
    ),
}
TOLD_BY_LENGTH = [EngineKind.VLLM, EngineKind.SGLANG, EngineKind.LLAMACPP]
Story = Callable[[ForeignEngine, Callable[[ForeignScript], Awaitable[None]]], Awaitable[None]]


def played(kind: EngineKind, story: Story, serving: Serving = SERVING) -> None:
    """With an engine that has learnt, and what brings its server back with another script."""

    async def run() -> None:
        server = SERVERS[kind](SCRIPT)
        url = await server.door.open()
        engine = adapter(Address(kind=kind, url=url, serving=serving, folder=PEARL), CLOCK)

        async def back(script: ForeignScript) -> None:
            nonlocal server
            await server.door.close()
            server = SERVERS[kind](script)
            await server.door.open(port=int(url.rpartition(":")[2]))

        try:
            await engine.learn()
            assert (await listen_to(engine, ASKED)).ids
            await story(engine, back)
        finally:
            await engine.close()
            await server.door.close()

    asyncio.run(run())


def other(kind: EngineKind, by: str) -> ForeignScript:
    change = {"model": "second"} if by == "name" else {"context_tokens_max": 480}
    return structs.replace(SCRIPT, vocabulary=tuple(range(600, 800)), **change)


@pytest.mark.parametrize(
    ("kind", "by"), [*((kind, "name") for kind in SERVERS), *((kind, "length") for kind in TOLD_BY_LENGTH)]
)
@pytest.mark.parametrize("asked", ["answer", "probe"])
def test_another_model_behind_the_same_door_is_a_death(kind: EngineKind, by: str, asked: str) -> None:
    async def story(engine: ForeignEngine, back: Callable[[ForeignScript], Awaitable[None]]) -> None:
        await back(other(kind, by))
        given: list[int] = []
        with pytest.raises(EngineLost, match="came back with another model than first as it was") as told:
            if asked == "probe":
                await engine.probe()
            async for chunk in engine.generate(ASKED):
                given += chunk.ids
        assert told.value.died
        assert given == []

    played(kind, story)


@pytest.mark.parametrize("kind", SERVERS)
def test_the_same_model_goes_on(kind: EngineKind) -> None:
    async def story(engine: ForeignEngine, back: Callable[[ForeignScript], Awaitable[None]]) -> None:
        before = await listen_to(engine, ASKED)
        await back(SCRIPT)
        assert (await engine.probe()).ready
        await back(SCRIPT)
        assert (await listen_to(engine, ASKED)).ids == before.ids

    played(kind, story)


def test_a_child_of_ours_is_not_asked_for_its_model() -> None:
    async def story(engine: ForeignEngine, back: Callable[[ForeignScript], Awaitable[None]]) -> None:
        await back(other(EngineKind.SGLANG, "name"))
        assert (await listen_to(engine, ASKED)).ids

    played(EngineKind.SGLANG, story, structs.replace(SERVING, outside=False))
