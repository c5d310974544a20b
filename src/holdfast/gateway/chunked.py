"""A body that comes in chunks, each with its size before it; strict, and bounded in all that is not body.

Extensions and trailers are read past: nothing they say is believed.
"""

import re

from holdfast.gateway.request_head import FIELD, BadHead

SIZE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:[ \t]*+;[\t\x20-\x7e\x80-\xff]*+)?")
LINE_BYTES_MAX = 256  # of a size with its extensions
FRAMING_BYTES_FREE = 16 * 1024  # sizes, extensions and trailers: so much, and as much again as there is body

# what is waited for
SIZE_LINE, DATA, DATA_END, TRAILER = range(4)


class Chunks:
    """Takes pieces of the connection's bytes; `parts` is the body so far, `done` whether it is whole."""

    __slots__ = ("_framing", "_left", "_line", "_wanted", "body_bytes", "done", "parts")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        self.body_bytes = 0
        self.done = False
        self._wanted = SIZE_LINE
        self._left = 0  # bytes of the present chunk
        self._line = b""  # a line that is not whole yet
        self._framing = 0

    def take(self, data: bytes, at: int, limit: int) -> int:
        """Read on from `at`; returns how far. It stops behind the body, and as soon as the body is over the limit.

        Raises:
            BadHead: it is not as it must be.
        """
        size = len(data)
        while at < size and not self.done and self.body_bytes <= limit:
            if self._wanted == DATA:
                piece = data[at : at + self._left]
                at += len(piece)
                self._left -= len(piece)
                self.body_bytes += len(piece)
                self.parts.append(piece)
                if not self._left:
                    self._wanted = DATA_END
                continue
            line, at = self._whole_line(data, at)
            if line is not None:
                self._heed(line, limit)
        return at

    def _whole_line(self, data: bytes, at: int) -> tuple[bytes | None, int]:
        """The line that begins here, or with what was kept; None while its end has not come."""
        end = data.find(b"\n", at)
        stop = len(data) if end < 0 else end + 1
        line = self._line + data[at:stop]
        self._framing += stop - at
        if len(line) > (LINE_BYTES_MAX if self._wanted != TRAILER else FRAMING_BYTES_FREE):
            raise BadHead(400, "A chunk's size is followed by too much; leave extensions away.")
        if self._framing > FRAMING_BYTES_FREE + 2 * self.body_bytes:
            raise BadHead(400, "The body's chunks are too small for what is said about them; send larger ones.")
        if end < 0:
            self._line = line
            return None, stop
        self._line = b""
        if line[-2:] != b"\r\n" or b"\r" in line[:-2]:
            raise BadHead(400, "This is not HTTP/1.1 as it should be: lines end with CRLF.")
        return line[:-2], stop

    def _heed(self, line: bytes, limit: int) -> None:
        if self._wanted == DATA_END:
            if line:
                raise BadHead(400, "A chunk is longer than its size says.")
            self._wanted = SIZE_LINE
        elif self._wanted == TRAILER:
            if not line:
                self.done = True
            elif FIELD.match(line + b"\r\n") is None:
                raise BadHead(400, "A trailer is not NAME: VALUE in plain characters.")
        else:
            said = SIZE.fullmatch(line)
            if said is None:
                raise BadHead(400, "A chunk's size must be 1 to 8 hexadecimal digits.")
            self._left = int(said[1], 16)
            self._wanted = DATA if self._left else TRAILER
            if self.body_bytes + self._left > limit:
                self.body_bytes += self._left  # refused for what it would be
