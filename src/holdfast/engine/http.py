"""A door to an engine that speaks HTTP: requests answered whole, and streams of events.

Lean on purpose, as every token of every stream passes here: an asyncio protocol over httptools, connections kept for reuse.
It says how an exchange ended in the house's own faults, so that adapters only read what is inside:

- EngineRefused: no connection, or a status that says "not now" or "not you" (401, 403, 404, 429, 503). Nothing was generated.
- BadRequest: 400, 413, 422. The request's own fault.
- EngineLost: any other status, garbage, a connection that is cut, an event beyond its limit.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncGenerator
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused, Fault
from holdfast.domain.ports import Clock
from holdfast.engine.exchange import Exchange
from holdfast.engine.sse import EventCutter, NotEvents
from holdfast.engine.within import within

IDLE_CONNECTIONS_MAX = 64
CONNECT_S = 5.0
ANSWER_BYTES_MAX = 16 * 1024 * 1024
WHY_CHARS_MAX = 500
_BAD = (400, 413, 422)
_NOT_NOW = (401, 403, 404, 429, 503)


class Answer(Struct, frozen=True):
    """A whole response. Header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Place(Struct, frozen=True):
    """Where a door leads, read from its URL. `prefix` stands before every path."""

    url: str
    host: str = ""
    port: int = 0
    unix: str = ""
    tls: bool = False
    prefix: str = ""


def _place(url: str) -> _Place:
    """Raises ValueError for what is none of http://HOST:PORT[/PREFIX], https://..., unix:/PATH."""
    if url.startswith("unix:/"):
        return _Place(url, unix=url.removeprefix("unix:"))
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise ValueError(f"{url!r} is not an engine's address: write http://HOST:PORT, https://HOST:PORT or unix:/PATH")
    tls = parts.scheme == "https"
    port = parts.port or (443 if tls else 80)
    return _Place(url, parts.hostname, port, tls=tls, prefix=parts.path.rstrip("/"))


