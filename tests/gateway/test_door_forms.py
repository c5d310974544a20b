"""The form that an answer must have: what a request's fields make of it, as the engine's own grammar reads it."""

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from doorway import CARD, FOLDER, PEARL, RELEASE, Answer, HandClock, Says, chat_body, doorway, ids_of, request, run
from msgspec import structs
from test_door_resume import Goes, desk
from tests.dialect.generations import dialect_of

from holdfast.domain.dialect import Dialect, Form, Tool
from holdfast.domain.fault import BadRequest
from holdfast.domain.release import Exactness, Hold, Release
from holdfast.gateway.needs import ModelCard
from holdfast.pearl.constraint import Grammars
from holdfast.sim.shelf import SimShelves

GRAMMARS = Grammars.open(FOLDER, PEARL.vocab_size, PEARL.stop_ids)


def ask(service: Any, dialect: Dialect = PEARL, **fields: Any) -> Answer:
    """One chat over a fresh door."""

    async def story() -> Answer:
        async with doorway(service, dialect=dialect) as place, place.client() as client:
            return await client.ask(chat_body(**fields))

    return run(story())


def grammar_for(**fields: Any) -> str:
    """What Pearl's dialect makes of a request's fields."""
    says = Says()
    answer = ask(says, **fields)
    assert answer.status == 200, answer.error
    return says.asked[0].sampling.grammar


def allows(grammar: str, text: str) -> bool:
    """Whether an engine could say this under the grammar, and end there."""
    row = torch.zeros(PEARL.vocab_size)
    try:
        constraint = GRAMMARS.begin(grammar, ids_of(text), frozenset(PEARL.stop_ids))
    except BadRequest:
        return False
    constraint.apply(row)
    return constraint.over or bool(row[PEARL.stop_ids[0]] == 0)


def call(name: str, arguments: str) -> str:
    return f"<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{name}<｜tool▁sep｜>{arguments}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"


def typed(name: str, strict: bool, **schema: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {"a": {"type": "integer"} | schema}, "required": ["a"]}
    parameters["additionalProperties"] = False
    return {"type": "function", "function": {"name": name, "parameters": parameters, "strict": strict}}


def test_a_forced_call_is_all_that_can_be_said() -> None:
    grammar = grammar_for(tools=[typed("add", False), typed("sub", False)], tool_choice="required")
    assert allows(grammar, call("add", '{"a": 1}')) and allows(grammar, call("sub", '{"a": 1}'))
    assert not allows(grammar, "no") and not allows(grammar, call("add", '{"a": "x"}'))
    named = {"type": "function", "function": {"name": "sub"}}
    grammar = grammar_for(tools=[typed("add", False), typed("sub", False)], tool_choice=named)
    assert allows(grammar, call("sub", '{"a": 1}')) and not allows(grammar, call("add", '{"a": 1}'))


def test_strict_tools_are_kept_to_their_parameters_though_the_model_chooses() -> None:
    grammar = grammar_for(tools=[typed("add", True), typed("sub", False)])
    assert allows(grammar, "Hello.") and allows(grammar, "")
    assert allows(grammar, "Let me see." + call("add", '{"a": 1}'))
    assert not allows(grammar, call("add", '{"a": "x"}')), "add is strict"
    assert allows(grammar, call("sub", '{"a": "x"}')), "sub is not"
    assert not allows(grammar, call("mul", "{}"))
    assert grammar_for(tools=[typed("add", False)]) == ""


def test_with_tools_an_answer_is_json_or_a_call() -> None:
    schema = {"type": "json_schema", "json_schema": {"schema": {"type": "object", "required": ["b"]}}}
    grammar = grammar_for(tools=[typed("add", True)], response_format=schema)
    assert allows(grammar, '{"b": 2}') and allows(grammar, call("add", '{"a": 1}'))
    assert not allows(grammar, "Hello.") and not allows(grammar, '{"c": 2}') and not allows(grammar, call("add", "{}"))


