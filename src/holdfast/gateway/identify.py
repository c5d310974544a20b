"""Who asks? A key is compared in constant time; without configured keys nobody is asked (loopback only, by default)."""

import hmac
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

from holdfast.domain.fault import Unauthorised
from holdfast.domain.request import Chunk, Generation
from holdfast.gateway.service import Layer, Service


def known(key: str, keys: frozenset[str]) -> bool:
    """Whether `key` is among `keys`; takes the same time wherever the difference lies, and looks at all of them."""
    given = key.encode()
    found = False
    for one in keys:
        found |= hmac.compare_digest(given, one.encode())
    return found


def screen(keys: frozenset[str]) -> Callable[[str, int], None] | None:
    """The same question for the door, before a body is parsed: strangers can't make us tokenise megabytes."""

    def ask(key: str, body_bytes: int) -> None:
        if not known(key, keys):
            raise stranger(key)

    return ask if keys else None


def stranger(key: str) -> Unauthorised:
    """The refusal, which tells a missing key from a wrong one."""
    missing = "no API key was sent" if not key else "the API key is not known here"
    return Unauthorised(f"{missing}: send it in the header 'Authorization: Bearer KEY'")


def identify(keys: frozenset[str]) -> Layer:
    """Let only known keys through; with no keys configured, let everybody through."""

    def layer(inner: Service) -> Service:
        async def service(generation: Generation) -> AsyncGenerator[Chunk, None]:
            if not known(generation.key, keys):
                raise stranger(generation.key)
            async with aclosing(inner(generation)) as chunks:
                async for chunk in chunks:
                    yield chunk

        return service if keys else inner

    return layer
