"""vLLM's adapter before a scripted server of its dialect: the contract, and what is this dialect's own."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest
from http_stage import HttpScene, HttpStage, assert_only_stops_end_it, played
from msgspec import structs

from holdfast.domain.engine import Ability
from holdfast.domain.fault import BadRequest, EngineLost
from holdfast.domain.release import Exactness
from holdfast.domain.request import Generation, Sampling
from holdfast.engine.http import HttpDoor
from holdfast.engine.serving import Serving
from holdfast.engine.vllm import VllmEngine
from holdfast.host.clock import MonotonicClock
from holdfast.policy.continuation import derived_seed
from holdfast.sim.foreign_model import ForeignScript
from holdfast.sim.vllm_server import VllmServer
from holdfast.testing.engine_contract import ForeignContract, Mishap, Stage, listen_to

CLOCK = MonotonicClock()
SLOTS, QUEUE, CONTEXT = 4, 2, 512
SCRIPT = ForeignScript(slots=SLOTS, queue_max=QUEUE, context_tokens_max=CONTEXT, key="k-1")
SERVING = Serving(model="ours", digest="d" * 64, served_as="scripted", vocab_size=512, slots=SLOTS, answer_s=1.5)
ASKED = Generation(id="g", prompt_ids=[30, 31, 32], sampling=Sampling(temperature=0), max_tokens=12, stop_ids=(1,))
VllmScene = HttpScene[VllmEngine, VllmServer]


@asynccontextmanager
async def scripted_vllm(
    script: ForeignScript = SCRIPT, serving: Serving = SERVING, **build: bool
) -> AsyncIterator[VllmScene]:
    server = VllmServer(script, CLOCK, **build)
    engine = VllmEngine(HttpDoor(await server.door.open(), CLOCK, script.key), serving)
    async with VllmScene(engine, server) as scene:
        yield scene


@asynccontextmanager
async def learnt() -> AsyncIterator[VllmScene]:
    async with scripted_vllm() as scene:
        await scene.engine.learn()
        yield scene


class VllmStage(HttpStage):
    vocab_size, context, slots, queue = SCRIPT.vocab_size, CONTEXT, SLOTS, QUEUE
    exactness = Exactness.GREEDY
    abilities = frozenset(
        (Ability.IDS_IN, Ability.IDS_OUT, Ability.LOGPROBS, Ability.SEED, Ability.GRAMMAR, Ability.COUNTERS)
    )
    mishaps = frozenset(Mishap)


class TestScriptedVllm(ForeignContract):
    @pytest.fixture
    def stage(self) -> Stage:
        return VllmStage(learnt)


def test_the_stop_token_is_told_among_the_ids_there_and_not_here() -> None:
    answers = structs.replace(SCRIPT, eos_every=8)

    async def story(scene: VllmScene) -> None:
        await assert_only_stops_end_it(scene.engine, structs.replace(ASKED, max_tokens=200), answers)

    played(story, scripted_vllm(answers))


def test_a_carried_on_answer_gets_another_seed_and_what_penalties_owe() -> None:
    sampling = Sampling(
        temperature=0.7, presence_penalty=0.5, frequency_penalty=0.25, logit_bias=((40, 1.0),), ignore_eos=True
    )
    asked = structs.replace(ASKED, sampling=sampling, delivered_ids=[40, 41, 40], seed=9)

    async def story(scene: VllmScene) -> None:
        await listen_to(scene.engine, asked)
        body = scene.server.bodies[-1]
        assert body["prompt"] == [30, 31, 32, 40, 41, 40]
        assert body["max_tokens"] == 9
        assert body["seed"] == derived_seed(9, 3)
        assert body["logit_bias"] == {"40": 1.0 - 0.5 - 2 * 0.25, "41": -0.75}
        assert body["stop_token_ids"] == []
        assert (body["ignore_eos"], body["skip_special_tokens"], body["repetition_penalty"]) == (True, False, 1.0)

    played(story, scripted_vllm(serving=structs.replace(SERVING, eos_ids=(1,))))


def test_the_core_s_death_is_told_as_one_wherever_it_is_heard() -> None:
    async def story(scene: VllmScene) -> None:
        scene.server.model.befall("fault", 3)
        scene.server.model.dead = True
        with pytest.raises(EngineLost, match="EngineCore encountered an issue") as told:
            await listen_to(scene.engine, ASKED)
        assert told.value.died
        with pytest.raises(EngineLost, match="says that the engine behind it is dead") as told:
            await scene.engine.probe()
        assert told.value.died

    played(story, scripted_vllm())


def test_an_end_without_an_end_mark_is_no_finish() -> None:
    async def story(scene: VllmScene) -> None:
        scene.server.model.befall("ended", 3)
        with pytest.raises(EngineLost, match="ended a stream without a finish reason"):
            await listen_to(scene.engine, ASKED)

    played(story, scripted_vllm())


def test_the_cache_is_told_at_the_end_and_by_the_probe() -> None:
    async def story(scene: VllmScene) -> None:
        await listen_to(scene.engine, ASKED)
        heard = await listen_to(scene.engine, ASKED)
        assert heard.chunks[-1].cached_tokens == 2
        load = (await scene.engine.probe()).load
        assert (load.slots, load.cache_tokens, load.cache_tokens_max) == (SLOTS, 0, SLOTS * CONTEXT)

    played(story, scripted_vllm())


def test_what_it_can_do_is_said_with_what_was_seen() -> None:
    async def story(scene: VllmScene) -> None:
        told = await scene.engine.learn()
        assert told.words() == (
            "vllm 0.33.0: ids in, ids out, logprobs, seed, grammar, priority, counters; no grammar led"
        )
        assert told.served_as == "scripted"
        assert [one.why for one in told.findings if one.ability is Ability.GRAMMAR] == [
            "a grammar of 3 ids was kept to"
        ]

    played(story, scripted_vllm(serving=structs.replace(SERVING, priority=True, served_as="")))


def test_a_build_without_a_grammar_refuses_what_needs_one() -> None:
    asked = structs.replace(ASKED, sampling=Sampling(temperature=0, grammar='start: "a"'))

    async def without(scene: VllmScene) -> None:
        await scene.engine.learn()
        with pytest.raises(BadRequest, match="no backend") as told:
            await listen_to(scene.engine, asked)
        assert told.value.param == "grammar"

    async def cut(scene: VllmScene) -> None:
        await scene.engine.learn()
        with pytest.raises(BadRequest, match="begins its grammar anew after a cut"):
            await listen_to(scene.engine, structs.replace(asked, delivered_ids=[40]))

    played(without, scripted_vllm(grammar=False))
    played(cut, scripted_vllm())


@pytest.mark.parametrize(
    ("serving", "script", "build", "told"),
    [
        (SERVING, SCRIPT, {"tells_ids": False}, "take engine = 'openai'"),
        (structs.replace(SERVING, served_as="other"), SCRIPT, {}, "serves no other, but scripted"),
    ],
)
def test_what_can_not_be_used_is_said_at_once(
    serving: Serving, script: ForeignScript, build: dict[str, bool], told: str
) -> None:
    async def story(scene: VllmScene) -> None:
        with pytest.raises(EngineLost, match=told):
            await scene.engine.learn()

    played(story, scripted_vllm(script, serving, **build))


def test_a_wrong_key_is_said_to_be_one() -> None:
    async def run() -> None:
        server = VllmServer(SCRIPT, CLOCK)
        engine = VllmEngine(HttpDoor(await server.door.open(), CLOCK, "wrong"), SERVING)
        with pytest.raises(EngineLost, match="answered 401: Unauthorized"):
            await engine.learn()
        await engine.close()
        await server.door.close()

    asyncio.run(run())


def test_a_grammar_that_is_wrong_is_the_requests_fault_though_its_stream_had_begun() -> None:
    """As a real vLLM has it: 200, then an error object with code 400."""
    begun = (
        b'data: {"error": {"message": "Grammar error: 1(8)", "type": "BadRequestError", "param": null, "code": 400}}'
    )

    async def run() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"
            writer.write(head + begun + b"\n\ndata: [DONE]\n\n")
            writer.close()

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as listening:
            port = listening.sockets[0].getsockname()[1]
            engine = VllmEngine(HttpDoor(f"http://127.0.0.1:{port}", CLOCK), SERVING)
            async with aclosing(engine.generate(ASKED)) as chunks:
                with pytest.raises(BadRequest, match="Grammar error"):
                    await anext(chunks)
            await engine.close()

    asyncio.run(run())


@pytest.mark.parametrize("exactness", [Exactness.GREEDY, Exactness.FAIR])
def test_it_promises_what_its_arithmetic_allows(exactness: Exactness) -> None:
    async def story(scene: VllmScene) -> None:
        assert scene.engine.describe() is None
        await scene.engine.learn()
        release = scene.engine.describe()
        assert release is not None
        assert (release.exactness, release.engine, release.model) == (exactness, "vllm", "ours")

    played(story, scripted_vllm(serving=structs.replace(SERVING, exactness=exactness)))
