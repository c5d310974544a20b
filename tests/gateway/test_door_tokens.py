"""/v1/tokenize and /v1/detokenize: what a text is in ids, and back."""

from typing import Any

import msgspec
import pytest
from doorway import CARD, PEARL, Answer, HandClock, Says, chat_body, doorway, run

from holdfast.domain.fault import Overloaded, Unauthorised
from holdfast.gateway.access import Access
from holdfast.gateway.needs import Limits

TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]


def ask(path: str, body: Any, **needs: Any) -> Answer:
    async def story() -> Answer:
        async with doorway(Says(), **needs) as place, place.client() as client:
            return await client.ask(body, path)

    return run(story())


def test_a_text_becomes_ids_and_comes_back() -> None:
    text = "naïve 👩 <think>"
    told = ask("/v1/tokenize", {"prompt": text}).json
    assert told["tokens"] == PEARL.complete(text, None) and told["count"] == len(told["tokens"])
    assert told["max_model_len"] == CARD.context_tokens_max
    bare = ask("/tokenize", {"prompt": text, "add_special_tokens": False, "model": "deepseek-chat"}).json
    assert bare["tokens"] == PEARL.encode(text) == told["tokens"][1:]
    assert ask("/v1/detokenize", {"tokens": bare["tokens"]}).json == {"prompt": text}
    assert ask("/detokenize", {"tokens": []}).json == {"prompt": ""}


def test_messages_are_counted_as_the_chat_would_have_them() -> None:
    async def story() -> None:
        says = Says()
        async with doorway(says) as place, place.client() as client:
            body = chat_body("Hi", tools=TOOLS, thinking={"type": "enabled"})
            await client.ask(body)
            told = (await client.ask(body, "/v1/tokenize")).json
            assert told["tokens"] == says.asked[0].prompt_ids

    run(story())


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        ("/v1/tokenize", {}, 400, "prompt"),
        ("/v1/tokenize", {"prompt": "a", "messages": []}, 400, "messages"),
        ("/v1/tokenize", {"prompt": 5}, 400, "prompt"),
        ("/v1/tokenize", {"messages": []}, 400, "messages"),
        ("/v1/tokenize", {"prompt": "a", "model": "gpt"}, 404, "model"),
        ("/v1/detokenize", {}, 400, "tokens"),
        ("/v1/detokenize", {"tokens": [1, -1]}, 400, "tokens[1]"),
        ("/v1/detokenize", {"tokens": [10**9]}, 400, "tokens[0]"),
        ("/v1/detokenize", {"tokens": ["a"]}, 400, "tokens[0]"),
        ("/v1/detokenize", {"tokens": [1], "model": "gpt"}, 404, "model"),
    ],
)
def test_a_wrong_field_is_named(path: str, body: Any, status: int, param: str) -> None:
    answer = ask(path, body)
    assert (answer.status, answer.error["param"]) == (status, param)


def test_strangers_and_those_over_their_rate_are_refused_first() -> None:
    def screen(key: str, body_bytes: int) -> None:
        raise Unauthorised("Send a key.")

    def glance(who: Any, address: str) -> None:
        raise Overloaded("too fast", 1.0, 429)

    assert ask("/v1/tokenize", {"prompt": "a"}, screen=screen).status == 401
    assert ask("/v1/detokenize", {"tokens": [1]}, glance=glance).status == 429


def test_long_texts_and_deep_ones_are_done_or_refused_and_get_is_neither() -> None:
    long = ask("/v1/tokenize", {"prompt": "word " * 50_000}, limits=Limits(large_text_bytes=1024)).json
    assert long["count"] >= 50_000 and len(long["tokens"]) == long["count"]
    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"a": deep}
    tools = [{"type": "function", "function": {"name": "f", "parameters": deep}}]
    assert ask("/v1/tokenize", chat_body(tools=tools)).status in (200, 400)

    async def story() -> Answer:
        async with doorway(Says()) as place:
            return await place.get("/v1/tokenize")

    answer = run(story())
    assert (answer.status, answer.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("path", "body", "count"),
    [
        ("/v1/tokenize", {"prompt": "Hi"}, len(PEARL.complete("Hi", None))),
        ("/v1/detokenize", {"tokens": [5, 6, 7]}, 3),
        ("/v1/tokenize", {"prompt": 7}, 0),
    ],
)
def test_the_access_log_says_how_many_tokens_were_counted(path: str, body: Any, count: int) -> None:
    lines: list[bytes] = []
    ask(path, body, access=Access(lines.append, HandClock().now, lambda: 0.0))
    (line,) = lines
    assert msgspec.json.decode(line)["tokens_in"] == count
