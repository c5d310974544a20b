"""Replay: how an answer under a grammar goes on at an engine that begins its grammar anew with each request.

Such an engine can't be led through what was delivered. So the whole answer is asked for once more, from its prompt, with the
seed and the bounds that it had in its first life. What comes is compared with what was delivered, token by token, and dropped;
from there on it is passed on. Where it departs nothing is passed on: the attempt is lost, and says at which token.

It costs the time that the delivered tokens take. Meanwhile each step of the engine is a chunk without ids that says so
(`waiting`): whoever judges silence, or waits with the answer in hand, sees that it is being made.
"""

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import wraps
from typing import TypeVar

from msgspec import structs

from holdfast.domain.fault import EngineLost
from holdfast.domain.request import Chunk, Finish, Generation

Adapter = TypeVar("Adapter")
Generate = Callable[[Adapter, Generation], AsyncGenerator[Chunk, None]]


def replayed(generate: Generate[Adapter]) -> Generate[Adapter]:
    """Decorates the `generate` of an adapter whose engine can't lead a grammar through delivered ids: it is never given both.

    Raises:
        EngineLost: the answer does not come out as it was delivered; `unrepeatable` then.
    """

    @wraps(generate)
    def chosen(adapter: Adapter, generation: Generation) -> AsyncGenerator[Chunk, None]:
        count = len(generation.delivered_ids)
        if generation.sampling.grammar and 0 < count < generation.max_tokens:
            return _again(generate, adapter, generation)
        return generate(adapter, generation)

    return chosen


async def _again(generate: Generate[Adapter], adapter: Adapter, generation: Generation) -> AsyncGenerator[Chunk, None]:
    replay = _Replay(generation.delivered_ids)
    async with aclosing(generate(adapter, structs.replace(generation, delivered_ids=[]))) as chunks:
        async for chunk in chunks:
            yield replay.take(chunk)


class _Replay:
    """How far one replay has come."""

    def __init__(self, delivered_ids: list[int]) -> None:
        self._delivered = delivered_ids
        self._had = 0  # of those, made again
        self._cached = 0  # tokens of the prompt; told with the first chunk that is passed on

    def take(self, chunk: Chunk) -> Chunk:
        """What of a chunk goes on to the reader. Raises EngineLost where it is not what was delivered."""
        due = self._delivered[self._had :]
        again = chunk.ids[: len(due)]
        for place, (id, was) in enumerate(zip(again, due, strict=False)):
            if id != was:
                count = len(self._delivered)
                raise departed(f"departs at token {self._had + place + 1} from the {count} that were delivered")
        self._had += len(again)
        self._cached += chunk.cached_tokens
        if self._had < len(self._delivered) and chunk.finish is not Finish.LENGTH:  # this one is the context's end
            if chunk.finish is not None:
                raise departed(f"ends after token {self._had} of the {len(self._delivered)} that were delivered")
            return Chunk([], waiting=self._told())
        new = chunk.ids[len(again) :]
        if not new and chunk.finish is None:
            return Chunk([], waiting=self._told())
        rows = chunk.logprobs[len(again) :] if chunk.logprobs else chunk.logprobs
        cached, self._cached = self._cached, 0
        return Chunk(new, chunk.finish, rows, cached)

    def _told(self) -> str:
        return f"{self._had} of {len(self._delivered)} delivered tokens are made again"


def departed(how: str) -> EngineLost:
    """The replica is well, and the answer does not come out there as it was delivered."""
    lost = EngineLost(f"made again from its prompt, the answer {how}")
    lost.unrepeatable = True
    return lost
