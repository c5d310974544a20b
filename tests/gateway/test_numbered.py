"""Streams whose events are numbered: the same bytes however their chunks were cut, and the rest after any event joins."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import msgspec
import pytest
from doorway import PEARL, ids_of
from hypothesis import given, settings
from hypothesis import strategies as st
from test_marks import ANSWERS, CUTS, Answer

from holdfast.domain.dialect import CallPart, Said, ToolCall
from holdfast.domain.request import Chunk, Finish
from holdfast.gateway.anthropic_events import AnthropicWriter
from holdfast.gateway.marks import Mark, Rest, read_mark
from holdfast.gateway.numbered import Numbered, all_singly
from holdfast.gateway.reading import Reading
from holdfast.gateway.refusals import refusal
from holdfast.gateway.responses_events import ResponsesWriter

WRITERS = st.sampled_from((ResponsesWriter, AnthropicWriter))


async def cut_up(chunks: list[Chunk]) -> list[Chunk]:
    async def source() -> AsyncGenerator[Chunk, None]:
        for chunk in chunks:
            yield chunk

    return [one async for one in all_singly(source())]


def told(kind: Any, answer: Answer, chunks: list[Chunk], mark: Mark | None) -> list[bytes]:
    """The events of one stream, as the door writes them."""
    made = answer.order()
    made.more = b'"tools":[],'
    reading, writer = Reading(made), kind(made, PEARL)
    rest = None if mark is None else Rest(reading, mark)
    out = writer.begin() if mark is None else b""
    for chunk in asyncio.run(cut_up(chunks)) if mark is None else chunks:
        out += writer.said(reading.take(chunk), reading) if rest is None else writer.rest(rest, chunk, reading)
        if reading.done:
            out += writer.last(reading, "" if mark is None else mark.ending)
            break
    return [block + b"\n\n" for block in out.split(b"\n\n")[:-1]]


def name_of(block: bytes) -> bytes:
    (name,) = [line[4:] for line in block.split(b"\n") if line.startswith(b"id: ")]
    return name


def data_of(block: bytes) -> Any:
    (data,) = [line[6:] for line in block.split(b"\n") if line.startswith(b"data: ")]
    return msgspec.json.decode(data)


@settings(max_examples=300, deadline=None)
@given(WRITERS, ANSWERS, st.tuples(CUTS, CUTS), st.tuples(st.booleans(), st.booleans()), st.data())
def test_the_rest_after_any_event_is_byte_for_byte_what_was_lost(
    kind: Any, answer: Answer, cuts: tuple[list[int], list[int]], alones: tuple[bool, bool], data: st.DataObject
) -> None:
    blocks = told(kind, answer, answer.chunks(cuts[0], alones[0]), None)
    again = answer.chunks(cuts[1], alones[1])
    assert told(kind, answer, again, None) == blocks
    assert [int(name_of(block).partition(b".")[2]) for block in blocks] == list(range(1, len(blocks) + 1))
    cut = data.draw(st.integers(1, len(blocks)), "cut")
    rest = told(kind, answer, again, read_mark(name_of(blocks[cut - 1])))
    assert rest == blocks[cut:]


@settings(max_examples=200, deadline=None)
@given(ANSWERS, CUTS)
def test_a_responses_deltas_make_up_what_its_done_events_and_the_object_say(answer: Answer, cuts: list[int]) -> None:
    events = [data_of(block) for block in told(ResponsesWriter, answer, answer.chunks(cuts, True), None)]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    texts: dict[int, str] = {}
    items: dict[int, Any] = {}
    for event in events:
        at = event.get("output_index")
        if event["type"].endswith(".delta"):
            texts[at] = texts.get(at, "") + event["delta"]
        elif event["type"] in ("response.output_text.done", "response.reasoning_text.done"):
            assert event["text"] == texts.get(at, "")
        elif event["type"] == "response.function_call_arguments.done":
            assert event["arguments"] == texts.get(at, "")
        elif event["type"] == "response.output_item.done":
            items[at] = event["item"]
    last = events[-1]
    assert last["type"] == "response." + last["response"]["status"]
    assert last["response"]["output"] == [items[i] for i in range(len(items))]


@settings(max_examples=200, deadline=None)
@given(ANSWERS, CUTS)
def test_a_messages_blocks_follow_each_other(answer: Answer, cuts: list[int]) -> None:
    events = [data_of(block) for block in told(AnthropicWriter, answer, answer.chunks(cuts, True), None)]
    assert [event["type"] for event in events[:2]] == ["message_start", "ping"]
    assert [event["type"] for event in events[-2:]] == ["message_delta", "message_stop"]
    open_at, began = None, 0
    for event in events[2:-2]:
        if event["type"] == "content_block_start":
            assert open_at is None and event["index"] == began
            open_at, began = event["index"], began + 1
        else:
            assert event["index"] == open_at
            if event["type"] == "content_block_stop":
                open_at = None
    assert open_at is None


class Row(Numbered):
    """Blocks as words."""

    def begin(self) -> bytes:
        return b""

    def opened(self) -> bytes:
        return b"(" + self.name.encode()

    def grown(self, text: str, reading: Reading) -> bytes:
        return b" " + text.encode()

    def closed(self, whole: bool) -> bytes:
        return b")" if whole else b"/"


@pytest.mark.parametrize("whole_at", [2, 3])
def test_a_call_that_came_in_parts_is_not_told_again_when_it_is_whole(whole_at: int) -> None:
    answer = Answer([], Finish.STOP, (), False, False, False)
    reading, row = Reading(answer.order()), Row()
    call, parts = (
        ToolCall("look", '{"q":1}', "call_0"),
        [CallPart(0, "look"), CallPart(0, "", '{"q":'), CallPart(0, "", "1}")],
    )
    out = b""
    for i in range(4):
        whole = (call,) if i == whole_at else ()
        reading.calls += len(whole)
        out += row.said(Said("", "", whole, tuple(parts[i : i + 1])), reading)
    reading.calls += 1
    out += row.said(Said("", "", (ToolCall("see", "{}", "call_1"),)), reading)
    assert out == b'(look {"q": 1})(see {})'


def test_an_error_after_the_beginning_says_what_there_is() -> None:
    answer = Answer(ids_of("Hello"), Finish.STOP, (), False, False, False)
    said = refusal(503, "nobody is left", "engine_lost")
    made = answer.order()
    writer, reading = ResponsesWriter(made, PEARL), Reading(made)
    writer.begin()
    writer.said(reading.take(Chunk(ids_of("Hello"))), reading)
    failed = data_of(writer.cut(said))
    assert failed["type"] == "response.failed" and failed["response"]["status"] == "failed"
    assert failed["response"]["error"] == {"code": "engine_lost", "message": "nobody is left"}
    (item,) = failed["response"]["output"]
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", "Hello")