def test_a_schema_that_no_grammar_can_keep_is_refused_for_strict_tools_and_loosened_for_others() -> None:
    answer = ask(Says(), tools=[typed("add", True, uniqueItems=True)], tool_choice="required")
    assert (answer.status, answer.error["param"]) == (400, "tools[0].function.parameters")
    assert "uniqueItems" in answer.error["message"]
    named = {"type": "function", "function": {"name": "sub"}}
    answer = ask(Says(), tools=[typed("add", True), typed("sub", True, uniqueItems=True)], tool_choice=named)
    assert answer.error["param"] == "tools[1].function.parameters", "as the request counts them"
    grammar = grammar_for(tools=[typed("add", False, uniqueItems=True)], tool_choice="required")
    assert allows(grammar, call("add", '{"a": "x"}')) and not allows(grammar, call("add", "[]"))


def test_where_arguments_are_written_one_by_one_what_ties_them_together_is_refused_or_loosened(tmp_path: Path) -> None:
    dialect = dialect_of(tmp_path, "dsv4")
    for strict in (True, False):
        tied = typed("add", strict)
        tied["function"]["parameters"]["anyOf"] = [{"required": ["a"]}]
        says = Says()
        answer = ask(says, dialect, tools=[tied], tool_choice="required")
        if strict:
            assert (answer.status, answer.error["param"]) == (400, "tools[0].function.parameters")
            assert "anyOf can't be kept in this model's calls" in answer.error["message"]
        else:
            anything = Form(tools=(Tool("add", "", {"type": "object"}),))
            asked = says.asked[0]
            assert asked.sampling.grammar == dialect.grammar(asked.prompt_ids, anything)


def rows_of(raw: bytes) -> tuple[list[Any], str]:
    """The rows of calls in a stream's events, and the last id."""
    rows, last = [], ""
    for line in raw.decode().splitlines():
        if line.startswith("id: "):
            last = line[4:]
        elif line.startswith("data: {"):
            for choice in msgspec.json.decode(line[6:])["choices"]:
                rows += choice["delta"].get("tool_calls", ())
    return rows, last


def test_a_call_that_is_read_live_goes_on_in_another_worker_in_the_middle_of_its_arguments() -> None:
    text = call("add", '{"a": 1, "b": "some longer text"}')
    fields = {"tools": [typed("add", True)], "tool_stream": "live", "stream": True}

    async def story() -> None:
        shelves, clock = SimShelves(), HandClock()
        first, second = Goes(pause=12, text=text), Goes(text=text)
        async with desk(first, shelves, clock) as one, desk(second, shelves, clock, "gateway-1.bb") as other:
            async with one.place.client() as client:
                client.write(request(chat_body(**fields), "/beta/chat/completions", x_holdfast_resume="no"))
                await first.paused.wait()
                for _ in range(20):
                    await asyncio.sleep(0)
                head, _, body = (await client.reader.read(1 << 16)).partition(b"\r\n\r\n")
                client.writer.transport.abort()
            await one.place.nobody()
            (name,) = [line[19:].decode() for line in head.split(b"\r\n") if line.startswith(b"x-holdfast-answer: ")]
            begun, last = rows_of(b"".join(line for i, line in enumerate(body.split(b"\r\n")) if i % 2))
            answer = await other.ask(f"/beta/streams/{name}", last_event_id=last)
            rest, _ = rows_of(answer.body)
            assert begun[0]["function"]["name"] == "add" and not any("name" in row["function"] for row in rest)
            said = "".join(row["function"]["arguments"] for row in (*begun, *rest))
            assert said == '{"a": 1, "b": "some longer text"}' and rest
            (taken,) = second.asked
            assert taken.sampling == first.asked[0].sampling and taken.sampling.grammar
            assert len(taken.delivered_ids) == 12

    run(story())


ADD = typed("add", strict=False)
FORMS = [
    ({"response_format": {"type": "json_object"}}, "response_format"),
    ({"tools": [ADD], "tool_choice": "required"}, "tool_choice"),
    ({"tools": [ADD, typed("sub", strict=True)]}, "tools[1].function.strict"),
]


