"""The access log: a line for each request, of who asked and what became of it; never a word of it, and never its key.

Off by default; then a request costs nothing for it. Paths that a client made up are not written down either.
"""

from collections.abc import Callable
from typing import Protocol

import msgspec
from msgspec import Struct

from holdfast.gateway.asker import Asker

FREE = (
    "/v1/models/",
    "/models/",
    "/v1/streams/",
    "/streams/",
    "/beta/streams/",
)  # what stands behind these is the client's own word


class Head(Protocol):
    """What is looked at of a request."""

    method: bytes
    path: bytes


class Exchange(Protocol):
    """What is looked at of connection.Exchange."""

    who: Asker | None
    generation: str
    answered: bool
    began_s: float
    status: int
    tokens_in: int
    tokens_out: int

    @property
    def request(self) -> Head: ...


class Line(Struct, frozen=True, kw_only=True):
    """One request. `key` is a key's id, `status` 0 when its client left before there was one; `whole`: it was answered to its
    end. Times in unix seconds and seconds."""

    at: float
    answer: str
    tenant: str
    key: str
    method: str
    path: str
    status: int
    whole: bool
    tokens_in: int
    tokens_out: int
    seconds: float


class Access:
    """Takes each exchange down. `write` gets whole lines."""

    def __init__(self, write: Callable[[bytes], None], now: Callable[[], float], unix_s: Callable[[], float]) -> None:
        self._write, self._now, self._unix_s = write, now, unix_s

    def begin(self, exchange: Exchange) -> None:
        """The request is here, whole."""
        exchange.began_s = self._now()

    def end(self, exchange: Exchange) -> None:
        """Nothing more comes."""
        request, who = exchange.request, exchange.who
        line = Line(
            at=round(self._unix_s(), 3),
            answer=exchange.generation,
            tenant=who.tenant if who is not None else "",
            key=who.key_id if who is not None else "",
            method=request.method.decode("latin-1")[:16],
            path=_route(exchange),
            status=exchange.status,
            whole=exchange.answered,
            tokens_in=exchange.tokens_in,
            tokens_out=exchange.tokens_out,
            seconds=round(self._now() - exchange.began_s, 4),
        )
        self._write(msgspec.json.encode(line) + b"\n")


def _route(exchange: Exchange) -> str:
    path = exchange.request.path.partition(b"?")[0].decode("latin-1")
    for free in FREE:
        if path.startswith(free):
            return f"{free}*"
    known = exchange.who is not None or exchange.status in (200, 401, 403, 405, 503)
    return path if known else "?"
