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
    """Choose a replica for this attempt and write it into the Generation."""

    def layer(inner: Service) -> Service:
        async def fresh(generation: Generation) -> AsyncGenerator[Chunk, None]:
            """New work begins at once."""
            verdict = turns.ask(generation)
            if isinstance(verdict, NonePicked | Crowded):
                raise NoReplica(verdict.why)
            lines.picked(verdict.replica)
            async with aclosing(inner(structs.replace(generation, replica=verdict.replica))) as chunks:
                async for chunk in chunks:
                    yield chunk

        async def moved(generation: Generation) -> AsyncGenerator[Chunk, None]:
            """What has moved, or is suspect, waits for its turn."""
            reading = True
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
                async with aclosing(inner(structs.replace(generation, replica=verdict.replica))) as chunks:
                    async for chunk in chunks:
                        if reading and chunk.ids:
                            reading = False
                            turns.read(generation)
                        yield chunk
            finally:
                turns.over(generation)

        def service(generation: Generation) -> AsyncGenerator[Chunk, None]:
            return moved(generation) if needs_turn(generation) else fresh(generation)

        return service

    return layer
