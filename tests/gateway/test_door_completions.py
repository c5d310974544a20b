"""Raw prompts at /v1/completions: text, ids, several of them, a hole to be filled; and all of it again from another worker."""

import asyncio
from typing import Any

import msgspec
import pytest
from doorway import CARD, PEARL, Answer, HandClock, Says, doorway, ids_of, request, run
from hypothesis import given
from hypothesis import strategies as st
from test_door_choices import Each
from test_door_resume import TEXT, Goes, desk

from holdfast.domain.request import Chunk, Finish, Generation, TokenLogprob
from holdfast.gateway.plain import Plain
from holdfast.sim.shelf import SimShelves

BOS = PEARL.complete("", None)


def body(prompt: Any = "Once upon", **fields: Any) -> dict[str, Any]:
    return {"model": "pearl", "prompt": prompt, **fields}


def ask(service: Any, prompt: Any = "Once upon", path: str = "/v1/completions", **fields: Any) -> Answer:
    async def story() -> Answer:
        async with doorway(service) as place, place.client() as client:
            return await client.ask(body(prompt, **fields), path)

    return run(story())


def text_in(answer: Answer) -> str:
    return "".join(e["choices"][0]["text"] for e in answer.events() if isinstance(e, dict) and e["choices"])


@pytest.mark.parametrize("path", ["/v1/completions", "/completions", "/beta/completions"])
def test_a_whole_completion_has_every_field(path: str) -> None:
    says = Says(" a time.")
    answer = ask(says, path=path, seed=1)
    (asked,) = says.asked
    assert asked.prompt_ids == [*BOS, *PEARL.encode("Once upon")]
    assert asked.max_tokens == 16
    usage = answer.json.pop("usage")
    assert {k: v for k, v in answer.json.items() if k != "usage"} == {
        "id": f"cmpl-{asked.id}",
        "object": "text_completion",
        "created": 1_700_000_000,
        "model": "pearl",
        "system_fingerprint": "fp_" + "ab" * 8,
        "choices": [{"index": 0, "text": " a time.", "logprobs": None, "finish_reason": "stop"}],
    }
    assert usage["prompt_tokens"] == len(asked.prompt_ids) and usage["completion_tokens"] == len(ids_of(" a time."))


def test_a_stream_is_text_a_finish_usage_and_done() -> None:
    answer = ask(Says(" a time."), stream=True, stream_options={"include_usage": True})
    events = answer.events()
    assert text_in(answer) == " a time."
    assert events[-4]["choices"] == [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}]
    assert events[-3]["choices"] == [] and events[-3]["usage"]["completion_tokens"] == len(ids_of(" a time."))
    assert events[-1] == "[DONE]"


def test_there_are_no_channels_markers_are_text_and_the_end_is_not() -> None:
    text = "a<think>b</think>c<｜end▁of▁sentence｜>"
    assert ask(Says(text)).json["choices"][0]["text"] == "a<think>b</think>c"


def test_prompts_may_be_ids_and_several() -> None:
    says = Says("x")
    assert ask(says, [5, 6, 7]).json["choices"][0]["text"] == "x"
    assert says.asked[0].prompt_ids == [5, 6, 7]
    each = Each()
    rows = ask(each, ["a", "b", "c"]).json["choices"]
    assert [(row["index"], row["text"]) for row in rows] == list(enumerate(each.texts))
    assert [one.prompt_ids for one in each.asked] == [[*BOS, *PEARL.encode(p)] for p in "abc"]
    many = Each(tuple("abcd"))
    answer = ask(many, [[1, 2], [3]], n=2)
    assert [one.prompt_ids for one in many.asked] == [[1, 2], [1, 2], [3], [3]]
    assert answer.json["usage"]["prompt_tokens"] == 3, "a prompt that several choices share counts once"
    assert [row["text"] for row in answer.json["choices"]] == list("abcd")


