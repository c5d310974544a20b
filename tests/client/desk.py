"""A site small enough to be known by heart: it keeps one answer, and speaks the protocol of docs/resuming.md about it.

`Desk` is pure: a request in, a response out. `Wire` puts it behind httpx without a socket, `Stand` behind a real one. Both
are told how each exchange goes wrong.
"""

import asyncio
import json
import socket
import struct
import threading
from collections.abc import AsyncIterator, Iterator

import httpx
from msgspec import Struct

NAME = "0123456789abcdef01234567"
PATH = f"/v1/streams/{NAME}"
TEXTS = ("Hold", "fast ", "ist ", "fün", "f", "fest.")


def event(delta: dict[str, object], name: str | None, finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    body = {
        "id": f"chatcmpl-{NAME}",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "choices": [choice],
    }
    mark = f"id: {name}\n" if name is not None else ""
    return f"{mark}data: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


def stream() -> list[tuple[str | None, bytes]]:
    """Events of a streamed answer, each with its id: thoughts and words of one chunk, a comment, a finish, the end mark."""
    role: list[tuple[str | None, bytes]] = [(None, event({"role": "assistant", "content": ""}, None))]
    thought = [("0-3-r", event({"reasoning_content": "Hm."}, "0-3-r")), ("3", event({"content": "O"}, "3"))]
    words = [(str(n), event({"content": text}, str(n))) for n, text in enumerate(TEXTS, 4)]
    words.insert(2, (None, b": keep-alive\n\n"))
    end = [("9-f", event({}, "9-f", "stop")), (None, b": holdfast moves=1\ndata: [DONE]\n\n")]
    return [*role, *thought, *words, *end]


SAID = "O" + "".join(TEXTS)
STREAM = stream()
ALL = b"".join(data for _, data in STREAM)
WHOLE = json.dumps({"id": f"chatcmpl-{NAME}", "object": "chat.completion", "created": 1, "model": "m", "choices": [
    {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": SAID}}]}).encode()  # fmt: skip


def told(body: bytes) -> bytes:
    """A stream without the comments that stand alone, as it is handed on."""
    return b"".join(part + b"\n\n" for part in body.split(b"\n\n") if b"data: " in part)


class Asked(Struct):
    """What the desk was asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Reply(Struct):
    """What it said."""

    status: int
    headers: dict[str, str]
    body: bytes

    def raw(self) -> bytes:
        """As bytes of HTTP; the length is told, so that a cut is seen as one."""
        lines = [f"HTTP/1.1 {self.status} X", *(f"{name}: {value}" for name, value in self.headers.items())]
        lines += [f"content-length: {len(self.body)}", "connection: close"]
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


class Desk:
    """Every request is written down in `asked`. `refusals` are given first, one a request; then comes the answer."""

    def __init__(self, resume: str = PATH, refusals: list[Reply | None] | None = None) -> None:
        self.asked: list[Asked] = []
        self.resume, self.refusals = resume, refusals or []

    def reply(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        refused = self.refusals.pop(0) if self.refusals else None
        if refused is not None:
            return refused
        headers = {"x-holdfast-answer": NAME, "x-holdfast-resume": self.resume, "content-type": "text/event-stream"}
        if asked.method == "POST" and not json.loads(asked.body).get("stream"):
            return Reply(200, headers | {"content-type": "application/json"}, WHOLE)
        if asked.method == "POST":
            return Reply(200, headers, ALL)
        if asked.path != PATH:
            return refusal(404, "stream_not_found")
        last = asked.headers.get("last-event-id")
        begin = 0 if last is None else [name for name, _ in STREAM].index(last) + 1
        return Reply(200, headers, b"".join(data for _, data in STREAM[begin:]))


def refusal(status: int, code: str) -> Reply:
    body = json.dumps({"error": {"message": f"no: {code}", "type": "t", "param": None, "code": code}}).encode()
    return Reply(status, {"content-type": "application/json"}, body)


class Cut(Struct, frozen=True):
    """How an exchange ends early: after `bytes` of the body (None: before the head), with `error`, in pieces of `piece`."""

    bytes: int | None
    error: type[httpx.TransportError] = httpx.ReadError
    piece: int = 1 << 16


class _Body(httpx.SyncByteStream, httpx.AsyncByteStream):
    def __init__(self, body: bytes, cut: Cut | None) -> None:
        self._body, self._cut = body, cut
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        end = len(self._body) if self._cut is None else self._cut.bytes
        piece = 1 << 16 if self._cut is None else self._cut.piece
        body = self._body[:end]
        yield from (body[at : at + piece] for at in range(0, len(body), piece))
        if self._cut is not None:
            raise self._cut.error("cut")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self:
            yield part

    def close(self) -> None:
        self.closed = True

    async def aclose(self) -> None:
        self.closed = True


class Wire(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """A desk without a socket. `cuts[n]` is how exchange n goes wrong; what comes after the list goes well."""

    def __init__(self, desk: Desk, cuts: list[Cut | None] | None = None) -> None:
        self.desk, self._cuts = desk, list(cuts or [])
        self.requests: list[httpx.Request] = []
        self.bodies: list[_Body] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        headers = {name.lower(): value for name, value in request.headers.items()}
        cut = self._cuts.pop(0) if self._cuts else None
        if cut is not None and cut.bytes is None:
            raise cut.error("cut")
        content = b"".join(request.stream) if isinstance(request.stream, httpx.SyncByteStream) else b""
        reply = self.desk.reply(Asked(request.method, request.url.path, headers, content))
        self.bodies.append(_Body(reply.body, cut))
        return httpx.Response(reply.status, headers=reply.headers, stream=self.bodies[-1])

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return self.handle_request(request)


class Turned:
    """A blocking clock whose waits take no time."""

    def __init__(self) -> None:
        self.rests: list[float] = []
        self._now = 100.0

    def now(self) -> float:
        return self._now

    def rest(self, seconds: float) -> None:
        self.rests.append(seconds)
        self._now += seconds


class Stand:
    """A desk at a real port, in a thread of its own. `cuts` holds, for each coming exchange, how many bytes are sent of all
    its bytes, head included, before the connection is reset; None is all of them."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.cuts: list[int | None] = []
        self._ready, self._loop = threading.Event(), asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)
        self.port = 0

    def __enter__(self) -> "Stand":
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def _run(self) -> None:
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        self._loop.run_until_complete(server.wait_closed())
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        method, path, _ = first.split(" ")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        reply = self.desk.reply(Asked(method, path, headers, body)).raw()
        cut = self.cuts.pop(0) if self.cuts else None
        writer.write(reply[:cut])
        await writer.drain()
        if cut is not None and cut % 2:  # a reset may also take away what was sent and not yet read; a close may not
            connection = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        else:
            writer.close()
