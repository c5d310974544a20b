"""Who asks? The key says which tenant it is; without any key nobody is asked (loopback only, by default)."""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from msgspec import structs

from holdfast.domain.fault import BadRequest
from holdfast.domain.key import Scope
from holdfast.domain.request import Chunk, Generation
from holdfast.gateway.service import Layer, Service
from holdfast.gateway.tenants import Tenants


def screen(tenants: Tenants) -> Callable[[str, int], None]:
    """The same question for the door, before a body is parsed: strangers can't make us tokenise megabytes."""

    def ask(key: str, body_bytes: int) -> None:
        tenants.of_key(key)

    return ask


def screen_metrics(tenants: Tenants, shown: bool) -> Callable[[str], None]:
    """Who may read the metrics at the API's own address, where they are `shown` there at all."""

    def ask(key: str) -> None:
        if not shown:
            raise BadRequest("There are no metrics here; they are at the control plane's address.", code="not_found")
        tenants.holder_of(key, Scope.METRICS)

    return ask


def identify(tenants: Tenants) -> Layer:
    """Let only known keys through, and write their tenant into the generation. One that the door let in has it already."""

    def layer(inner: Service) -> Service:
        def service(generation: Generation) -> AsyncGenerator[Chunk, None]:
            if not generation.tenant:
                return asked(generation)
            return inner(generation)

        async def asked(generation: Generation) -> AsyncGenerator[Chunk, None]:
            limits, said = tenants.of_key(generation.key), generation.priority
            priority = min(said, limits.priority) if said else limits.priority
            known = structs.replace(generation, tenant=limits.tenant, priority=priority)
            async with aclosing(inner(known)) as chunks:
                async for chunk in chunks:
                    yield chunk

        return service

    return layer
