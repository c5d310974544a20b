"""Server-sent events out of a stream of bytes, strictly: what is not a line of an event stream is garbage and is said to be.

The standard tells clients to skip fields that they don't know. We are no browser: an engine that writes anything else into
its stream can't be believed about the tokens beside it.
"""

EVENT_BYTES_MAX = 4 * 1024 * 1024  # one event: a chunk of ids with many logprobs takes some kilobytes
SHOWN_BYTES_MAX = 80
_FIELDS = (b"event", b"id", b"retry")


class NotEvents(ValueError):
    """The stream holds something else, or an event beyond the limit; the sentence says which. `shown`: what it quotes."""

    def __init__(self, why: str, shown: str = "") -> None:
        super().__init__(f"{why}: {shown}" if shown else why)
        self.shown = shown


class EventCutter:
    """Feed it pieces as they come. `rest` is whether an event has begun and not ended."""

    def __init__(self, bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._line = b""  # the beginning of a line
        self._data: list[bytes] = []
        self._size = 0  # bytes in _data

    @property
    def rest(self) -> bool:
        return bool(self._line or self._data)

    def feed(self, piece: bytes) -> list[bytes]:
        """The data of each event that is complete now: its data lines, joined by newlines. Comments are dropped.

        Raises:
            NotEvents: a line that is none of an event stream, or an event that is too large. The cutter is spent.
        """
        lines = (self._line + piece).split(b"\n")
        self._line = lines.pop()
        found: list[bytes] = []
        for raw in lines:
            line = raw[:-1] if raw.endswith(b"\r") else raw
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
                self._size += len(line)
                self._check_size(0)
            elif not line:
                if self._data:
                    found.append(b"\n".join(self._data))
                    self._data, self._size = [], 0
            elif not line.startswith(b":") and line.partition(b":")[0] not in _FIELDS:
                shown = line[:SHOWN_BYTES_MAX].decode("utf-8", "backslashreplace")
                raise NotEvents("not an event stream", repr(shown))
        self._check_size(len(self._line))
        return found

    def _check_size(self, further: int) -> None:
        if self._size + further > self._bytes_max:
            raise NotEvents(f"an event of more than {self._bytes_max} bytes")
