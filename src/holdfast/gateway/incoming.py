"""The reading half of a connection: bytes to whole requests, in order, within limits.

A head is kept until it is whole and then read at once (gateway/request_head.py); a body is as long as it was said to be, or
comes in chunks (gateway/chunked.py). Bytes that trickle in do not extend a deadline, and a body has to come at a least pace.
"""

from collections.abc import Callable

from msgspec import Struct

from holdfast.gateway.chunked import Chunks
from holdfast.gateway.needs import Limits
from holdfast.gateway.refusals import Refusal, refusal
from holdfast.gateway.request_head import CHUNKED, Alike, BadHead, Head, alike, hopeless, read_head

HEAD_END = b"\r\n\r\n"
UNLIKE_MAX = 4  # so often a connection is expected to send its head again
EMPTY_LINES_MAX = 4  # before a request, as some old clients send them


class Request(Struct):
    """A whole request. Header names are lower case; of a repeated header the last value counts."""

    method: bytes
    path: bytes
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool
    chunked_ok: bool  # HTTP/1.1: the answer may be chunked

    @property
    def key(self) -> bytes:
        """The API key, or nothing. Anthropic's clients send it by itself."""
        said = self.headers.get(b"authorization", b"")
        if said[:7].lower() == b"bearer ":
            return said[7:].strip()
        return self.headers.get(b"x-api-key", b"").strip()


# Where reading stands. Plain numbers: an enum's look-ups cost a microsecond a request.
# DEAF: a refusal is the last thing this client will hear; what still comes is thrown away.
IDLE, HEAD, BODY, DEAF = range(4)


class Tick(Struct):
    """The clock at the door's last sweep: exact enough for deadlines, and free to read."""

    now_s: float = 0.0


class Hearing(Struct):
    """Whom the reading half talks to: a whole request, a refusal that ends the connection, a wish to be told to go on."""

    request: Callable[[Request], None]
    refuse: Callable[[Refusal], None]
    go_on: Callable[[], None]
    tick: Tick


