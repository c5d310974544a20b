"""One answer, pursued over as many connections as it takes: what to ask next, how long to wait first, when to give up.

Pure of sockets and clocks, so that the blocking and the asyncio transport obey the same decisions and differ only in how they
wait. Until the head has come, the request itself is repeated under one idempotency key, which the site answers with the same
answer. After that only the rest is asked for, by the answer's name and the id of the last event that was handed on.
"""

import hashlib
import socket
import ssl
import uuid
from enum import Enum

import httpx

from holdfast.client.events import Cutter, Mark, Verdict, code_of
from holdfast.client.patience import Patience

NAME = "x-holdfast-answer"
RESUME = "x-holdfast-resume"
KEY = "idempotency-key"
METHODS = ("GET", "HEAD", "POST")
# Where answers are asked for, and where the rest of one is to be had, below the same prefix.
ASKED_AT = {
    "/chat/completions": "/streams/",
    "/completions": "/streams/",
    "/responses": "/streams/",
    "/anthropic/v1/messages": "/v1/streams/",
}
STREAM_TYPE = "text/event-stream"
SURVIVED = (
    httpx.NetworkError,
    httpx.RemoteProtocolError,
    httpx.ConnectTimeout,
    httpx.ReadTimeout,
    httpx.WriteTimeout,
)
NOT_CARRIED = (KEY, RESUME, "content-type", "content-length", "transfer-encoding", "accept", "expect")
# Refusals that mean: this very answer exists or is about to, ask again.
PENDING_CODES = ("answer_taken_over", "idempotency_in_progress")
BUSY_STATUSES = (409, 429, 500, 502, 503, 504)
JITTER_STEPS = 1024
READ_S_MIN = 0.001


class AnswerLost(httpx.ReadError):
    """An answer had begun to arrive and its rest can't be had. The sentence says why, and how to ask for it by hand."""


class Shape(Enum):
    """What to do with a response."""

    PASS = "pass"  # as it is
    WHOLE = "whole"  # read to its end before anybody sees it, so that a loss on the way can be repeated
    EVENTS = "events"  # handed on event by event


