"""The record: writes every answer into the journal before anybody above sees it.

It stands below admit, so that only what was let in is written, and above failover, so that moves between replicas are none of
its business. A reader who goes away leaves the transcript as it is: anybody may go on with it.
"""

from collections.abc import AsyncGenerator

from holdfast.domain.fault import Fault, Fenced
from holdfast.domain.request import Chunk, Generation
from holdfast.gateway.journal import Journal
from holdfast.gateway.service import Layer, Service


def record(journal: Journal) -> Layer:
    """Keep what is delivered."""

    def layer(inner: Service) -> Service:
        async def service(generation: Generation) -> AsyncGenerator[Chunk, None]:
            live = journal.begin(generation)
            ended = False
            try:
                chunks = inner(generation)
                try:
                    async for chunk in chunks:
                        if not chunk.waiting:
                            journal.write(live, chunk)
                            ended = chunk.finish is not None
                        yield chunk
                finally:
                    await chunks.aclose()
            except Fenced:
                raise
            except Fault as fault:
                journal.end(live, None, fault)
                ended = True
                raise
            finally:
                if not ended:
                    journal.leave(live)

        return service

    return layer
