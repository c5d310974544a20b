"""The reading half of a connection: bytes to whole requests, in order, within limits.

httptools (llhttp, all its lenient flags off) does the parsing. Bytes that trickle in do not extend a deadline.
"""

from collections.abc import Callable

import httptools
from msgspec import Struct

from holdfast.gateway.needs import Limits
from holdfast.gateway.refusals import Refusal, refusal

ONCE_ONLY = frozenset((b"host", b"authorization", b"content-length", b"transfer-encoding", b"x-holdfast-deadline-s"))


class Request(Struct):
    """A whole request. Header names are lower case; of a repeated header the last value counts."""

    method: bytes
    path: bytes
    headers: dict[bytes, bytes]
    body: bytes
    keep_alive: bool
    chunked_ok: bool  # HTTP/1.1: the answer may be chunked


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
    """Feeds the parser and hears its callbacks. `since_s` is when the stage began; the sweep compares it with the limits."""

    __slots__ = (
        "_body",
        "_body_bytes",
        "_head_bytes",
        "_headers",
        "_hearing",
        "_limits",
        "_parser",
        "_tick",
        "_url",
        "since_s",
        "stage",
    )

    def __init__(self, limits: Limits, hearing: Hearing) -> None:
        self._limits = limits
        self._hearing = hearing
        self._tick = hearing.tick
        self._parser = httptools.HttpRequestParser(self)
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._head_bytes = self._body_bytes = 0
        self.stage = HEAD
        self.since_s = hearing.tick.now_s

    def feed(self, data: bytes) -> None:
        """Bytes from the client."""
        if self.stage == DEAF:
            return
        if self.stage == IDLE:
            self.stage, self.since_s = HEAD, self._tick.now_s
            self._head_bytes = 0
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError as error:
            self._refuse(400, f"This is not HTTP/1.1 as it should be: {error}.", "bad_http")
        if self.stage == HEAD:
            self._head_bytes += len(data)
            self._check_head()

    def _stay(self, rest: bytes) -> None:
        """A client asks to switch protocols (Java's does, to h2c): read its head again without that wish.

        llhttp takes what follows such a head for the other protocol, the body included.
        """
        parser, self._parser = self._parser, httptools.HttpRequestParser(self)
        method = parser.get_method()
        if method == b"CONNECT":
            self._refuse(405, "CONNECT is not offered; this is no proxy.", "method_not_allowed")
            return
        lines = [b"%b %b HTTP/%b" % (method, self._url, parser.get_http_version().encode())]
        lines += [b"%b: %b" % row for row in self._headers.items() if row[0] != b"upgrade"]
        self.feed(b"\r\n".join(lines) + b"\r\n\r\n" + rest)

    def silent(self) -> bool:
        """Whether not a byte has come of the request that is waited for."""
        return self.stage == IDLE or (self.stage == HEAD and not self._head_bytes)

    def overdue(self, now: float) -> None:
        """Refuse what has taken too long."""
        limits, waited_s = self._limits, now - self.since_s
        if self.stage == HEAD and waited_s > limits.head_s:
            self._refuse(408, f"The request's head took longer than {limits.head_s:g} s.", "too_slow")
        elif self.stage == BODY and waited_s > limits.body_s:
            self._refuse(408, f"The request's body took longer than {limits.body_s:g} s.", "too_slow")

    def deafen(self) -> None:
        """Throw away whatever still comes."""
        self._enter(DEAF)
        self._headers, self._body = {}, []

    def _enter(self, stage: int) -> None:
        self.stage = stage
        self.since_s = self._tick.now_s

    def _refuse(self, status: int, why: str, code: str) -> None:
        if self.stage != DEAF:
            self.deafen()
            self._hearing.refuse(refusal(status, why, code))

    def _check_head(self) -> None:
        limit = self._limits.head_bytes_max
        if self._head_bytes > limit:
            self._refuse(
                431, f"The request's head is over the limit of {limit} bytes; send fewer headers.", "head_too_large"
            )

    def _check_body(self, size: int) -> bool:
        limit = self._limits.body_bytes_max
        if size > limit:
            self._refuse(413, f"The body is over the limit of {limit} bytes; send less text.", "request_too_large")
        return size <= limit

    # httptools calls what follows

    def on_message_begin(self) -> None:
        if self.stage != DEAF:
            self._url = b""
            self._headers = {}
            self._body = []
            self._head_bytes = self._body_bytes = 0
            self.stage, self.since_s = HEAD, self._tick.now_s

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > self._limits.head_bytes_max:
            self._check_head()
        if self.stage != HEAD:
            return  # a trailer may not change what was decided at the head
        name = name.lower()
        headers = self._headers
        if name in headers and name in ONCE_ONLY:
            self._refuse(400, f"The header {name.decode('latin-1')} may be sent once only.", "bad_http")
        else:
            headers[name] = value

    def on_headers_complete(self) -> None:
        if self.stage == DEAF:
            return
        headers = self._headers
        self.stage, self.since_s = BODY, self._tick.now_s
        length = headers.get(b"content-length")
        if b"transfer-encoding" in headers:
            if length is not None:
                self._refuse(400, "Send Content-Length or Transfer-Encoding, not both.", "bad_http")
            elif headers[b"transfer-encoding"].lower() != b"chunked":
                self._refuse(501, "The only Transfer-Encoding spoken here is chunked.", "bad_http")
        elif length is not None:
            self._check_body(int(length))
        if headers.get(b"expect", b"").lower() == b"100-continue" and self.stage == BODY:
            self._hearing.go_on()

    def on_body(self, body: bytes) -> None:
        if self.stage == DEAF:
            return
        self._body_bytes += len(body)
        if self._check_body(self._body_bytes):
            self._body.append(body)

    def on_message_complete(self) -> None:
        parts, parser = self._body, self._parser
        if self.stage == DEAF or parser.should_upgrade():
            return
        self.stage, self.since_s = IDLE, self._tick.now_s
        self._body = []
        request = Request(
            parser.get_method(),
            self._url,
            self._headers,
            parts[0] if len(parts) == 1 else b"".join(parts),
            parser.should_keep_alive(),
            parser.get_http_version() == "1.1",
        )
        self._hearing.request(request)
