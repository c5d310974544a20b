"""The official OpenAI client against a whole site of real processes, over the scripted engine and over Pearl herself."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from site_up import Site

KEY = "sk-live-test"
SHIPPED = Path(__file__).parents[2] / "src/holdfast/shipped/pearl"
ADD = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather for a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Answers known beforehand, two replicas of four slots, 5 ms a token."""
    replica = {"engine": "scripted", "count": 2, "slots": 4, "token_ms": 5.0}
    gateway = {"key": KEY, "body_bytes_max": 200_000}
    with Site(tmp_path_factory.mktemp("scripted"), replica=replica, gateway=gateway) as site:
        site.wait_ready()
        yield site


@pytest.fixture(scope="module")
def pearl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenAI]:
    """The model that ships."""
    if not (SHIPPED / "model.safetensors").is_file():
        pytest.skip("the shipped model's weights are not in this checkout")
    with Site(tmp_path_factory.mktemp("pearl"), replica={"engine": "embedded", "count": 1}) as site:
        site.wait_ready()
        with OpenAI(base_url=site.url, api_key="none", max_retries=0, timeout=60) as client:
            yield client


@pytest.fixture
def client(scripted: Site) -> Iterator[OpenAI]:
    with OpenAI(base_url=scripted.url, api_key=KEY, max_retries=0, timeout=60) as made:
        yield made


def say(text: str = "hello") -> list[Any]:
    return [{"role": "user", "content": text}]


def text_of(answer: Any) -> str:
    text: str = answer.choices[0].message.content
    return text


def test_a_chat_has_text_usage_and_a_fingerprint(client: OpenAI) -> None:
    answer = client.chat.completions.create(model="pearl", messages=say(), max_tokens=12, seed=3)
    assert answer.choices[0].finish_reason == "length" and text_of(answer)
    assert answer.usage is not None and answer.usage.completion_tokens == 12
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 12
    assert answer.system_fingerprint is not None and answer.system_fingerprint.startswith("fp_")


def test_a_stream_says_what_the_whole_answer_says(client: OpenAI) -> None:
    whole = client.chat.completions.create(model="pearl", messages=say(), max_tokens=30, seed=4)
    stream = client.chat.completions.create(
        model="pearl", messages=say(), max_tokens=30, seed=4, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text_of(whole)
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 30


def test_a_seed_repeats_an_answer_and_the_drawn_one_is_told(client: OpenAI) -> None:
    first = client.chat.completions.with_raw_response.create(model="pearl", messages=say(), max_tokens=20)
    seed = int(first.headers["x-holdfast-seed"])
    again = client.chat.completions.create(model="pearl", messages=say(), max_tokens=20, seed=seed)
    other = client.chat.completions.create(model="pearl", messages=say(), max_tokens=20, seed=seed + 1)
    assert text_of(again) == text_of(first.parse()) != text_of(other)
    assert first.headers["x-holdfast-continuable"].startswith("exact; ")
    assert first.headers["x-holdfast-moves"] == "0"


def test_a_stop_string_ends_the_text_before_it(client: OpenAI) -> None:
    whole = text_of(client.chat.completions.create(model="pearl", messages=say(), max_tokens=40, seed=5))
    middle = len(whole) // 2
    stop = whole[middle : middle + 5]
    cut = client.chat.completions.create(model="pearl", messages=say(), max_tokens=40, seed=5, stop=[stop])
    assert text_of(cut) == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_reasoning_has_a_place_of_its_own(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model="pearl", messages=say(), max_tokens=9, extra_body={"thinking": {"type": "enabled"}}
    )
    message = answer.choices[0].message
    assert message.model_extra is not None and message.model_extra["reasoning_content"]
    assert message.content == ""
    assert answer.usage is not None and answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 9


def test_the_async_client_in_parallel(scripted: Site) -> None:
    async def story() -> None:
        async with AsyncOpenAI(base_url=scripted.url, api_key=KEY, max_retries=0, timeout=60) as client:

            async def one(seed: int) -> tuple[str, str]:
                ask: dict[str, Any] = {"model": "deepseek-chat", "messages": say(), "max_tokens": 20, "seed": seed}
                stream = await client.chat.completions.create(**ask, stream=True)
                told = [chunk.choices[0].delta.content or "" async for chunk in stream]
                return "".join(told), text_of(await client.chat.completions.create(**ask))

            pairs = await asyncio.gather(*(one(seed) for seed in range(16)))
            assert all(streamed == whole for streamed, whole in pairs)
            assert len({whole for _, whole in pairs}) == 16

    asyncio.run(story())


def test_mistakes_are_typed_errors(client: OpenAI, scripted: Site) -> None:
    with pytest.raises(openai.NotFoundError, match="there is: pearl"):
        client.chat.completions.create(model="gpt-9", messages=say())
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="pearl", messages=say(), temperature=7)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="sk-wrong").chat.completions.create(model="pearl", messages=say())
    with pytest.raises(openai.APIStatusError) as large:
        client.chat.completions.create(model="pearl", messages=say("word " * 100_000))
    assert large.value.status_code == 413
    with pytest.raises(openai.BadRequestError, match="shorten them") as long:
        client.chat.completions.create(model="pearl", messages=say("word " * 20_000))
    assert long.value.code == "context_length_exceeded"
    assert text_of(client.chat.completions.create(model="pearl", messages=say(), max_tokens=1))


