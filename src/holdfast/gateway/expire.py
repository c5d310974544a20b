"""The deadline. It stands above every wait, so that time in the queue counts.

No timer per request: the deadline travels with the Generation, each place that waits (queue, no replica, a stream that the
watch looks at) ends with it, and this layer is the one that says so to the client.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from holdfast.domain.fault import Expired
from holdfast.domain.ports import Clock
from holdfast.domain.request import Chunk, Generation
from holdfast.gateway.service import Layer, Service


def expire(clock: Clock) -> Layer:
    """End a generation whose deadline has passed."""

    def layer(inner: Service) -> Service:
        async def service(generation: Generation) -> AsyncGenerator[Chunk, None]:
            async with aclosing(inner(generation)) as chunks:
                async for chunk in chunks:
                    if chunk.ids and chunk.finish is None and clock.now() >= generation.deadline:
                        raise Expired("the request's deadline passed before its answer was complete")
                    yield chunk

        return service

    return layer
