"""One answer that is being written: what all ways of writing one have in common."""

from collections.abc import AsyncGenerator
from functools import lru_cache

from msgspec import Struct

from holdfast.domain.dialect import Said, ToolCall
from holdfast.domain.request import Chunk, TokenLogprob
from holdfast.gateway.incoming import Request
from holdfast.gateway.marks import Mark
from holdfast.gateway.metrics import Tally
from holdfast.gateway.needs import Needs
from holdfast.gateway.order import Order
from holdfast.gateway.pages import request_id_line
from holdfast.gateway.reading import Reading
from holdfast.gateway.surface import Surface
from holdfast.gateway.writing import logprobs_json

STREAM_TYPE = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"


class Telling(Struct):
    """One answer that is being written. Of one that is had again, only what `mark` does not cover; its times tell nothing."""

    made: Order
    needs: Needs
    surface: Surface
    reading: Reading
    chunks: AsyncGenerator[Chunk, None]
    began: float
    again: bool = False
    mark: Mark | None = None
    lines: bytes = b""


class Spoken:
    """All that an answer says, gathered for one that is written whole."""

    __slots__ = ("_calls", "_content", "_reasoning", "_rows")

    def __init__(self) -> None:
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self._calls: list[ToolCall] = []
        self._rows: list[TokenLogprob] = []

    def add(self, said: Said, reading: Reading) -> None:
        """What a chunk said."""
        if said.reasoning:
            self._reasoning.append(said.reasoning)
        if said.content:
            self._content.append(said.content)
        if said.calls:
            self._calls += said.calls
        if reading.logprobs:
            self._rows += reading.logprobs

    def all(self) -> Said:
        """Everything."""
        return Said("".join(self._reasoning), "".join(self._content), tuple(self._calls))

    def logprobs(self, telling: Telling) -> bytes | None:
        """The logprobs, where they were asked for."""
        return logprobs_json(self._rows, telling.needs.dialect) if self._rows else None


@lru_cache(maxsize=16)
def _plain(words: str) -> bytes:
    """Words as a header can carry them."""
    return words.encode("ascii", "replace")


def complaint_of(generation: str, needs: Needs) -> str:
    """Why this answer does not outlive this worker; empty when it does."""
    if needs.streams is not None:
        return needs.streams.complaint(generation)
    return "answers of the smaller model are not kept" if needs.stands_in else "this gateway keeps no journal"


def lines_of(telling: Telling, request: Request, off: str = "") -> bytes:
    """Header lines that every answer carries. `off`: why it can't be had again, where that is known."""
    made, needs = telling.made, telling.needs
    generation = made.generation
    complaint, name = off or complaint_of(generation.id, needs), generation.id.encode()
    resume = _plain(f"off; {complaint}") if complaint else b"/v1/streams/" + name
    given_up = b"x-holdfast-degraded: %b\r\n" % made.degraded.encode("ascii", "replace") if made.degraded else b""
    return (
        b"%b%bx-holdfast-continuable: %b\r\nx-holdfast-seed: %d\r\nx-holdfast-answer: %b\r\nx-holdfast-resume: %b\r\n"
    ) % (
        telling.lines + given_up,
        request_id_line(request, generation.id),
        _plain(made.promise),
        generation.seed,
        name,
        resume,
    )


def timed(tally: Tally, chunk: Chunk, telling: Telling, last: float, now: float) -> float:
    """Take down first-token time, gaps and pauses. Returns the time of the newest ids."""
    reading = telling.reading
    if telling.again:
        return now
    if chunk.moves != reading.moves:
        tally.moves += chunk.moves - reading.moves
        tally.pause_s.observe(now - last)
    if not chunk.ids:
        return last
    if reading.tokens:
        tally.gap_s.observe(now - last)
    else:
        tally.ttft_s.observe(now - telling.began)
    return now
