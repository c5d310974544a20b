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


def named(kind: str, name: str, data: str = "{}") -> bytes:
    return f"event: {kind}\nid: {name}\ndata: {data}\n\n".encode()


def test_streams_without_an_end_mark_end_with_the_event_that_says_so() -> None:
    for kind in ("response.completed", "response.incomplete", "message_stop"):
        mark = Mark()
        assert mark.see(named("delta", "1.3")) is Verdict.HAND_ON and not mark.over
        assert mark.see(named(kind, "1.4")) is Verdict.HAND_ON
        assert mark.over and mark.last_id == "1.4"


def test_a_response_that_failed_is_the_end_unless_it_goes_on_elsewhere() -> None:
    for kind, shape in (("response.failed", '{"response":{"error":%s}}'), ("error", '{"type":"error","error":%s}')):
        mark = Mark()
        mark.see(named("delta", "1.3"))
        elsewhere, lost = (
            f"event: {kind}\ndata: {shape % error}\n\n".encode()
            for error in ('{"code":"answer_taken_over"}', '{"code":"engine_lost"}')
        )
        assert mark.see(elsewhere) is Verdict.LEAVE
        assert (mark.over, mark.last_id) == (False, "1.3")
        assert mark.see(lost) is Verdict.HAND_ON
        assert mark.over


def test_numbered_openings_are_not_handed_on_twice() -> None:
    mark = Mark()
    assert mark.see(named("response.created", "0.1")) is Verdict.HAND_ON
    assert mark.bare
    mark.again()
    told = [mark.see(named("x", name)) for name in ("0.1", "0.2", "1.3", "1.4")]
    assert told == [Verdict.DROP, Verdict.HAND_ON, Verdict.HAND_ON, Verdict.HAND_ON]
    assert not mark.bare