class HttpDoor:
    """One engine's door. `key` goes as `Authorization: Bearer` with each request and is never shown.

    Raises:
        ValueError: the URL is none, or the key holds what can't stand in a header.
    """

    def __init__(self, url: str, clock: Clock, key: str = "") -> None:
        self._place = _place(url)
        if not key.isprintable() or not key.isascii():
            raise ValueError("the engine's key holds characters that can't stand in a header")
        self._clock = clock
        place = self._place
        named = f"[{place.host}]" if ":" in place.host else place.host
        self._common = f"host: {f'{named}:{place.port}' if named else 'localhost'}\r\n" + (
            f"authorization: Bearer {key}\r\n" if key else ""
        )
        self.dialled = 0  # connections that were made so far
        self._idle: deque[Exchange] = deque()
        self._open: set[Exchange] = set()
        self._closed = False

    @property
    def url(self) -> str:
        return self._place.url

    async def ask(self, method: str, path: str, body: bytes | None, timeout_s: float) -> Answer:
        """One request, its answer whole, whatever its status.

        Raises:
            EngineRefused: no connection.
            EngineLost: it was cut, is garbage, is larger than ANSWER_BYTES_MAX, or not complete after `timeout_s`.
        """
        asking = asyncio.ensure_future(self._whole(method, path, body))
        try:
            if not await within(self._clock, timeout_s, asking):
                raise EngineLost(f"{self.url} did not answer {method} {path} in {timeout_s:g} s")
            return asking.result()
        finally:
            asking.cancel()

    async def events(self, path: str, body: bytes) -> AsyncGenerator[bytes, None]:
        """POST, and the data of each event as it comes; ends where the response ends as HTTP says. Closing it hangs up.

        How long to wait is the reader's affair: silence is no fault here.

        Raises:
            EngineRefused, BadRequest, EngineLost: see the module.
        """
        exchange = await self._begun("POST", path, body)
        try:
            status = await exchange.head()
            if not 200 <= status < 300:
                raise fault_of(self.url, status, await self._rest(exchange))
            cutter = EventCutter()
            while piece := await exchange.piece():
                for event in self._cut(cutter, piece):
                    yield event
            if not exchange.done:
                raise EngineLost(exchange.gone)
            if cutter.rest:
                raise EngineLost(f"{self.url} ended its stream in the middle of an event")
        finally:
            self._leave(exchange)

    async def close(self) -> None:
        """Hang up everything: streams under way fail with EngineLost."""
        self._closed = True
        for exchange in tuple(self._open):
            exchange.cut(f"our door to {self.url} was closed")
        self._idle.clear()

    def _cut(self, cutter: EventCutter, piece: bytes) -> list[bytes]:
        try:
            return cutter.feed(piece)
        except NotEvents as error:
            raise EngineLost(f"{self.url} sent {error}").saying(error.shown) from error

    async def _whole(self, method: str, path: str, body: bytes | None) -> Answer:
        exchange = await self._begun(method, path, body)
        try:
            status = await exchange.head()
            return Answer(status, exchange.headers, await self._rest(exchange))
        finally:
            self._leave(exchange)

    async def _rest(self, exchange: Exchange) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while piece := await exchange.piece():
            pieces.append(piece)
            size += len(piece)
            if size > ANSWER_BYTES_MAX:
                raise EngineLost(f"{self.url} answered with more than {ANSWER_BYTES_MAX} bytes")
        if not exchange.done:
            raise EngineLost(exchange.gone)
        return b"".join(pieces)

    async def _begun(self, method: str, path: str, body: bytes | None) -> Exchange:
        """An exchange whose head has come. A kept connection that turns out closed, nothing having been answered, is no
        fault of anybody's: the engine let go of it while we wrote. Asked once anew on a fresh one."""
        request = self._request(method, path, body)
        exchange = self._kept()
        if exchange is not None and await self._tried(exchange, request):
            return exchange
        exchange = await self._dialled()
        if not await self._tried(exchange, request):
            raise EngineLost(f"{exchange.gone}, before it answered {method} {path}")
        return exchange

    async def _tried(self, exchange: Exchange, request: bytes) -> bool:
        """Send it, and wait for the head. False: nothing was answered."""
        exchange.begin(request)
        answered = False
        try:
            if await exchange.head():
                answered = True
            elif exchange.heard:
                raise EngineLost(exchange.gone)
            return answered
        finally:
            if not answered:
                self._leave(exchange)

    def _request(self, method: str, path: str, body: bytes | None) -> bytes:
        head = f"{method} {self._place.prefix}{path} HTTP/1.1\r\n{self._common}"
        if body is None:
            return f"{head}\r\n".encode()
        return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body

    def _kept(self) -> Exchange | None:
        while self._idle:
            exchange = self._idle.pop()
            if not exchange.gone:
                return exchange
            self._open.discard(exchange)
        return None

    async def _dialled(self) -> Exchange:
        if self._closed:
            raise EngineRefused(f"our door to {self.url} was closed")
        exchange = Exchange(self.url)
        self._open.add(exchange)
        dialling = asyncio.ensure_future(self._dial(exchange))
        connected = False
        try:
            if not await within(self._clock, CONNECT_S, dialling):
                raise EngineRefused(f"no connection to {self.url} in {CONNECT_S:g} s")
            dialling.result()
            connected = True
            self.dialled += 1
            return exchange
        except OSError as error:
            raise EngineRefused(f"nobody answers at {self.url}: {error.strerror or error}") from error
        finally:
            dialling.cancel()
            if not connected:
                self._leave(exchange)

    async def _dial(self, exchange: Exchange) -> None:
        loop, place = asyncio.get_running_loop(), self._place
        if place.unix:
            await loop.create_unix_connection(lambda: exchange, place.unix)
            return
        tls = ssl.create_default_context() if place.tls else None
        await loop.create_connection(lambda: exchange, place.host, place.port, ssl=tls)

    def _leave(self, exchange: Exchange) -> None:
        """Keep the connection for another request where that is possible, else hang up."""
        if exchange.reusable and not self._closed and len(self._idle) < IDLE_CONNECTIONS_MAX:
            self._idle.append(exchange)
            return
        exchange.cut("we hung up")
        self._open.discard(exchange)


def fault_of(url: str, status: int, body: bytes) -> Fault:
    """What a status other than 2xx means, with what the engine said of it."""
    said, param, code = _complaint(body)
    why = f"{url} answered {status}: {said}" if said else f"{url} answered {status}"
    if status in _BAD:
        return BadRequest(why, param, code).saying(said)
    fault = EngineRefused(why) if status in _NOT_NOW else EngineLost(why)
    return fault.saying(said)


def _complaint(body: bytes) -> tuple[str, str | None, str | None]:
    """(message, param, code) of an error body: OpenAI's {"error": {...}}, {"error": "..."}, {"message": ...}, or text."""
    try:
        read = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return body.decode("utf-8", "replace").strip()[:WHY_CHARS_MAX], None, None
    told = read.get("error", read) if isinstance(read, dict) else read
    if not isinstance(told, dict):
        return str(told)[:WHY_CHARS_MAX], None, None
    message = told.get("message") or told.get("detail") or told
    param, code = told.get("param"), told.get("code")
    return (
        str(message)[:WHY_CHARS_MAX],
        param if isinstance(param, str) else None,
        code if isinstance(code, str) else None,
    )
