"""One client's connection: requests in strict order, one answer at a time, bounded memory, prompt hang-up.

A client that goes away cancels its request's task, which closes the service's generator and so aborts the work at the
replica; where it can come back for the answer, the task lingers (gateway/buffers.py). A client that does not read is waited
for, and cut by the sweep when it has not read for too long.
"""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TypeAlias, cast

from msgspec import Struct, field

from holdfast.gateway.access import Access
from holdfast.gateway.asker import Asker
from holdfast.gateway.buffers import Lingering
from holdfast.gateway.cors import Cors
from holdfast.gateway.crowd import Crowd, Taking
from holdfast.gateway.incoming import BODY, DEAF, IDLE, Hearing, Incoming, Request, Tick
from holdfast.gateway.metrics import Tally
from holdfast.gateway.needs import Limits
from holdfast.gateway.refusals import Refusal, refusal

REASONS = {
    200: "OK", 204: "No Content", 400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict", 417: "Expectation Failed", 422: "Unprocessable Content",
    413: "Content Too Large", 429: "Too Many Requests", 431: "Request Header Fields Too Large",
    500: "Internal Server Error", 501: "Not Implemented", 503: "Service Unavailable", 504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}  # fmt: skip
STATUS_LINES = {code: f"HTTP/1.1 {code} {reason}\r\n".encode() for code, reason in REASONS.items()}
KEEP_ALIVE = b"connection: keep-alive\r\n"  # HTTP/1.0 clients want to be told
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# A draining door closes a connection that was just in use only after this: its next request is probably on the way, is
# answered, and told to close; closing under it would look like a failure.
FAREWELL_S = 1.0
LINGER_S = 5.0  # how long a refused client may finish sending before its connection is cut

Handle: TypeAlias = "Callable[[Exchange], Coroutine[None, None, None] | None]"


class Hall(Struct):
    """What all connections of one door share.

    `handle` returns a coroutine that will answer, or None when it has answered at once.
    """

    limits: Limits
    tally: Tally
    handle: Handle
    tick: Tick
    date: bytes = b""
    draining: bool = False
    connections: "set[Connection]" = set()
    crowded: str = ""  # why no further connection is taken
    access: Access | None = None
    lingering: Lingering = field(default_factory=Lingering)
    crowd: Crowd = field(default_factory=Crowd)
    cors: Cors | None = None  # for web pages of other origins


class Exchange:
    """One request and its answer: either `send` or `refuse`, or `open`, any number of `push` and one `shut`."""

    __slots__ = (
        "_connection", "_hall", "answered", "began_s", "begun", "follows", "generation", "lines", "lingers", "request",
        "status", "tokens_in", "tokens_out", "who",
    )  # fmt: skip

    def __init__(self, connection: "Connection", hall: Hall, request: Request) -> None:
        self._connection = connection
        self._hall = hall
        self.request = request
        self.lines = b"" if hall.cors is None else hall.cors.lines(request)  # that every answer carries
        self.begun = self.answered = False
        self.generation = ""  # whose answer it is
        self.follows = False  # an answer that was begun before
        self.lingers = False  # whether the work goes on for a while when the client is lost
        self.who: Asker | None = None
        self.status = self.tokens_in = self.tokens_out = 0
        self.began_s = 0.0  # only where an access log is kept

    @property
    def keeps(self) -> bool:
        """Whether the connection lives on after this answer."""
        return self.request.keep_alive and not self._hall.draining

    @property
    def address(self) -> str:
        """Whose connection it is: an IP address; empty on a unix socket."""
        return self._connection.address

    def send(self, status: int, headers: bytes, body: bytes) -> None:
        """A whole answer. `headers` are complete lines, each with its CRLF."""
        self.begun = self.answered = True
        hall, self.status = self._hall, status
        hall.tally.answered(status)
        close = (b"" if self.request.chunked_ok else KEEP_ALIVE) if self.keeps else b"connection: close\r\n"
        length = b"content-length: %d\r\n\r\n" % len(body) if status != 204 else b"\r\n"
        if self.request.method == b"HEAD":
            body = b""
        self._connection.write(b"".join((STATUS_LINES[status], hall.date, self.lines, headers, close, length, body)))

    def refuse(self, said: Refusal, headers: bytes = b"") -> None:
        """An error as a whole answer."""
        self._hall.tally.refused(said.code)
        self.send(said.status, said.headers + headers, said.body)

    def options(self, allowed: bytes, headers: bytes) -> None:
        """What may be asked here; a browser also hears whether the page before it may."""
        cors, methods = self._hall.cors, (b"GET, HEAD" if allowed == b"GET" else allowed) + b", OPTIONS"
        lines = b"" if cors is None else cors.preflight(self.request, methods)
        self.send(204, b"allow: %b\r\n%b%b" % (methods, lines, headers), b"")

    def open(self, headers: bytes) -> None:
        """Begin an answer of unknown length."""
        self.begun, self.status = True, 200
        hall, request = self._hall, self.request
        hall.tally.answered(200)
        if not request.chunked_ok:
            request.keep_alive = False
        framing = b"transfer-encoding: chunked\r\n" if request.chunked_ok else b""
        close = b"\r\n" if self.keeps else b"connection: close\r\n\r\n"
        self._connection.write(b"".join((STATUS_LINES[200], hall.date, self.lines, headers, framing, close)))

    def push(self, data: bytes) -> "asyncio.Future[None] | None":
        """A piece of an open answer, never empty. While the client reads too slowly: what to wait for before pushing more."""
        if self.request.chunked_ok:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        connection = self._connection
        connection.write(data)
        return connection.flow

    def shut(self, data: bytes, close: bool = False) -> None:
        """The last piece of an open answer, never empty; `close` ends the connection too."""
        self.answered = True
        if close:
            self.request.keep_alive = False
        if self.request.chunked_ok:
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data)
        self._connection.write(data)


