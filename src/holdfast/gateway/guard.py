"""The guard judges one replica: it tells the breaker how each attempt ended. Pick reads the breakers' state."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from holdfast.domain.event import BreakerOpened, Emit
from holdfast.domain.fault import EngineLost, EngineRefused
from holdfast.domain.ports import Clock
from holdfast.domain.request import Chunk, Generation, Outcome
from holdfast.gateway.lines import Lines
from holdfast.gateway.service import Layer, Service


def guard(lines: Lines, clock: Clock, emit: Emit) -> Layer:
    """Keep count of one replica's failures. A refusal is no failure: a full or draining replica is a healthy one."""

    def layer(inner: Service) -> Service:
        async def service(generation: Generation) -> AsyncGenerator[Chunk, None]:
            breaker = lines.breaker(generation.replica)
            breaker.began(clock.now())
            outcome = Outcome.IGNORE
            try:
                async with aclosing(inner(generation)) as chunks:
                    async for chunk in chunks:
                        if chunk.finish is not None:
                            outcome = Outcome.OK
                        yield chunk
            except EngineRefused:
                raise
            except EngineLost:
                outcome = Outcome.DROP
                raise
            finally:
                if breaker.record(outcome, clock.now()):
                    emit(
                        BreakerOpened(replica=generation.replica, why=f"{breaker.failures} failures in a row: it rests")
                    )

        return service

    return layer
