"""llama.cpp's adapter before a scripted server of its dialect: the contract, and what is this dialect's own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
from http_stage import HttpScene, HttpStage, assert_only_stops_end_it, played
from msgspec import structs

from holdfast.domain.engine import Ability
from holdfast.domain.fault import BadRequest, EngineLost
from holdfast.domain.release import Exactness
from holdfast.domain.request import Generation, Sampling
from holdfast.engine.http import HttpDoor
from holdfast.engine.llamacpp import SEEDS, LlamaCppEngine
from holdfast.engine.llamacpp_learn import GRAMMAR
from holdfast.engine.serving import Serving
from holdfast.host.clock import MonotonicClock
from holdfast.policy.continuation import derived_seed
from holdfast.sim.foreign_model import ForeignScript, foreign_answer
from holdfast.sim.llamacpp_server import LlamaCppServer
from holdfast.testing.engine_contract import ForeignContract, Heard, Mishap, Stage, listen_to

CLOCK = MonotonicClock()
SLOTS, CONTEXT = 4, 512
SCRIPT = ForeignScript(slots=SLOTS, context_tokens_max=CONTEXT, key="k-1", version="b7000", queue_max=1000)
SERVING = Serving(model="ours", digest="d" * 64, answer_s=1.5)
ASKED = Generation(id="g", prompt_ids=[30, 31, 32], sampling=Sampling(temperature=0), max_tokens=40, stop_ids=(1,))
UNKNOWN_HERE = {Mishap.CROWDED, Mishap.ABORTED}  # its queue has no bound, and it aborts nothing by itself
LlamaCppScene = HttpScene[LlamaCppEngine, LlamaCppServer]


@asynccontextmanager
async def scripted(script: ForeignScript = SCRIPT, **build: Any) -> AsyncIterator[LlamaCppScene]:
    server = LlamaCppServer(script, CLOCK, **build)
    engine = LlamaCppEngine(HttpDoor(await server.door.open(), CLOCK, script.key), SERVING)
    async with LlamaCppScene(engine, server) as scene:
        await engine.learn()
        yield scene


class LlamaCppStage(HttpStage):
    vocab_size, context, slots = SCRIPT.vocab_size, CONTEXT, SLOTS
    exactness = Exactness.GREEDY
    abilities = frozenset((*Stage.abilities, Ability.LOGPROBS, Ability.SEED, Ability.GRAMMAR, Ability.COUNTERS))
    mishaps = frozenset(set(Mishap) - UNKNOWN_HERE)


class TestScriptedLlamaCpp(ForeignContract):
    @pytest.fixture
    def stage(self) -> Stage:
        return LlamaCppStage(scripted)


class TestScriptedLlamaCppThatLeavesIdsOut(ForeignContract):
    """Every third id ends inside a character, and there are no metrics. An answer is several requests then, so what befalls
    one of them comes at another token than the stories count."""

    @pytest.fixture
    def stage(self) -> Stage:
        stage = LlamaCppStage(partial(scripted, halves=frozenset(range(0, SCRIPT.vocab_size, 3)), metrics=False))
        stage.mishaps = frozenset((Mishap.REFUSED, Mishap.REJECTED, Mishap.FROZEN, Mishap.SILENT, Mishap.GONE))
        return stage


def test_the_end_of_a_text_ends_an_answer_only_where_it_is_a_stop() -> None:
    script = structs.replace(SCRIPT, eos_every=8)

    async def story(scene: LlamaCppScene) -> None:
        await assert_only_stops_end_it(scene.engine, ASKED, script)

    played(story, scripted(script))


@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_ids_that_a_stream_leaves_out_are_asked_for_again_and_told_once(temperature: float) -> None:
    halves = frozenset(range(0, SCRIPT.vocab_size, 3))

    async def story(scene: LlamaCppScene) -> None:
        asked = structs.replace(ASKED, sampling=Sampling(temperature=temperature, logprobs=1))
        heard = await listen_to(scene.engine, asked)
        assert len(heard.ids) == 40
        assert halves.intersection(heard.ids), "nothing was left out, and nothing shown"
        assert [one.id for chunk in heard.chunks for one in chunk.logprobs or ()] == heard.ids
        if temperature == 0:
            assert heard.ids == foreign_answer(ASKED.prompt_ids, 40, SCRIPT)
        again = [body for body in scene.server.bodies if body.get("return_progress") and not body["stream"]]
        assert again, "it was never asked again"

    played(story, scripted(halves=halves))


@pytest.mark.parametrize("instead", ["", "<[46]>", "<[46]> <[48]>"], ids=["nothing", "too few", "another end"])
def test_ids_left_out_under_a_grammar_are_those_of_the_same_answer_or_of_none(instead: str) -> None:
    """The stream goes on behind them: out of another answer, made in another batch, they would be wrong ones."""
    held = structs.replace(ASKED, sampling=Sampling(grammar="start: <[44]> <[45]> <[46]>"), max_tokens=3)

    class Moody(LlamaCppServer):
        def _forced(self, body: dict[str, Any]) -> tuple[int, ...]:
            redone = instead and "<[45]>" in body.get("grammar", "") and not body["stream"]
            return super()._forced(body | {"grammar": f"{GRAMMAR}start: <[44]> {instead}"} if redone else body)

    async def story() -> None:
        server = Moody(SCRIPT, CLOCK, halves=frozenset((45,)))
        engine = LlamaCppEngine(HttpDoor(await server.door.open(), CLOCK, SCRIPT.key), SERVING)
        async with LlamaCppScene(engine, server):
            await engine.learn()
            if not instead:
                assert (await listen_to(engine, held)).ids == [44, 45, 46]
                return
            heard = Heard()
            with pytest.raises(EngineLost, match="is another one, and its stream has left ids out") as told:
                await listen_to(engine, held, heard)
            assert told.value.unrepeatable
            assert heard.ids == [44]

    asyncio.run(story())


def test_seed_bias_and_penalties_go_as_its_dialect_has_them() -> None:
    sampling = Sampling(temperature=0.7, presence_penalty=0.5, frequency_penalty=0.25, logit_bias=((40, 1.0),))
    asked = structs.replace(ASKED, prompt_ids=[30, 31, 31], sampling=sampling, delivered_ids=[31, 41], seed=9)

    async def story(scene: LlamaCppScene) -> None:
        await listen_to(scene.engine, asked)
        body = scene.server.bodies[-1]
        assert body["prompt"] == [30, 31, 31, 31, 41]
        assert body["n_predict"] == 38
        assert body["seed"] == derived_seed(9, 2) % SEEDS
        assert dict(map(tuple, body["logit_bias"])) == {40: 1.0, 30: 0.25 + 0.5, 31: 2 * 0.25}
        assert body["repeat_last_n"] == CONTEXT
        assert body["samplers"] == ["penalties", "temperature", "min_p", "top_k", "top_p"]

    played(story, scripted())


def test_a_grammar_is_passed_on_and_refused_where_it_can_not_be_kept() -> None:
    held = structs.replace(ASKED, sampling=Sampling(temperature=0, grammar="start: <[44]> <[45]>"))

    async def story(scene: LlamaCppScene) -> None:
        assert (await listen_to(scene.engine, held)).ids == [44, 45]
        assert (await listen_to(scene.engine, structs.replace(held, delivered_ids=[44]))).ids == [45]

    async def without(scene: LlamaCppScene) -> None:
        with pytest.raises(BadRequest, match="built without llguidance"):
            await listen_to(scene.engine, held)

    played(story, scripted())
    played(without, scripted(grammar=False))


def test_without_metrics_and_slots_it_has_no_counters() -> None:
    async def story(scene: LlamaCppScene) -> None:
        told = await scene.engine.learn()
        assert not told.has(Ability.COUNTERS)
        why = next(one.why for one in told.findings if one.ability is Ability.COUNTERS)
        assert why == "both /metrics (--metrics) and /slots (--slots) are off"

    played(story, scripted(metrics=False, slots=False))


def test_another_model_and_another_key_are_told_by_name() -> None:
    async def run() -> None:
        server = LlamaCppServer(SCRIPT, CLOCK)
        url = await server.door.open()
        wrong = LlamaCppEngine(HttpDoor(url, CLOCK, "k-1"), structs.replace(SERVING, served_as="r1"))
        with pytest.raises(EngineLost, match="serves no model 'r1'; it serves scripted"):
            await wrong.learn()
        stranger = LlamaCppEngine(HttpDoor(url, CLOCK, "k-2"), SERVING)
        with pytest.raises(EngineLost, match="401: Invalid API Key"):
            await stranger.learn()
        await wrong.close()
        await stranger.close()
        await server.door.close()

    asyncio.run(run())
