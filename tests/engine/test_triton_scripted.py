"""Triton's adapter before a scripted Triton: the contract for each model that can stand behind it, and what only Triton does."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from msgspec import structs

from holdfast.domain.engine import Ability
from holdfast.domain.fault import EngineLost, EngineRefused
from holdfast.domain.kserve import Live, Nothing
from holdfast.domain.release import Exactness
from holdfast.domain.request import Generation, Sampling
from holdfast.engine.triton import TritonEngine, TritonSettings
from holdfast.host.clock import MonotonicClock
from holdfast.sim.triton_server import PEARL, TENSORRT, VLLM, TritonScript, TritonServer, WordTongue
from holdfast.testing.engine_contract import ForeignContract, Heard, Mishap, Stage, listen_to

CLOCK = MonotonicClock()
KINDS = {
    Mishap.REFUSED: "refuse",
    Mishap.CROWDED: "crowd",
    Mishap.REJECTED: "bad",
    Mishap.FAULT: "fault",
    Mishap.ABORTED: "abort",
    Mishap.UNFINISHED: "forget",
    Mishap.CUT: "cut",
    Mishap.GARBAGE: "garbage",
    Mishap.STALLED: "stall",
}
ASKED = Generation(id="a", prompt_ids=[21, 34, 55], sampling=Sampling(temperature=0.0), max_tokens=400)


@dataclass
class ScriptedTriton:
    """A ForeignScene."""

    engine: TritonEngine
    server: TritonServer

    async def befall(self, mishap: Mishap, after_tokens: int = 0) -> None:
        if mishap is Mishap.FROZEN:
            self.server.freeze()
        elif mishap is Mishap.SILENT:
            self.server.fall_silent()
        elif mishap is Mishap.GONE:
            await self.server.stop()
        else:
            self.server.befall(KINDS[mishap], after_tokens)

    async def relent(self) -> None:
        self.server.relent()

    async def working(self) -> int:
        return self.server.working


@asynccontextmanager
async def scripted(script: TritonScript, key: str = "") -> AsyncIterator[ScriptedTriton]:
    server = TritonServer(script, CLOCK)
    url = await server.start()
    settings = TritonSettings(
        model=script.model, weights="w1", context_tokens_max=script.context_tokens_max, probe_s=0.5
    )
    engine = TritonEngine(url, CLOCK, settings, key, WordTongue())
    try:
        await engine.learn()
        yield ScriptedTriton(engine, server)
    finally:
        await engine.close()
        await server.stop()


class TritonStage(Stage):
    context = 512
    mishaps = frozenset((*KINDS, Mishap.FROZEN, Mishap.SILENT, Mishap.GONE))
    script = TritonScript()

    def play(self, story: Callable[[Any], Awaitable[None]]) -> None:
        async def run() -> None:
            async with scripted(self.script) as scene:
                await story(scene)

        asyncio.run(run())


class PearlStage(TritonStage):
    vocab_size, slots, queue = 512, 4, 2
    exactness = Exactness.EXACT
    abilities = frozenset(set(Ability) - {Ability.PRIORITY})


class TensorRtStage(TritonStage):
    exactness = Exactness.GREEDY
    abilities = frozenset((*Stage.abilities, Ability.SEED, Ability.COUNTERS))
    mishaps = TritonStage.mishaps - {Mishap.ABORTED, Mishap.UNFINISHED}  # it does not say why an answer has ended
    script = TritonScript(dialect=TENSORRT, model="tensorrt_llm")


class VllmStage(TritonStage):
    exactness = Exactness.FAIR
    abilities = frozenset((Ability.SEED, Ability.COUNTERS))
    script = TritonScript(dialect=VLLM, model="vllm_model")


class TestPearlBehindTriton(ForeignContract):
    @pytest.fixture
    def stage(self) -> PearlStage:
        return PearlStage()


class TestTensorRtBehindTriton(ForeignContract):
    @pytest.fixture
    def stage(self) -> TensorRtStage:
        return TensorRtStage()


class TestVllmBehindTriton(ForeignContract):
    @pytest.fixture
    def stage(self) -> VllmStage:
        return VllmStage()


@pytest.mark.parametrize("dialect", [PEARL, TENSORRT, VLLM])
def test_a_dead_stub_is_found_under_green_health_and_repaired(dialect: str) -> None:
    async def run() -> None:
        async with scripted(TritonScript(dialect=dialect)) as scene:
            heard = [Heard(), Heard()]
            asked = [structs.replace(ASKED, id=str(n), seed=n) for n in range(2)]
            reading = [asyncio.ensure_future(listen_to(scene.engine, g, h)) for g, h in zip(asked, heard, strict=True)]
            while not all(one.ids for one in heard):
                await CLOCK.sleep(0.001)
            scene.server.kill_stub()
            assert (await scene.engine._ask("ServerReady", Nothing(), Live)).yes, "health is green"
            if dialect != PEARL:  # idle or not, their statistics stand still, and only an inference shows it
                with pytest.raises(EngineLost, match="dead or frozen"):
                    await listen_to(scene.engine, structs.replace(ASKED, id="next"))
            probe = await scene.engine.probe()
            assert not probe.ready
            assert "'holdfast_0_0' is not healthy" in probe.why
            for outcome in await asyncio.gather(*reading, return_exceptions=True):
                assert isinstance(outcome, EngineLost)
                assert "dead or frozen" in outcome.why
            assert scene.engine.sick
            assert "was unloaded and loaded in" in await scene.engine.repair()
            assert scene.server.repairs == 1
            assert (await scene.engine.probe()).ready
            assert len((await listen_to(scene.engine, structs.replace(ASKED, max_tokens=5))).ids) == 5

    asyncio.run(run())


def test_a_stub_with_many_before_us_is_found_by_its_silence_under_green_health() -> None:
    """Requests at a dead stub fail one after the other, a second each: behind enough of them nobody hears why."""

    async def run() -> None:
        async with scripted(TritonScript(sick_s=60.0)) as scene:
            scene.server.kill_stub()
            with pytest.raises(EngineLost, match="did not answer in time"):
                await scene.engine.probe()
            probe = await scene.engine.probe()
            assert (probe.ready, probe.why) == (
                False, "Triton's model process is dead or frozen: nothing in 1 s, and Triton calls itself ready"
            )  # fmt: skip
            with pytest.raises(EngineRefused, match="dead or frozen"):
                await listen_to(scene.engine, ASKED)
            await scene.engine.repair()
            assert (await scene.engine.probe()).ready

    asyncio.run(run())


def test_a_repair_that_finds_the_server_silent_gives_up_at_once() -> None:
    async def run() -> None:
        async with scripted(TritonScript()) as scene:
            scene.server.fall_silent()
            with pytest.raises(EngineLost, match="did not help: Triton did not answer in time"):
                await scene.engine.repair()
            scene.server.relent()

    asyncio.run(run())


def test_a_stub_that_can_be_seen_to_be_gone_is_not_asked() -> None:
    async def run() -> None:
        async with scripted(TritonScript()) as scene:
            scene.engine.alive = lambda: False
            assert (await scene.engine.probe()).why == "Triton's model process is dead: none is left"
            scene.engine.alive = lambda: True
            assert (await scene.engine.probe()).ready, "an inference that succeeds is stronger than the evidence"

    asyncio.run(run())


def test_an_idle_foreign_model_is_asked_for_a_token_now_and_then() -> None:
    async def run() -> None:
        server = TritonServer(TritonScript(dialect=TENSORRT, model="tensorrt_llm"), CLOCK)
        settings = TritonSettings(model="tensorrt_llm", canary_s=0.0, probe_s=0.5)
        engine = TritonEngine(await server.start(), CLOCK, settings)
        await engine.learn()
        assert (await engine.probe()).ready
        before = server._steps
        assert (await engine.probe()).ready
        assert server._steps == before + 1
        server.kill_stub()
        await engine.probe()  # the counters had grown by the canary: this look believes them
        assert not (await engine.probe()).ready
        await engine.close()
        await server.stop()

    asyncio.run(run())


def test_a_model_that_is_not_served_is_named_with_those_that_are() -> None:
    async def run() -> None:
        server = TritonServer(TritonScript(), CLOCK)
        engine = TritonEngine(await server.start(), CLOCK, TritonSettings(model="nosuch"))
        with pytest.raises(EngineLost, match=r"unknown model: 'nosuch'.*; it serves holdfast \(READY\)"):
            await engine.learn()
        await engine.close()
        await server.stop()

    asyncio.run(run())


def test_without_its_key_nothing_is_generated_or_loaded() -> None:
    async def run() -> None:
        async with scripted(TritonScript(key="k1"), "k1") as scene:
            await listen_to(scene.engine, structs.replace(ASKED, max_tokens=2))
            stranger = TritonEngine(scene.server.url, CLOCK, TritonSettings())
            with pytest.raises(EngineLost, match="This protocol is restricted"):
                await stranger.learn()
            await stranger.close()

    asyncio.run(run())


def test_while_it_drains_it_refuses() -> None:
    async def run() -> None:
        async with scripted(TritonScript()) as scene:
            scene.server._loaded = False
            with pytest.raises(EngineRefused, match="has no available versions"):
                await listen_to(scene.engine, ASKED)
            with pytest.raises(EngineLost, match="has no available versions"):
                await scene.engine.probe()

    asyncio.run(run())
