"""POST /v1/responses through the door: what is understood, what comes back, what is refused, and what survives a loss."""

import asyncio
from typing import Any

import msgspec
import pytest
from doorway import Answer, HandClock, Says, doorway, ids_of, request, run
from test_door_resume import Desk, Goes, desk

from holdfast.domain.fault import BadRequest, EngineLost
from holdfast.domain.request import Chunk, Finish, TokenLogprob
from holdfast.gateway.openai_turns import turns
from holdfast.gateway.responses_wire import decode
from holdfast.sim.shelf import SimShelves

PATH = "/v1/responses"
CALL = '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>look<｜tool▁sep｜>{"q": "é"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
LOOK = {"type": "function", "name": "look", "description": "Looks.", "parameters": {"type": "object"}, "strict": False}
LONG = "It is 4, I think.</think>Let me look." + CALL


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "pearl", "input": "Hi", **fields}


def ask(service: Any, **fields: Any) -> Answer:
    async def story() -> Answer:
        async with doorway(service) as place, place.client() as client:
            return await client.ask(body(**fields), PATH)

    return run(story())


def read(**fields: Any) -> Any:
    return decode(msgspec.json.encode(body(**fields)))


def test_a_whole_response_has_every_field_that_the_sdk_expects() -> None:
    says = Says("Hello there.")
    answer = ask(says, instructions="Be kind.", max_output_tokens=50, temperature=0.5, metadata={"a": "b"}, store=True)
    made, count, prompt = answer.json, len(ids_of("Hello there.")), len(says.asked[0].prompt_ids)
    name = says.asked[0].id
    assert made == {
        "id": f"resp_{name}",
        "object": "response",
        "created_at": 1_700_000_000,
        "status": "completed",
        "background": False,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_tool_calls": None,
        "model": "pearl",
        "output": [
            {
                "id": f"msg_{name}_0",
                "status": "completed",
                "type": "message",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "Hello there.", "annotations": [], "logprobs": []}],
            }
        ],
        "previous_response_id": None,
        "store": False,
        "truncation": "disabled",
        "user": None,
        "max_output_tokens": 50,
        "metadata": {"a": "b"},
        "parallel_tool_calls": True,
        "reasoning": {"effort": None, "summary": None},
        "temperature": 0.5,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
            "output_tokens": count,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + count,
        },
    }
    assert (says.asked[0].max_tokens, says.asked[0].sampling.temperature) == (50, 0.5)


def test_a_stream_opens_and_closes_reasoning_text_and_calls_in_order() -> None:
    answer = ask(Says(LONG), stream=True, reasoning={"effort": "high"}, tools=[LOOK])
    events = [event for event in answer.events() if isinstance(event, dict)]
    kinds: list[str] = []
    for event in events:
        if not (kinds and event["type"].endswith(".delta") and kinds[-1] == event["type"]):
            kinds.append(event["type"])
    assert kinds == [
        "response.created", "response.in_progress",
        "response.output_item.added", "response.content_part.added", "response.reasoning_text.delta",
        "response.reasoning_text.done", "response.content_part.done", "response.output_item.done",
        "response.output_item.added", "response.content_part.added", "response.output_text.delta",
        "response.output_text.done", "response.content_part.done", "response.output_item.done",
        "response.output_item.added", "response.function_call_arguments.delta",
        "response.function_call_arguments.done", "response.output_item.done",
        "response.completed",
    ]  # fmt: skip
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    reasoning, message, call = events[-1]["response"]["output"]
    assert reasoning["content"] == [{"type": "reasoning_text", "text": "It is 4, I think."}]
    assert message["content"][0]["text"] == "Let me look."
    assert (call["name"], call["arguments"]) == ("look", '{"q": "é"}')
    whole = ask(Says(LONG), reasoning={"effort": "high"}, tools=[LOOK])
    same = {"id", "created_at", "output", "usage"}
    told = events[-1]["response"]
    assert whole.json["output"] == told["output"] and whole.json["usage"] == told["usage"]
    assert {key: told[key] for key in told.keys() - same} == {key: whole.json[key] for key in whole.json.keys() - same}
    assert b"[DONE]" not in answer.body and b": holdfast moves=0\n" in answer.body


