"""Several choices of one answer (`n`, or several prompts): each is a Generation of its own, so each goes on by itself when its
replica dies; they are written into one stream, or one body, as they come.

They stand and fall together: who hangs up aborts all, and a fault in one ends the whole. Such an answer is not kept to be had
again from another worker: a place in it would be a place in each of its choices.
"""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing

from holdfast.domain.fault import EngineLost, Fault
from holdfast.domain.request import Chunk
from holdfast.gateway.answering import STREAM_TYPE, Spoken, Telling, lines_of, timed
from holdfast.gateway.connection import Exchange
from holdfast.gateway.metrics import Tally
from holdfast.gateway.refusals import JSON_TYPE
from holdfast.gateway.surface import ChoiceWriter
from holdfast.gateway.writing import keep_alive, usage_of

NOT_KEPT = "an answer of several choices is not kept"
_ID_LINES = re.compile(rb"^id: .*\n", re.MULTILINE)


async def merged(tellings: list[Telling]) -> AsyncGenerator[tuple[Telling, Chunk], None]:
    """What all choices say, in the order in which it comes.

    A choice that a stop string has ended is closed; one whose engine has ended it is read to its end.

    Raises:
        Fault: of the first choice that fails before its end.
    """
    coming = {_next(telling): telling for telling in tellings}
    try:
        while coming:
            done, _ = await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
            for task in [one for one in coming if one in done]:
                telling = coming.pop(task)
                try:
                    chunk = task.result()
                except Fault:
                    if telling.reading.done:
                        continue
                    raise
                if chunk is not None:
                    yield telling, chunk
                elif not telling.reading.done:
                    raise EngineLost("the answer ended without a finish")
                if telling.reading.stopped:
                    await telling.chunks.aclose()
                elif chunk is not None:
                    coming[_next(telling)] = telling
    finally:
        for task in coming:
            task.cancel()
        await asyncio.gather(*coming, return_exceptions=True)
        for telling in tellings:
            await telling.chunks.aclose()


def _next(telling: Telling) -> "asyncio.Task[Chunk | None]":
    async def one() -> Chunk | None:
        return await anext(telling.chunks, None)

    return asyncio.ensure_future(one())


async def write_whole(exchange: Exchange, tellings: list[Telling], writers: list[ChoiceWriter], tally: Tally) -> None:
    """All choices in one body."""
    spoken = [Spoken() for _ in tellings]
    last = [telling.began for telling in tellings]
    async with aclosing(merged(tellings)) as chunks:
        async for telling, chunk in chunks:
            reading, i = telling.reading, telling.made.index
            if not chunk.waiting and not reading.done:
                last[i] = timed(tally, chunk, telling, last[i], telling.needs.clock.now())
                spoken[i].add(reading.take(chunk), reading)
    first = tellings[0]
    rows = [
        writer.choice(telling.reading, one.all(), one.logprobs(telling))
        for writer, telling, one in zip(writers, tellings, spoken, strict=True)
    ]
    told = usage_of([(telling.made, telling.reading) for telling in tellings])
    lines = JSON_TYPE + lines_of(first, exchange.request, NOT_KEPT) + b"x-holdfast-moves: %d\r\n" % told.moves
    exchange.send(200, lines, writers[0].body(rows, told))


async def write_events(exchange: Exchange, tellings: list[Telling], writers: list[ChoiceWriter], tally: Tally) -> None:
    """All choices in one stream. Its events carry no ids, as nobody can come back for the rest."""
    last = [telling.began for telling in tellings]
    ahead, left = b"", len(tellings)
    async with aclosing(merged(tellings)) as chunks:
        async for telling, chunk in chunks:
            reading, i = telling.reading, telling.made.index
            if not exchange.begun:
                exchange.open(STREAM_TYPE + lines_of(tellings[0], exchange.request, NOT_KEPT))
                tally.streams += 1
                ahead = b"".join([writer.begin() for writer in writers])
            if reading.done:
                continue
            if chunk.waiting:
                data = keep_alive(chunk.waiting)
            else:
                last[i] = timed(tally, chunk, telling, last[i], telling.needs.clock.now())
                data = writers[i].said(reading.take(chunk), reading)
                if reading.done:
                    left -= 1
                    data += writers[i].finished(reading)
            data, ahead = _ID_LINES.sub(b"", ahead + data), b""
            if not left:
                told = usage_of([(one.made, one.reading) for one in tellings])
                exchange.shut(data + writers[0].closing(told))
            elif data:
                slow = exchange.push(data)
                if slow is not None:
                    await slow
