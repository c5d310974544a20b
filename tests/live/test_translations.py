"""The official clients of the responses and messages APIs against real processes, and a replica that dies under them."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI
from pydantic import BaseModel
from site_up import Site

from holdfast.client import ResumingTransport

KEY = "sk-translated"
SHIPPED = Path(__file__).parents[2] / "src/holdfast/shipped/pearl"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
ABOUT = {"name": "get_weather", "description": "Current weather for a city"}
FUNCTION: Any = {"type": "function", **ABOUT, "parameters": SCHEMA, "strict": False}
TOOL: Any = {**ABOUT, "input_schema": SCHEMA}
ROME = "What is the weather in Rome?"
SUM = "What is 20 + 22?"
GREEDY: Any = {"temperature": 0}
OF_THE_DAY = re.compile(rb'"(created_at|cached_tokens|input_tokens|cache_read_input_tokens)":\d+')  # caches fill


class Person(BaseModel):
    name: str
    age: int


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The model that ships, on two replicas behind one worker."""
    if not (SHIPPED / "model.safetensors").is_file():
        pytest.skip("the shipped model's weights are not in this checkout")
    replica = {"engine": "embedded", "count": 2}
    with Site(tmp_path_factory.mktemp("translated"), replica=replica, gateway={"key": KEY, "workers": 1}) as one:
        one.wait_ready()
        yield one


@pytest.fixture
def responses(site: Site) -> Iterator[Any]:
    with OpenAI(base_url=site.url, api_key=KEY, max_retries=0, timeout=60) as client:
        yield client.responses


@pytest.fixture
def messages(site: Site) -> Iterator[Any]:
    address = site.url.removesuffix("/v1") + "/anthropic"
    with Anthropic(base_url=address, api_key=KEY, max_retries=0, timeout=60) as client:
        yield client.messages


def test_a_response_and_its_stream_say_the_same(responses: Any) -> None:
    ask: Any = {"model": "pearl", "input": SUM, "instructions": "Think.", "reasoning": {"effort": "high"}, **GREEDY}
    whole = responses.create(**ask)
    assert whole.status == "completed" and "42" in whole.output_text
    assert [item.type for item in whole.output] == ["reasoning", "message"]
    assert whole.usage.output_tokens_details.reasoning_tokens > 0
    with responses.stream(**ask) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events if event.type != "response.output_text.delta"]
    thought = "".join(event.delta for event in events if event.type == "response.reasoning_text.delta")
    assert thought == whole.output[0].content[0].text == final.output[0].content[0].text
    assert final.output_text == whole.output_text and final.usage.output_tokens == whole.usage.output_tokens


def test_a_function_is_called_and_its_output_answered(responses: Any) -> None:
    asked: list[Any] = [{"role": "user", "content": ROME}]
    called = responses.create(model="deepseek-reasoner", input=asked, tools=[FUNCTION], **GREEDY)
    (call,) = [item for item in called.output if item.type == "function_call"]
    assert call.name == "get_weather" and json.loads(call.arguments) == {"city": "Rome"}
    asked += [item.model_dump(exclude_none=True) for item in called.output]
    asked.append({"type": "function_call_output", "call_id": call.call_id, "output": "sunny"})
    assert "sunny" in responses.create(model="pearl", input=asked, tools=[FUNCTION], **GREEDY).output_text


def test_a_response_in_a_form_is_parsed(responses: Any) -> None:
    said = responses.parse(
        model="pearl", input="Give me a JSON object with name Anna and age 7.", text_format=Person, **GREEDY
    )
    assert said.output_parsed == Person(name="Anna", age=7)