def test_every_event_is_named_and_carries_an_id() -> None:
    answer = ask(Says(), stream=True)
    for block in answer.body.split(b"\n\n")[:-1]:
        lines = [line for line in block.split(b"\n") if not line.startswith(b":")]
        kind, name, data = (line.partition(b": ")[2] for line in lines)
        assert msgspec.json.decode(data)["type"] == kind.decode()
        assert name.partition(b".")[2].isdigit()


def test_an_answer_that_ran_out_of_tokens_is_incomplete() -> None:
    for stream in (False, True):
        answer = ask(Says("Hello th", finish=Finish.LENGTH), stream=stream)
        event = answer.events()[-1] if stream else None
        made = event["response"] if event else answer.json
        assert made["status"] == "incomplete" and made["incomplete_details"] == {"reason": "max_output_tokens"}
        assert made["output"][0]["status"] == "incomplete"
        assert event is None or event["type"] == "response.incomplete"


def test_an_answer_that_breaks_off_has_failed_and_says_why() -> None:
    answer = ask(Says("Hello there.", fault=EngineLost("three replicas died of it"), fault_after=2), stream=True)
    last = answer.events()[-1]
    assert last["type"] == "response.failed"
    assert last["response"]["error"] == {"code": "engine_lost", "message": "three replicas died of it"}


def test_logprobs_stand_with_the_text_that_they_are_of() -> None:
    ids = ids_of("Well.</think>Yes.")

    async def service(generation: Any) -> Any:
        for i, token in enumerate(ids):
            yield Chunk([token], logprobs=[TokenLogprob(token, -0.25 * i, ((token, -0.25 * i),))])
        yield Chunk([], Finish.STOP)

    fields: Any = {"include": ["message.output_text.logprobs"], "top_logprobs": 1, "reasoning": {"effort": "low"}}
    part = ask(service, **fields).json["output"][1]["content"][0]
    events = [event for event in ask(service, stream=True, **fields).events() if isinstance(event, dict)]
    rows = [row for event in events if event["type"] == "response.output_text.delta" for row in event["logprobs"]]
    assert "".join(row["token"] for row in rows) == "Yes."
    assert part["logprobs"] == rows == events[-1]["response"]["output"][1]["content"][0]["logprobs"]


def test_items_become_turns_and_what_the_assistant_did_in_a_row_is_one() -> None:
    said = read(
        instructions="Be kind.",
        input=[
            {"role": "developer", "content": "Short."},
            {
                "type": "message",
                "role": "user",
                "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}],
            },
            {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {
                "type": "message",
                "id": "m",
                "role": "assistant",
                "content": [{"type": "output_text", "text": "c", "annotations": []}],
            },
            {"type": "function_call", "id": "fc", "call_id": "c1", "name": "look", "arguments": "{}"},
            {"type": "function_call", "call_id": "c2", "name": "look", "arguments": '{"q":1}'},
            {"type": "function_call_output", "call_id": "c1", "output": "one"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "two"}]},
            {"role": "assistant", "content": "d"},
            {"role": "user", "content": "e"},
        ],
    )
    told = [(m.role, m.content, m.reasoning, [(c.id, c.arguments) for c in m.calls], m.call_id) for m in turns(said)]
    assert told == [
        ("system", "Be kind.", "", [], ""),
        ("developer", "Short.", "", [], ""),
        ("user", "a\nb", "", [], ""),
        ("assistant", "c", "hm", [("c1", "{}"), ("c2", '{"q":1}')], ""),
        ("tool", "one", "", [], "c1"),
        ("tool", "two", "", [], "c2"),
        ("assistant", "d", "", [], ""),
        ("user", "e", "", [], ""),
    ]