def test_a_hole_is_filled_where_the_vocabulary_has_marks_for_one() -> None:
    class Fills:
        def __getattr__(self, name: str) -> Any:
            return getattr(PEARL, name)

        def complete(self, prompt: str, suffix: str | None) -> list[int]:
            return [1, *PEARL.encode(prompt), 2, *PEARL.encode(suffix or ""), 3]

    async def story() -> None:
        says = Says("x")
        async with doorway(says, dialect=Fills()) as place, place.client() as client:
            await client.ask(body("def f(", suffix="return"), "/beta/completions")
        assert says.asked[0].prompt_ids == [1, *PEARL.encode("def f("), 2, *PEARL.encode("return"), 3]

    run(story())


def test_the_prompt_is_repeated_where_echo_asks_for_it() -> None:
    assert ask(Says(" a time."), echo=True).json["choices"][0]["text"] == "Once upon a time."
    ids = PEARL.encode("Once upon")
    assert ask(Says(" a time."), ids, echo=True).json["choices"][0]["text"] == "Once upon a time."
    assert text_in(ask(Says(" a time."), echo=True, stream=True)) == "Once upon a time."


def rows_in(answer: Answer) -> dict[str, list[Any]]:
    """The logprobs of a stream, joined."""
    joined: dict[str, list[Any]] = {}
    for event in answer.events():
        if isinstance(event, dict) and event["choices"] and event["choices"][0]["logprobs"]:
            for key, rows in event["choices"][0]["logprobs"].items():
                joined.setdefault(key, []).extend(rows)
    return joined


class Told:
    """Says a text with logprobs."""

    def __init__(self, text: str) -> None:
        self.ids = PEARL.encode(text)

    async def __call__(self, generation: Generation) -> Any:
        for i, token in enumerate(self.ids[len(generation.delivered_ids) :]):
            yield Chunk([token], logprobs=[TokenLogprob(token, -0.5 * i, ((token, -0.5 * i), (0, -9.0)))])
        yield Chunk([], finish=Finish.STOP)


def test_logprobs_have_their_old_shape_whole_and_streamed() -> None:
    told = Told("naïve 👩")
    whole = ask(told, logprobs=2).json["choices"][0]["logprobs"]
    count = len(told.ids)
    assert {key: len(rows) for key, rows in whole.items()} == dict.fromkeys(whole, count)
    raws = [PEARL.bytes_of(token) for token in told.ids]
    for raw, token, offset in zip(raws, whole["tokens"], whole["text_offset"], strict=True):
        if token.startswith("bytes:"):
            assert token == "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)
        else:
            assert "naïve 👩"[offset : offset + len(token)] == token
    assert whole["token_logprobs"] == [-0.5 * i for i in range(count)]
    assert set(whole["top_logprobs"][0]) == {whole["tokens"][0], PEARL.bytes_of(0).decode()}
    assert rows_in(ask(told, logprobs=2, stream=True)) == whole


@pytest.mark.parametrize(
    ("prompt", "fields", "param", "words"),
    [
        ([], {}, "prompt", "empty"),
        (["a"] * 9, {}, "prompt", "at most 8"),
        (["a", "b"], {"n": 5}, "n", "at most 8"),
        (["a", 5], {}, "prompt", "mixes"),
        (["a", [5]], {}, "prompt", "mixes"),
        ([[5], []], {}, "prompt[1]", "no token"),
        ([5, -1], {}, "prompt", "token ids are 0 to"),
        ([5, 10**6], {}, "prompt", "token ids are 0 to"),
        (7, {}, "prompt", "Expected"),
        ("a" * 50_000, {}, "prompt", "context"),
        ([5] * CARD.context_tokens_max, {}, "prompt", "context"),
        ("a", {"suffix": "b"}, "suffix", "no marks"),
        ([5], {"suffix": "b"}, "suffix", "as text"),
        ("a", {"best_of": 3}, "best_of", "n"),
        ("a", {"echo": True, "logprobs": 1}, "echo", "logprobs"),
        ("a", {"echo": True, "suffix": "b"}, "echo", "suffix"),
        ("a", {"logprobs": 21}, "logprobs", "<= 20"),
        ("a", {"max_tokens": 0}, "max_tokens", ">= 1"),
        ("a", {"guided_json": {}}, "guided_json", "response_format"),
        ("a", {"tools": []}, "tools", "/v1/chat/completions"),
    ],
)
def test_a_wrong_field_is_named_with_its_fix(prompt: Any, fields: dict[str, Any], param: str, words: str) -> None:
    says = Says()
    answer = ask(says, prompt, **fields)
    assert (answer.status, says.asked) == (400, [])
    assert answer.error["param"] == param
    assert words in answer.error["message"]