def test_models_are_listed(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["pearl", "deepseek-chat", "deepseek-reasoner"]
    assert client.models.retrieve("pearl").owned_by == "holdfast"


def test_a_client_that_hangs_up_frees_its_slot(client: OpenAI, scripted: Site) -> None:
    def in_flight() -> float:
        shown = {"authorization": f"Bearer {KEY}"}
        text = httpx.get(scripted.url.removesuffix("/v1") + "/metrics", headers=shown, trust_env=False).text
        line = next(line for line in text.splitlines() if line.startswith("holdfast_requests_in_flight "))
        return float(line.split()[1])

    streams = []
    for seed in range(8):  # every slot of both replicas, for 20 s if nobody hung up
        stream = client.chat.completions.create(
            model="pearl", messages=say(), max_tokens=4000, seed=seed, stream=True, extra_body={"ignore_eos": True}
        )
        assert next(iter(stream)).choices
        streams.append(stream)
    assert in_flight() == 8
    for stream in streams:
        stream.close()
    scripted.wait("the slots coming free", lambda: in_flight() == 0, patience_s=10)
    answers = [client.chat.completions.create(model="pearl", messages=say(), max_tokens=2) for _ in range(8)]
    assert all(text_of(answer) for answer in answers)


def test_a_deadline_that_passes_is_a_typed_error(client: OpenAI) -> None:
    ask: dict[str, Any] = {"model": "pearl", "messages": say(), "max_tokens": 3000}
    headers = {"x-holdfast-deadline-s": "0.2"}
    with pytest.raises(openai.InternalServerError) as late:
        client.chat.completions.create(**ask, extra_headers=headers)
    assert (late.value.status_code, late.value.code) == (504, "deadline_exceeded")
    with pytest.raises(openai.APIError, match="deadline"):
        list(client.chat.completions.create(**ask, stream=True, extra_headers=headers))


def test_pearl_answers_with_a_fact_a_thought_a_call_and_json(pearl: OpenAI) -> None:
    create = pearl.chat.completions.create
    sum_ = create(model="pearl", messages=say("What is 20 + 22?"), temperature=0)
    assert "42" in text_of(sum_) and sum_.choices[0].finish_reason == "stop"
    thought = create(model="deepseek-reasoner", messages=say("What is 20 + 22?"), temperature=0)
    assert thought.choices[0].message.model_extra is not None
    assert thought.choices[0].message.model_extra["reasoning_content"] and "42" in text_of(thought)
    tools: list[Any] = [ADD]
    called = create(model="pearl", messages=say("What is the weather in Rome?"), tools=tools, temperature=0)
    assert called.choices[0].finish_reason == "tool_calls"
    calls: Any = called.choices[0].message.tool_calls
    assert calls[0].function.name == "get_weather" and json.loads(calls[0].function.arguments) == {"city": "Rome"}
    back: list[Any] = [
        *say("What is the weather in Rome?"),
        called.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": calls[0].id, "content": "sunny"},
    ]
    assert "sunny" in text_of(create(model="pearl", messages=back, tools=tools, temperature=0))
    form = create(
        model="pearl",
        messages=say("Give me a JSON object with name Anna and age 7."),
        response_format={"type": "json_object"},
        temperature=0,
    )
    assert isinstance(json.loads(text_of(form)), dict)


def test_pearl_keeps_to_a_form(pearl: OpenAI) -> None:
    create = pearl.chat.completions.create
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n"],
        "additionalProperties": False,
    }
    form: Any = {"type": "json_schema", "json_schema": {"name": "number", "strict": True, "schema": schema}}
    told = create(model="pearl", messages=say("Say anything."), response_format=form, max_tokens=60, seed=1)
    assert isinstance(json.loads(text_of(told))["n"], int)
    tools: list[Any] = [ADD]
    forced: Any = {"type": "function", "function": {"name": "get_weather"}}
    for choice in ("required", forced):
        called = create(model="pearl", messages=say("Hi"), tools=tools, tool_choice=choice, max_tokens=60, seed=2)
        calls: Any = called.choices[0].message.tool_calls
        assert called.choices[0].finish_reason == "tool_calls" and calls[0].function.name == "get_weather"
        assert set(json.loads(calls[0].function.arguments)) >= {"city"}
    streamed = create(
        model="pearl",
        messages=say("What is the weather in Rome?"),
        tools=tools,
        stream=True,
        temperature=0,
        extra_body={"tool_stream": "live"},
    )
    rows = [row for chunk in streamed if chunk.choices for row in chunk.choices[0].delta.tool_calls or ()]
    assert len(rows) > 2 and rows[0].function is not None and rows[0].function.name == "get_weather"
    arguments = "".join(row.function.arguments or "" for row in rows if row.function)
    assert json.loads(arguments) == {"city": "Rome"}


