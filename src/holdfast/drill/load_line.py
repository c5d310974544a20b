"""One connection of a load: sends a request, reads its answer as far as a true count needs it, and is free for the next.

Raw HTTP/1.1 over an asyncio protocol. A load that is dear in processor time measures itself: one event of a stream costs a
search or two here and no JSON; only errors are decoded.
"""

import asyncio
import re
from collections.abc import Callable
from typing import Protocol, cast

import httptools
import msgspec
from msgspec import Struct

from holdfast.drill.load_plan import Due

ERROR_BYTES_MAX = 4096
_CONTENT = re.compile(rb'"(?:reasoning_)?content": ?"[^"]')
_FINISH = re.compile(rb'"finish_reason": ?"')
FULL = 503
REFUSALS = (408, 429, FULL, 529)  # 408: sglang-router's queue was too long; 529: Dynamo's
REFUSAL_CODES = ("rate_limit_exceeded", "overloaded")


class _Limit(Struct):
    name: str = ""


class _Error(Struct):
    message: str = ""
    type: str | None = ""
    code: str | int | None = None
    limit: _Limit | None = None


class _Page(Struct):
    error: _Error | str | None = None


_PAGE = msgspec.json.Decoder(_Page)


class Asked(Struct):
    """One attempt at one request. Times are the Clock's; `intended` is when it was due, whenever it was really sent."""

    due: Due
    intended: float
    first_due: float  # when the first attempt was due
    attempt: int = 0
    sent: float = 0.0
    first: float = 0.0  # content began
    last: float = 0.0
    ended: float = 0.0
    status: int = 0
    finished: bool = False  # the answer told why it ends
    whole: bool = False  # the last byte has come, as HTTP or the stream counts
    reason: str = ""  # of a refusal or an error
    retry_after_s: float = 0.0
    events: int = 0

    @property
    def refused(self) -> bool:
        """A typed refusal, and not a failure: an engine that was lost midway has the same status."""
        return self.status in REFUSALS and bool(self.reason) and not self.reason.endswith("engine_lost")


class Desk(Protocol):
    """Whom a line reports to."""

    def gap(self, seconds: float) -> None: ...

    def ended(self, line: "Line", asked: Asked) -> None: ...

    def closed(self, line: "Line") -> None: ...


class Line(asyncio.Protocol):
    """See the module. `asked` is None while it is free."""

    def __init__(self, desk: Desk, now: Callable[[], float], stream: bool) -> None:
        self._desk, self._now, self._stream = desk, now, stream
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self._pieces: list[bytes] = []
        self.asked: Asked | None = None
        self.open = True

    def ask(self, asked: Asked, request: bytes) -> None:
        """Send it."""
        self.asked, self._rest = asked, b""
        self._pieces.clear()
        asked.sent = self._now()
        if self._transport is not None:
            self._transport.write(request)

    def hang_up(self) -> None:
        """Close at once, whatever is under way; nobody is told of it."""
        self.asked, self.open = None, False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end(f"not HTTP: {error}")
            self.hang_up()

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self.asked is not None and not self.asked.whole:
            begun = "midway" if self.asked.status else "before an answer"
            self._end(f"connection lost {begun}")
        self._desk.closed(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools calls this and the next three."""
        if self.asked is not None and name[:11].lower() == b"retry-after":
            try:
                seconds = float(value) / (1000 if name.lower() == b"retry-after-ms" else 1)
            except ValueError:
                return  # a date: no API of this kind sends one
            if not self.asked.retry_after_s or name.lower() == b"retry-after-ms":
                self.asked.retry_after_s = seconds

    def on_headers_complete(self) -> None:
        if self.asked is not None:
            self.asked.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        asked = self.asked
        if asked is None:
            return
        if asked.status != 200 or not self._stream:
            self._pieces.append(body)
            return
        *events, self._rest = (self._rest + body).split(b"\n\n")
        if events:
            self._events(asked, events, self._now())

    def on_message_complete(self) -> None:
        asked = self.asked
        if asked is None:
            return
        self.open = self._parser.should_keep_alive()
        if asked.status != 200:
            self._end(reason_of(asked.status, b"".join(self._pieces)[:ERROR_BYTES_MAX]))
        elif self._stream:
            self._end("" if asked.whole or asked.reason else "the stream ended without its end mark")
        else:
            asked.whole = asked.finished = _FINISH.search(b"".join(self._pieces)) is not None
            self._end("" if asked.whole else "an answer without a finish")
        if not self.open and self._transport is not None:
            self._transport.close()

    def _events(self, asked: Asked, events: list[bytes], now: float) -> None:
        for event in events:
            at = event.find(b"data: ")
            if at < 0:
                continue  # a comment
            if event.startswith(b"[DONE]", at + 6):
                asked.whole = asked.finished
            elif event.startswith((b'{"error"', b'{"message"'), at + 6):
                asked.status, asked.reason = status_in(event[at + 6 :]), reason_of(0, event[at + 6 :])
            else:
                if _CONTENT.search(event, at):
                    asked.events += 1
                    if asked.first:
                        self._desk.gap(now - asked.last)
                    else:
                        asked.first = now
                    asked.last = now
                if not asked.finished and _FINISH.search(event, at):
                    asked.finished = True

    def _end(self, reason: str) -> None:
        asked, self.asked = self.asked, None
        if asked is not None:
            asked.reason = asked.reason or reason
            asked.ended = self._now()
            self._desk.ended(self, asked)


def reason_of(status: int, body: bytes) -> str:
    """What an error page says of itself: its status, and the limit that it names or its code. An empty page says nothing."""
    try:
        error = _PAGE.decode(body).error
    except msgspec.MsgspecError:
        error = None
    if isinstance(error, _Error):
        word = error.limit.name if error.limit is not None and error.limit.name else str(error.code or error.type or "")
    else:
        word = error or "no reason given"
    return f"{status} {word}" if status else f"in the stream: {word}"


def status_in(body: bytes) -> int:
    """The status that an error inside a stream would have had: refusals are told from failures by their code."""
    try:
        error = _PAGE.decode(body).error
    except msgspec.MsgspecError:
        error = None
    return FULL if isinstance(error, _Error) and error.code in REFUSAL_CODES else 500
