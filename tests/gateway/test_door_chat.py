"""What a client gets for a chat request: fields, streams, errors, text across tokens."""

from typing import Any

import pytest
from doorway import CARD, PEARL, Answer, Says, chat_body, doorway, ids_of, run
from msgspec import structs

from holdfast.domain.fault import EngineLost, Expired, Fault, Limit, NoReplica, Overloaded, Unauthorised
from holdfast.domain.request import Chunk, Finish, Generation, TokenLogprob
from holdfast.gateway.needs import Limits


def ask(service: Any, text: str = "Hi", **fields: Any) -> Answer:
    """One chat over a fresh door."""

    async def story() -> Answer:
        async with doorway(service) as place:
            return await place.chat(text, **fields)

    return run(story())


def deltas(answer: Answer, key: str) -> list[Any]:
    events = [event for event in answer.events() if isinstance(event, dict) and event["choices"]]
    return [event["choices"][0]["delta"][key] for event in events if key in event["choices"][0]["delta"]]


def test_a_whole_answer_has_every_field_of_openai_and_deepseek() -> None:
    says = Says("Hello there.")
    answer = ask(says, "How are you?", seed=11, temperature=0.5, top_p=0.9, max_tokens=50)
    ids = ids_of("Hello there.")
    prompt = len(says.asked[0].prompt_ids)
    body = answer.json
    assert body == {
        "id": f"chatcmpl-{says.asked[0].id}",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": "pearl",
        "system_fingerprint": "fp_" + "ab" * 8,
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "Hello there."},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": len(ids),
            "total_tokens": prompt + len(ids),
            "prompt_cache_hit_tokens": 3,
            "prompt_cache_miss_tokens": prompt - 3,
            "prompt_tokens_details": {"cached_tokens": 3},
            "completion_tokens_details": {"reasoning_tokens": 0},
            "holdfast": {"moves": 0},
        },
    }
    assert answer.headers["x-holdfast-seed"] == "11"
    assert answer.headers["x-holdfast-moves"] == "0"
    assert answer.headers["x-holdfast-continuable"] == "exact; noise is keyed by seed and position"
    assert answer.headers["x-request-id"] == says.asked[0].id
    asked = says.asked[0]
    assert (asked.sampling.temperature, asked.sampling.top_p, asked.max_tokens, asked.seed) == (0.5, 0.9, 50, 11)
    assert asked.stop_ids == PEARL.stop_ids


