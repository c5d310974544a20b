"""A request for an answer, of any surface: reads it, calls the service, writes the answer.

An answer that is had again (gateway/resumed.py, or a repeated Idempotency-Key) is written by the same code, from its kept ids.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine

from holdfast.domain.event import RequestRefused, StreamResumed
from holdfast.domain.fault import BadRequest, EngineLost, Fault
from holdfast.gateway.answering import STREAM_TYPE, Spoken, Telling, complaint_of, lines_of, timed
from holdfast.gateway.archive import Kept
from holdfast.gateway.asker import Asker
from holdfast.gateway.choices import write_events, write_whole
from holdfast.gateway.connection import Exchange
from holdfast.gateway.head import asker, wants_resume
from holdfast.gateway.incoming import Request
from holdfast.gateway.marks import Mark, Rest
from holdfast.gateway.metrics import Tally
from holdfast.gateway.needs import Needs
from holdfast.gateway.nesting import refuse_forest
from holdfast.gateway.numbered import all_singly
from holdfast.gateway.order import Note, Order, read_note
from holdfast.gateway.ordering import order_again, orders
from holdfast.gateway.pages import request_id_line
from holdfast.gateway.prompting import prompts_of
from holdfast.gateway.reading import Reading
from holdfast.gateway.refusals import JSON_TYPE, Refusal, refusal_for
from holdfast.gateway.surface import ChoiceWriter, Surface, Writer
from holdfast.gateway.surfaces import surface_of
from holdfast.gateway.writing import keep_alive


class Chat:
    """Answers requests for answers over one service."""

    def __init__(self, needs: Needs, tally: Tally) -> None:
        self._needs = needs
        self._tally = tally

    async def answer(self, exchange: Exchange, surface: Surface) -> None:
        """One exchange, from the body to the last byte. A Fault becomes an error page, or an error event in a stream."""
        needs, tally, request = self._needs, self._tally, exchange.request
        began, who, reserved = needs.clock.now(), None, False
        tally.in_flight += 1
        try:
            who = exchange.who = asker(request, needs.limits.deadline_s)
            kept = None
            if needs.screen is not None and (who.idempotency or needs.glance is None):
                needs.screen(who.key, who.body_bytes)
            if who.idempotency and needs.streams is not None:
                kept = await needs.streams.reserve(who.idempotency)
                reserved = kept is None
            if kept is None:
                if needs.glance is not None:  # whoever comes back for an answer that exists is never refused
                    needs.glance(who, exchange.address)
                made, by = await self._order(request, who, surface)
                first = made[0]
                exchange.generation = first.generation.id
                if len(made) == 1:
                    exchange.lingers = wants_resume(request) and not complaint_of(exchange.generation, by)
                    chunks = by.service(first.generation)
                    await self._tell(exchange, Telling(first, by, surface, Reading(first), chunks, began))
                else:
                    await self._several(
                        exchange, [Telling(o, by, surface, Reading(o), by.service(o.generation), began) for o in made]
                    )
            elif not _same(read_note(kept.generation), who, surface):
                why = "This Idempotency-Key was sent before with another body or path; use a new key for a new request."
                raise BadRequest(why, "idempotency-key", "idempotency_key_reused")
            else:
                tally.replayed += 1
                await self.again(exchange, kept, who.key, None, b"x-holdfast-replayed: true\r\n")
        except Fault as fault:
            said = surface.refuse(refusal_for(fault))
            tally.failed(fault)
            needs.emit(RequestRefused(status=said.status, why=fault.why))
            exchange.refuse(said, request_id_line(request, needs.bits))
        finally:
            tally.in_flight -= 1
            if reserved and who is not None and needs.streams is not None:  # another's is not ours to let go
                needs.streams.release(who.idempotency)

    async def again(self, exchange: Exchange, kept: Kept, key: str, mark: Mark | None, lines: bytes = b"") -> None:
        """Write a kept answer, as far as it goes and as it goes on. Raises Fault while nothing is written."""
        needs = self._needs
        if needs.streams is None:
            return
        generation = kept.generation
        note = read_note(generation)
        surface = surface_of(note)
        made = order_again(generation, note, needs, surface)
        exchange.generation, exchange.follows = kept.begun.id, True
        exchange.lingers = wants_resume(exchange.request) and not complaint_of(kept.begun.id, needs)
        token = 0 if mark is None else mark.at
        why = f"asked for again from token {token}; {'its owner lives' if kept.alive else 'its owner is gone'}"
        needs.emit(StreamResumed(generation=kept.begun.id, token=token, owner=kept.owner, why=why))
        chunks = needs.streams.follow(kept, key)
        began = needs.clock.now()
        await self._tell(exchange, Telling(made, needs, surface, Reading(made), chunks, began, True, mark, lines))

    async def _tell(self, exchange: Exchange, telling: Telling) -> None:
        try:
            if telling.made.stream:
                writer = telling.surface.writer(telling.made, telling.needs.dialect)
                await self._stream(exchange, telling, writer.cut, self._events(exchange, telling, writer))
            else:
                await self._whole(exchange, telling)
        finally:
            if not telling.again:
                self._count(exchange, telling)

    async def _several(self, exchange: Exchange, tellings: list[Telling]) -> None:
        """Several choices, in one."""
        first, writers = tellings[0], list[ChoiceWriter]()
        try:
            for telling in tellings:
                if telling.surface.choices is not None:
                    writers.append(telling.surface.choices(telling.made, telling.needs.dialect))
            if first.made.stream:
                events = write_events(exchange, tellings, writers, self._tally)
                await self._stream(exchange, first, writers[0].cut, events)
            else:
                await write_whole(exchange, tellings, writers, self._tally)
        finally:
            for telling in tellings:
                self._count(exchange, telling)

    def _count(self, exchange: Exchange, telling: Telling) -> None:
        tally, reading = self._tally, telling.reading
        exchange.tokens_in += len(telling.made.generation.prompt_ids)
        exchange.tokens_out += reading.tokens
        tally.answers += reading.done
        tally.tokens_out += reading.tokens
        tally.tokens_cached += reading.cached

    async def _order(self, request: Request, who: Asker, surface: Surface) -> tuple[list[Order], Needs]:
        """What is owed, and by whose means: the smaller model's where the ladder says so and it can."""
        needs = self._needs
        smaller = needs.smaller
        if smaller is not None and smaller.takes(who):
            with contextlib.suppress(BadRequest):  # the site's own model may be able to; if not, it says why
                return await self._made(request, who, smaller.needs, surface), smaller.needs
        return await self._made(request, who, needs, surface), needs

    async def _made(self, request: Request, who: Asker, needs: Needs, surface: Surface) -> list[Order]:
        body, card = request.body, needs.card()
        refuse_forest(body, needs.limits.json_depth_max, needs.limits.json_nodes_max)
        try:
            ask = surface.read(body)
            make = surface.prompts or prompts_of
            # a form's grammar is tried out: patterns of a small body can take a tenth of a second
            if len(body) < needs.limits.large_text_bytes and ask.response_format is None and not ask.tools:
                prompts = make(ask, needs, card)
            else:
                prompts = await asyncio.to_thread(make, ask, needs, card)
        except RecursionError as error:
            raise BadRequest("The body's JSON is nested too deeply; flatten it.", code="invalid_json") from error
        made = orders(ask, prompts, who, needs, surface, card=card)
        for one in prompts:
            self._tally.tokens_in += len(one.ids)
        return made

    async def _whole(self, exchange: Exchange, telling: Telling) -> None:
        made, reading, spoken, tally = telling.made, telling.reading, Spoken(), self._tally
        now, last = telling.needs.clock.now, telling.began
        chunks, spent = telling.chunks, False
        try:
            async for chunk in chunks:
                if chunk.waiting:
                    continue
                last = timed(tally, chunk, telling, last, now())
                spoken.add(reading.take(chunk), reading)
                if reading.stopped:
                    break
            else:
                spent = True
        finally:
            if not spent:
                await chunks.aclose()
        if not reading.done:
            raise EngineLost("the answer ended without a finish")
        lines = JSON_TYPE + lines_of(telling, exchange.request) + b"x-holdfast-moves: %d\r\n" % reading.moves
        writer = telling.surface.writer(made, telling.needs.dialect)
        exchange.send(200, lines, writer.whole(reading, spoken.all(), spoken.logprobs(telling)))

    async def _stream(
        self, exchange: Exchange, telling: Telling, cut: Callable[[Refusal], bytes], events: Coroutine[None, None, None]
    ) -> None:
        """Nothing is written before the first chunk: until then a refusal is an error page, later it is an error event."""
        tally, needs, surface = self._tally, self._needs, telling.surface
        try:
            await events
        except Fault as fault:
            if not exchange.begun:
                raise
            if exchange.answered:
                return  # the client has its whole answer; what went wrong after it is no concern of theirs
            said = surface.refuse(refusal_for(fault))
            tally.failed(fault)
            tally.refused(said.code)
            tally.cut += 1
            needs.emit(RequestRefused(status=said.status, why=fault.why))
            exchange.shut(cut(said), close=True)
        finally:
            tally.streams -= exchange.begun

    async def _events(self, exchange: Exchange, telling: Telling, writer: Writer) -> None:
        needs, reading, mark, tally = telling.needs, telling.reading, telling.mark, self._tally
        rest = None if mark is None else Rest(reading, mark)
        now, last, ahead, spent = needs.clock.now, telling.began, b"", False
        chunks = all_singly(telling.chunks) if telling.surface.singly and rest is None else telling.chunks
        try:
            async for chunk in chunks:
                if not exchange.begun:
                    exchange.open(STREAM_TYPE + lines_of(telling, exchange.request))
                    tally.streams += 1
                    ahead = writer.begin() if mark is None else b""
                if chunk.waiting:
                    data = ahead + keep_alive(chunk.waiting)
                else:
                    last = timed(tally, chunk, telling, last, now())
                    if rest is None:
                        data = ahead + writer.said(reading.take(chunk), reading)
                    else:
                        data = writer.rest(rest, chunk, reading)
                    if reading.done:
                        exchange.shut(data + writer.last(reading, "" if mark is None else mark.ending))
                        if reading.stopped:
                            return
                        continue
                if data:
                    slow, ahead = exchange.push(data), b""
                    if slow is not None:
                        await slow
            spent = True
        finally:
            if not spent:
                await chunks.aclose()
        if not reading.done:
            raise EngineLost("the answer ended without a finish")


def _same(note: Note, who: Asker, surface: Surface) -> bool:
    """Whether a repeated request is the one that was sent before: an answer in another API's shape would be none."""
    return note.body_digest == who.body_digest and note.surface == surface.name