def test_best_of_that_asks_for_no_more_than_n_is_fine_and_a_model_that_is_none_is_named() -> None:
    assert ask(Each(), n=2, best_of=2).status == 200
    assert ask(Says(), model="gpt").status == 404


def test_another_worker_goes_on_with_it_in_the_same_shape() -> None:
    async def story() -> None:
        shelves, clock, goes = SimShelves(), HandClock(), Goes(pause=6)
        async with desk(goes, shelves, clock) as one, desk(Goes(), shelves, clock, "gateway-1.bb") as other:
            async with one.place.client() as client:
                client.write(request(body(stream=True, echo=True), "/v1/completions", x_holdfast_resume="yes"))
                await goes.paused.wait()
                for _ in range(20):
                    await asyncio.sleep(0)
                head, _, _ = (await client.reader.read(1 << 16)).partition(b"\r\n\r\n")
                client.writer.transport.abort()
            await one.place.nobody()
            (name,) = [line[19:].decode() for line in head.split(b"\r\n") if line.startswith(b"x-holdfast-answer: ")]
            asking = asyncio.ensure_future(other.ask(f"/v1/streams/cmpl-{name}", last_event_id="4"))
            goes.go.set()
            answer = await asking
            assert answer.status == 200
            assert text_in(answer) == PEARL_TEXT_FROM_4
            assert all(e["object"] == "text_completion" for e in answer.events() if isinstance(e, dict))

    run(story())


PEARL_TEXT_FROM_4 = b"".join(PEARL.bytes_of(token) for token in ids_of(TEXT)[4:]).decode()


def test_offsets_join_when_the_rest_is_asked_for() -> None:
    async def story() -> None:
        told = Told("Hello there, naïve 👩 again.")
        async with desk(told, SimShelves(), HandClock()) as one:
            full = await one.ask("/v1/completions", body(stream=True, logprobs=0))
            rest = await one.ask(f"/v1/streams/{full.headers['x-holdfast-answer']}", last_event_id="5")
            whole, part = rows_in(full), rows_in(rest)
            assert len(whole["tokens"]) == len(told.ids)
            assert part == {key: rows[5:] for key, rows in whole.items()}

    run(story())


@given(st.lists(st.integers(0, PEARL.vocab_size - 1), max_size=30), st.integers(0, 30))
def test_plain_text_does_not_depend_on_how_ids_are_cut(ids: list[int], cut: int) -> None:
    def read(*pieces: list[int]) -> str:
        plain = Plain(PEARL, [])
        return "".join(plain.feed(piece).content for piece in pieces) + plain.end().content

    assert read(ids) == read(ids[:cut], ids[cut:]) == read(*[[one] for one in ids])


def test_the_body_is_json() -> None:
    async def story() -> None:
        async with doorway(Says()) as place, place.client() as client:
            answer = await client.ask(b"{", "/v1/completions")
            assert (answer.status, answer.error["code"]) == (400, "invalid_json")
            answer = await client.ask(msgspec.json.encode({"model": "pearl"}), "/v1/completions")
            assert (answer.status, answer.error["param"]) == (400, "prompt")

    run(story())
