"""The asyncio transport for httpx: the blocking one's twin, decision for decision."""

from collections.abc import AsyncIterator
from types import TracebackType

import httpx

from holdfast.client.patience import PATIENT, Patience
from holdfast.client.pursuit import Pursuit, Shape, pursued
from holdfast.client.transport import BROKE_OFF
from holdfast.domain.ports import Clock
from holdfast.host.clock import MonotonicClock


class AsyncResumingTransport(httpx.AsyncBaseTransport):
    """Wraps another transport (default: httpx's own) and repeats or resumes what breaks off.

    Refusals with a status are passed on untouched. For asyncio only, since that is what waits.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport | None = None,
        patience: Patience = PATIENT,
        clock: Clock | None = None,
    ) -> None:
        self._inner = inner if inner is not None else httpx.AsyncHTTPTransport()
        self._patience = patience
        self._clock = clock if clock is not None else MonotonicClock()

    async def __aenter__(self) -> "AsyncResumingTransport":
        await self._inner.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        trace: TracebackType | None = None,
    ) -> None:
        await self._inner.__aexit__(kind, error, trace)

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send, and send again while that can help.

        Raises:
            httpx.TransportError: of the last attempt, when patience has ended or nothing would help.
        """
        if not pursued(request):
            return await self._inner.handle_async_request(request)
        await request.aread()
        clock = self._clock
        pursuit = Pursuit(request, self._patience, clock.now())
        while True:
            try:
                response = await self._inner.handle_async_request(pursuit.request(clock.now()))
                shape = pursuit.shape(response)
                if shape is Shape.PASS:
                    return response
                if shape is Shape.EVENTS:
                    return _like(response, _Events(self._inner, pursuit, response, clock))
                body = await _read(response, pursuit, clock)
            except httpx.TransportError as error:
                await clock.sleep(pursuit.lost(error, clock.now()))
                continue
            wait_s = pursuit.pending(response.status_code, body, clock.now())
            if wait_s is None:
                return _like(response, httpx.ByteStream(body))
            await clock.sleep(wait_s)


class _Events(httpx.AsyncByteStream):
    """The body of a streamed answer, whichever connections it comes over."""

    def __init__(
        self, inner: httpx.AsyncBaseTransport, pursuit: Pursuit, response: httpx.Response, clock: Clock
    ) -> None:
        self._inner, self._pursuit, self._response, self._clock = inner, pursuit, response, clock

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pursuit, clock = self._pursuit, self._clock
        error: httpx.TransportError
        while not pursuit.over:
            error = httpx.RemoteProtocolError(BROKE_OFF)
            try:
                parts = _parts(self._response)
                async for data in parts:
                    news, goes_on = pursuit.feed(data, clock.now())
                    if pursuit.over:
                        await self._drain(parts)
                    if news:
                        yield news
                    if pursuit.over or not goes_on:
                        break
            except httpx.TransportError as met:
                error = met
            if not pursuit.over:
                await self._resume(error)

    async def aclose(self) -> None:
        await self._response.aclose()

    async def _drain(self, parts: AsyncIterator[bytes]) -> None:
        """Read what follows the end mark, which is nothing, so that the connection can be used again."""
        try:
            async for _ in parts:
                pass
        except httpx.TransportError:
            await self._response.aclose()

    async def _resume(self, error: httpx.TransportError) -> None:
        pursuit, clock = self._pursuit, self._clock
        await self._response.aclose()
        wait_s = pursuit.lost(error, clock.now())
        while True:
            await clock.sleep(wait_s)
            try:
                response = await self._inner.handle_async_request(pursuit.resumption(clock.now()))
                if pursuit.resumed(response):
                    self._response = response
                    return
                body = await _read(response, pursuit, clock)
            except httpx.TransportError as met:
                wait_s = pursuit.lost(met, clock.now())
                continue
            wait_s = pursuit.denied(response, body, clock.now())


def _parts(response: httpx.Response) -> AsyncIterator[bytes]:
    stream = response.stream
    assert isinstance(stream, httpx.AsyncByteStream)
    return aiter(stream)


async def _read(response: httpx.Response, pursuit: Pursuit, clock: Clock) -> bytes:
    """The whole body, as it came over the wire."""
    parts = []
    try:
        async for part in _parts(response):
            pursuit.heard(clock.now())
            parts.append(part)
    finally:
        await response.aclose()
    return b"".join(parts)


def _like(response: httpx.Response, stream: httpx.AsyncByteStream) -> httpx.Response:
    return httpx.Response(response.status_code, headers=response.headers, stream=stream, extensions=response.extensions)
