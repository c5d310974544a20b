"""A foreign engine that is none: the ForeignEngine port over a scripted core, in this very process, with a switch for its death.

What stands on the port (engine/foreign.py) is tried with it; the adapters themselves are tried on scripted servers that speak
their dialects over real sockets.
"""

import asyncio
import itertools
from collections.abc import AsyncGenerator

from holdfast.domain.engine import Abilities, Ability, EngineKind, Finding
from holdfast.domain.fault import EngineLost
from holdfast.domain.ports import Clock, Produced, Work
from holdfast.domain.release import Release
from holdfast.domain.replica import Probe
from holdfast.domain.request import Chunk, Generation
from holdfast.sim.scripted import ScriptedCore


class ScriptedForeign:
    """`shut` is why its door does not answer, `unfit` what it says against itself; empty: all is well. `dead`: the door is shut
    because its process is."""

    def __init__(self, core: ScriptedCore, clock: Clock) -> None:
        self.core, self._clock = core, clock
        self.shut, self.unfit, self.dead = "", "", False
        self._tickets = itertools.count(1)
        self._made: dict[int, list[Produced]] = {}
        self._came = asyncio.Event()
        self._stepping: asyncio.Task[None] | None = None

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        """See the port."""
        self._check()
        ticket = next(self._tickets)
        work = Work(
            prompt_ids=generation.prompt_ids,
            delivered_ids=generation.delivered_ids,
            sampling=generation.sampling,
            max_tokens=generation.max_tokens,
            seed=generation.seed,
            stop_ids=generation.stop_ids,
        )
        self.core.submit(ticket, work)
        self._made[ticket] = []
        if self._stepping is None or self._stepping.done():
            self._stepping = asyncio.create_task(self._step(), name="scripted foreign engine")
        try:
            async for one in self._products(ticket):
                if one.fault:
                    raise EngineLost(one.fault)
                if one.ids or one.finish is not None:
                    yield Chunk(one.ids, one.finish, one.logprobs, one.cached_tokens)
                if one.finish is not None:
                    return
        finally:
            del self._made[ticket]
            self.core.abort(ticket)

    async def probe(self) -> Probe:
        """See the port."""
        self._check()
        return Probe(not self.unfit, self.core.load(), self.unfit)

    def describe(self) -> Release | None:
        return self.core.release()

    async def learn(self) -> Abilities:
        """See the port."""
        self._check()
        found = tuple(Finding(one, True, "it is scripted") for one in Ability if one is not Ability.GRAMMAR)
        return Abilities(kind=EngineKind.SCRIPTED, version="1", findings=found)

    async def close(self) -> None:
        if self._stepping is not None:
            self._stepping.cancel()

    def break_all(self, why: str, dead: bool) -> None:
        """End every stream, and shut the door: the program has ended, or nothing reaches it any more."""
        self.shut, self.dead = why, dead
        self._came.set()

    def _check(self) -> None:
        if self.shut:
            raise EngineLost(self.shut, died=self.dead)

    async def _products(self, ticket: int) -> AsyncGenerator[Produced, None]:
        while True:
            self._check()
            if self._made[ticket]:
                yield self._made[ticket].pop(0)
                continue
            if not self.core.load().running:
                raise EngineLost("the scripted stream ended without a finish")
            came = self._came
            await came.wait()

    async def _step(self) -> None:
        while self.core.load().running:
            for one in self.core.step():
                if one.ticket in self._made:
                    self._made[one.ticket].append(one)
            self._came.set()
            self._came = asyncio.Event()
            await self._clock.sleep(self.core.script.token_s)
