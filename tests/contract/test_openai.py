"""The adapter for any OpenAI-compatible server, before a scripted one: the contract, and what continuing by text needs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from http_stage import HttpScene, HttpStage, played
from msgspec import structs

from holdfast.app.adapters import Address, adapter
from holdfast.domain.engine import Ability, EngineKind
from holdfast.domain.release import Exactness
from holdfast.domain.request import Finish, Generation, Sampling
from holdfast.engine.http import HttpDoor
from holdfast.engine.openai import OpenAiEngine
from holdfast.engine.serving import Serving
from holdfast.engine.spelling import Spelling
from holdfast.host.clock import MonotonicClock
from holdfast.sim.foreign_model import ForeignScript
from holdfast.sim.openai_server import Manners, OpenAiServer
from holdfast.testing.engine_contract import ForeignContract, Mishap, Stage, listen_to

CLOCK = MonotonicClock()
SPELLING = Spelling(Path(__file__).parents[2] / "src/holdfast/shipped/pearl")
WORDS = tuple(
    id for id in range(300, 900) if SPELLING.bytes_of(id).startswith(b" ") and SPELLING.bytes_of(id)[1:].isalpha()
)
BOS, EOS, USER, ANSWER = 0, 1, 3, 4
SCRIPT = ForeignScript(slots=4, context_tokens_max=600, key="k-1", vocabulary=WORDS, vocab_size=1280)
SERVING = Serving(model="ours", digest="d" * 64, context_tokens_max=512, answer_s=1.5)
ASKED = Generation(
    id="g", prompt_ids=[BOS, USER, *WORDS[:5], ANSWER], sampling=Sampling(temperature=0), max_tokens=40, stop_ids=(EOS,)
)
OpenAiScene = HttpScene[OpenAiEngine, OpenAiServer]


@asynccontextmanager
async def scripted(script: ForeignScript = SCRIPT, **manners: Any) -> AsyncIterator[OpenAiScene]:
    told = {"encode": SPELLING.encode, "decode": SPELLING.text_of, **manners}
    server = OpenAiServer(script, CLOCK, Manners(**told))
    engine = OpenAiEngine(HttpDoor(await server.door.open(), CLOCK, script.key), SERVING, SPELLING)
    async with OpenAiScene(engine, server) as scene:
        await engine.learn()
        yield scene


class OpenAiStage(HttpStage):
    vocab_size, context = SCRIPT.vocab_size, SERVING.context_tokens_max
    exactness = Exactness.FAIR
    abilities = frozenset((Ability.SEED,))
    mishaps = frozenset(Mishap)
    plain_ids = WORDS


class TestByText(ForeignContract):
    """It knows no field beyond the API, and begins each text with its own token."""

    @pytest.fixture
    def stage(self) -> Stage:
        return OpenAiStage(partial(scripted, bos=BOS))


class TestByIds(ForeignContract):
    """It takes prompts of ids, and some fields more."""

    @pytest.fixture
    def stage(self) -> Stage:
        stage = OpenAiStage(partial(scripted, takes_ids=True, fields=("ignore_eos", "top_k")))
        stage.abilities = frozenset((Ability.SEED, Ability.IDS_IN))
        return stage


@pytest.mark.parametrize("bos", [None, BOS])
def test_the_beginning_of_a_text_is_marked_once_whoever_marks_it(bos: int | None) -> None:
    async def story(scene: OpenAiScene) -> None:
        await listen_to(scene.engine, ASKED)
        prompt = scene.server.bodies[-1]["prompt"]
        assert prompt.startswith("<｜User｜>" if bos == BOS else "<｜begin▁of▁sentence｜><｜User｜>")
        order = scene.server._order(scene.server.bodies[-1])
        assert list(order.ids) == ASKED.prompt_ids

    played(story, scripted(bos=bos))


def test_what_was_delivered_goes_as_text_behind_the_prompt_with_its_spaces() -> None:
    delivered = [*WORDS[7:10], *SPELLING.encode(" ")]

    async def story(scene: OpenAiScene) -> None:
        await listen_to(scene.engine, structs.replace(ASKED, delivered_ids=delivered))
        body = scene.server.bodies[-1]
        assert body["prompt"] == SPELLING.text_of(ASKED.prompt_ids + delivered)
        assert body["prompt"].endswith(" ")
        assert (body["max_tokens"], body["stop"]) == (36, ["<｜end▁of▁sentence｜>"])

    played(story, scripted())


def test_half_a_character_is_made_again_and_told_once() -> None:
    """Delivered are the first two bytes of a euro sign; the server can only be sent what came before them."""
    euro = SPELLING.spell("€".encode())
    assert len(euro) == 3

    async def story(scene: OpenAiScene) -> None:
        heard = await listen_to(
            scene.engine, structs.replace(ASKED, delivered_ids=[*WORDS[7:9], *euro[:2]], max_tokens=8)
        )
        assert scene.server.bodies[-1]["prompt"] == SPELLING.text_of(ASKED.prompt_ids + list(WORDS[7:9]))
        assert heard.ids[0] == euro[2]
        assert SPELLING.text_of([*euro[:2], *heard.ids]).startswith("€")

    played(story, scripted(structs.replace(SCRIPT, vocabulary=WORDS[:1]), decode=lambda ids: "€" * len(ids)))


def test_what_comes_instead_of_half_a_character_is_told_though_the_answer_ends_with_it() -> None:
    euro = SPELLING.spell("€".encode())

    async def story(scene: OpenAiScene) -> None:
        heard = await listen_to(
            scene.engine, structs.replace(ASKED, delivered_ids=[*WORDS[7:9], *euro[:2]], max_tokens=5)
        )
        assert heard.ids == SPELLING.encode("a")

    played(story, scripted(structs.replace(SCRIPT, vocabulary=WORDS[:1]), decode=lambda ids: "a" * len(ids)))


@pytest.mark.parametrize("end", ["", "/", "/v1", "/v1/"])
def test_an_address_may_end_as_the_api_does(end: str) -> None:
    async def run() -> None:
        server = OpenAiServer(SCRIPT, CLOCK, Manners(encode=SPELLING.encode, decode=SPELLING.text_of))
        url = await server.door.open() + end
        pearl = Path(__file__).parents[2] / "src/holdfast/shipped/pearl"
        address = Address(kind=EngineKind.OPENAI, url=url, serving=SERVING, key=SCRIPT.key, folder=pearl)
        engine = adapter(address, CLOCK)
        try:
            assert (await engine.learn()).kind is EngineKind.OPENAI
        finally:
            await engine.close()
            await server.door.close()

    asyncio.run(run())


def test_fields_that_it_does_not_know_are_left_out() -> None:
    asked = structs.replace(ASKED, sampling=Sampling(temperature=0.5, top_k=5, min_p=0.1, ignore_eos=True))

    async def knows_one(scene: OpenAiScene) -> None:
        await listen_to(scene.engine, asked)
        body = scene.server.bodies[-1]
        assert body["top_k"] == 5
        assert not {"min_p", "ignore_eos", "skip_special_tokens"} & set(body)

    played(knows_one, scripted(fields=("top_k",)))


def test_a_stop_that_is_its_own_ends_the_answer() -> None:
    async def story(scene: OpenAiScene) -> None:
        heard = await listen_to(scene.engine, structs.replace(ASKED, max_tokens=400))
        assert heard.finish is Finish.STOP
        assert EOS not in heard.ids

    played(story, scripted(structs.replace(SCRIPT, eos_every=8)))