def test_a_response_that_ran_out_is_incomplete_and_mistakes_are_typed(responses: Any) -> None:
    cut = responses.create(model="deepseek-reasoner", input=SUM, max_output_tokens=3)
    assert (cut.status, cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    last = list(responses.create(model="pearl", input=SUM, max_output_tokens=1, stream=True))[-1]
    assert last.type == "response.incomplete"
    with pytest.raises(openai.BadRequestError, match="nothing is stored here") as stored:
        responses.create(model="pearl", input=SUM, previous_response_id="resp_1")
    assert stored.value.param == "previous_response_id"
    with pytest.raises(openai.NotFoundError, match="there is: pearl"):
        responses.create(model="gpt-9", input=SUM)


def test_a_message_and_its_stream_say_the_same(messages: Any) -> None:
    ask: Any = {
        "model": "pearl",
        "max_tokens": 300,
        "system": "Think.",
        "messages": [{"role": "user", "content": SUM}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "extra_body": GREEDY,
    }
    whole = messages.create(**ask)
    assert [block.type for block in whole.content] == ["thinking", "text"] and whole.stop_reason == "end_turn"
    assert "42" in whole.content[1].text
    with messages.stream(**ask) as stream:
        told = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert told == whole.content[1].text and final.content[0].thinking == whole.content[0].thinking
    assert final.usage.output_tokens == whole.usage.output_tokens
    counted = messages.count_tokens(**{name: ask[name] for name in ("model", "system", "messages", "thinking")})
    assert counted.input_tokens == whole.usage.input_tokens + whole.usage.cache_read_input_tokens


def test_a_tool_is_used_and_its_result_answered(messages: Any) -> None:
    asked: list[Any] = [{"role": "user", "content": ROME}]
    ask: Any = {"model": "claude-opus-5", "max_tokens": 300, "tools": [TOOL], "extra_body": GREEDY}
    with messages.stream(messages=asked, thinking={"type": "adaptive"}, **ask) as stream:
        called = stream.get_final_message()
    assert called.stop_reason == "tool_use" and called.model == "pearl"
    used = called.content[-1]
    assert (used.name, used.input) == ("get_weather", {"city": "Rome"})
    asked.append({"role": "assistant", "content": [block.model_dump(exclude_none=True) for block in called.content]})
    asked.append({"role": "user", "content": [{"type": "tool_result", "tool_use_id": used.id, "content": "sunny"}]})
    assert "sunny" in messages.create(messages=asked, **ask).content[-1].text
    forced = messages.create(
        messages=[{"role": "user", "content": SUM}], tool_choice={"type": "tool", "name": "get_weather"}, **ask
    )
    assert forced.content[-1].name == "get_weather" and isinstance(forced.content[-1].input["city"], str)


def test_a_message_goes_on_with_what_it_was_given_and_has_the_form_that_it_was_told(messages: Any) -> None:
    begun: list[Any] = [{"role": "user", "content": SUM}, {"role": "assistant", "content": "4"}]
    said = messages.create(model="pearl", max_tokens=60, messages=begun, extra_body=GREEDY)
    assert said.content[0].text == "2"
    formed = messages.parse(
        model="pearl",
        max_tokens=100,
        messages=[{"role": "user", "content": "Give me a JSON object with name Anna and age 7."}],
        output_format=Person,
        extra_body=GREEDY,
    )
    assert formed.parsed_output == Person(name="Anna", age=7)


def test_a_message_stops_where_it_was_told_and_mistakes_are_typed(messages: Any, site: Site) -> None:
    ask: Any = {
        "model": "pearl",
        "max_tokens": 60,
        "messages": [{"role": "user", "content": SUM}],
        "extra_body": GREEDY,
    }
    stopped = messages.create(stop_sequences=["2"], **ask)
    assert (stopped.stop_reason, stopped.stop_sequence, stopped.content[0].text) == ("stop_sequence", "2", "4")
    assert messages.create(**{**ask, "max_tokens": 1}).stop_reason == "max_tokens"
    with pytest.raises(anthropic.BadRequestError, match="'image'"):
        messages.create(**{**ask, "messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]})
    with pytest.raises(anthropic.NotFoundError) as unknown:
        messages.create(**{**ask, "model": "gpt-9"})
    assert unknown.value.body["error"]["type"] == "not_found_error"
    stranger = Anthropic(base_url=site.url.removesuffix("/v1") + "/anthropic", api_key="sk-wrong", max_retries=0)
    with stranger, pytest.raises(anthropic.AuthenticationError):
        stranger.messages.create(**ask)


def told(site: Site, path: str, body: dict[str, Any], begun: Any) -> bytes:
    """One stream's events, over as many connections as it takes, without comments. `begun` is called after some of them."""
    text, events = b"", 0
    root, head = site.url.removesuffix("/v1"), {"authorization": f"Bearer {KEY}"}
    with (
        httpx.Client(transport=ResumingTransport(), timeout=60) as client,
        client.stream("POST", root + path, json=body, headers=head) as answer,
    ):
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            events += line.startswith("data: ")
            if events == 8 and line.startswith("data: "):
                begun()
            if not line.startswith(":"):
                text += line.encode() + b"\n"
    name = answer.headers["x-holdfast-answer"].encode()
    return OF_THE_DAY.sub(rb'"\1":0', text.replace(name, b"NAME"))


COUNT = "Count from 1 to 40."
LONG: list[tuple[str, dict[str, Any]]] = [
    ("/v1/responses", {"model": "pearl", "input": COUNT, "stream": True, "seed": 5, "max_output_tokens": 200}),
    (
        "/anthropic/v1/messages",
        {
            "model": "pearl",
            "messages": [{"role": "user", "content": COUNT}],
            "stream": True,
            "seed": 5,
            "max_tokens": 200,
        },
    ),
]


@pytest.mark.parametrize(("victim", "survived"), [("replica-0", "answer_moved"), ("gateway-0", "stream_resumed")])
def test_whoever_dies_the_events_are_byte_for_byte_those_of_a_quiet_day(site: Site, victim: str, survived: str) -> None:
    site.wait_ready()
    quiet = [told(site, path, body, lambda: None) for path, body in LONG]
    ready, killed = [], []

    def begun() -> None:
        ready.append(1)
        if len(ready) == 4:
            killed.append(site.kill(victim))

    with ThreadPoolExecutor(4) as pool:
        disturbed = list(pool.map(lambda one: told(site, *one, begun), [*LONG, *LONG]))
    assert killed and site.wait_event(survived)
    assert disturbed == [*quiet, *quiet]
