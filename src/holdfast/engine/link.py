"""The link: one connection from a gateway worker to a replica, as frames instead of bytes. It knows nothing of streams."""

import asyncio
from collections.abc import Callable
from typing import cast

from holdfast.domain.fault import EngineRefused
from holdfast.domain.wire import Cutter, Downward, Upward, WireFault, downward, encode

UNSENT_BYTES_MAX = 8 * 1024 * 1024  # two prompts of a million tokens; beyond it the replica isn't reading


class Link(asyncio.Protocol):
    """Frames up are gathered and written once per turn of the event loop: a hundred submits cost one system call.

    `on_frame` gets every decoded frame; `on_end` is called once, with the reason, when the connection is gone.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.on_frame: Callable[[Downward], None] = lambda frame: None
        self.on_end: Callable[[str], None] = lambda why: None
        self.ended = ""  # why the connection is gone; empty while it stands
        self._loop = asyncio.get_running_loop()
        self._cutter = Cutter()
        self._unsent: list[bytes] = []
        self._clogged = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=UNSENT_BYTES_MAX)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._cutter.feed(data):
                frame = downward(body)
                if self.ended:
                    return
                self.on_frame(frame)
        except WireFault as error:
            self.cut(f"{self.address} sent garbage: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(
            f"the connection to {self.address} is gone: {exc}" if exc else f"{self.address} closed the connection"
        )

    def pause_writing(self) -> None:
        self._clogged = True

    def resume_writing(self) -> None:
        self._clogged = False

    def send(self, frame: Upward) -> None:
        """Send with the next flush; does nothing on a link that has ended."""
        if self.ended:
            return
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(encode(frame))

    def check_writable(self) -> None:
        """Raises EngineRefused where a new stream could not reach the replica."""
        if self.ended:
            raise EngineRefused(self.ended)
        if self._clogged:
            raise EngineRefused(f"{self.address} has not read {UNSENT_BYTES_MAX} bytes that were sent to it")

    def cut(self, why: str) -> None:
        """End the connection at once; what was not sent yet is dropped."""
        self._end(why)
        if self._transport is not None:
            self._transport.abort()

    def hang_up(self, why: str) -> None:
        """End the connection after what was sent has gone out."""
        self._flush()
        self._end(why)
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        if self._unsent and self._transport is not None and not self.ended:
            self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def _end(self, why: str) -> None:
        if not self.ended:
            self.ended = why
            self.on_end(why)
