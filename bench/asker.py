"""A client that resumes, as a program with holdfast.client is one, and takes down what it saw and when it had to ask again."""

import asyncio
from collections.abc import AsyncIterator, Callable

import httpx
import msgspec
from msgspec import Struct

from holdfast.client import AsyncResumingTransport
from holdfast.drill.client import Question
from holdfast.host.clock import MonotonicClock
from holdfast.policy.reckoning import Answer


class _Delta(Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(Struct):
    delta: _Delta
    finish_reason: str | None = None


class _Usage(Struct):
    completion_tokens: int = 0


class _Event(Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: dict[str, object] | None = None


EVENT = msgspec.json.Decoder(_Event)


class Trace(Struct):
    """One answer of a client that resumes, and when it asked for it or for its rest."""

    answer: Answer
    asked: list[float] = []


class Watched(httpx.AsyncBaseTransport):
    """Below the resuming transport: takes down each request."""

    def __init__(self, clock: MonotonicClock) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._inner, self._clock = httpx.AsyncHTTPTransport(limits=limits), clock

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        trace = request.extensions["holdfast.trace"]
        trace.asked.append(self._clock.now())
        return await self._inner.handle_async_request(request)

    async def aclose(self) -> None:
        await self._inner.aclose()


class Asker:
    """Asks one address. `patience_s` bounds a whole answer."""

    def __init__(self, port: int, clock: MonotonicClock, patience_s: float) -> None:
        self._port, self._clock, self._patience_s = port, clock, patience_s
        self._watched = Watched(clock)
        transport = AsyncResumingTransport(self._watched)
        self._client = httpx.AsyncClient(transport=transport, timeout=patience_s, trust_env=False)

    def opened(self, question: Question) -> Trace:
        """An answer that begins now."""
        return Trace(Answer(case=question.case, opened_at=self._clock.now()))

    async def fill(self, asked: Question, trace: Trace) -> None:
        """Ask as a program with holdfast.client would, and write down what it saw."""
        answer, now = trace.answer, self._clock.now
        url = f"http://127.0.0.1:{self._port}/v1/chat/completions"
        headers = {"content-type": "application/json"}
        try:
            async with (
                asyncio.timeout(self._patience_s),
                self._client.stream(
                    "POST", url, content=asked.body, headers=headers, extensions={"holdfast.trace": trace}
                ) as response,
            ):
                if response.status_code != 200:
                    answer.end, answer.why = "refused", (await response.aread()).decode("utf-8", "replace")
                    return
                await _listen(response.aiter_raw(), answer, now)
        except TimeoutError:
            answer.end, answer.why = "hung", f"not over after {self._patience_s:g} s"
        except httpx.TransportError as error:
            answer.end, answer.why = "truncated", str(error)

    async def close(self) -> None:
        await self._client.aclose()


async def _listen(parts: AsyncIterator[bytes], answer: Answer, now: Callable[[], float]) -> None:
    """Read a stream of events to its end mark. What the transport hands on are whole events."""
    rest = b""
    async for data in parts:
        at = now()
        *events, rest = (rest + data).split(b"\n\n")
        for event in events:
            _take(event, answer, at)
    if not answer.end:
        answer.end, answer.why = "truncated", "no end mark"


def _take(event: bytes, answer: Answer, at: float) -> None:
    said = event[at_data + 6 :] if (at_data := event.find(b"data: ")) >= 0 else b""
    if not said:
        return  # a comment
    if said == b"[DONE]":
        answer.end = "ended" if answer.finish else "truncated"
        return
    read = EVENT.decode(said)
    if read.error is not None:
        answer.end, answer.why = "errored", str(read.error.get("message", read.error))
    if read.usage is not None:
        answer.completion_tokens = read.usage.completion_tokens
    for choice in read.choices:
        words, thoughts = choice.delta.content or "", choice.delta.reasoning_content or ""
        answer.content += words
        answer.reasoning += thoughts
        answer.finish = choice.finish_reason or answer.finish
        if words or thoughts:
            answer.arrivals.append(at)