def test_a_stream_begins_with_the_role_and_ends_with_finish_usage_and_done() -> None:
    answer = ask(Says("Hello there."), stream=True, stream_options={"include_usage": True})
    events = answer.events()
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert "".join(deltas(answer, "content")) == "Hello there."
    assert events[-4]["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert events[-3]["choices"] == [] and events[-3]["usage"]["completion_tokens"] == len(ids_of("Hello there."))
    assert events[-2:] == [("comment", "holdfast moves=0"), "[DONE]"]
    assert all(event["usage"] is None for event in events[:-3])
    assert len({event["id"] for event in events[:-2]}) == 1


def test_without_include_usage_no_event_speaks_of_usage() -> None:
    assert not any("usage" in event for event in ask(Says(), stream=True).events() if isinstance(event, dict))


def test_reasoning_comes_first_under_its_own_name_and_is_counted() -> None:
    text = "It is 4.</think>Four."
    thinking = {"type": "enabled"}
    whole = ask(Says(text), thinking=thinking).json
    assert whole["choices"][0]["message"] == {"role": "assistant", "content": "Four.", "reasoning_content": "It is 4."}
    counted = whole["usage"]["completion_tokens_details"]["reasoning_tokens"]
    assert counted == len(ids_of("It is 4.")) + 1
    streamed = ask(Says(text), thinking=thinking, stream=True)
    assert "".join(deltas(streamed, "reasoning_content")) == "It is 4."
    assert "".join(deltas(streamed, "content")) == "Four."


@pytest.mark.parametrize(
    ("fields", "thinks"),
    [
        ({}, False),
        ({"model": "deepseek-chat"}, False),
        ({"model": "deepseek-reasoner"}, True),
        ({"model": "deepseek-reasoner", "thinking": {"type": "disabled"}}, False),
        ({"reasoning_effort": "high"}, True),
        ({"reasoning_effort": "none"}, False),
        ({"thinking": {"type": "enabled"}}, True),
    ],
)
def test_the_name_thinking_and_effort_decide_whether_it_thinks(fields: dict[str, Any], thinks: bool) -> None:
    says = Says()
    answer = ask(says, **fields)
    assert says.asked[0].prompt_ids[-1] == ids_of("<think>" if thinks else "</think>")[0]
    assert answer.json["model"] == fields.get("model", "pearl")


def test_a_stop_string_that_spans_tokens_cuts_before_it_and_frees_the_replica() -> None:
    says = Says("one two three four", hold=False)
    answer = ask(says, stop=["o th", "never"])
    assert answer.json["choices"][0]["message"]["content"] == "one tw"
    assert answer.json["choices"][0]["finish_reason"] == "stop"
    assert says.closed.is_set() and says.said < len(ids_of("one two three four"))
    streamed = ask(Says("one two three four"), stop="three", stream=True)
    assert "".join(deltas(streamed, "content")) == "one two "


def test_text_held_back_for_a_stop_string_is_given_when_it_was_none() -> None:
    assert ask(Says("say endo"), stop="endover").json["choices"][0]["message"]["content"] == "say endo"


def test_characters_of_many_bytes_are_never_split() -> None:
    text = "naïve 日本語 👩‍🚀!"
    answer = ask(Says(text), stream=True)
    parts = deltas(answer, "content")
    assert "".join(parts) == text
    assert not any("\ufffd" in part for part in parts)


def test_a_tool_call_is_handed_over_whole() -> None:
    text = '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>add<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    says = Says(text)
    choice = ask(says, tools=tools).json["choices"][0]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] is None
    call = choice["message"]["tool_calls"][0]
    assert call["type"] == "function" and call["function"] == {"name": "add", "arguments": '{"a": 1}'}
    assert call["id"] == f"call_0_{says.asked[0].id}"
    streamed = ask(Says(text), tools=tools, stream=True)
    (calls,) = deltas(streamed, "tool_calls")
    assert calls[0]["index"] == 0 and calls[0]["function"]["arguments"] == '{"a": 1}'
    assert [e for e in streamed.events() if isinstance(e, dict)][-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_json_mode_and_tools_reach_the_prompt() -> None:
    says = Says("{}")
    tools = [{"type": "function", "function": {"name": "add", "description": "sums"}}]
    ask(says, response_format={"type": "json_object"}, tools=tools)
    prompt = b"".join(PEARL.bytes_of(token) for token in says.asked[0].prompt_ids).decode()
    assert "Tools:\n- add: sums {}" in prompt and "Answer with one JSON object." in prompt
    without = Says("x")
    ask(without, tools=tools, tool_choice="none")
    assert b"Tools" not in b"".join(PEARL.bytes_of(token) for token in without.asked[0].prompt_ids)


def test_length_is_said_and_max_tokens_never_exceeds_the_context() -> None:
    says = Says("cut", finish=Finish.LENGTH)
    assert ask(says, max_tokens=999_999).json["choices"][0]["finish_reason"] == "length"
    assert says.asked[0].max_tokens == CARD.context_tokens_max - len(says.asked[0].prompt_ids)


def test_a_seed_is_drawn_and_told_so_that_the_answer_can_be_repeated() -> None:
    says = Says()
    answer = ask(says)
    assert int(answer.headers["x-holdfast-seed"]) == says.asked[0].seed < 2**53


def test_waiting_is_a_comment_in_a_stream_and_silence_otherwise() -> None:
    before = [Chunk([], waiting="3 wait before it"), Chunk([], waiting="2 wait before it")]
    events = ask(Says(before=before), stream=True).events()
    assert events[0]["choices"][0]["delta"]["role"] == "assistant"
    assert events[1:3] == [("comment", "keep-alive; 3 wait before it"), ("comment", "keep-alive; 2 wait before it")]
    assert ask(Says(before=before)).json["choices"][0]["message"]["content"] == "Hello there."


def test_moves_are_told() -> None:
    async def moved(generation: Generation) -> Any:
        yield Chunk(ids_of("Hel"))
        yield Chunk(ids_of("lo"), moves=2)
        yield Chunk([], finish=Finish.STOP, moves=2)

    answer = ask(moved)
    assert answer.headers["x-holdfast-moves"] == "2" and answer.json["usage"]["holdfast"] == {"moves": 2}
    assert ("comment", "holdfast moves=2") in ask(moved, stream=True).events()


def test_logprobs_go_with_their_tokens() -> None:
    token = ids_of("Hello")[0]

    async def told(generation: Generation) -> Any:
        assert generation.sampling.logprobs == 2
        yield Chunk([token], logprobs=[TokenLogprob(token, -0.5, ((token, -0.5), (ids_of("!")[0], -2.0)))])
        yield Chunk([], finish=Finish.STOP)

    raw = PEARL.bytes_of(token)
    row = {"token": raw.decode(), "logprob": -0.5, "bytes": list(raw)}
    expected = row | {"top_logprobs": [row, {"token": "!", "logprob": -2.0, "bytes": [33]}]}
    whole = ask(told, logprobs=True, top_logprobs=2).json["choices"][0]["logprobs"]["content"]
    assert whole == [expected]
    streamed = [e for e in ask(told, logprobs=True, top_logprobs=2, stream=True).events() if isinstance(e, dict)]
    assert [e["choices"][0]["logprobs"] for e in streamed] == [None, {"content": [expected]}, None]


@pytest.mark.parametrize(
    ("fault", "status", "told"),
    [
        (Unauthorised("no key"), 401, ("authentication_error", "invalid_api_key", None)),
        (Overloaded("too fast", 2.2, 429), 429, ("rate_limit_error", "rate_limit_exceeded", "3")),
        (Overloaded("full", 0.1), 503, ("overloaded_error", "overloaded", "1")),
        (NoReplica("none serves"), 503, ("overloaded_error", "no_replica", "1")),
        (EngineLost("cut twice"), 503, ("overloaded_error", "engine_lost", "1")),
        (Expired("too late"), 504, ("timeout_error", "deadline_exceeded", None)),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_before_the_first_token_is_a_status(
    fault: Fault, status: int, told: tuple[str, str, str | None], stream: bool
) -> None:
    kind, code, retry = told
    answer = ask(Says(fault=fault), stream=stream)
    assert answer.status == status
    said = answer.error
    assert ("limit" in said) == isinstance(fault, Overloaded)
    said.pop("limit", None)
    assert said == {"message": fault.why, "type": kind, "param": None, "code": code}
    assert answer.headers.get("retry-after") == retry


def test_a_refusal_tells_which_limit_how_much_was_used_and_when_it_frees() -> None:
    limit = Limit("tenant_quota", 990.0, 1000.0, "tokens/min", 2.34)
    answer = ask(Says(fault=Overloaded("tenant acme has used up its quota", 1.7, 429, limit)))
    told = {"name": "tenant_quota", "used": 990.0, "size": 1000.0, "unit": "tokens/min", "frees_s": 2.34}
    assert answer.error["limit"] == told
    assert (answer.headers["retry-after"], answer.headers["retry-after-ms"]) == ("2", "1700")


def test_a_fault_in_a_stream_is_an_error_event_and_no_done() -> None:
    async def story() -> None:
        async with doorway(Says(fault=EngineLost("cut off"), fault_after=2)) as place, place.client() as client:
            answer = await client.chat(stream=True)
            assert answer.status == 200
            assert answer.events()[-1]["error"]["message"] == "cut off"
            assert "[DONE]" not in answer.events()
            assert await client.ended()
            assert place.door.tally.cut == 1

    run(story())


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"temperature": 3}, "temperature", "<= 2"),
        ({"temperature": "hot"}, "temperature", "float"),
        ({"top_p": 0}, "top_p", "> 0"),
        ({"n": 9}, "n", "<= 8"),
        ({"n": 0}, "n", ">= 1"),
        ({"stop": ["x"] * 17}, "stop", "at most 16"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "<= 20"),
        ({"top_logprobs": 2}, "top_logprobs", "logprobs=true"),
        ({"max_tokens": 0}, "max_tokens", ">= 1"),
        ({"presence_penalty": -2.5}, "presence_penalty", ">= -2"),
        ({"logit_bias": {"x": 1}}, "logit_bias", "token ids"),
        ({"logit_bias": {"-1": 1}}, "logit_bias", "token ids"),
        ({"logit_bias": {"999999": 1}}, "logit_bias", "token ids"),
        ({"logit_bias": {str(n): 0 for n in range(1025)}}, "logit_bias", "at most 1024"),
        ({"stop": "x" * 1025}, "stop", "shorter"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "json_object"),
        ({"thinking": {"type": "maybe"}}, "thinking.type", "enum"),
        ({"messages": []}, "messages", ">= 1"),
        ({"messages": [{"role": "pope", "content": "x"}]}, "messages[0].role", "enum"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "needs text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content[0]", "text parts"),
        ({"messages": [{"role": "assistant", "content": "x"}]}, "messages", "must end"),
    ],
)
def test_a_wrong_field_is_named_with_its_fix(change: dict[str, Any], param: str, words: str) -> None:
    says = Says()
    answer = ask(says, **change)
    assert answer.status == 400 and says.asked == []
    assert answer.error["type"] == "invalid_request_error"
    assert answer.error["param"] == param
    assert words in answer.error["message"]


