"""POST /anthropic/v1/messages through the door: what is understood, what comes back, is refused, and survives a loss."""

from typing import Any

import msgspec
import pytest
from doorway import PEARL, Answer, HandClock, Says, doorway, ids_of, run
from test_door_resume import Goes, desk
from test_responses import CALL, LONG, broken

from holdfast.domain.fault import BadRequest, EngineLost, Overloaded, Unauthorised
from holdfast.domain.request import Finish
from holdfast.gateway.anthropic_wire import decode, decode_count
from holdfast.gateway.openai_turns import turns
from holdfast.sim.shelf import SimShelves

PATH = "/anthropic/v1/messages"
LOOK = {
    "name": "look",
    "description": "Looks.",
    "input_schema": {"type": "object"},
    "cache_control": {"type": "ephemeral"},
}
THINKING = {"type": "enabled", "budget_tokens": 1024}


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "pearl", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}], **fields}


def ask(service: Any, head: dict[str, str] | None = None, **fields: Any) -> Answer:
    async def story() -> Answer:
        async with doorway(service) as place, place.client() as client:
            return await client.ask(body(**fields), PATH, **(head or {}))

    return run(story())


def read(**fields: Any) -> Any:
    return decode(msgspec.json.encode(body(**fields)))


def events_of(answer: Answer) -> list[Any]:
    return [event for event in answer.events() if isinstance(event, dict)]


def test_a_whole_message_has_every_field() -> None:
    says = Says("Hello there.")
    answer = ask(says, system="Be kind.", temperature=0.5, top_k=7, top_p=0.9)
    prompt = len(says.asked[0].prompt_ids)
    assert answer.json == {
        "id": f"msg_{says.asked[0].id}",
        "type": "message",
        "role": "assistant",
        "model": "pearl",
        "content": [{"type": "text", "text": "Hello there."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": prompt - 3,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 3,
            "output_tokens": len(ids_of("Hello there.")),
            "output_tokens_details": {"thinking_tokens": 0},
        },
    }
    sampling = says.asked[0].sampling
    assert (says.asked[0].max_tokens, sampling.temperature, sampling.top_k, sampling.top_p) == (100, 0.5, 7, 0.9)


def test_a_stream_starts_and_stops_thinking_text_and_tool_use_in_order() -> None:
    says = Says(LONG)
    answer = ask(says, stream=True, thinking=THINKING, tools=[LOOK])
    events, name = events_of(answer), says.asked[0].id
    kinds: list[str] = []
    for event in events:
        kind = event["delta"]["type"] if event["type"] == "content_block_delta" else event["type"]
        if not (kinds and kind.endswith("_delta") and kinds[-1] == kind):
            kinds.append(kind)
    assert kinds == [
        "message_start", "ping",
        "content_block_start", "thinking_delta", "signature_delta", "content_block_stop",
        "content_block_start", "text_delta", "content_block_stop",
        "content_block_start", "input_json_delta", "content_block_stop",
        "message_delta", "message_stop",
    ]  # fmt: skip
    assert events[0]["message"]["content"] == [] and events[0]["message"]["usage"]["output_tokens"] == 0
    starts = [event["content_block"] for event in events if event["type"] == "content_block_start"]
    assert starts[2] == {"type": "tool_use", "id": f"toolu_0_{name}", "name": "look", "input": {}}
    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(delta.get("partial_json", "") for delta in deltas) == '{"q": "é"}'
    assert events[-2]["delta"] == {"stop_reason": "tool_use", "stop_sequence": None}
    for block in answer.body.split(b"\n\n")[:-1]:
        kind, mark, data = (line.partition(b": ")[2] for line in block.split(b"\n") if not line.startswith(b":"))
        assert msgspec.json.decode(data)["type"] == kind.decode() and mark.partition(b".")[2].isdigit()
    whole = ask(Says(LONG), thinking=THINKING, tools=[LOOK]).json
    assert whole["content"] == [
        {"type": "thinking", "thinking": "It is 4, I think.", "signature": name},
        {"type": "text", "text": "Let me look."},
        {"type": "tool_use", "id": f"toolu_0_{name}", "name": "look", "input": {"q": "é"}},
    ]
    assert (whole["stop_reason"], whole["usage"]) == ("tool_use", events[-2]["usage"])


def test_why_it_stopped_is_told_and_which_stop_sequence_it_was() -> None:
    asked: Any = {"stop_sequences": ["never", "o th"]}
    assert ask(Says("one two three"), **asked).json["stop_sequence"] == "o th"
    delta = events_of(ask(Says("one two three"), stream=True, **asked))[-2]["delta"]
    assert delta == {"stop_reason": "stop_sequence", "stop_sequence": "o th"}
    assert ask(Says("one", finish=Finish.LENGTH)).json["stop_reason"] == "max_tokens"


def test_thinking_is_off_unless_asked_for_and_its_budget_bounds_it() -> None:
    think, end = ids_of("<think></think>")
    for thinking, mode, most in (
        (None, end, 0), ({"type": "disabled"}, end, 0), (THINKING, think, 1024), ({"type": "adaptive"}, think, 0)
    ):  # fmt: skip
        says = Says()
        ask(says, **({"thinking": thinking} if thinking else {}), output_config={"effort": "high"})
        assert (says.asked[0].prompt_ids[-1], says.asked[0].thinking_max) == (mode, most)


def test_a_claude_is_the_sites_own_model_and_any_other_stranger_is_none() -> None:
    assert ask(Says(), model="claude-sonnet-4-5").json["model"] == "pearl"
    answer = ask(Says(), model="gpt-9")
    assert (answer.status, answer.error["type"]) == (404, "not_found_error")


def test_blocks_become_turns() -> None:
    said = read(
        system=[{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "b"}],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "c"}, {"type": "text", "text": "d"}]},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hm", "signature": "s"},
                    {"type": "text", "text": "e"},
                    {"type": "tool_use", "id": "t1", "name": "look", "input": {"q": 1}},
                    {"type": "tool_use", "id": "t2", "name": "look", "input": {"INVALID_JSON": "{q"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": "one"},
                    {
                        "type": "tool_result",
                        "tool_use_id": "t2",
                        "content": [{"type": "text", "text": "two"}],
                        "is_error": True,
                    },
                    {"type": "text", "text": "f"},
                ],
            },
            {"role": "assistant", "content": "g"},
        ],
    )
    told = [
        (m.role, m.content, m.reasoning, [(c.id, c.arguments) for c in m.calls], m.call_id, m.prefix)
        for m in turns(said)
    ]
    assert told == [
        ("system", "a\nb", "", [], "", False),
        ("user", "c\nd", "", [], "", False),
        ("assistant", "e", "hm", [("t1", '{"q": 1}'), ("t2", "{q")], "", False),
        ("tool", "one", "", [], "t1", False),
        ("tool", "two", "", [], "t2", False),
        ("user", "f", "", [], "", False),
        ("assistant", "g", "", [], "", True),
    ]