def at_a_site_of(kinds: tuple[Release, ...], **fields: Any) -> tuple[Answer, Says]:
    """One chat at a site with these kinds of engines."""
    says, card = Says(), structs.replace(CARD, kinds=kinds)

    async def story() -> Answer:
        async with doorway(says, card=lambda: card) as place, place.client() as client:
            return await client.ask(chat_body(**fields))

    return run(story()), says


@pytest.mark.parametrize(("fields", "param"), FORMS)
def test_a_form_that_no_engine_here_can_hold_is_refused_by_the_name_of_its_field(
    fields: dict[str, Any], param: str
) -> None:
    none = structs.replace(RELEASE, engine="openai", grammar=Hold.NONE)
    answer, says = at_a_site_of((none,), **fields)
    assert (answer.status, answer.error["param"], says.asked) == (400, param, [])
    assert "engine openai here can't hold an answer to a grammar" in answer.error["message"]


def test_tools_that_are_only_offered_need_no_engine_that_holds_a_form() -> None:
    none = structs.replace(RELEASE, engine="openai", grammar=Hold.NONE)
    for fields in ({"tools": [ADD]}, {"tools": [ADD], "tool_choice": "none"}, {"response_format": {"type": "text"}}):
        assert at_a_site_of((none,), **fields)[0].status == 200


@pytest.mark.parametrize(("fields", "param"), FORMS)
def test_what_can_not_be_led_is_promised_to_be_made_again(fields: dict[str, Any], param: str) -> None:
    fresh = structs.replace(RELEASE, grammar=Hold.FRESH, exactness=Exactness.FAIR)
    none = structs.replace(RELEASE, grammar=Hold.NONE)
    for kinds in ((fresh,), (RELEASE, fresh), (fresh, none)):
        answer, says = at_a_site_of(kinds, **fields)
        said = answer.headers["x-holdfast-continuable"]
        assert said.startswith("fair; made again from its prompt up to where it was cut")
        assert says.asked[0].sampling.grammar
    led = at_a_site_of((RELEASE, none), **fields)[0].headers["x-holdfast-continuable"]
    assert led.startswith("exact; ")


def test_where_a_grammar_can_not_be_led_thinking_has_no_bound() -> None:
    fresh = structs.replace(RELEASE, grammar=Hold.FRESH)
    budget = {"model": "pearl", "max_tokens": 900, "thinking": {"type": "enabled", "budget_tokens": 100}}
    body = budget | {"messages": [{"role": "user", "content": "Hi"}], "tool_choice": {"type": "any"}}
    body["tools"] = [{"name": "add", "input_schema": {"type": "object"}}]
    for kinds, thinking_max in (((RELEASE,), 100), ((fresh,), 0)):
        says, card = Says("so.</think>Hi"), structs.replace(CARD, kinds=kinds)

        async def story(says: Says, card: ModelCard) -> Answer:
            async with doorway(says, card=lambda: card) as place, place.client() as client:
                return await client.ask(body, "/anthropic/v1/messages")

        assert run(story(says, card)).status == 200
        assert says.asked[0].sampling.grammar
        assert says.asked[0].thinking_max == thinking_max


def _the(card: ModelCard) -> ModelCard:
    return card


def test_who_comes_back_is_told_the_promise_that_was_made() -> None:
    """Also by a worker that knows other kinds by now."""
    fair = structs.replace(RELEASE, exactness=Exactness.FAIR)

    async def story() -> list[str]:
        shelves, said, clock = SimShelves(), [], HandClock()
        for name, kinds in (("gateway-0.aa", (fair,)), ("gateway-1.bb", (RELEASE,))):
            card = structs.replace(CARD, kinds=kinds)
            async with (
                desk(Goes(), shelves, clock, name, card=partial(_the, card)) as one,
                one.place.client() as client,
            ):
                answer = await client.ask(chat_body(), idempotency_key="k")
                assert answer.status == 200, answer.error
                said.append(answer.headers["x-holdfast-continuable"])
        return said

    assert run(story()) == ["fair; no token is lost or doubled, the rest is a fair sample"] * 2