def test_a_missing_field_is_named() -> None:
    async def story() -> None:
        async with doorway(Says()) as place, place.client() as client:
            answer = await client.ask({"model": "pearl"})
            assert (answer.status, answer.error["param"]) == (400, "messages")
            answer = await client.ask(b"{nonsense")
            assert (answer.status, answer.error["code"]) == (400, "invalid_json")
            answer = await client.ask(b'{"model":"pearl","messages":' + b"[" * 100_000)
            assert (answer.status, answer.error["type"]) == (400, "invalid_request_error")
            deep: dict[str, Any] = {}
            for _ in range(900):
                deep = {"a": deep}
            answer = await client.ask(chat_body(tools=[{"function": {"name": "f", "parameters": deep}}]))
            assert answer.status in (200, 400) and place.door.tally.mistakes == 0
            answer = await client.ask(chat_body(tools=[{"function": {"name": "f", "parameters": {}}}]))
            assert answer.status == 200

    run(story())


def test_an_unknown_model_is_404_and_says_what_there_is() -> None:
    answer = ask(Says(), model="gpt-9")
    assert (answer.status, answer.error["code"], answer.error["param"]) == (404, "model_not_found", "model")
    assert "pearl, deepseek-chat, deepseek-reasoner" in answer.error["message"]


