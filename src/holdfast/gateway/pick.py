"""Picking: the only layer that knows there are many replicas."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from msgspec import structs

from holdfast.domain.fault import NoReplica
from holdfast.domain.request import Chunk, Generation
from holdfast.gateway.lines import Lines
from holdfast.gateway.service import Layer, Service
from holdfast.policy import balance


def pick(lines: Lines) -> Layer:
    """Choose a replica for this attempt and write it into the Generation."""

    def layer(inner: Service) -> Service:
        async def service(generation: Generation) -> AsyncGenerator[Chunk, None]:
            verdict = balance.pick(lines.candidates(), generation.tried)
            if isinstance(verdict, balance.NonePicked):
                raise NoReplica(verdict.why)
            lines.picked(verdict.replica)
            async with aclosing(inner(structs.replace(generation, replica=verdict.replica))) as chunks:
                async for chunk in chunks:
                    yield chunk

        return service

    return layer
