"""Cutting and marking, without any connection."""

from desk import STREAM, event
from hypothesis import given
from hypothesis import strategies as st

from holdfast.client.events import Cutter, Mark, Verdict

ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
LINES = st.sampled_from([b"data: a", b"data:b", b"id: 7", b": comment", b"retry: 5", "data: ü".encode()])


@given(st.lists(st.tuples(st.lists(LINES, min_size=1, max_size=4), ENDS), max_size=6), st.data())
def test_however_the_bytes_arrive_the_same_events_come_out(blocks: list[tuple[list[bytes], bytes]], data) -> None:
    events = [b"".join(line + end for line in lines) + end for lines, end in blocks]
    text, cutter, out = b"".join(events), Cutter(), []
    at = 0
    while at < len(text):
        size = data.draw(st.integers(1, 9))
        out += cutter.feed(text[at : at + size])
        at += size
    # The last CR LF may come out as CR and a stray LF that opens the next event: an empty line, which says nothing.
    assert b"".join(out).rstrip(b"\n") == text.rstrip(b"\n")
    assert [one.strip(b"\r\n") for one in out] == [one.strip(b"\r\n") for one in events]


def test_an_event_without_its_blank_line_is_kept_back_and_can_be_dropped() -> None:
    cutter = Cutter()
    assert cutter.feed(b"data: 1\n\ndata: 2\n") == [b"data: 1\n\n"]
    cutter.drop()
    assert cutter.feed(b"data: 2\n\n") == [b"data: 2\n\n"]


def test_the_mark_is_the_last_id_whatever_came_after_it() -> None:
    mark = Mark()
    for _, data in STREAM[:-1]:
        assert mark.see(data) is (Verdict.DROP if b"data: " not in data else Verdict.HAND_ON)
    assert (mark.last_id, mark.over) == ("9-f", False)
    assert mark.see(STREAM[-1][1]) is Verdict.HAND_ON
    assert mark.over


def test_what_had_no_id_is_not_handed_on_twice() -> None:
    mark, role = Mark(), event({"role": "assistant"}, None)
    assert mark.see(role) is Verdict.HAND_ON
    mark.again()
    assert [mark.see(role), mark.see(event({}, "1"))] == [Verdict.DROP, Verdict.HAND_ON]
    mark.again()
    assert mark.see(event({}, None)) is Verdict.HAND_ON


def test_an_id_with_a_null_is_none() -> None:
    mark = Mark()
    mark.see(b"id: 1\ndata: x\n\n")
    mark.see(b"id: 2\0\ndata: y\n\n")
    assert mark.last_id == "1"


def test_an_error_ends_the_stream_unless_the_answer_goes_on_elsewhere() -> None:
    mark = Mark()
    assert mark.see(b'data: {"error":{"code":"answer_taken_over"}}\n\n') is Verdict.LEAVE
    assert not mark.over
    assert mark.see(b'data: {"error":{"code":"engine_lost"}}\n\n') is Verdict.HAND_ON
    assert mark.over


def test_words_about_errors_are_no_errors() -> None:
    mark = Mark()
    mark.see(event({"content": '{"error": {"code": "answer_taken_over"}}'}, "1"))
    assert not mark.over
