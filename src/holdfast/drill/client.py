"""A client that trusts nobody: it reads the stream byte by byte as any client would, and takes down when each event came.

Raw HTTP over an asyncio protocol, one connection an answer: hundreds of streams must not cost so much that the client's own
lateness is taken for the site's.
"""

import asyncio
from collections.abc import Callable
from typing import cast

import httptools
import msgspec
from msgspec import Struct

from holdfast.domain.ports import Clock
from holdfast.policy.reckoning import Answer

WHY_BYTES_MAX = 300


class Question(Struct, frozen=True, kw_only=True):
    """A request and the number that it goes by. `body` is the JSON of POST /v1/chat/completions, with stream true."""

    case: int
    prompt: str
    body: bytes


class _Token(Struct):
    token: str


class _Logprobs(Struct):
    content: list[_Token] = []


class _Delta(Struct):
    content: str | None = None
    reasoning_content: str | None = None


class _Choice(Struct):
    delta: _Delta
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Moves(Struct, frozen=True):
    moves: int = 0


class _Usage(Struct):
    completion_tokens: int = 0
    holdfast: _Moves = _Moves()


class _Event(Struct):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: dict[str, object] | None = None


_EVENT = msgspec.json.Decoder(_Event)


class _Exchange(asyncio.Protocol):
    """One request and its streamed response, written into an Answer."""

    def __init__(self, request: bytes, answer: Answer, now: Callable[[], float]) -> None:
        self._request, self._answer, self._now = request, answer, now
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._rest = b""
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._end("errored", f"not HTTP: {error}")

    def on_body(self, body: bytes) -> None:
        """httptools calls this with each piece of the body."""
        if self._parser.get_status_code() != 200:
            self._end(
                "refused", f"{self._parser.get_status_code()}: {(body[:WHY_BYTES_MAX]).decode('utf-8', 'replace')}"
            )
            return
        now = self._now()
        *events, self._rest = (self._rest + body).split(b"\n\n")
        for event in events:
            for line in event.split(b"\n"):  # an event may carry its id, and a comment may stand before it
                self._event(line, now)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("truncated", f"the connection closed before the end mark{f': {exc}' if exc else ''}")

    def _event(self, event: bytes, now: float) -> None:
        answer = self._answer
        if event.startswith(b": holdfast moves="):
            answer.moves = int(event.rpartition(b"=")[2])
        if not event.startswith(b"data: "):
            return
        if event == b"data: [DONE]":
            self._end(
                "ended" if answer.finish else "truncated", "" if answer.finish else "an end mark without a finish"
            )
            return
        try:
            said = _EVENT.decode(event[6:])
        except msgspec.MsgspecError as error:
            self._end("errored", f"not an event: {error}")
            return
        if said.error is not None:
            self._end("errored", str(said.error.get("message", said.error)))
        if said.usage is not None:
            answer.completion_tokens, answer.moves = said.usage.completion_tokens, said.usage.holdfast.moves
        for choice in said.choices:
            self._take(choice, now)

    def _take(self, choice: _Choice, now: float) -> None:
        answer = self._answer
        answer.reasoning += choice.delta.reasoning_content or ""
        answer.content += choice.delta.content or ""
        answer.finish = choice.finish_reason or answer.finish
        if choice.logprobs is not None:
            answer.tokens += [one.token for one in choice.logprobs.content]
        if choice.delta.content or choice.delta.reasoning_content or choice.logprobs is not None:
            answer.arrivals.append(now)

    def _end(self, word: str, why: str) -> None:
        if not self._answer.end:
            self._answer.end, self._answer.why = word, why
        if not self.over.done():
            self.over.set_result(None)
        if self._transport is not None:
            self._transport.close()


class Client:
    """Asks one address. `patience_s` bounds a whole answer; beyond it the answer counts as hung."""

    def __init__(self, host: str, port: int, clock: Clock, patience_s: float) -> None:
        self._host, self._port, self._clock, self._patience_s = host, port, clock, patience_s

    def opened(self, question: Question) -> Answer:
        """An answer that begins now."""
        return Answer(case=question.case, opened_at=self._clock.now())

    async def fill(self, question: Question, answer: Answer) -> Answer:
        """Ask, and write what comes into `answer` until it ends, well or not. Never raises for what the site does."""
        request = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {self._host}:{self._port}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(question.body)}\r\nconnection: close\r\n\r\n"
        ).encode() + question.body
        loop = asyncio.get_running_loop()
        transport: asyncio.BaseTransport | None = None
        try:
            async with asyncio.timeout(self._patience_s):
                transport, exchange = await loop.create_connection(
                    lambda: _Exchange(request, answer, self._clock.now), self._host, self._port
                )
                await exchange.over
        except TimeoutError:
            answer.end, answer.why = "hung", f"not over after {self._patience_s:g} s"
        except OSError as error:
            answer.end, answer.why = "refused", f"no connection: {error}"
        finally:
            if transport is not None:
                transport.close()
        return answer

    async def ask(self, question: Question) -> Answer:
        """Ask once."""
        return await self.fill(question, self.opened(question))
