"""SGLang's adapter before a scripted server of its dialect: the contract, and what is this dialect's own."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import pytest
from http_stage import HttpScene, HttpStage, assert_only_stops_end_it, played
from msgspec import structs

from holdfast.domain.engine import Ability
from holdfast.domain.fault import BadRequest, EngineLost
from holdfast.domain.release import Exactness
from holdfast.domain.request import Generation, Sampling
from holdfast.engine.http import HttpDoor
from holdfast.engine.serving import Serving
from holdfast.engine.sglang import SglangEngine
from holdfast.host.clock import MonotonicClock
from holdfast.policy.continuation import derived_seed
from holdfast.sim.foreign_model import ForeignScript
from holdfast.sim.sglang_server import INPUT_MARGIN, SglangBuild, SglangServer
from holdfast.testing.engine_contract import ForeignContract, Mishap, Stage, listen_to

CLOCK = MonotonicClock()
SLOTS, QUEUE, CONTEXT = 4, 2, 512
SCRIPT = ForeignScript(
    slots=SLOTS, queue_max=QUEUE, context_tokens_max=CONTEXT + INPUT_MARGIN, key="k-1", version="0.5.23"
)
SERVING = Serving(model="ours", digest="d" * 64, vocab_size=512, answer_s=1.5)
ASKED = Generation(id="g", prompt_ids=[30, 31, 32], sampling=Sampling(temperature=0), max_tokens=40, stop_ids=(1,))


class SglangScene(HttpScene[SglangEngine, SglangServer]):
    async def end(self) -> None:
        await self.server.close()


@asynccontextmanager
async def scripted(script: ForeignScript = SCRIPT, **build: Any) -> AsyncIterator[SglangScene]:
    server = SglangServer(script, CLOCK, SglangBuild(**build))
    engine = SglangEngine(HttpDoor(await server.door.open(), CLOCK, script.key), SERVING)
    async with SglangScene(engine, server) as scene:
        await engine.learn()
        yield scene


class SglangStage(HttpStage):
    vocab_size, context, slots, queue = SCRIPT.vocab_size, CONTEXT, SLOTS, QUEUE
    exactness = Exactness.GREEDY
    abilities = frozenset((*Stage.abilities, Ability.LOGPROBS, Ability.SEED, Ability.GRAMMAR, Ability.COUNTERS))
    mishaps = frozenset(Mishap)


class TestScriptedSglang(ForeignContract):
    @pytest.fixture
    def stage(self) -> Stage:
        return SglangStage(scripted)


class TestIncrementalSglang(ForeignContract):
    """Started with --incremental-streaming-output, and without metrics."""

    @pytest.fixture
    def stage(self) -> Stage:
        return SglangStage(partial(scripted, incremental=True, metrics=False))


class TestOldSglang(ForeignContract):
    """Without /v1/loads."""

    @pytest.fixture
    def stage(self) -> Stage:
        stage = SglangStage(partial(scripted, loads=False))
        stage.slots = 0
        return stage


def test_the_end_of_a_text_ends_an_answer_only_where_it_is_a_stop() -> None:
    script = structs.replace(SCRIPT, eos_every=8)

    async def story(scene: SglangScene) -> None:
        await assert_only_stops_end_it(scene.engine, ASKED, script)

    played(story, scripted(script))


def test_a_stop_for_a_reason_of_its_own_is_no_stop() -> None:
    """As it tells NaN: {"type": "stop", "matched": "NaN happened"}."""

    async def story(scene: SglangScene) -> None:
        reason = {"type": "stop", "matched": "NaN happened"}
        event = {"output_ids": [7], "meta_info": {"completion_tokens": 1, "finish_reason": reason}}
        with pytest.raises(EngineLost, match="a reason of its own: NaN happened"):
            scene.engine._read(msgspec.json.encode(event), 0)

    played(story, scripted())


def test_what_is_left_is_aborted_by_name() -> None:
    async def story(scene: SglangScene) -> None:
        async with aclosing(scene.engine.generate(structs.replace(ASKED, max_tokens=400))) as chunks:
            await anext(chunks)
        while scene.server.model.running:
            await CLOCK.sleep(0.002)
        assert scene.server.aborted == [scene.server.bodies[-1]["rid"]]

    played(story, scripted())


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_seed_goes_as_it_is_only_where_noise_is_keyed_by_position(deterministic: bool) -> None:
    sampling = Sampling(temperature=0.7, presence_penalty=0.5, frequency_penalty=0.25, logit_bias=((40, 1.0),))
    asked = structs.replace(ASKED, sampling=sampling, delivered_ids=[40, 41, 40], seed=9)

    async def story(scene: SglangScene) -> None:
        await listen_to(scene.engine, asked)
        body = scene.server.bodies[-1]
        params = body["sampling_params"]
        assert body["input_ids"] == [30, 31, 32, 40, 41, 40]
        assert params["max_new_tokens"] == 37
        assert params["sampling_seed"] == (9 if deterministic else derived_seed(9, 3))
        assert params["logit_bias"] == {"40": 1.0 - 0.5 - 2 * 0.25, "41": -0.75}
        assert params["stop_token_ids"] == [1]

    played(story, scripted(deterministic=deterministic))


def test_a_grammar_is_passed_on_and_refused_where_it_can_not_be_kept() -> None:
    held = structs.replace(ASKED, sampling=Sampling(temperature=0, grammar="start: <[44]> <[45]>"))

    async def story(scene: SglangScene) -> None:
        assert (await listen_to(scene.engine, held)).ids == [44, 45]
        with pytest.raises(BadRequest, match="can't go on within one"):
            await listen_to(scene.engine, structs.replace(held, delivered_ids=[44]))

    async def without(scene: SglangScene) -> None:
        with pytest.raises(BadRequest, match="--grammar-backend llguidance"):
            await listen_to(scene.engine, held)

    played(story, scripted())
    played(without, scripted(lark=False))
