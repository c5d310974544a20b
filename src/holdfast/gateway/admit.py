"""Admission: asks the gate and obeys. Who must wait shows now and then that it lives, and how many are ahead.

The deadline is kept here too, above every wait. There is no timer a request: the deadline travels with the Generation, each
place that waits (queue, no replica, a stream that the watch looks at) ends with it, and while tokens come they are looked at.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from holdfast.domain.fault import Expired, Fault
from holdfast.domain.request import Chunk, Generation
from holdfast.gateway.gate import Gate
from holdfast.gateway.gate_place import Place
from holdfast.gateway.lines import Lines
from holdfast.gateway.service import Layer, Service

SIGN_OF_LIFE_S = 1.0  # a waiting stream gets a keep-alive comment this often


async def _wait(gate: Gate, place: Place, turn: asyncio.Future[None]) -> AsyncGenerator[Chunk, None]:
    """Wait for a place. Raises what the gate says to one whose time is up."""
    while not turn.done():
        await asyncio.wait({turn}, timeout=SIGN_OF_LIFE_S)
        if not turn.done():
            yield Chunk([], waiting=gate.told(place))
    turn.result()


def admit(gate: Gate, lines: Lines) -> Layer:
    """Refuse, or hold back, what the replicas have no room for; end what is not complete at its deadline."""
    lines.on_change(gate.changed)
    now = gate.clock.now

    def layer(inner: Service) -> Service:
        async def service(generation: Generation) -> AsyncGenerator[Chunk, None]:
            place, made, finish = gate.enter(generation), 0, None
            try:
                if place.turn is not None:
                    async with aclosing(_wait(gate, place, place.turn)) as signs:
                        async for sign in signs:
                            yield sign
                chunks = inner(generation)
                try:
                    async for chunk in chunks:
                        if chunk.ids:
                            made += len(chunk.ids)
                            if made > place.expected:
                                gate.outgrew(place)
                            if chunk.finish is None and now() >= generation.deadline:
                                raise Expired("the request's deadline passed before its answer was complete")
                        finish = chunk.finish
                        yield chunk
                finally:
                    await chunks.aclose()
            except Fault as fault:
                place.fault = fault
                raise
            finally:
                place.made, place.finish = made, finish
                gate.leave(place)

        return service

    return layer
