"""The ground: one call to one engine. Whatever it raises carries the replica's name from here on."""

from collections.abc import AsyncGenerator

from holdfast.domain.fault import EngineLost, EngineRefused
from holdfast.domain.request import Chunk, Generation
from holdfast.gateway.lines import Lines
from holdfast.gateway.service import Service
from holdfast.policy.sanity import Check


def dial(lines: Lines) -> Service:
    """Call the replica that pick wrote into the Generation."""

    async def service(generation: Generation) -> AsyncGenerator[Chunk, None]:
        line = lines.line(generation.replica)
        if line is None:
            raise EngineRefused(f"{generation.replica} went away")
        lines.owed[generation.id] = generation
        began, finished, check = lines.now, False, Check(generation.replica, generation.prompt_ids)
        try:
            chunks = line.generate(generation)
            try:
                async for chunk in chunks:
                    finished = chunk.finish is not None
                    if generation.epoch:
                        chunk.epoch = generation.epoch
                    odd = check.see(chunk.ids, chunk.logprobs)
                    if odd is not None:
                        lines.odd.append(odd)
                    yield chunk
            finally:
                await chunks.aclose()
            if not finished:
                raise EngineLost("the stream ended without a finish")
        except (EngineLost, EngineRefused) as fault:
            fault.replica, fault.name, fault.release = line.boot, generation.replica, line.describe()
            if isinstance(fault, EngineLost):
                fault.silent_s, fault.age_s = lines.now - line.last_frame_at, lines.now - began
                fault.queued = line.last_load.queued
            raise
        finally:
            lines.owed.pop(generation.id, None)

    return service
