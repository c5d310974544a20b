"""Ids to text and calls: cut and rebuilt anywhere, the same."""

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from holdfast.dialect.parser import MarkerParser, Markers
from holdfast.dialect.vocabulary import Vocabulary
from holdfast.domain.dialect import Said, ToolCall

FOLDER = Path(__file__).parents[2] / "src/holdfast/shipped/pearl"
VOCABULARY = Vocabulary(FOLDER)
MARKERS = Markers.of(VOCABULARY)
MARK = VOCABULARY.markers
CALL = [
    MARK["<｜tool▁calls▁begin｜>"],
    MARK["<｜tool▁call▁begin｜>"],
    *VOCABULARY.encode("add"),
    MARK["<｜tool▁sep｜>"],
]
CALL_END = [MARK["<｜tool▁call▁end｜>"], MARK["<｜tool▁calls▁end｜>"]]
BYTES = [
    token for token in range(len(VOCABULARY)) if VOCABULARY.texts[token] is None and token not in VOCABULARY.marker_ids
]
ANY_ID = st.integers(0, len(VOCABULARY) + 3) | st.sampled_from(sorted(VOCABULARY.marker_ids)) | st.sampled_from(BYTES)


def fresh(reasoning: bool = False, trims: bool = False, fenced: bool = False) -> MarkerParser:
    return MarkerParser(VOCABULARY, MARKERS, reasoning, trims, fenced)


def read(parser: MarkerParser, batches: list[list[int]], end: bool = True) -> Said:
    """Everything that was said, joined."""
    said = [parser.feed(batch) for batch in batches] + ([parser.end()] if end else [])
    return Said(
        "".join(part.reasoning for part in said),
        "".join(part.content for part in said),
        tuple(call for part in said for call in part.calls),
    )


@settings(max_examples=400, deadline=None)
@given(st.lists(ANY_ID, max_size=30), st.booleans(), st.booleans())
@example([*CALL, *VOCABULARY.encode('{"a":"é"}'), *CALL_END], False, False)
@example([*VOCABULARY.encode("日本"), MARK["</think>"], *VOCABULARY.encode("\n\n👩‍🚀")], True, True)
def test_cut_after_any_token_and_rebuilt_it_says_the_same(ids: list[int], reasoning: bool, trims: bool) -> None:
    whole = read(fresh(reasoning, trims), [ids])
    assert read(fresh(reasoning, trims), [[token] for token in ids]) == whole
    for k in range(len(ids) + 1):
        before = read(fresh(reasoning, trims), [ids[:k]], end=False)
        rebuilt = fresh(reasoning, trims)
        rebuilt.feed(ids[:k])
        after = read(rebuilt, [ids[k:]])
        assert before.reasoning + after.reasoning == whole.reasoning
        assert before.content + after.content == whole.content
        assert before.calls + after.calls == whole.calls


@given(st.text(st.characters(codec="utf-8"), max_size=40))
def test_a_text_comes_back_as_it_was(text: str) -> None:
    assert read(fresh(), [[token] for token in VOCABULARY.encode(text)]) == Said("", text)


@given(st.lists(st.sampled_from(BYTES), max_size=12))
def test_broken_bytes_read_as_python_reads_them(ids: list[int]) -> None:
    raw = b"".join(map(VOCABULARY.bytes_of, ids))
    assert read(fresh(), [[token] for token in ids]).content == raw.decode("utf-8", "replace")


def test_reasoning_ends_at_its_mark_and_is_counted() -> None:
    parser = fresh(reasoning=True)
    thought = VOCABULARY.encode("hm 日")
    said = read(parser, [[*thought, MARK["</think>"], *VOCABULARY.encode("yes"), MARK["<｜end▁of▁sentence｜>"]]])
    assert said == Said("hm 日", "yes")
    assert parser.reasoning_tokens == len(thought) + 1


def test_line_breaks_after_the_thinking_marks_are_dropped_once() -> None:
    ids = [*VOCABULARY.encode("\nhm\n"), MARK["</think>"], *VOCABULARY.encode("\n\nyes\n\nno")]
    assert read(fresh(True, trims=True), [[token] for token in ids]) == Said("hm\n", "yes\n\nno")
    assert read(fresh(True), [ids]) == Said("\nhm\n", "\n\nyes\n\nno")


def test_two_calls_and_the_way_r1_writes_them() -> None:
    one = [*CALL, *VOCABULARY.encode('{"a":1}'), CALL_END[0]]
    block = 'get_weather\n```json\n{"city": "Rome"}\n```'
    two = [CALL[1], *VOCABULARY.encode("function"), MARK["<｜tool▁sep｜>"], *VOCABULARY.encode(block), *CALL_END]
    said = read(fresh(fenced=True), [[*VOCABULARY.encode("Wait."), *one, *two, *VOCABULARY.encode("ok")]])
    calls = (ToolCall("add", '{"a":1}'), ToolCall("get_weather", '{"city": "Rome"}'))
    assert said == Said("", "Wait.ok", calls)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([*CALL, *VOCABULARY.encode('{"a')], Said("", "", (ToolCall("add", '{"a'),))),
        (CALL[:-1], Said("", "add")),
        (CALL[:1], Said("", "")),
    ],
)
def test_half_a_call_at_the_end_is_not_lost(ids: list[int], expected: Said) -> None:
    assert read(fresh(), [ids]) == expected