def test_a_prompt_longer_than_the_context_is_refused_without_a_replica() -> None:
    says = Says()
    for text in ("word " * 2000, "x" * 100_000):
        answer = ask(says, text)
        assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert says.asked == []


def test_a_large_text_is_tokenised_elsewhere_to_the_same_ids() -> None:
    says = Says()

    async def story() -> None:
        card = structs.replace(CARD, context_tokens_max=100_000)
        async with doorway(says, card=lambda: card) as place:
            assert (await place.chat("word " * 20_000)).status == 200

    run(story())
    assert says.asked[0].prompt_ids[2:-2] == ids_of("word " * 20_000)


def test_text_parts_are_joined_and_user_markers_stay_text() -> None:
    says = Says()
    ask(says, [{"type": "text", "text": "one"}, {"type": "text", "text": "<｜User｜>"}])
    asked = says.asked[0].prompt_ids
    assert b"".join(PEARL.bytes_of(token) for token in asked[2:-2]).decode() == "one\n<｜User｜>"
    assert asked.count(ids_of("<｜User｜>")[0]) == 1


def test_the_key_and_the_deadline_travel_with_the_generation() -> None:
    says = Says()

    async def story() -> None:
        async with doorway(says, Limits(deadline_s=60)) as place, place.client() as client:
            body = chat_body()
            await client.ask(body, x_holdfast_deadline_s="999")
            await client.ask(body, authorization="Bearer sk-1", x_holdfast_deadline_s="2.5", x_request_id="my-id.7")
            for wrong in [await client.ask(body, x_holdfast_deadline_s=odd) for odd in ("soon", "-1", "nan", "inf")]:
                assert (wrong.status, wrong.error["param"]) == (400, "x-holdfast-deadline-s")
            odd = await client.ask(body, x_request_id="bad id; drop")
            assert odd.headers["x-request-id"] == says.asked[2].id

    run(story())
    assert (says.asked[1].key, says.asked[1].deadline) == ("sk-1", 2.5)
    assert says.asked[0].deadline == says.asked[2].deadline == 60


def test_a_screen_refuses_before_anything_is_read() -> None:
    says = Says()

    def screen(key: str, size: int) -> None:
        if key != "good":
            raise Unauthorised("the API key is not known here")

    async def story() -> None:
        async with doorway(says, screen=screen) as place, place.client() as client:
            assert (await client.ask(b"not even json")).status == 401
            assert (await client.ask(None, "/v1/models")).status == 401
            assert (await client.ask(chat_body(), authorization="Bearer good")).status == 200
            assert (await client.ask(None, "/v1/models", authorization="bearer good")).status == 200

    run(story())
