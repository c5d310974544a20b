"""Picking: the only layer that knows there are many replicas."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec import structs

from holdfast.domain.fault import NoReplica
from holdfast.domain.request import Chunk, Generation
from holdfast.gateway.lane import Turns, needs_turn
from holdfast.gateway.lines import Lines
from holdfast.gateway.service import Layer, Service
from holdfast.policy.balance import Crowded, NonePicked


def pick(lines: Lines, turns: Turns) -> Layer:
    """Choose a replica for this attempt and write it into the Generation. It holds room there until it ends."""

    def layer(inner: Service) -> Service:
        async def service(generation: Generation) -> AsyncGenerator[Chunk, None]:
            reading = needs_turn(generation)
            try:
                verdict = turns.ask(generation)
                if isinstance(verdict, Crowded):
                    async with aclosing(turns.wait(generation, verdict.why)) as signs:
                        async for sign in signs:
                            yield sign
                    verdict = turns.turn(generation)
                if isinstance(verdict, NonePicked | Crowded):
                    raise NoReplica(verdict.why)
                lines.picked(verdict.replica)
                chunks = inner(structs.replace(generation, replica=verdict.replica))
                try:
                    async for chunk in chunks:
                        if reading and (chunk.ids or chunk.waiting):  # it is made again, so its prompt is read
                            reading = False
                            turns.read(generation)
                        yield chunk
                finally:
                    await chunks.aclose()
            finally:
                turns.over(generation)

        return service

    return layer
