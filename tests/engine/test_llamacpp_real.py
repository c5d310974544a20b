"""The contract, and token for token the embedded engine's answers, before a real llama.cpp server with the shipped model."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from folders import YARN, deepseek_v2, deepseek_v3, text
from llamacpp_process import ABSENT, PYTHON, SHIPPED
from llamacpp_stage import SPELLING, OpenAiRealStage, RealStage
from msgspec import structs

from holdfast.dialect.open import open_dialect
from holdfast.domain.dialect import Form, Message
from holdfast.domain.fault import EngineLost
from holdfast.domain.ports import Work
from holdfast.domain.request import Finish, Generation, Sampling
from holdfast.engine.llamacpp import LlamaCppEngine
from holdfast.pearl.gguf import write_gguf
from holdfast.pearl.open import CoreOptions, OpenCore, open_core
from holdfast.testing.engine_contract import ForeignContract, ForeignScene, listen_to

pytestmark = pytest.mark.skipif(not PYTHON.exists(), reason=ABSENT)

TOKENS = 24


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


@pytest.fixture(scope="module")
def openai_stage(model: Path) -> Iterator[RealStage]:
    opened = OpenAiRealStage(model)
    yield opened
    opened.end()


class TestLlamaCpp(ForeignContract):
    """Its own dialect."""


class TestOpenAi(ForeignContract):
    """Its OpenAI-compatible route, as any other server's."""

    @pytest.fixture
    def stage(self, openai_stage: RealStage) -> RealStage:
        return openai_stage


@pytest.fixture(scope="module")
def core() -> OpenCore:
    return open_core(SHIPPED, CoreOptions(slots=8, context_tokens_max=512))


def embedded(core: OpenCore, asked: list[Generation]) -> list[list[int]]:
    """The embedded engine's answers."""
    said: list[list[int]] = [[] for _ in asked]
    for ticket, one in enumerate(asked):
        core.submit(
            ticket,
            Work(
                prompt_ids=one.prompt_ids,
                delivered_ids=one.delivered_ids,
                sampling=one.sampling,
                max_tokens=one.max_tokens,
                seed=one.seed,
                stop_ids=one.stop_ids,
            ),
        )
    running = len(asked)
    while running:
        for produced in core.step():
            said[produced.ticket] += produced.ids
            running -= produced.finish is not None
    return said


def questions() -> list[Generation]:
    """The shipped model's 48 reference prompts, greedy."""
    lines = (SHIPPED / "reference.jsonl").read_bytes().splitlines()
    prompts = [msgspec.json.decode(line)["prompt_ids"] for line in lines]
    greedy = Sampling(temperature=0.0)
    return [
        Generation(id=str(n), prompt_ids=prompt, sampling=greedy, max_tokens=TOKENS, stop_ids=(1,))
        for n, prompt in enumerate(prompts)
    ]


Told = Callable[[LlamaCppEngine], Awaitable[None]]


def told(stage: RealStage, story: Told) -> None:
    async def play(scene: ForeignScene) -> None:
        assert isinstance(scene.engine, LlamaCppEngine)
        await story(scene.engine)

    stage.play(play)


def test_greedy_answers_are_the_embedded_engines_token_for_token(stage: RealStage, core: OpenCore) -> None:
    asked = questions()
    expected = embedded(core, asked)

    async def story(engine: LlamaCppEngine) -> None:
        heard = await asyncio.gather(*(listen_to(engine, one) for one in asked))
        assert [one.ids for one in heard] == expected
        assert {one.finish for one in heard} <= {Finish.STOP, Finish.LENGTH}

    told(stage, story)


def test_the_embedded_engines_answers_are_carried_on_after_any_token(stage: RealStage, core: OpenCore) -> None:
    asked = questions()
    expected = embedded(core, asked)

    async def story(engine: LlamaCppEngine) -> None:
        for one, whole in zip(asked, expected, strict=True):
            for cut in range(1, len(whole), 3):
                heard = await listen_to(engine, structs.replace(one, delivered_ids=whole[:cut]))
                assert heard.ids == whole[cut:], f"prompt {one.id}, cut after {cut}"

    told(stage, story)