class Connection(asyncio.Protocol):
    """The transport's protocol; owns the queue of requests that came while one was being answered."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall
        self._loop = asyncio.get_running_loop()
        hearing = Hearing(self._asked, self._refuse, self._go_on, hall.tick)
        self._incoming = Incoming(hall.limits, hearing)
        self._transport: asyncio.Transport | None = None
        self._waiting: deque[Request | Refusal] = deque()
        self._waiting_bytes = 0
        self._exchange: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._taking = Taking()
        self._born_s = hall.tick.now_s
        self._old = False  # told to close with its next answer
        self._owes_go_on = False
        self._key = b""  # what its requests come with
        self.flow: asyncio.Future[None] | None = None
        self.lost = False
        self.address = ""

    # the transport calls these

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one by shape, not by class
        hall = self._hall
        hall.connections.add(self)
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self.address = str(peer[0])
        self._transport.set_write_buffer_limits(high=hall.limits.stream_bytes_max)
        complaint = hall.crowd.complaint(self.address, len(hall.connections), hall.crowded, hall.limits)
        if complaint is not None:
            self._incoming.deafen()
            self._refuse(complaint)

    def data_received(self, data: bytes) -> None:
        self._incoming.feed(data)

    def eof_received(self) -> bool:
        """A client that closes its sending side has hung up: the transport closes, and the answer with it."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        task, exchange, hall = self._task, self._exchange, self._hall
        hall.connections.discard(self)
        hall.crowd.drop(self.address)
        hall.crowd.drop(self._key)
        self._waiting.clear()
        if task is not None:
            if exchange is not None and exchange.lingers and not hall.draining:
                hall.lingering.add(task, exchange.generation, hall.tick.now_s, exchange.follows)
            else:
                task.cancel()
        if self.flow is not None and not self.flow.done():
            self.flow.set_result(None)

    def pause_writing(self) -> None:
        self.flow = self._loop.create_future()

    def resume_writing(self) -> None:
        if self.flow is not None and not self.flow.done():
            self.flow.set_result(None)
        self.flow = None
        if self._exchange is None and self._waiting and not self.lost:
            self._loop.call_soon(self._turn)

    # the door and the exchange call these

    def write(self, data: bytes) -> None:
        if not self.lost and self._transport is not None:
            self._taking.written_bytes += len(data)
            self._transport.write(data)

    def abort(self) -> None:
        """Cut it, answer or not."""
        if self._transport is not None:
            self._transport.abort()

    def _reset(self) -> None:
        """Cut it so that the kernel too lets go of what was not taken, instead of offering it for minutes."""
        if self._transport is not None:
            with contextlib.suppress(OSError):
                plug: socket.socket = self._transport.get_extra_info("socket")
                plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    def sweep(self) -> None:
        """Enforce this connection's deadlines; the door calls it once a tick."""
        hall, incoming = self._hall, self._incoming
        limits, now = hall.limits, hall.tick.now_s
        self._old = now - self._born_s > limits.keep_s
        if self._taking.stalls(self.unread_bytes, now, limits):
            hall.tally.stalled += 1
            self._reset()
        elif incoming.stage == DEAF:
            if self._exchange is None and now - incoming.since_s > LINGER_S and not self.unread_bytes:
                self.abort()
        elif incoming.silent():
            patience_s = limits.idle_s if incoming.stage == IDLE else limits.head_s
            if hall.draining:
                patience_s = min(patience_s, FAREWELL_S)
            if now - incoming.since_s > patience_s and self._exchange is None and not self._waiting:
                self._farewell()
        else:
            incoming.overdue(now)

    def _farewell(self) -> None:
        if self._transport is not None:
            self._transport.close()

    @property
    def unread_bytes(self) -> int:
        """What the client has not taken yet of what was written."""
        return 0 if self._transport is None or self.lost else self._transport.get_write_buffer_size()

    @property
    def generation(self) -> str:
        """Whose answer is being written, if any."""
        return "" if self._exchange is None else self._exchange.generation

    # the reading half calls these

    def _asked(self, request: Request) -> None:
        key = request.key
        if key != self._key and not self._claim(key):
            return
        if self._old:
            request.keep_alive = False
        if self._exchange is None and self.flow is None and not self._waiting:
            self._begin(Exchange(self, self._hall, request))
            return
        self._waiting.append(request)
        self._waiting_bytes += len(request.body)
        limits = self._hall.limits
        if len(self._waiting) > limits.pipelined_max or self._waiting_bytes > limits.body_bytes_max:
            self._incoming.deafen()
            self._refuse(refusal(429, "Too many pipelined requests; wait for answers.", "pipelined", 1.0))

    def _claim(self, key: bytes) -> bool:
        """This connection is a key's from now on, unless that holds too many; answers for itself then."""
        hall, was = self._hall, self._key
        self._key = key
        complaint = hall.crowd.claim(was, key, hall.limits)
        if complaint is not None:
            self._incoming.deafen()
            self._refuse(complaint)
        return complaint is None

    def _refuse(self, said: Refusal) -> None:
        if self._exchange is None and not self._waiting:
            self._last_words(said)
        else:
            self._waiting.append(said)

    def _go_on(self) -> None:
        self._owes_go_on = self._exchange is not None  # not into the middle of an answer
        if not self._owes_go_on:
            self.write(CONTINUE)

    # one exchange after the other

    def _begin(self, exchange: Exchange) -> None:
        self._exchange, access = exchange, self._hall.access
        if access is not None:
            access.begin(exchange)
        work = self._hall.handle(exchange)
        if work is None:
            if access is not None:
                access.end(exchange)
            self._next(exchange)
        else:
            self._task = self._loop.create_task(self._work(exchange, work))

    async def _work(self, exchange: Exchange, work: Coroutine[None, None, None]) -> None:
        """One request's task. It looks after its own end: a done-callback would cost every request another turn."""
        failed = True
        try:
            await work
            failed = False
        finally:
            task, self._task = self._task, None
            if failed and task is not None and not self.lost:
                task.add_done_callback(self._failed)
                if not exchange.begun:
                    why = "Holdfast made a mistake; the operator's log has it."
                    exchange.refuse(refusal(500, why, "internal_error"))
            if self._hall.access is not None:
                self._hall.access.end(exchange)
            if exchange.answered:
                self._next(exchange)
            else:
                self.abort()

    def _failed(self, task: asyncio.Task[None]) -> None:
        self._hall.tally.mistakes += 1
        error = None if task.cancelled() else task.exception()
        context = {"message": "a request's handler failed", "exception": error, "protocol": self}
        self._loop.call_exception_handler(context)

    def _next(self, done: Exchange) -> None:
        """The exchange is over: close, or begin the next one that waits."""
        self._exchange = None
        if self.lost:
            return
        if not done.keeps:
            self._close()
        elif not self._waiting:
            if self._incoming.stage == IDLE:
                self._incoming.since_s = self._hall.tick.now_s
            elif self._owes_go_on and self._incoming.stage == BODY:
                self._go_on()
        elif self.flow is None:  # who does not take one answer gets no further one
            # from the loop and not from here: many pipelined pages would nest as deep as there are pages
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Whose turn it is among those who wait."""
        if self.lost or self._exchange is not None or not self._waiting:
            return
        following = self._waiting.popleft()
        if isinstance(following, Refusal):
            self._last_words(following)
        else:
            self._waiting_bytes -= len(following.body)
            self._begin(Exchange(self, self._hall, following))

    def _last_words(self, said: Refusal) -> None:
        nobody = Request(b"GET", b"", {}, b"", keep_alive=False, chunked_ok=True)
        Exchange(self, self._hall, nobody).refuse(said)
        self._close()

    def _close(self) -> None:
        """Half-close, so that a client still sending can read our answer first; the sweep cuts it in the end.

        TLS knows no half: there the transport says farewell when all is written, and reads on until it is answered.
        """
        self._incoming.deafen()
        self._waiting.clear()
        if self._transport is not None and not self.lost:
            if self._transport.can_write_eof():
                self._transport.write_eof()
            else:
                self._transport.close()
