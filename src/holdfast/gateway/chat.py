"""POST /v1/chat/completions: reads the request, calls the service, writes the answer.

An answer that is had again (gateway/resumed.py, or a repeated Idempotency-Key) is written by the same code, from its kept ids.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import lru_cache
from hashlib import blake2b

from msgspec import Struct

from holdfast.domain.dialect import Said, ToolCall
from holdfast.domain.event import RequestRefused, StreamResumed
from holdfast.domain.fault import BadRequest, EngineLost, Fault
from holdfast.domain.request import Chunk, TokenLogprob
from holdfast.gateway.archive import Kept
from holdfast.gateway.asker import Asker
from holdfast.gateway.connection import Exchange
from holdfast.gateway.incoming import Request
from holdfast.gateway.journal import digest_of_key
from holdfast.gateway.marks import Mark, Rest
from holdfast.gateway.metrics import Tally
from holdfast.gateway.needs import Needs
from holdfast.gateway.nesting import refuse_forest
from holdfast.gateway.openai_wire import decode
from holdfast.gateway.order import Order, order, order_again, prompt_of, read_note
from holdfast.gateway.pages import bearer, request_id_line
from holdfast.gateway.reading import Reading
from holdfast.gateway.refusals import JSON_TYPE, refusal_for
from holdfast.gateway.writing import Events, keep_alive, logprobs_json, whole

STREAM_TYPE = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\nx-accel-buffering: no\r\n"
KEY_BYTES_MAX = 255


def asker(request: Request, limit_s: float) -> Asker:
    """Who asks, and how long they will wait: at most `limit_s`.

    Raises:
        BadRequest: a header of ours says what it can't, or the Idempotency-Key is none.
    """
    who = Asker(bearer(request), limit_s, body_bytes=len(request.body))
    said = request.headers.get(b"x-holdfast-deadline-s")
    if said is not None:
        try:
            seconds = float(said)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < float("inf"):
            raise BadRequest("x-holdfast-deadline-s must be a number of seconds above 0.", "x-holdfast-deadline-s")
        who.deadline_s = min(seconds, limit_s)
    band = request.headers.get(b"x-holdfast-priority")
    if band is not None:
        who.priority = _whole_number(band)
    never = request.headers.get(b"x-holdfast-degrade")
    if never is not None and never.lower() != b"never":
        raise BadRequest("x-holdfast-degrade may be `never`, or be left out.", "x-holdfast-degrade")
    who.never_degrade = never is not None
    who.session = request.headers.get(b"x-holdfast-session", b"").decode("latin-1")
    mark = request.headers.get(b"idempotency-key")
    if mark is None:
        return who
    if not 0 < len(mark) <= KEY_BYTES_MAX or any(not 33 <= byte <= 126 for byte in mark):
        why = f"Idempotency-Key must be 1 to {KEY_BYTES_MAX} visible ASCII characters."
        raise BadRequest(why, "idempotency-key")
    who.idempotency = blake2b(mark, digest_size=16, key=digest_of_key(who.key)).hexdigest()
    who.body_digest = blake2b(request.body, digest_size=16).digest()
    return who


def _whole_number(said: bytes) -> int:
    try:
        return int(said)
    except ValueError:
        why = "x-holdfast-priority must be a whole number; it can only lower the tenant's own."
        raise BadRequest(why, "x-holdfast-priority") from None


@lru_cache(maxsize=16)
def _plain(word: str, why: str) -> bytes:
    """Two words as a header can carry them."""
    return f"{word}; {why}".encode("ascii", "replace")


def wants_resume(request: Request) -> bool:
    """Whether the client says that it comes back for its answer when the connection is lost."""
    headers = request.headers
    return headers.get(b"x-holdfast-resume", b"").lower() == b"yes" or b"idempotency-key" in headers


def complaint_of(generation: str, needs: Needs) -> str:
    """Why this answer does not outlive this worker; empty when it does."""
    if needs.streams is not None:
        return needs.streams.complaint(generation)
    return "answers of the smaller model are not kept" if needs.stands_in else "this gateway keeps no journal"


class Telling(Struct):
    """One answer that is being written. Of one that is had again, only what `mark` does not cover; its times tell nothing."""

    made: Order
    needs: Needs
    reading: Reading
    chunks: AsyncGenerator[Chunk, None]
    began: float
    again: bool = False
    mark: Mark | None = None
    lines: bytes = b""


class Chat:
    """Answers chat requests over one service."""

    def __init__(self, needs: Needs, tally: Tally) -> None:
        self._needs = needs
        self._tally = tally

    async def answer(self, exchange: Exchange) -> None:
        """One exchange, from the body to the last byte. A Fault becomes an error page, or an error event in a stream."""
        needs, tally, request = self._needs, self._tally, exchange.request
        began, who = needs.clock.now(), None
        tally.in_flight += 1
        try:
            who = asker(request, needs.limits.deadline_s)
            kept = None
            if needs.screen is not None and (who.idempotency or needs.glance is None):
                needs.screen(who.key, who.body_bytes)
            if who.idempotency and needs.streams is not None:
                kept = await needs.streams.reserve(who.idempotency)
            if kept is None:
                if needs.glance is not None:  # whoever comes back for an answer that exists is never refused
                    needs.glance(who, exchange.address)
                made, by = await self._order(request, who)
                exchange.generation = made.generation.id
                exchange.lingers = wants_resume(request) and not complaint_of(made.generation.id, by)
                await self._tell(exchange, Telling(made, by, Reading(made), by.service(made.generation), began))
            elif read_note(kept.generation).body_digest != who.body_digest:
                why = "This Idempotency-Key was sent before with another body; use a new key for a new request."
                raise BadRequest(why, "idempotency-key", "idempotency_key_reused")
            else:
                tally.replayed += 1
                await self.again(exchange, kept, who.key, None, b"x-holdfast-replayed: true\r\n")
        except Fault as fault:
            said = refusal_for(fault)
            tally.failed(fault)
            needs.emit(RequestRefused(status=said.status, why=fault.why))
            exchange.refuse(said, request_id_line(request, needs.bits))
        finally:
            tally.in_flight -= 1
            if who is not None and who.idempotency and needs.streams is not None:
                needs.streams.release(who.idempotency)

    async def again(self, exchange: Exchange, kept: Kept, key: str, mark: Mark | None, lines: bytes = b"") -> None:
        """Write a kept answer, as far as it goes and as it goes on. Raises Fault while nothing is written."""
        needs = self._needs
        if needs.streams is None:
            return
        made = order_again(kept.generation, needs)
        exchange.generation, exchange.follows = kept.begun.id, True
        exchange.lingers = wants_resume(exchange.request) and not complaint_of(kept.begun.id, needs)
        token = 0 if mark is None else mark.at
        why = f"asked for again from token {token}; {'its owner lives' if kept.alive else 'its owner is gone'}"
        needs.emit(StreamResumed(generation=kept.begun.id, token=token, owner=kept.owner, why=why))
        chunks = needs.streams.follow(kept, key)
        await self._tell(exchange, Telling(made, needs, Reading(made), chunks, needs.clock.now(), True, mark, lines))

    async def _tell(self, exchange: Exchange, telling: Telling) -> None:
        try:
            if telling.made.stream:
                await self._stream(exchange, telling)
            else:
                await self._whole(exchange, telling)
        finally:
            if not telling.again:
                self._tally.answers += telling.reading.done
                self._tally.tokens_out += telling.reading.tokens
                self._tally.tokens_cached += telling.reading.cached

    async def _order(self, request: Request, who: Asker) -> tuple[Order, Needs]:
        """What is owed, and by whose means: the smaller model's where the ladder says so and it can."""
        needs = self._needs
        smaller = needs.smaller
        if smaller is not None and smaller.takes(who):
            with contextlib.suppress(BadRequest):  # the site's own model may be able to; if not, it says why
                return await self._made(request, who, smaller.needs), smaller.needs
        return await self._made(request, who, needs), needs

    async def _made(self, request: Request, who: Asker, needs: Needs) -> Order:
        body, card = request.body, needs.card()
        refuse_forest(body, needs.limits.json_depth_max, needs.limits.json_nodes_max)
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

    def _lines(self, telling: Telling, request: Request) -> bytes:
        """Header lines that every answer carries."""
        made, needs = telling.made, telling.needs
        generation, card = made.generation, made.card
        word, why = needs.contract(generation.sampling, card.exactness)
        complaint, name = complaint_of(generation.id, needs), generation.id.encode()
        resume = _plain("off", complaint) if complaint else b"/v1/streams/" + name
        given_up = b"x-holdfast-degraded: %b\r\n" % made.degraded.encode("ascii", "replace") if made.degraded else b""
        return (
            b"%b%bx-holdfast-continuable: %b\r\nx-holdfast-seed: %d\r\nx-holdfast-answer: %b\r\nx-holdfast-resume: %b\r\n"
        ) % (
            telling.lines + given_up,
            request_id_line(request, generation.id),
            _plain(word, why),
            generation.seed,
            name,
            resume,
        )

    async def _whole(self, exchange: Exchange, telling: Telling) -> None:
        made, reading = telling.made, telling.reading
        reasoning: list[str] = []
        content: list[str] = []
        calls: list[ToolCall] = []
        rows: list[TokenLogprob] = []
        now, last = telling.needs.clock.now, telling.began
        async with aclosing(telling.chunks) as chunks:
            async for chunk in chunks:
                if chunk.waiting:
                    continue
                last = self._timed(chunk, telling, last, now())
                said = reading.take(chunk)
                if said.reasoning:
                    reasoning.append(said.reasoning)
                if said.content:
                    content.append(said.content)
                calls.extend(said.calls)
                if reading.logprobs:
                    rows.extend(reading.logprobs)
                if reading.stopped:
                    break
        if not reading.done:
            raise EngineLost("the answer ended without a finish")
        said = Said("".join(reasoning), "".join(content), tuple(calls))
        logprobs = logprobs_json(rows, telling.needs.dialect) if rows else None
        lines = JSON_TYPE + self._lines(telling, exchange.request) + b"x-holdfast-moves: %d\r\n" % reading.moves
        exchange.send(200, lines, whole(made, reading, said, logprobs))

    def _timed(self, chunk: Chunk, telling: Telling, last: float, now: float) -> float:
        """Take down first-token time, gaps and pauses. Returns the time of the newest ids."""
        tally, reading = self._tally, telling.reading
        if telling.again:
            return now
        if chunk.moves != reading.moves:
            tally.moves += chunk.moves - reading.moves
            tally.pause_s.observe(now - last)
        if not chunk.ids:
            return last
        if reading.tokens:
            tally.gap_s.observe(now - last)
        else:
            tally.ttft_s.observe(now - telling.began)
        return now

    async def _stream(self, exchange: Exchange, telling: Telling) -> None:
        """Nothing is written before the first chunk: until then a refusal is an error page, later it is an error event."""
        tally, needs = self._tally, self._needs
        try:
            await self._events(exchange, telling)
        except Fault as fault:
            if not exchange.begun:
                raise
            if exchange.answered:
                return  # the client has its whole answer; what went wrong after it is no concern of theirs
            said = refusal_for(fault)
            tally.failed(fault)
            tally.refused(said.code)
            tally.cut += 1
            needs.emit(RequestRefused(status=said.status, why=fault.why))
            exchange.shut(b"data: " + said.body + b"\n\n", close=True)
        finally:
            tally.streams -= exchange.begun

    async def _events(self, exchange: Exchange, telling: Telling) -> None:
        needs, reading, mark = telling.needs, telling.reading, telling.mark
        events = Events(telling.made, needs.dialect)
        rest = None if mark is None else Rest(reading, mark)
        now, last, ahead = needs.clock.now, telling.began, b""
        async with aclosing(telling.chunks) as chunks:
            async for chunk in chunks:
                if not exchange.begun:
                    exchange.open(STREAM_TYPE + self._lines(telling, exchange.request))
                    self._tally.streams += 1
                    ahead = events.role() if mark is None else b""
                if chunk.waiting:
                    data = ahead + keep_alive(chunk.waiting)
                else:
                    last = self._timed(chunk, telling, last, now())
                    if rest is None:
                        data = ahead + events.said(reading.take(chunk), reading)
                    else:
                        data = events.rest(rest, chunk, reading)
                    if reading.done:
                        exchange.shut(data + events.last(reading, "" if mark is None else mark.ending))
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
