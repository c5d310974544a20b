"""Cut a stream after any event, ask for the rest with its id: both halves join without a seam, however they were chunked."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from doorway import CARD, PEARL, ids_of
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.domain.fault import BadRequest
from holdfast.domain.request import Chunk, Finish, Generation, TokenLogprob
from holdfast.gateway.marks import Mark, Rest, read_mark
from holdfast.gateway.order import Order
from holdfast.gateway.reading import Reading
from holdfast.gateway.writing import ChatWriter

CALL = '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>look<｜tool▁sep｜>{"q": "é€"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>'
PIECES = ("Hello there.", " naïve 🦜🦜", "</think>", "<think>", CALL, "END of it", " EN", "D", "\n\n", "a")


@dataclass
class Answer:
    """One answer as an engine makes it, and what its client asked for."""

    ids: list[int]
    finish: Finish
    stops: tuple[str, ...]
    logprobs: bool
    thinking: bool
    usage: bool
    live: bool = False

    def order(self) -> Order:
        prompt = ids_of("<｜User｜>Hi<｜Assistant｜>" + ("<think>" if self.thinking else "</think>"))
        generation = Generation(id="ab" * 12, prompt_ids=prompt)
        made = Order(generation, PEARL.parser(prompt), CARD, "pearl", self.stops, True, self.usage, 7)
        made.live = self.live
        return made

    def chunks(self, cuts: list[int], last_alone: bool) -> list[Chunk]:
        """The whole answer in chunks that end at these places."""
        ends = sorted({cut % (len(self.ids) + 1) for cut in cuts} | {len(self.ids)} - {0})
        made, begin = [], 0
        for end in ends:
            if end == begin:
                continue
            rows = [TokenLogprob(one, -0.5 * i) for i, one in enumerate(self.ids[begin:end], begin)]
            cached = 3 if begin == 0 else 0
            made.append(
                Chunk(self.ids[begin:end], logprobs=rows if self.logprobs else None, cached_tokens=cached, moves=1)
            )
            begin = end
        if last_alone or not made:
            made.append(Chunk([], moves=1))
        made[-1].finish = self.finish
        return made


@dataclass
class Seen:
    """What a client has put together."""

    reasoning: str = ""
    content: str = ""
    calls: list[Any] = field(default_factory=list)
    rows: list[Any] = field(default_factory=list)
    finish: list[str] = field(default_factory=list)
    usage: list[Any] = field(default_factory=list)
    roles: int = 0
    done: int = 0

    def add(self, block: bytes) -> str | None:
        """One event; returns its id."""
        name = None
        for line in block.decode().splitlines():
            if line.startswith("id: "):
                name = line[4:]
            elif line == "data: [DONE]":
                self.done += 1
            elif line.startswith("data: "):
                self._data(msgspec.json.decode(line[6:]))
        return name

    def _data(self, event: Any) -> None:
        if event.get("usage"):
            self.usage.append(event["usage"])
        for choice in event["choices"]:
            delta = choice["delta"]
            self.roles += "role" in delta
            self.reasoning += delta.get("reasoning_content", "")
            self.content += delta.get("content", "")
            for row in delta.get("tool_calls", []):
                self._call(row)
            self.rows += (choice["logprobs"] or {}).get("content", [])
            self.finish += [choice["finish_reason"]] if choice["finish_reason"] else []

    def _call(self, row: Any) -> None:
        """Whole calls, or the parts of one after the other."""
        if row["index"] == len(self.calls):
            self.calls.append(row)
        else:
            assert set(row) == {"index", "function"} and set(row["function"]) == {"arguments"}
            self.calls[row["index"]]["function"]["arguments"] += row["function"]["arguments"]


def told(answer: Answer, chunks: list[Chunk], mark: Mark | None) -> list[bytes]:
    """The events of one stream, as the door writes them."""
    made = answer.order()
    reading, events = Reading(made), ChatWriter(made, PEARL)
    rest = None if mark is None else Rest(reading, mark)
    out = events.begin() if mark is None else b""
    for chunk in chunks:
        out += events.said(reading.take(chunk), reading) if rest is None else events.rest(rest, chunk, reading)
        if reading.done:
            out += events.last(reading, "" if mark is None else mark.ending)
            break
    return [block + b"\n\n" for block in out.split(b"\n\n")[:-1]]


ANSWERS = st.builds(
    Answer,
    ids=st.lists(st.sampled_from(PIECES), max_size=8).map(lambda texts: ids_of("".join(texts))),
    finish=st.sampled_from(Finish),
    stops=st.sampled_from(((), ("END",), ("there", "END of"), ("\n",))),
    logprobs=st.booleans(),
    thinking=st.booleans(),
    usage=st.booleans(),
    live=st.booleans(),
)
CUTS = st.lists(st.integers(0, 200), max_size=12)


@settings(max_examples=400, deadline=None)
@given(ANSWERS, CUTS, CUTS, st.tuples(st.booleans(), st.booleans()), st.data())
def test_both_halves_join(
    answer: Answer, cuts: list[int], other_cuts: list[int], alones: tuple[bool, bool], data: st.DataObject
) -> None:
    alone, other_alone = alones
    whole = Seen()
    blocks = told(answer, answer.chunks(cuts, alone), None)
    for block in blocks:
        whole.add(block)
    assert (whole.done, whole.roles, len(whole.finish)) == (1, 1, 1)

    joined, mark, left = Seen(), None, blocks
    for _ in range(data.draw(st.integers(1, 3), "losses")):
        cut = data.draw(st.integers(0, len(left) - 1), "cut")
        for block in left[:cut]:
            mark = joined.add(block) or mark
        found = None if mark is None else read_mark(mark.encode())
        left = told(answer, answer.chunks(other_cuts, other_alone), found)
    for block in left:
        joined.add(block)
    assert joined == whole


def test_a_stream_says_the_same_however_its_chunks_were_cut() -> None:
    answer = Answer(ids_of("Hello END of it"), Finish.LENGTH, ("END",), True, False, True)
    one, all_at_once = Seen(), Seen()
    for block in told(answer, answer.chunks(list(range(50)), True), None):
        one.add(block)
    for block in told(answer, answer.chunks([], False), None):
        all_at_once.add(block)
    assert one == all_at_once
    assert one.content == "Hello "
    assert one.usage[0]["completion_tokens"] == len(one.rows) < len(answer.ids)


def test_parts_of_calls_add_up_to_the_calls() -> None:
    ids = ids_of("Hello" + CALL + CALL)
    seen = []
    for live in (False, True):
        one = Seen()
        answer = Answer(ids, Finish.STOP, (), False, False, False, live)
        blocks = told(answer, answer.chunks(list(range(len(ids))), True), None)
        for block in blocks:
            one.add(block)
        seen.append((one, len(blocks)))
    (whole, whole_blocks), (parts, parts_blocks) = seen
    assert whole == parts and [call["function"]["name"] for call in whole.calls] == ["look", "look"]
    assert parts_blocks > whole_blocks + 2


@pytest.mark.parametrize(
    "said", [b"", b"x", b"-1", b"1-2", b"1-2-x", b"3-2-r", b"1-f-u", b"9999999999", b"1\n2", "1\u00b2".encode()]
)
def test_what_is_no_mark_is_refused(said: bytes) -> None:
    with pytest.raises(BadRequest, match="is not one that this stream has sent"):
        read_mark(said)


def test_marks_are_read_back() -> None:
    assert read_mark(b"17") == Mark(17, 17)
    assert read_mark(b"17-19-r") == Mark(17, 19, "r")
    assert read_mark(b"17-19-ec") == Mark(17, 19, "c", "e")
    assert read_mark(b"17-17-er") == Mark(17, 17, "r", "e")
    assert [read_mark(b"19-" + one).ending for one in (b"e", b"f", b"u")] == ["e", "f", "u"]
