"""The blocking transport for httpx: connection losses end here."""

from collections.abc import Iterator
from types import TracebackType

import httpx

from holdfast.client.patience import PATIENT, Patience
from holdfast.client.pursuit import Pursuit, Shape, pursued
from holdfast.host.clock import BlockingClock

BROKE_OFF = "the connection closed before the end mark"


class ResumingTransport(httpx.BaseTransport):
    """Wraps another transport (default: httpx's own) and repeats or resumes what breaks off.

    Refusals with a status are passed on untouched. Safe for several threads where the inner transport is.
    """

    def __init__(
        self,
        inner: httpx.BaseTransport | None = None,
        patience: Patience = PATIENT,
        clock: BlockingClock | None = None,
    ) -> None:
        self._inner = inner if inner is not None else httpx.HTTPTransport()
        self._patience = patience
        self._clock = clock if clock is not None else BlockingClock()

    def __enter__(self) -> "ResumingTransport":
        self._inner.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        self._inner.__exit__(kind, error, trace)

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and send again while that can help.

        Raises:
            httpx.TransportError: of the last attempt, when patience has ended or nothing would help.
        """
        if not pursued(request):
            return self._inner.handle_request(request)
        request.read()
        clock = self._clock
        pursuit = Pursuit(request, self._patience, clock.now())
        while True:
            try:
                response = self._inner.handle_request(pursuit.request(clock.now()))
                shape = pursuit.shape(response)
                if shape is Shape.PASS:
                    return response
                if shape is Shape.EVENTS:
                    return _like(response, _Events(self._inner, pursuit, response, clock))
                body = _read(response, pursuit, clock)
            except httpx.TransportError as error:
                clock.rest(pursuit.lost(error, clock.now()))
                continue
            wait_s = pursuit.pending(response.status_code, body, clock.now())
            if wait_s is None:
                return _like(response, httpx.ByteStream(body))
            clock.rest(wait_s)


class _Events(httpx.SyncByteStream):
    """The body of a streamed answer, whichever connections it comes over."""

    def __init__(
        self, inner: httpx.BaseTransport, pursuit: Pursuit, response: httpx.Response, clock: BlockingClock
    ) -> None:
        self._inner, self._pursuit, self._response, self._clock = inner, pursuit, response, clock

    def __iter__(self) -> Iterator[bytes]:
        pursuit, clock = self._pursuit, self._clock
        error: httpx.TransportError
        while not pursuit.over:
            error = httpx.RemoteProtocolError(BROKE_OFF)
            try:
                parts = _parts(self._response)
                for data in parts:
                    news, goes_on = pursuit.feed(data, clock.now())
                    if pursuit.over:
                        self._drain(parts)
                    if news:
                        yield news
                    if pursuit.over or not goes_on:
                        break
            except httpx.TransportError as met:
                error = met
            if not pursuit.over:
                self._resume(error)

    def close(self) -> None:
        self._response.close()

    def _drain(self, parts: Iterator[bytes]) -> None:
        """Read what follows the end mark, which is nothing, so that the connection can be used again."""
        try:
            for _ in parts:
                pass
        except httpx.TransportError:
            self._response.close()

    def _resume(self, error: httpx.TransportError) -> None:
        pursuit, clock = self._pursuit, self._clock
        self._response.close()
        wait_s = pursuit.lost(error, clock.now())
        while True:
            clock.rest(wait_s)
            try:
                response = self._inner.handle_request(pursuit.resumption(clock.now()))
                if pursuit.resumed(response):
                    self._response = response
                    return
                body = _read(response, pursuit, clock)
            except httpx.TransportError as met:
                wait_s = pursuit.lost(met, clock.now())
                continue
            wait_s = pursuit.denied(response, body, clock.now())


def _parts(response: httpx.Response) -> Iterator[bytes]:
    stream = response.stream
    assert isinstance(stream, httpx.SyncByteStream)
    return iter(stream)


def _read(response: httpx.Response, pursuit: Pursuit, clock: BlockingClock) -> bytes:
    """The whole body, as it came over the wire."""
    parts = []
    try:
        for part in _parts(response):
            pursuit.heard(clock.now())
            parts.append(part)
    finally:
        response.close()
    return b"".join(parts)


def _like(response: httpx.Response, stream: httpx.SyncByteStream) -> httpx.Response:
    return httpx.Response(response.status_code, headers=response.headers, stream=stream, extensions=response.extensions)
