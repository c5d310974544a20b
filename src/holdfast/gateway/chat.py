"""POST /v1/chat/completions: reads the request, calls the service, writes the answer."""

import asyncio
from contextlib import aclosing
from functools import lru_cache

from holdfast.domain.dialect import Said, ToolCall
from holdfast.domain.event import RequestRefused
from holdfast.domain.fault import BadRequest, EngineLost, Fault
from holdfast.domain.request import Chunk, TokenLogprob
from holdfast.gateway.connection import Exchange
from holdfast.gateway.incoming import Request
from holdfast.gateway.metrics import Tally
from holdfast.gateway.needs import Needs
from holdfast.gateway.openai_wire import decode
from holdfast.gateway.order import Asker, Order, order, prompt_of
from holdfast.gateway.pages import bearer, request_id_line
from holdfast.gateway.reading import Reading
from holdfast.gateway.refusals import JSON_TYPE, refusal_for
from holdfast.gateway.writing import KEEP_ALIVE, Events, logprobs_json, whole

STREAM_TYPE = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"


def asker(request: Request, limit_s: float) -> Asker:
    """Who asks, and how long they will wait: at most `limit_s`.

    Raises:
        BadRequest: x-holdfast-deadline-s is not a positive number.
    """
    key = bearer(request)
    said = request.headers.get(b"x-holdfast-deadline-s")
    if said is None:
        return Asker(key, limit_s)
    try:
        seconds = float(said)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise BadRequest("x-holdfast-deadline-s must be a number of seconds above 0.", "x-holdfast-deadline-s")
    return Asker(key, min(seconds, limit_s))


@lru_cache(maxsize=16)
def _plain(word: str, why: str) -> bytes:
    """The contract as a header can carry it."""
    return f"{word}; {why}".encode("ascii", "replace")


class Chat:
    """Answers chat requests over one service."""

    def __init__(self, needs: Needs, tally: Tally) -> None:
        self._needs = needs
        self._tally = tally

    async def answer(self, exchange: Exchange) -> None:
        """One exchange, from the body to the last byte. A Fault becomes an error page, or an error event in a stream."""
        needs, tally, request = self._needs, self._tally, exchange.request
        began = needs.clock.now()
        tally.in_flight += 1
        try:
            made = await self._order(request)
            if made.stream:
                await self._stream(exchange, made, began)
            else:
                await self._whole(exchange, made, began)
        except Fault as fault:
            said = refusal_for(fault)
            needs.emit(RequestRefused(status=said.status, why=fault.why))
            exchange.refuse(said, request_id_line(request, needs.bits))
        finally:
            tally.in_flight -= 1

    async def _order(self, request: Request) -> Order:
        needs, body = self._needs, request.body
        who = asker(request, needs.limits.deadline_s)
        if needs.screen is not None:
            needs.screen(who.key, len(body))
        card = needs.card()
        try:
            ask = decode(body)
            if len(body) < needs.limits.large_text_bytes:
                prompt_ids = prompt_of(ask, needs, card)
            else:
                prompt_ids = await asyncio.to_thread(prompt_of, ask, needs, card)
        except RecursionError as error:
            raise BadRequest("The body's JSON is nested too deeply; flatten it.", code="invalid_json") from error
        made = order(ask, prompt_ids, who, needs, card)
        self._tally.tokens_in += len(prompt_ids)
        return made

    def _lines(self, made: Order, request: Request) -> bytes:
        """Header lines that every answer of this order carries."""
        generation = made.generation
        word, why = self._needs.contract(generation.sampling, made.card.exactness)
        return b"%bx-holdfast-continuable: %b\r\nx-holdfast-seed: %d\r\n" % (
            request_id_line(request, generation.id),
            _plain(word, why),
            generation.seed,
        )

    async def _whole(self, exchange: Exchange, made: Order, began: float) -> None:
        reading = Reading(made)
        reasoning: list[str] = []
        content: list[str] = []
        calls: list[ToolCall] = []
        rows: list[TokenLogprob] = []
        tally, now, last = self._tally, self._needs.clock.now, began
        async with aclosing(self._needs.service(made.generation)) as chunks:
            async for chunk in chunks:
                if chunk.waiting:
                    continue
                last = self._timed(chunk, reading, began, last, now())
                said = reading.take(chunk)
                if said.reasoning:
                    reasoning.append(said.reasoning)
                if said.content:
                    content.append(said.content)
                calls.extend(said.calls)
                if chunk.logprobs:
                    rows.extend(chunk.logprobs)
                if reading.stopped:
                    break
        if not reading.done:
            raise EngineLost("the answer ended without a finish")
        tally.tokens_out += reading.tokens
        tally.tokens_cached += reading.cached
        said = Said("".join(reasoning), "".join(content), tuple(calls))
        logprobs = logprobs_json(rows, self._needs.dialect) if rows else None
        lines = JSON_TYPE + self._lines(made, exchange.request) + b"x-holdfast-moves: %d\r\n" % reading.moves
        exchange.send(200, lines, whole(made, reading, said, logprobs))

    def _timed(self, chunk: Chunk, reading: Reading, began: float, last: float, now: float) -> float:
        """Take down first-token time, gaps and pauses. Returns the time of the newest ids."""
        tally = self._tally
        if chunk.moves != reading.moves:
            tally.moves += chunk.moves - reading.moves
            tally.pause_s.observe(now - last)
        if not chunk.ids:
            return last
        if reading.tokens:
            tally.gap_s.observe(now - last)
        else:
            tally.ttft_s.observe(now - began)
        return now

    async def _stream(self, exchange: Exchange, made: Order, began: float) -> None:
        """Nothing is written before the first chunk: until then a refusal is an error page, later it is an error event."""
        tally, needs = self._tally, self._needs
        reading = Reading(made)
        try:
            await self._events(exchange, made, reading, began)
        except Fault as fault:
            if not exchange.begun:
                raise
            if exchange.answered:
                return  # the client has its whole answer; what went wrong after it is no concern of theirs
            said = refusal_for(fault)
            tally.refused(said.code)
            tally.cut += 1
            needs.emit(RequestRefused(status=said.status, why=fault.why))
            exchange.shut(b"data: " + said.body + b"\n\n", close=True)
        finally:
            tally.streams -= exchange.begun
            tally.tokens_out += reading.tokens
            tally.tokens_cached += reading.cached

    async def _events(self, exchange: Exchange, made: Order, reading: Reading, began: float) -> None:
        needs = self._needs
        events = Events(made, needs.dialect)
        now, last, ahead = needs.clock.now, began, b""
        async with aclosing(needs.service(made.generation)) as chunks:
            async for chunk in chunks:
                if not exchange.begun:
                    exchange.open(STREAM_TYPE + self._lines(made, exchange.request))
                    self._tally.streams += 1
                    ahead = events.role()
                if chunk.waiting:
                    data = ahead + KEEP_ALIVE
                else:
                    last = self._timed(chunk, reading, began, last, now())
                    data = ahead + events.said(reading.take(chunk), reading)
                    if reading.done:
                        exchange.shut(data + events.last(reading))
                        if reading.stopped:
                            return
                        continue
                if data:
                    exchange.push(data)
                    ahead = b""
                if exchange.flow is not None:
                    await exchange.flow
        if not reading.done:
            raise EngineLost("the answer ended without a finish")