def test_pearl_gives_several_choices_goes_on_with_a_prefix_and_with_raw_prompts(pearl: OpenAI) -> None:
    create = pearl.chat.completions.create
    ask: dict[str, Any] = {"model": "pearl", "messages": say("What is 20 + 22?"), "seed": 3, "max_tokens": 30}
    three = create(**ask, n=3)
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    texts = ["", "", ""]
    for chunk in create(**ask, n=3, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in three.choices]
    assert texts[0] == text_of(create(**ask))
    begun: list[Any] = [*say("What is 20 + 22?"), {"role": "assistant", "content": "The answer is", "prefix": True}]
    assert not text_of(create(model="pearl", messages=begun, temperature=0)).startswith("The answer")
    raw: dict[str, Any] = {"model": "pearl", "prompt": ["What is", "The"], "max_tokens": 5, "temperature": 0}
    two = pearl.completions.create(**raw, logprobs=1)
    assert [choice.index for choice in two.choices] == [0, 1] and two.choices[0].logprobs is not None
    streamed = pearl.completions.create(**raw | {"prompt": "What is"}, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == two.choices[0].text
    ids = cast("dict[str, Any]", pearl.post("/tokenize", body={"prompt": "What is"}, cast_to=object))["tokens"]
    again = pearl.completions.create(**raw | {"prompt": ids}, echo=True)
    assert again.choices[0].text.endswith("What is" + two.choices[0].text)