class Pursuit:
    """All attempts at one request. Times are monotonic seconds, any origin.

    Raises, from every method that takes an error: that error, when it is not one to survive or patience has ended.
    """

    def __init__(self, request: httpx.Request, patience: Patience, now: float) -> None:
        self._asked, self._patience = request, patience
        timeout = request.extensions.get("timeout") or {}
        self._read_s: float | None = timeout.get("read")
        self._key = request.headers.get(KEY) or uuid.uuid4().hex
        self._heard_at = now
        self._lost_at: float | None = None
        self._losses = self._stalls = 0
        self._name = self._path = ""
        self._afresh = (
            False  # nobody knows the answer, and nothing of it was handed on: the request itself goes out again
        )
        self._cutter, self._mark = Cutter(), Mark()

    @property
    def over(self) -> bool:
        """The end mark or an error was handed on: whatever the connection does now is of no interest."""
        return self._mark.over

    def request(self, now: float) -> httpx.Request:
        """What to send for the next attempt before the head has come."""
        asked = self._asked
        headers = asked.headers.copy()
        if asked.method == "POST":
            headers[KEY] = self._key
            headers[RESUME] = "yes"
            headers["accept-encoding"] = "identity"  # compressed events could not be told apart
        extensions = self._extensions(now)
        return httpx.Request(asked.method, asked.url, headers=headers, stream=asked.stream, extensions=extensions)

    def shape(self, response: httpx.Response) -> Shape:
        """What to do with a response to `request`."""
        headers = response.headers
        if response.status_code == 409:
            return Shape.WHOLE
        name, path = headers.get(NAME, ""), headers.get(RESUME, "")
        if response.status_code != 200 or not name:
            return Shape.PASS
        if not headers.get("content-type", "").startswith(STREAM_TYPE):
            return Shape.WHOLE
        if not path.startswith("/") or headers.get("content-encoding", "identity") != "identity":
            return Shape.PASS
        self._name, self._path = name, path
        return Shape.EVENTS

    def pending(self, status: int, body: bytes, now: float) -> float | None:
        """Seconds to wait before `request` again, when a whole response says that the answer is on its way; else None."""
        if status != 409 or code_of(body) not in PENDING_CODES:
            return None
        return self._wait(now)

    def resumption(self, now: float) -> httpx.Request:
        """What to send for the rest of a stream."""
        asked = self._asked
        self._cutter.drop()
        self._mark.again()
        if self._afresh:
            return self.request(now)
        headers = httpx.Headers([(name, value) for name, value in asked.headers.items() if name not in NOT_CARRIED])
        headers["accept"] = STREAM_TYPE
        headers["accept-encoding"] = "identity"
        if self._mark.last_id:
            headers["last-event-id"] = self._mark.last_id
        return httpx.Request("GET", self._resume_url(), headers=headers, extensions=self._extensions(now))

    def resumed(self, response: httpx.Response) -> bool:
        """Whether the response to `resumption` is the rest; if not, read it and call `denied`."""
        name = response.headers.get(NAME, self._name)
        events = response.headers.get("content-type", "").startswith(STREAM_TYPE)
        if response.status_code != 200 or not events or (name != self._name and not self._afresh):
            return False
        if self._afresh:
            self._name, self._path, self._afresh = name, response.headers.get(RESUME, self._path), False
        return True

    def denied(self, response: httpx.Response, body: bytes, now: float) -> float:
        """Seconds to wait before `resumption` again.

        Raises:
            AnswerLost: the site will not give the rest.
        """
        why = f"the site answered {response.status_code}: {body[:300].decode('utf-8', 'replace')}"
        unknown = response.status_code == 404 and self._mark.bare and self._asked.method == "POST"
        self._afresh = (
            self._afresh or unknown
        )  # it waited for its turn when its worker died: nothing was written down yet
        wait_s = self._wait(now) if unknown or response.status_code in BUSY_STATUSES else None
        if wait_s is None:
            raise self._gone(why)
        return wait_s

    def feed(self, data: bytes, now: float) -> tuple[bytes, bool]:
        """Whole events that the reader does not have yet, and whether this connection has more to say."""
        self.heard(now)
        news: list[bytes] = []
        for event in self._cutter.feed(data):
            verdict = self._mark.see(event)
            if verdict is Verdict.LEAVE:
                return b"".join(news), False
            if verdict is Verdict.HAND_ON:
                news.append(event)
                self._lost_at, self._losses = None, 0
        return b"".join(news), True

    def heard(self, now: float) -> None:
        """Bytes came."""
        self._heard_at, self._stalls = now, 0

    def lost(self, error: httpx.TransportError, now: float) -> float:
        """Seconds to wait before the next attempt, after one that ended with `error`."""
        if not isinstance(error, SURVIVED) or _hopeless(error):
            raise error
        if isinstance(error, httpx.ReadTimeout):
            return self._stalled(error, now)
        wait_s = self._wait(now)
        if wait_s is None:
            if not self._name:
                raise error
            raise self._gone(str(error) or type(error).__name__) from error
        return wait_s

    def _stalled(self, error: httpx.ReadTimeout, now: float) -> float:
        if self._read_s is not None and now - self._heard_at >= self._read_s:
            raise error
        self._stalls += 1
        self._lost_at, self._losses = None, 0
        return 0.0

    def _wait(self, now: float) -> float | None:
        """The pause after another loss in a row; None when there were enough. Keys differ, so a crowd does not come at once."""
        patience = self._patience
        if self._lost_at is None:
            self._lost_at = now
        left_s = self._lost_at + patience.patience_s - now
        if left_s <= 0:
            return None
        most_s: float = min(patience.wait_first_s * 2.0**self._losses, patience.wait_max_s)
        self._losses = min(self._losses + 1, JITTER_STEPS)
        drawn = hashlib.blake2b(f"{self._key} {self._losses}".encode(), digest_size=2).digest()
        share = int.from_bytes(drawn, "big") % JITTER_STEPS / JITTER_STEPS
        return min(most_s * (1 + share) / 2, left_s)

    def _gone(self, why: str) -> AnswerLost:
        told = f"after event {self._mark.last_id}" if self._mark.last_id else "before its first event"
        return AnswerLost(
            f"answer {self._name} broke off {told} and can't be resumed: {why}. "
            f"While the site keeps it, GET {self._path} gives it from the start",
            request=self._asked,
        )

    def _resume_url(self) -> httpx.URL:
        """Beside the path that was asked, so that a proxy's prefix stays."""
        url = self._asked.url
        for asked, streams in ASKED_AT.items():
            if url.path.endswith(asked):
                return url.copy_with(path=f"{url.path.removesuffix(asked)}{streams}{self._name}")
        return url.copy_with(path=self._path)

    def _extensions(self, now: float) -> dict[str, object]:
        """The caller's time limits, with the wait for a byte shortened to ours."""
        given = self._asked.extensions
        read_s = self._patience.stall_s * 2.0**self._stalls
        if self._read_s is not None:
            read_s = max(READ_S_MIN, min(read_s, self._heard_at + self._read_s - now))
        return {**given, "timeout": {**(given.get("timeout") or {}), "read": read_s}}


def pursued(request: httpx.Request) -> bool:
    """Whether repeating this request can do no harm."""
    return request.method in METHODS


def _hopeless(error: BaseException) -> bool:
    """Nothing that waiting could mend: a certificate that is not trusted, a host name that does not exist."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return True
        if isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME:
            return True
        cause = cause.__cause__ or cause.__context__
    return False