def test_options_go_where_the_chat_request_has_them() -> None:
    words = {"auto": "auto", "any": "required", "none": "none"}
    for theirs, ours in words.items():
        assert read(tools=[LOOK], tool_choice={"type": theirs}).tool_choice == ours
    said = read(
        tools=[{**LOOK, "strict": True}], tool_choice={"type": "tool", "name": "look", "disable_parallel_tool_use": True},
        metadata={"user_id": "u"}, seed=5, output_config={"format": {"type": "json_schema", "schema": {"type": "object"}}},
    )  # fmt: skip
    assert said.tool_choice == {"type": "function", "function": {"name": "look"}}
    assert (said.parallel_tool_calls, said.user_id, said.seed) == (False, "u", 5)
    assert said.response_format.json_schema.schema == {"type": "object"}
    assert said.tools[0].function.parameters == {"type": "object"} and said.tools[0].function.strict


IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}


@pytest.mark.parametrize(
    ("fields", "param", "why"),
    [
        ({"max_tokens": None}, "max_tokens", "Expected `int`"),
        ({"messages": []}, "messages", "length >= 1"),
        (
            {"messages": [{"role": "user", "content": [IMAGE]}]},
            "messages[0].content[0]",
            "'image'; this model reads text and tool_result",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]},
            "messages[0].content[0].tool_use_id",
            "needs a tool_use_id",
        ),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [IMAGE]}]}
                ]
            },
            "messages[0].content[0].content[0]",
            "'image'",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]}]},
            "messages[0].content[0]",
            "'redacted_thinking'",
        ),
        (
            {"messages": [{"role": "assistant", "content": [{"type": "tool_use"}]}]},
            "messages[0].content[0]",
            "needs an id, a name",
        ),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            "tools[0].type",
            "nothing runs here; offer a tool of your own",
        ),
        ({"tools": [{"input_schema": {}}]}, "tools[0].name", "is required"),
        ({"tool_choice": {"type": "some"}}, "tool_choice.type", "some"),
        ({"temperature": 3}, "temperature", "<= 2"),
        ({"metadata": {"user_id": "x" * 600}}, "metadata.user_id", "length <= 512"),
        ({"stop_sequences": ["x"] * 17}, "stop_sequences", "length <= 16"),
        ({"stop_sequences": [""]}, "stop_sequences[0]", "length >= 1"),
    ],
)
def test_what_is_not_offered_is_refused_by_name_with_the_fix(fields: dict[str, Any], param: str, why: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read(**fields)
    assert refused.value.param == param and why in refused.value.why


def test_max_tokens_is_required_except_for_counting() -> None:
    sent = body()
    del sent["max_tokens"]
    with pytest.raises(BadRequest, match="max_tokens is required; send it"):
        decode(msgspec.json.encode(sent))
    assert decode_count(msgspec.json.encode(sent)).model == "pearl"


@pytest.mark.parametrize(
    ("fault", "status", "kind"),
    [
        (BadRequest("no", "x"), 400, "invalid_request_error"),
        (Unauthorised("who?"), 401, "authentication_error"),
        (Overloaded("full", 2.0), 503, "overloaded_error"),
        (Overloaded("enough", 2.0, 429), 429, "rate_limit_error"),
        (EngineLost("gone"), 503, "overloaded_error"),
    ],
)
def test_errors_have_anthropics_shape(fault: Exception, status: int, kind: str) -> None:
    answer = ask(Says(fault=fault))
    assert (answer.status, answer.json["type"], answer.error["type"]) == (status, "error", kind)
    assert answer.error["message"] == str(fault)


def test_an_answer_that_breaks_off_ends_with_an_error_event() -> None:
    answer = ask(Says("Hello there.", fault=EngineLost("three replicas died of it"), fault_after=2), stream=True)
    assert b"event: error\ndata: " in answer.body
    last = answer.events()[-1]
    assert last["type"] == "error" and last["error"]["message"] == "three replicas died of it"


def test_the_key_may_come_as_x_api_key() -> None:
    for head in (
        {"x_api_key": "k1"},
        {"authorization": "Bearer k1"},
        {"authorization": "Bearer k1", "x_api_key": "k2"},
    ):
        says = Says()
        assert ask(says, {**head, "anthropic_version": "2023-06-01"}).status == 200
        assert says.asked[0].key == "k1"


def test_arguments_that_are_no_object_are_kept_and_named() -> None:
    broken_call = CALL.replace('{"q": "é"}', '{"q": ')
    (block,) = ask(Says(broken_call), tools=[LOOK]).json["content"]
    assert block["input"] == {"INVALID_JSON": '{"q": '}


def test_another_worker_goes_on_in_the_same_shape_wherever_the_connection_was_lost() -> None:
    async def story(pause: int) -> None:
        shelves, clock, dying = SimShelves(), HandClock(), Goes(pause=pause, text=LONG)
        sent = body(stream=True, thinking={"type": "adaptive"}, tools=[LOOK], seed=1, stop_sequences=["never"])
        async with desk(dying, shelves, clock) as one, desk(Goes(text=LONG), shelves, clock, "gateway-1.bb") as other:
            name, events = await broken(one, dying, sent, PATH)
            shelves.die(one.shelf)
            whole = (await other.ask(f"/v1/streams/msg_{name}")).body
            assert whole.startswith(b"".join(events))
            last = next(line[4:] for line in events[-1].split(b"\n") if line.startswith(b"id: ")).decode()
            rest = await other.ask(f"/v1/streams/{name}", last_event_id=last)
            assert b"".join(events) + rest.body == whole

    for pause in range(1, len(ids_of(LONG))):
        run(story(pause))


def test_tokens_are_counted_without_an_answer() -> None:
    async def story() -> None:
        says = Says()
        async with doorway(says) as place, place.client() as client:
            sent = body(system="Be kind.", tools=[LOOK])
            whole = await client.ask(sent, PATH)
            del sent["max_tokens"]
            counted = await client.ask(sent, PATH + "/count_tokens")
            usage = whole.json["usage"]
            assert counted.json == {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]}
            assert len(says.asked) == 1
            wrong = await client.ask({"model": "pearl"}, PATH + "/count_tokens")
            assert (wrong.status, wrong.error["type"]) == (400, "invalid_request_error")
            assert (await client.ask(None, PATH + "/count_tokens")).json["type"] == "error"

    run(story())
    assert PEARL.vocab_size
