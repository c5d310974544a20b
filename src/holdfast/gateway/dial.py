"""The ground: one call to one engine. Whatever it raises carries the replica's name from here on."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from holdfast.domain.fault import EngineLost, EngineRefused
from holdfast.domain.request import Chunk, Generation
from holdfast.gateway.lines import Lines
from holdfast.gateway.service import Service


def dial(lines: Lines) -> Service:
    """Call the replica that pick wrote into the Generation."""

    async def service(generation: Generation) -> AsyncGenerator[Chunk, None]:
        line = lines.line(generation.replica)
        if line is None:
            raise EngineRefused(f"{generation.replica} went away")
        lines.owed[generation.id] = generation
        finished = False
        try:
            async with aclosing(line.generate(generation)) as chunks:
                async for chunk in chunks:
                    finished = chunk.finish is not None
                    chunk.epoch = generation.epoch
                    yield chunk
            if not finished:
                raise EngineLost("the stream ended without a finish")
        except (EngineLost, EngineRefused) as fault:
            fault.replica = line.boot
            raise
        finally:
            lines.owed.pop(generation.id, None)

    return service
