"""Several gateway workers on one machine: each with its own lines and layers, all on one shelf and the same replicas."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from random import Random

from world import Answer, World

from holdfast.domain.event import Event
from holdfast.domain.fault import Fault
from holdfast.domain.request import Chunk, Generation
from holdfast.gateway.archive import Archive, Kept
from holdfast.gateway.journal import Journal
from holdfast.gateway.record import record
from holdfast.gateway.streams import Streams
from holdfast.sim.clock import VirtualClock
from holdfast.sim.shelf import SimShelves


class StoppableClock:
    """A worker's clock: while it is stopped nobody of that worker wakes up."""

    def __init__(self, clock: VirtualClock) -> None:
        self._clock = clock
        self._running = asyncio.Event()
        self._running.set()

    def now(self) -> float:
        return self._clock.now()

    async def sleep(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        await self.running()

    async def running(self) -> None:
        await self._running.wait()

    def stop(self) -> None:
        self._running.clear()

    def go(self) -> None:
        self._running.set()


class Worker:
    """One life of a gateway worker, below its door."""

    def __init__(self, name: str, machine: "Machine", bytes_max: int, grace_s: float) -> None:
        self.name, self.machine = name, machine
        self.clock = StoppableClock(machine.world.clock)
        self.events: list[Event] = []
        self.shelf = machine.shelves.shelf()
        self.archive = Archive(self.shelf, self.clock, grace_s)
        self.journal = Journal(self.shelf, self.archive, name, self.clock, self.events.append)
        self.journal.bytes_max, self.journal.grace_s = bytes_max, grace_s
        self.service = record(self.journal)(self._below)
        self.streams = Streams(self.journal, self.archive, self.shelf, self.service, self.clock)
        self.turning = asyncio.ensure_future(self.journal.run())

    async def _below(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        """The rest of the layers; nothing comes through while the worker is frozen."""
        async with aclosing(self.machine.world.service(generation)) as chunks:
            async for chunk in chunks:
                await self.clock.running()
                yield chunk

    def freeze(self) -> None:
        self.clock.stop()
        self.machine.shelves.freeze(self.shelf)

    def thaw(self) -> None:
        self.machine.shelves.thaw(self.shelf)
        self.clock.go()

    def die(self, torn: int | None = None) -> None:
        """Its tasks are whoever's; its shelf is dead, and what it still writes goes nowhere."""
        self.turning.cancel()
        self.machine.shelves.die(self.shelf, torn)

    async def ask(self, generation: Generation, until: int = 1 << 30) -> Answer:
        """Be a client that reads so many tokens, then stands still with the answer open: what a killed worker leaves."""
        got = Answer()
        try:
            async with aclosing(self.service(generation)) as chunks:
                async for chunk in chunks:
                    got.ids += chunk.ids
                    got.at += [self.machine.world.clock.now()] * len(chunk.ids)
                    got.finish, got.moves = chunk.finish, chunk.moves
                    if len(got.ids) >= until:
                        self.die()
                        break
        except Fault as fault:
            got.fault = fault
        return got

    async def resume(self, kept: Kept) -> Answer:
        got = Answer()
        try:
            async with aclosing(self.streams.follow(kept)) as chunks:
                async for chunk in chunks:
                    got.ids += chunk.ids
                    got.at += [self.machine.world.clock.now()] * len(chunk.ids)
                    got.finish, got.moves = chunk.finish, chunk.moves
                    if chunk.waiting:
                        got.waits.append(chunk.waiting)
        except Fault as fault:
            got.fault = fault
        return got


class Machine:
    """The replicas' world, a shelf, and as many workers as the story starts."""

    def __init__(self, *replicas: str, step_s: float = 0.02) -> None:
        self.world = World(*(replicas or ("a", "b")), step_s=step_s)
        self.shelves = SimShelves()
        self.workers: list[Worker] = []
        self.draw = Random(7)

    def worker(self, bytes_max: int = 64 * 1024 * 1024, grace_s: float = 60.0) -> Worker:
        one = Worker(f"gateway-{len(self.workers)}.{self.draw.getrandbits(32):08x}", self, bytes_max, grace_s)
        self.workers.append(one)
        return one

    @asynccontextmanager
    async def running(self):
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self.world.running())
            yield self
            for one in self.workers:
                one.turning.cancel()
            await asyncio.gather(*(one.turning for one in self.workers), return_exceptions=True)