def test_options_go_where_the_chat_request_has_them() -> None:
    form = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}
    said = read(
        tools=[LOOK], tool_choice={"type": "function", "name": "look"}, parallel_tool_calls=False, seed=3,
        text={"format": form, "verbosity": "low"}, reasoning={"effort": "low", "summary": "auto"}, top_p=0.5, user="u",
    )  # fmt: skip
    assert said.tools[0].function.name == "look" and said.tool_choice["function"]["name"] == "look"
    assert (said.parallel_tool_calls, said.seed, said.reasoning_effort, said.top_p) == (False, 3, "low", 0.5)
    assert said.response_format.json_schema.schema == {"type": "object"}
    assert said.user == "u"
    some = read(
        tools=[LOOK],
        tool_choice={"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "look"}]},
    )
    assert some.tool_choice["allowed_tools"]["mode"] == "required"


@pytest.mark.parametrize(
    ("fields", "param", "why"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id", "nothing is stored here; send the earlier items"),
        ({"conversation": "conv_1"}, "conversation", "nothing is stored here"),
        ({"background": True}, "background", "given while you wait"),
        ({"prompt": {"id": "p"}}, "prompt", "no templates are stored"),
        ({"text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema", "is required"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "'web_search', and nothing runs here; offer a function"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "is required"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice.type", "is not offered"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type", "'item_reference'"),
        ({"input": [{"type": "function_call", "name": "look"}]}, "input[0]", "needs a name, a call_id and arguments"),
        ({"input": [{"type": "function_call_output"}]}, "input[0]", "needs a call_id and an output"),
        ({"input": [{"content": "x"}]}, "input[0]", "needs a role and content"),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image"}]}]},
            "input[0].content[0]",
            "reads text parts only",
        ),
        ({"input": []}, "input", "length >= 1"),
        ({"max_output_tokens": 0}, "max_output_tokens", ">= 1"),
        ({"reasoning": {"effort": "enormous"}}, "reasoning.effort", "enormous"),
    ],
)
def test_what_is_not_offered_is_refused_by_name_with_the_fix(fields: dict[str, Any], param: str, why: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read(**fields)
    assert refused.value.param == param and why in refused.value.why


def test_errors_are_pages_in_openais_shape() -> None:
    answer = ask(Says(), model="gpt-9")
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")
    assert ask(Says(), input=None).error["param"] == "input"
    long = ask(Says(), input="word " * 2000)
    assert (long.error["code"], long.error["param"]) == ("context_length_exceeded", "input")
    unanswerable = ask(Says(), input=[{"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}])
    assert (unanswerable.status, unanswerable.error["param"]) == (400, "input")
    no_tools = ask(Says(), tool_choice="required")
    assert (no_tools.status, no_tools.error["param"]) == (400, "tool_choice")


async def broken(one: Desk, stops: Goes, sent: Any, path: str) -> tuple[str, list[bytes]]:
    """Ask for a stream and break the connection once the service stands still. Returns the answer's name and the events."""
    async with one.place.client() as client:
        client.write(request(sent, path))
        await stops.paused.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        raw = await client.reader.read(1 << 20)
        head, _, rest = raw.partition(b"\r\n\r\n")
        client.writer.transport.abort()
    await one.place.nobody()
    (name,) = [line[19:].decode() for line in head.split(b"\r\n") if line.startswith(b"x-holdfast-answer: ")]
    data = b"".join(line for i, line in enumerate(rest.split(b"\r\n")) if i % 2)
    return name, [block + b"\n\n" for block in data.split(b"\n\n")[:-1]]


def test_another_worker_goes_on_in_the_same_shape_wherever_the_connection_was_lost() -> None:
    count = len(ids_of(LONG))

    async def story(pause: int) -> None:
        shelves, clock, dying = SimShelves(), HandClock(), Goes(pause=pause, text=LONG)
        sent = body(stream=True, reasoning={"effort": "high"}, tools=[LOOK], seed=1, metadata={"k": "v"})
        async with desk(dying, shelves, clock) as one, desk(Goes(text=LONG), shelves, clock, "gateway-1.bb") as other:
            name, events = await broken(one, dying, sent, PATH)
            shelves.die(one.shelf)
            whole = (await other.ask(f"/v1/streams/resp_{name}")).body
            assert whole.startswith(b"".join(events))
            last = next(line[4:] for line in events[-1].split(b"\n") if line.startswith(b"id: ")).decode()
            rest = await other.ask(f"/v1/streams/{name}", last_event_id=last)
            assert b"".join(events) + rest.body == whole
            assert msgspec.json.decode(whole.rpartition(b"data: ")[2])["response"]["tools"][0]["name"] == "look"

    for pause in range(1, count):
        run(story(pause))
