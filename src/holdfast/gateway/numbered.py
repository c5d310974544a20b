"""Streams whose events have names, numbers and blocks: what OpenAI's responses and Anthropic's messages have in common.

An answer is a row of blocks there (reasoning, text, calls) that open, grow and close, and each event has its place in the row.
So that all of it is a function of the answer's ids alone, ids are read one at a time, however an engine or the journal has
cut them into chunks: whoever writes the answer once more, in another worker, makes the same events with the same numbers, and
gives away those that its reader lacks. An event's `id:` says how many were given with it; see gateway/marks.py.
"""

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from enum import Enum

from holdfast.domain.dialect import CallPart, Said
from holdfast.domain.request import Chunk
from holdfast.gateway.marks import Rest
from holdfast.gateway.reading import Reading


def singly(chunk: Chunk) -> Iterator[Chunk]:
    """The same a token at a time; the finish comes after the last, alone."""
    ids, rows, cached = chunk.ids, chunk.logprobs, chunk.cached_tokens
    if len(ids) + (chunk.finish is not None) < 2:
        yield chunk
        return
    for i, token in enumerate(ids):
        yield Chunk([token], None, rows[i : i + 1] if rows else None, cached, moves=chunk.moves)
        cached = 0
    if chunk.finish is not None:
        yield Chunk([], chunk.finish, moves=chunk.moves)


async def all_singly(chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator[Chunk, None]:
    """An answer a token at a time."""
    async with aclosing(chunks) as whole:
        async for chunk in whole:
            for one in singly(chunk):
                yield one


class Block(Enum):
    """What a block holds."""

    REASONING = "reasoning"
    TEXT = "text"
    CALL = "call"


class Numbered(ABC):
    """Writes one answer as a row of blocks. Those who derive from it say how a block opens, grows and closes, in bytes."""

    def __init__(self) -> None:
        self.number = 0  # events so far
        self.index = -1  # of the block that is open, or was last
        self.block: Block | None = None  # what is open
        self.name = ""  # of the call that is open
        self.calls = 0  # that have begun
        self._given = 0  # events that the reader has
        self._texts: list[str] = []
        self._tokens = 0

    # what a surface says

    @abstractmethod
    def begin(self) -> bytes:
        """The first events."""

    @abstractmethod
    def opened(self) -> bytes:
        """Events for a block that begins."""

    @abstractmethod
    def grown(self, text: str, reading: Reading) -> bytes:
        """Events for what is added to the open block."""

    @abstractmethod
    def closed(self, whole: bool) -> bytes:
        """Events for a block that ends; not `whole`: it was cut."""

    # what all have in common

    @property
    def text(self) -> str:
        """All that the open block says."""
        return "".join(self._texts)

    @property
    def had(self) -> bool:
        """Whether the reader has the event that comes next: then only its number counts."""
        return self.number < self._given

    def event(self, name: bytes, data: bytes) -> bytes:
        """One event, unless its reader has it."""
        self.number += 1
        if self.number <= self._given:
            return b""
        return b"event: %b\nid: %d.%d\ndata: %b\n\n" % (name, self._tokens, self.number, data)

    def said(self, said: Said, reading: Reading) -> bytes:
        """Events for what one token said."""
        self._tokens = reading.tokens
        if self.block is Block.TEXT and not (said.reasoning or said.parts or said.calls):  # by far the commonest
            if not said.content:
                return b""
            self._texts.append(said.content)
            return self.grown(said.content, reading)
        out = b""
        if said.reasoning:
            out += self._add(Block.REASONING, said.reasoning, reading)
        if said.content:
            out += self._add(Block.TEXT, said.content, reading)
        for part in said.parts or parts_of(said, reading.calls, self.calls):
            if part.index >= self.calls:
                self.calls += 1
                out += self._turn(Block.CALL, part.name)
            if part.arguments:
                out += self._add(Block.CALL, part.arguments, reading)
        if said.calls and not reading.done:  # at the answer's end it may be half a call: `end` knows
            out += self.end(True)
        return out

    def rest(self, rest: Rest, chunk: Chunk, reading: Reading) -> bytes:
        """Events that a reader who has come back lacks."""
        out = []
        if not self.number:
            self._given = rest.mark.events
            out.append(self.begin())
        for one in singly(chunk):
            out.append(self.said(reading.take(one), reading))
            if reading.done:
                break
        return b"".join(out)

    def _add(self, block: Block, text: str, reading: Reading) -> bytes:
        out = b"" if self.block is block else self._turn(block)
        self._texts.append(text)
        return out + self.grown(text, reading)

    def _turn(self, block: Block, name: str = "") -> bytes:
        """Close what is open, open another."""
        out = self.end(True)
        self.index += 1
        self.block, self.name, self._texts = block, name, []
        return out + self.opened()

    def end(self, whole: bool) -> bytes:
        """Close what is open."""
        if self.block is None:
            return b""
        out = self.closed(whole)
        self.block = None
        return out


def parts_of(said: Said, calls: int, told: int) -> list[CallPart]:
    """Calls that were handed over whole, each as one part. `calls`: how many the answer has; `told`: were told in parts."""
    first = calls - len(said.calls)
    parts = [CallPart(first + i, call.name, call.arguments) for i, call in enumerate(said.calls)]
    return [part for part in parts if part.index >= told]
