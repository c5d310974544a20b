"""A scripted engine's HTTP door: real sockets, and replies that can be cut, stalled or spoilt at any byte.

The dialects (sim/vllm_server.py and its like) are tables of handlers over it. As in the real servers a handler ends when its
caller hangs up: its task is cancelled.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

import httptools
import msgspec
from msgspec import Struct

BODY_BYTES_MAX = 64 * 1024 * 1024
_WORDS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    429: "Too Many Requests",
    503: "Service Unavailable",
}


class Asked(Struct):
    """One request. Header names are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body as an object. Raises ValueError where it is none."""
        read = msgspec.json.decode(self.body)
        if not isinstance(read, dict):
            raise ValueError("the body is no JSON object")
        return read


class Reply:
    """What goes back: `text` or `json` at once; or `begin`, some `event` and `end`. `raw` writes bytes as they are, `reset` cuts
    the connection as a crash does."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._streaming = False
        self.begun = False

    def text(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.begun = True
        self._head(status, f"content-type: {kind}\r\ncontent-length: {len(body)}", body)

    def json(self, status: int, body: object) -> None:
        self.text(status, msgspec.json.encode(body), "application/json")

    def begin(self) -> None:
        """The head of an event stream."""
        self.begun = self._streaming = True
        self._head(200, "content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked", b"")

    def event(self, data: object) -> None:
        """One event; bytes as they are, anything else as JSON."""
        line = data if isinstance(data, bytes) else msgspec.json.encode(data)
        self._chunk(b"data: " + line + b"\n\n")

    def piece(self, data: bytes) -> None:
        """Bytes of the body that need be no event."""
        self._chunk(data)

    def end(self) -> None:
        """The stream's proper end."""
        if self._streaming:
            self._streaming = False
            self._transport.write(b"0\r\n\r\n")

    def raw(self, data: bytes) -> None:
        self.begun = True
        self._transport.write(data)

    def cut(self) -> None:
        """Close the connection in the midst of the answer, after what was said has gone out."""
        self._streaming = False
        self._transport.close()

    def reset(self) -> None:
        """RST, so that the other side learns it at once and unsent bytes are lost."""
        self._streaming = False
        sock = self._transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self._transport.abort()

    def _head(self, status: int, headers: str, body: bytes) -> None:
        self._transport.write(
            f"HTTP/1.1 {status} {_WORDS.get(status, 'Word')}\r\nserver: uvicorn\r\n{headers}\r\n\r\n".encode() + body
        )

    def _chunk(self, data: bytes) -> None:
        self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))


Handler = Callable[[Asked, Reply], Awaitable[None]]
Routes = Mapping[tuple[str, str], Handler]


class HttpEngine:
    """Serves routes, (method, path) -> handler, on one address, in the running loop. `url` once it is open.

    `hang_ups` counts requests whose caller left before they were answered; `cut` ends all connections at once. `hush` makes the
    door silent: connections are taken, and nothing is read or said until `speak`, as with a stopped process.
    """

    def __init__(self, routes: Routes) -> None:
        self.url = ""
        self.requests = 0
        self.hang_ups = 0
        self._routes = routes
        self._server: asyncio.Server | None = None
        self.hushed = False
        self.connections: set[_Connection] = set()

    async def open(self, host: str = "127.0.0.1", port: int = 0, path: str = "") -> str:
        """Listen on TCP, or on a unix socket at `path`; the URL."""
        loop = asyncio.get_running_loop()
        if path:
            self._server = await loop.create_unix_server(lambda: _Connection(self), path)
            self.url = f"unix:{path}"
        else:
            self._server = await loop.create_server(lambda: _Connection(self), host, port)
            self.url = f"http://{host}:{self._server.sockets[0].getsockname()[1]}"
        return self.url

    async def close(self) -> None:
        """Shut the door and cut who is inside, as when the process dies."""
        if self._server is not None:
            self._server.close()
        self.cut()

    def cut(self) -> None:
        for connection in tuple(self.connections):
            connection.cut()

    def hush(self) -> None:
        self.hushed = True

    def speak(self) -> None:
        self.hushed = False
        for connection in tuple(self.connections):
            connection.next()

    def handler(self, asked: Asked) -> Handler:
        """Who answers it."""
        return self._routes.get((asked.method, asked.path.partition("?")[0]), _not_found)


async def _not_found(asked: Asked, reply: Reply) -> None:
    reply.json(404, {"detail": "Not Found"})


class _Connection(asyncio.Protocol):
    """Requests of one connection, one after the other."""

    def __init__(self, engine: HttpEngine) -> None:
        self._engine = engine
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiting: list[Asked] = []
        self._url, self._body = b"", bytearray()
        self._headers: dict[str, str] = {}

    def cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._engine.connections.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.cut()

    def connection_lost(self, exc: Exception | None) -> None:
        self._engine.connections.discard(self)
        self._waiting.clear()
        if self._task is not None:
            self._engine.hang_ups += 1
            self._task.cancel()

    def on_message_begin(self) -> None:
        self._url, self._headers = b"", {}
        self._body.clear()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > BODY_BYTES_MAX:
            raise ValueError("a request larger than any prompt")

    def on_message_complete(self) -> None:
        method = self._parser.get_method().decode("latin-1")
        self._waiting.append(Asked(method, self._url.decode("latin-1"), self._headers, bytes(self._body)))
        self.next()

    def next(self) -> None:
        """Begin with the next request, if there is one and nothing hinders."""
        if self._engine.hushed:
            return
        if self._task is None and self._waiting and self._transport is not None:
            asked = self._waiting.pop(0)
            self._engine.requests += 1
            self._task = asyncio.get_running_loop().create_task(self._answer(asked, Reply(self._transport)))

    async def _answer(self, asked: Asked, reply: Reply) -> None:
        try:
            await self._engine.handler(asked)(asked, reply)
            reply.end()
        finally:
            self._task = None
            if not reply.begun:
                self.cut()
        self.next()
