"""Marks: what stands in an event's `id:` line, and what a reader who shows one still lacks.

An answer is a function of its token ids, so a place in it is a number of tokens; where one chunk makes several events, the
mark also says which of them were given. However the rest of the answer is cut into chunks, both halves join without a seam.

    17         all that the first 17 tokens say
    17-19-r    all that the first 17 say, and of tokens 18 and 19 the reasoning; c: the reasoning and the content
    19-e       all that is said, the answer being at its end; 17-19-er, 17-19-ec: as above, with what the end says
    19-f       the finish too
    19-u       the usage too
    19.42      the first 42 events of a stream whose events are numbered, the last of them made by token 19 (gateway/numbered.py)
"""

import re
from collections.abc import Iterator

from msgspec import Struct

from holdfast.domain.dialect import Said
from holdfast.domain.fault import BadRequest
from holdfast.domain.request import Chunk
from holdfast.gateway.reading import NOTHING, Reading, joined

_FORM = re.compile(r"(\d{1,9})(?:-(\d{1,9})-(e?[rc])|-([efu])|\.(\d{1,9}))?")


class Mark(Struct, frozen=True):
    """`at` tokens are given wholly; of those up to `to`, what `given` says."""

    at: int = 0
    to: int = 0
    given: str = ""  # r or c
    ending: str = ""  # e: `to` is the answer's end, and what the end says is covered too; f, u: see above
    events: int = 0  # of a stream whose events are numbered


def read_mark(text: bytes) -> Mark:
    """Last-Event-ID.

    Raises:
        BadRequest: it is none of ours.
    """
    found = _FORM.fullmatch(text.decode("latin-1").strip())
    if found is None or (found[2] and int(found[2]) <= int(found[1]) and "e" not in found[3]):
        why = "Last-Event-ID is not one that this stream has sent; send the last `id:` as it came, or none."
        raise BadRequest(why, "last-event-id")
    at, to, some, ending, events = found.groups()
    if some:
        return Mark(int(at), int(to), some[-1], "e" if some[0] == "e" else "")
    return Mark(int(at), int(at), "", ending or "", int(events or 0))


def id_line(reading: Reading, given: str = "") -> bytes:
    """The line in front of an event. `given`: r or c when more events of this chunk follow, f or u at the end, else empty."""
    if given in ("f", "u"):
        return b"id: %d-%b\n" % (reading.tokens, given.encode())
    if given:
        end = b"e" if reading.done else b""
        return b"id: %d-%d-%b%b\n" % (reading.before, reading.tokens, end, given.encode())
    return b"id: %d-e\n" % reading.tokens if reading.done else b"id: %d\n" % reading.tokens


class Rest:
    """Reads an answer from its start and passes on what the mark does not cover."""

    def __init__(self, reading: Reading, mark: Mark) -> None:
        self.mark = mark
        self._reading = reading
        self._held = NOTHING
        self._covered = not mark.to and not mark.ending

    def pieces(self, chunk: Chunk) -> Iterator[Chunk]:
        """The chunk, cut where the mark asks for it."""
        reading, mark = self._reading, self.mark
        for limit in (mark.at, mark.to):
            count, ids, rows = limit - reading.tokens, chunk.ids, chunk.logprobs
            if 0 < count < len(ids) or (count > 0 and count == len(ids) and chunk.finish is not None):
                cached, moves = chunk.cached_tokens, chunk.moves
                chunk = Chunk(ids[count:], chunk.finish, rows[count:] if rows else None, moves=moves)
                yield Chunk(ids[:count], None, rows[:count] if rows else None, cached, moves=moves)
                if reading.done:
                    return
        yield chunk

    def take(self, piece: Chunk) -> Said:
        """What the piece says that was not given yet."""
        reading, mark = self._reading, self.mark
        before = reading.tokens
        said = reading.take(piece)
        if not self._covered and not mark.ending and before >= mark.to:
            self._covered = True
        if self._covered:
            return said
        reading.logprobs = None  # of a chunk that was given in part they went with its first event
        if reading.tokens > mark.at or reading.done:
            self._held = joined(self._held, Said("", said.content, said.calls, said.parts))
            reading.before = mark.at
        if reading.done if mark.ending else reading.tokens == mark.to:
            held, self._held = self._held, NOTHING
            if mark.given:
                return held if mark.given == "r" else Said("", "", held.calls, held.parts)
        return NOTHING
