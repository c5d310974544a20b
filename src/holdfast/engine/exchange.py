"""One connection to an engine's HTTP door: a request at a time, and what is answered, piece by piece.

It trusts nobody: a header or a held-back body has a bound, reading pauses while the reader is slow, and whatever isn't HTTP
ends the connection with a sentence.
"""

import asyncio
from collections import deque
from typing import cast

import httptools

HEAD_BYTES_MAX = 64 * 1024
HELD_BYTES_MAX = 256 * 1024  # of a body, not fetched yet; beyond it the engine waits for us


class Exchange(asyncio.Protocol):
    """A connection. `begin` sends a request; `head` and `piece` wait for what comes back; `done` says that all of it was read.

    `gone` is why the connection ended, empty while it stands; `heard` whether anything was answered to this request.
    """

    def __init__(self, place: str) -> None:
        self.place = place
        self.gone = ""
        self.heard = False
        self.done = True
        self.served = 0  # requests that were begun here
        self.headers: dict[str, str] = {}
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._pieces: deque[bytes] = deque()
        self._held = self._head_bytes = 0
        self._head_read = self._lasting = self._paused = False
        self._status = 0
        self._waiter: asyncio.Future[None] | None = None

    def begin(self, request: bytes) -> None:
        """Send one request; the one before it must be done."""
        self.done = self.heard = self._head_read = self._lasting = False
        self.served += 1
        self.headers = {}
        self._parser = httptools.HttpResponseParser(self)
        self._head_bytes = self._status = 0
        if self._transport is not None:
            self._transport.write(request)

    async def head(self) -> int:
        """The status, once it and all headers are there. 0: the connection ended before; `gone` says why."""
        while not self._head_read and not self.gone:
            await self._news()
        return self._status

    async def piece(self) -> bytes:
        """The next bytes of the body. Empty: it is complete (`done`), or the connection ended (`gone`)."""
        while not self._pieces and not self.done and not self.gone:
            await self._news()
        if not self._pieces:
            return b""
        piece = b"".join(self._pieces) if len(self._pieces) > 1 else self._pieces[0]
        self._pieces.clear()
        self._held = 0
        if self._paused and self._transport is not None and not self.gone:
            self._paused = False
            self._transport.resume_reading()
        return piece

    @property
    def reusable(self) -> bool:
        """Whether another request may follow on this connection."""
        return self.done and self._lasting and not self.gone

    def cut(self, why: str) -> None:
        """Hang up at once."""
        self._end(why)
        if self._transport is not None:
            self._transport.abort()

    # what the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self.gone:  # given up while it was dialled
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self.gone:
            return
        if self.done:
            self.cut(f"{self.place} spoke without being asked")
            return
        self.heard = True
        if not self._head_read:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.cut(f"{self.place} sent garbage, which is not HTTP: {error}")
            return
        if not self._head_read and self._head_bytes > HEAD_BYTES_MAX:
            self.cut(f"{self.place} sent headers of more than {HEAD_BYTES_MAX} bytes")
        if self._held > HELD_BYTES_MAX and not self._paused and self._transport is not None and not self.gone:
            self._paused = True
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        framed = "content-length" in self.headers or "transfer-encoding" in self.headers
        if self._head_read and not framed and exc is None and not self.gone:
            self.done = True  # such a body ends with the connection
        self._end(f"{self.place} cut the connection{f': {exc}' if exc else ''}")

    # what httptools calls; what is raised here ends the parsing

    def on_message_begin(self) -> None:
        if self.done:
            raise ValueError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self._head_read, self._status = True, int(self._parser.get_status_code())
        self._wake()

    def on_body(self, body: bytes) -> None:
        if body:
            self._pieces.append(body)
            self._held += len(body)
            self._wake()

    def on_message_complete(self) -> None:
        self._lasting = bool(self._parser.should_keep_alive())
        self.done = True
        self._wake()

    async def _news(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _end(self, why: str) -> None:
        self.gone = self.gone or why
        self._wake()
