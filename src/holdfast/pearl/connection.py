"""One connection of a replica: bytes to words and back. What the words mean is the server's business."""

import asyncio
from collections.abc import Callable
from typing import Protocol, cast

from holdfast.domain.wire import (
    VERSION,
    Abort,
    Cutter,
    Downward,
    Hello,
    Item,
    Ping,
    Submit,
    Tokens,
    Upward,
    WireFault,
    encode,
    upward,
)

_GET = b"GET "  # as a frame's length this would be 542 MB, far over the limit: the two can't be confused
HUNG_UP = "hung up"
_HTTP_HEAD_BYTES_MAX = 16 * 1024


class Desk(Protocol):
    """Whom a connection brings its words to."""

    def opened(self, connection: "Connection") -> None: ...

    def heard(self, connection: "Connection", frame: Hello | Submit | Abort | Ping) -> None:
        """Raises WireFault if the frame makes no sense at this point."""
        ...

    def asked(self, target: str) -> bytes:
        """The HTTP answer to a GET."""
        ...

    def gone(self, connection: "Connection", why: str) -> None: ...


class Connection(asyncio.Protocol):
    """`streams` maps the gateway's stream numbers to the core's tickets. `items` gathers this step's tokens."""

    def __init__(self, desk: Desk, unsent_bytes_max: int, opened_at: float) -> None:
        self.streams: dict[int, int] = {}
        self.items: list[Item] = []
        self.who = ""  # set by Hello
        self.greeted = False
        self.opened_at = opened_at
        self._desk = desk
        self._unsent_bytes_max = unsent_bytes_max
        self._unsent: list[bytes] = []
        self._cutter = Cutter()
        self._head = b""
        self._read: Callable[[bytes], None] = self._read_first
        self._over = ""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._unsent_bytes_max)
        self._desk.opened(self)

    def data_received(self, data: bytes) -> None:
        if not self._over:
            self._read(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(HUNG_UP)  # a reset too: the peer closed before it had read everything

    def pause_writing(self) -> None:
        self.cut(f"does not read: {self._unsent_bytes_max} bytes wait for it")

    def send(self, frame: Downward) -> None:
        """Queue a frame for the next `flush`."""
        self._unsent.append(encode(frame))

    def flush(self, step: int = 0) -> None:
        """Write a step's tokens and whatever else is queued, in one go; tokens first, since a Failed ends its stream."""
        if self.items:
            self._unsent.insert(0, encode(Tokens(step, self.items)))
            self.items = []
        if self._unsent and self._transport is not None and not self._over:
            data = b"".join(self._unsent)
            self._unsent.clear()
            self._transport.write(data)

    def cut(self, why: str) -> None:
        """End it at once and forget what was not sent: only so is memory bounded."""
        self._end(why)
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """End it after what was sent has gone out."""
        if self._transport is not None:
            self._transport.close()

    def _read_first(self, data: bytes) -> None:
        self._head += data
        if len(self._head) < len(_GET):
            return
        self._read = self._read_http if self._head.startswith(_GET) else self._read_frames
        head, self._head = self._head, b""
        self._read(head)

    def _read_http(self, data: bytes) -> None:
        self._head += data
        if b"\r\n\r\n" in self._head and self._transport is not None:
            target = self._head.split(b" ", 2)[1].decode("ascii", "replace")
            self._transport.write(self._desk.asked(target))
            self._transport.close()
            self._read = lambda data: None
        elif len(self._head) > _HTTP_HEAD_BYTES_MAX:
            self.cut("sent an HTTP head without an end")

    def _read_frames(self, data: bytes) -> None:
        try:
            for body in self._cutter.feed(data):
                self._hear(upward(body))
                if self._over:
                    return
            self.flush()
        except WireFault as error:
            self.cut(f"sent garbage: {error}")

    def _hear(self, frame: Upward) -> None:
        if not self.greeted:
            if not isinstance(frame, Hello):
                raise WireFault(f"{type(frame).__name__} came before Hello")
            if frame.version != VERSION:
                raise WireFault(f"it speaks version {frame.version} of the protocol, we speak {VERSION}")
            self.who, self.greeted = frame.who, True
        elif isinstance(frame, Hello):
            raise WireFault("Hello came twice")
        self._desk.heard(self, frame)

    def _end(self, why: str) -> None:
        if not self._over:
            self._over = why
            self._desk.gone(self, why)