class Incoming:
    """Cuts what comes into requests. `since_s` is when the stage began; the sweep compares it with the limits."""

    __slots__ = (
        *(
            "_alike",
            "_body",
            "_body_bytes",
            "_chunks",
            "_head",
            "_hearing",
            "_length",
            "_limits",
            "_part",
            "_tick",
            "_unlike",
        ),
        *("since_s", "stage"),
    )

    def __init__(self, limits: Limits, hearing: Hearing) -> None:
        self._limits = limits
        self._hearing = hearing
        self._tick = hearing.tick
        self._part = bytearray()  # a head that is not whole yet
        self._head: Head | None = None  # whose body is awaited
        self._body: list[bytes] = []
        self._body_bytes = self._length = 0
        self._chunks: Chunks | None = None
        self._alike: Alike | None = None
        self._unlike = 0
        self.stage = HEAD
        self.since_s = hearing.tick.now_s

    def feed(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._part and self.stage == HEAD:
            searched = max(0, len(self._part) - 3)
            self._part += data
            if self._part.find(HEAD_END, searched) < 0 and self._part[:2] != b"\r\n":
                self._wait(self._part)
                return
            data, self._part = bytes(self._part), bytearray()
        at, size = 0, len(data)
        try:
            while at < size and self.stage != DEAF:
                at = self._take_body(data, at) if self.stage == BODY else self._take_head(data, at)
        except BadHead as bad:
            self._refuse(bad)

    def silent(self) -> bool:
        """Whether not a byte has come of the request that is waited for."""
        return self.stage == IDLE or (self.stage == HEAD and not self._part)

    def overdue(self, now: float) -> None:
        """Refuse what has taken too long."""
        limits, waited_s = self._limits, now - self.since_s
        if self.stage == HEAD and waited_s > limits.head_s:
            self._refuse(BadHead(408, f"The request's head took longer than {limits.head_s:g} s.", "too_slow"))
        elif self.stage == BODY and waited_s > limits.body_s:
            self._refuse(BadHead(408, f"The request's body took longer than {limits.body_s:g} s.", "too_slow"))
        elif self.stage == BODY and self.body_bytes < limits.bytes_per_s_min * (waited_s - limits.rate_grace_s):
            pace = f"{limits.bytes_per_s_min:g} bytes a second"
            self._refuse(BadHead(408, f"The request's body comes at less than {pace}.", "too_slow"))

    @property
    def body_bytes(self) -> int:
        """How much of the present body has come."""
        return self._body_bytes if self._chunks is None else self._chunks.body_bytes

    def deafen(self) -> None:
        """Throw away whatever still comes."""
        self.stage, self.since_s = DEAF, self._tick.now_s
        self._part, self._body, self._head, self._chunks = bytearray(), [], None, None

    def _refuse(self, bad: BadHead) -> None:
        if self.stage != DEAF:
            self.deafen()
            self._hearing.refuse(refusal(bad.status, bad.why, bad.code))

    def _wait(self, part: bytearray) -> None:
        """A head is not whole yet."""
        bad = hopeless(part, self._limits.head_bytes_max)
        if bad is not None:
            self._refuse(bad)

    def _take_head(self, data: bytes, at: int) -> int:
        """Read the head that begins here. Returns where it ends."""
        if self.stage == IDLE:
            self.stage, self.since_s = HEAD, self._tick.now_s
        if data.startswith(b"\r\n", at):
            for _ in range(EMPTY_LINES_MAX):
                at += 2 * data.startswith(b"\r\n", at)
            if at == len(data):
                return at
        limits, known = self._limits, self._alike
        length, begin = (0, 0) if known is None else known.match(data, at)
        if known is not None and begin:
            return self._take_start(data, begin, known.head, length)
        end = data.find(HEAD_END, at)
        if end < 0:
            self._part += data[at:]
            self._wait(self._part)
            return len(data)
        if end - at > limits.head_bytes_max:
            why = f"The request's head is over the limit of {limits.head_bytes_max} bytes; send fewer headers."
            raise BadHead(431, why, "head_too_large")
        head = read_head(data, at, end, limits.headers_max)
        self._unlike += 1
        self._alike = alike(head, data, at, end) if self._unlike <= UNLIKE_MAX else None
        return self._take_start(data, end + 4, head, head.length)

    def _take_start(self, data: bytes, at: int, head: Head, length: int) -> int:
        """A head was read, and its body of so many bytes begins here. Returns how far that was read."""
        limit = self._limits.body_bytes_max
        if 0 <= length <= len(data) - at and length <= limit:
            self._complete(head, data[at : at + length])
            return at + length
        if length > limit:
            raise self._too_large()
        self.stage, self.since_s = BODY, self._tick.now_s
        self._head, self._length, self._body_bytes = head, length, 0
        self._chunks = Chunks() if length == CHUNKED else None
        if b"expect" in head.headers and head.new and at == len(data):
            self._hearing.go_on()
        return at

    def _take_body(self, data: bytes, at: int) -> int:
        """Read on in the body. Returns how far."""
        limit, chunks = self._limits.body_bytes_max, self._chunks
        if chunks is not None:
            at = chunks.take(data, at, limit)
            if chunks.body_bytes > limit:
                raise self._too_large()
            if chunks.done:
                self._whole(chunks.parts)
            return at
        piece = data[at : at + self._length - self._body_bytes]
        self._body.append(piece)
        self._body_bytes += len(piece)
        if self._body_bytes == self._length:
            self._whole(self._body)
        return at + len(piece)

    def _too_large(self) -> BadHead:
        limit = self._limits.body_bytes_max
        return BadHead(413, f"The body is over the limit of {limit} bytes; send less text.", "request_too_large")

    def _whole(self, parts: list[bytes]) -> None:
        head = self._head
        self._head, self._chunks, self._body = None, None, []
        if head is not None:
            self._complete(head, b"".join(parts))

    def _complete(self, head: Head, body: bytes) -> None:
        self.stage, self.since_s = IDLE, self._tick.now_s
        self._hearing.request(Request(head.method, head.target, head.headers, body, head.keep_alive, head.new))