def test_ids_that_its_streams_leave_out_are_told_all_the_same(stage: RealStage) -> None:
    """A character of three bytes, as three tokens: the first two are in no event."""
    euro = SPELLING.spell("€".encode())
    assert len(euro) == 3
    asked = questions()[0]

    async def story(engine: LlamaCppEngine) -> None:
        for spelling in (SPELLING, None):
            engine._spelling = spelling
            for logprobs in (-1, 1):
                line = " ".join(f"<[{id}]>" for id in [80, *euro, 81])
                sampling = Sampling(temperature=0.0, logprobs=logprobs, grammar=f"start: {line}")
                if spelling is None or logprobs >= 0:
                    sampling = structs.replace(sampling, grammar="", logit_bias=((euro[0], 100.0),))
                heard = await listen_to(engine, structs.replace(asked, sampling=sampling, max_tokens=5))
                assert heard.ids == ([80, *euro, 81] if sampling.grammar else [euro[0]] * 5)

    told(stage, story)


@pytest.mark.parametrize("penalties", [(0.0, 0.7), (0.6, 0.3)], ids=str)
def test_penalties_leave_the_prompt_alone_as_pearls_do(
    stage: RealStage, core: OpenCore, penalties: tuple[float, float]
) -> None:
    presence, frequency = penalties
    sampling = Sampling(temperature=0.0, presence_penalty=presence, frequency_penalty=frequency)
    asked = [structs.replace(one, sampling=sampling) for one in questions()[::3]]
    assert embedded(core, questions()[::3]) != embedded(core, asked), "these penalties change nothing"
    expected = embedded(core, asked)

    async def story(engine: LlamaCppEngine) -> None:
        heard = await asyncio.gather(*(listen_to(engine, one) for one in asked))
        assert [one.ids for one in heard] == expected

    told(stage, story)


RANDOM = {
    "v3 stretched by yarn": (deepseek_v3, {"rope_parameters": {**YARN, "mscale": 0.707}}),
    "v3 without groups": (deepseek_v3, {"n_group": 1, "topk_group": 1}),
    "v2-lite": (deepseek_v2, {"num_hidden_layers": 27, "q_lora_rank": None, "topk_method": "greedy"}),
}


@pytest.mark.parametrize("case", list(RANDOM))
def test_random_models_of_every_shape_that_is_written_say_the_same(tmp_path: Path, case: str) -> None:
    make, changes = RANDOM[case]
    folder = make(tmp_path / "m", vocab_size=1280, **changes)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(SHIPPED / name, folder / name)
    write_gguf(folder, tmp_path / "m.gguf")
    asked = [
        Generation(id=str(n), prompt_ids=text(n, 40), sampling=Sampling(temperature=0.0), max_tokens=TOKENS)
        for n in range(8)
    ]
    expected = embedded(open_core(folder, CoreOptions(slots=8, context_tokens_max=256)), asked)
    opened = RealStage(tmp_path / "m.gguf")

    async def story(engine: LlamaCppEngine) -> None:
        heard = await asyncio.gather(*(listen_to(engine, one) for one in asked))
        assert [one.ids for one in heard] == expected

    try:
        told(opened, story)
    finally:
        opened.end()


def test_an_answer_held_to_json_is_json_and_goes_on_after_any_token(stage: RealStage) -> None:
    """As the gateway's own grammars are: the wheel's llguidance is older than ours."""
    dialect = open_dialect(SHIPPED)
    prompt = dialect.render((Message("user", "Give the sum of 25 and 50."),), (), False, True)
    schema = {"type": "object", "properties": {"sum": {"type": "integer"}, "ok": {"type": "boolean"}}}
    schema |= {"required": ["sum", "ok"], "additionalProperties": False}
    grammar = dialect.grammar(prompt, Form(schema=schema))
    asked = Generation(id="g", prompt_ids=prompt, max_tokens=60, stop_ids=dialect.stop_ids, seed=11)

    async def story(engine: LlamaCppEngine) -> None:
        for temperature in (0.0, 1.0):
            sampling = Sampling(temperature=temperature, grammar=grammar, logprobs=1 if temperature else -1)
            one = structs.replace(asked, sampling=sampling)
            heard = await listen_to(engine, one)
            said = msgspec.json.decode(SPELLING.text_of(heard.ids).encode())
            assert isinstance(said["sum"], int)
            assert isinstance(said["ok"], bool)
            assert heard.finish is Finish.STOP
            for cut in range(1, len(heard.ids) + 1):
                rest = await listen_to(engine, structs.replace(one, delivered_ids=heard.ids[:cut]))
                assert (rest.ids, rest.finish) == (heard.ids[cut:], Finish.STOP), f"{temperature}, cut after {cut}"
            with pytest.raises(EngineLost, match="departs at token 2 from the 3 that were delivered"):
                wrong = [heard.ids[0], heard.ids[0], heard.ids[2]]
                await listen_to(engine, structs.replace(one, delivered_ids=wrong))

    told(stage, story)
