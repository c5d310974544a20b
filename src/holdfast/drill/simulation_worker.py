"""One gateway worker in a simulated world: the real layers, journal and streams, behind a door that speaks chunks, not HTTP.

The door does what the real one does at the level of answers: an Idempotency-Key is reserved before an answer is begun, a lost
connection lets a resumable answer go on for a while, any worker resumes any answer.
"""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from msgspec import structs

from holdfast.domain.dialect import Dialect
from holdfast.domain.event import Event
from holdfast.domain.fault import BadRequest, Fault
from holdfast.domain.ports import Line
from holdfast.domain.request import Generation
from holdfast.domain.roster import Place, Roster
from holdfast.drill.simulation_check import Check
from holdfast.drill.simulation_ground import Ask, Drowsy, Ground, Told, Wire
from holdfast.gateway.archive import Archive
from holdfast.gateway.follow import Follower
from holdfast.gateway.gate_view import Ears, view_of
from holdfast.gateway.service import Service
from holdfast.gateway.stack import Wiring, stack
from holdfast.gateway.streams import Streams
from holdfast.gateway.telling import Teller
from holdfast.gateway.worker import Parts, acquaint, patience_of, wire
from holdfast.sim.clock import VirtualClock
from holdfast.sim.lives import Life
from holdfast.store.board import FileBoard


class Wordless:
    """A dialect without words: text is no part of this world, and nobody thinks in it."""

    def thinking_end(self, prompt_ids: list[int]) -> None:
        return None


@dataclass(eq=False)
class SimWorker:
    """One life of a gateway worker."""

    name: str
    pid: int
    ground: Ground
    check: Check
    dial: Callable[[str, str], Awaitable[Line]]  # replica and who asks
    tear: Callable[["SimWorker"], None]  # die in the middle of the last write
    wires: dict[Wire, None] = field(default_factory=dict)  # in their order
    ready: bool = False
    leaving: bool = False
    thawed_at: float = float("-inf")
    doomed: bool = False  # dies in the middle of its next journal write

    def __post_init__(self) -> None:
        self.life = Life(f"{self.name}/{self.pid}")
        self.life.on_crash = lambda error: self.check.violated(f"{self.who} crashed: {error!r}")
        self.shelf, self.desk = self.ground.shelves.shelf(), self.ground.boards.shelf()
        self.tasks: dict[Wire, asyncio.Task[None]] = {}
        self.clock = VirtualClock()

    @property
    def who(self) -> str:
        return self.life.name

    def start(self) -> None:
        self.life.spawn(self._run())

    async def _run(self) -> None:
        site, clock = self.ground, self.clock
        parts = Parts(
            dialler=self._dial,
            dialect=cast(Dialect, Wordless()),
            read_roster=site.read_roster,
            context_tokens_max=1 << 20,
            clock=clock,
            unix_s=site.unix_s,
            bits=site.random.getrandbits,
            emit=self._emit,
            announce=lambda address: None,
            cells=site.cells.of(self.who),
            register=site.register,
            board=(board := FileBoard(self.desk, self.who)),
        )
        self.drowsy = Drowsy(clock, site.rest_s)
        self.wiring: Wiring = site.plant.wiring(wire(site.settings, parts))
        self.archive = Archive(self.shelf, clock)
        self.archive.grace_s = site.settings.journal.grace_s
        self.journal = site.plant.journal(self.shelf, self.archive, f"{self.name}-{self.pid}", self.drowsy, self._emit)
        self.journal.grace_s = site.settings.journal.grace_s
        acquaint(self.journal, self.wiring.lines)
        self.service: Service = stack(dataclasses.replace(self.wiring, journal=self.journal))
        self.streams = Streams(self.journal, self.archive, self.shelf, self.service, clock)
        moving = self.wiring.moving
        assert moving is not None
        self.moving = moving
        self.watch = site.plant.watch_of(
            self.wiring.lines, patience_of(site.settings), clock, self._emit, tick_s=0.1, ping_s=0.2, beat=self._beat
        )
        self.watch.departures.lane = moving.turns.lane
        follower = Follower(self.wiring.lines, site.read_roster, self.drowsy, every_s=0.1)
        await self.wiring.lines.follow(site.read_roster() or Roster())
        self.ready = True
        gate, lines = self.wiring.gate, self.wiring.lines
        ears, teller = Ears(gate, board, self.who), Teller(self.who, board, self.drowsy, lines, partial(view_of, gate))
        teller.resident_bytes = lambda: 0
        running = [self.watch.run(), follower.run(), self.journal.run(), ears.run(self.drowsy), teller.run()]
        await asyncio.gather(*running)

    def _beat(self, now: float) -> None:
        self.ground.pulses[self.pid] = now

    def _emit(self, event: Event) -> None:
        self.ground.events[type(event).__name__] += 1
        self.check.event(self.who, event)

    async def _dial(self, place: Place) -> Line:
        return await self.dial(place.replica, self.who)

    # what the door does

    def heed(self, said: tuple[Wire, Ask | None]) -> None:
        """A client's bytes have arrived."""
        wire, ask = said
        if ask is not None:
            self.tasks[wire] = self.life.spawn(self._serve(wire, ask))
        else:
            self._lost(wire)

    def _lost(self, wire: Wire) -> None:
        self.wires.pop(wire, None)
        task = self.tasks.get(wire)
        if task is None:
            return
        if wire.resumable:
            self.life.spawn(self._linger(task))
        else:
            task.cancel()

    async def _linger(self, task: asyncio.Task[None]) -> None:
        """Nobody listens any more, but somebody may come back."""
        await asyncio.wait({task}, timeout=self.ground.settings.journal.linger_s)
        task.cancel()

    async def _serve(self, wire: Wire, ask: Ask) -> None:
        name = ""
        try:
            async with aclosing(self._answer(ask)) as told:
                async for one in told:
                    name = one.name or name
                    if self.doomed and one.chunk is not None and one.chunk.ids:
                        self.tear(self)
                        await asyncio.get_running_loop().create_future()
                    self.check.sent(self, one)
                    wire.tell(one)
        except Fault as fault:
            wire.tell(Told(name=name, fault=fault))
        except asyncio.CancelledError:
            if wire in self.wires:
                raise
        finally:
            self.tasks.pop(wire, None)
            self.wires.pop(wire, None)

    async def _answer(self, ask: Ask) -> AsyncGenerator[Told, None]:
        """All that is told of one request. Raises Fault."""
        if ask.resume:
            kept = await self.streams.find(ask.resume)
            if kept is None:
                raise BadRequest("there is no such stream", code="stream_not_found")
            chunks = self.streams.follow(kept, "")
        else:
            kept = await self.streams.reserve(ask.digest) if ask.digest else None
            if kept is not None:
                chunks = self.streams.follow(kept, "")
            else:
                generation = structs.replace(ask.generation, idempotency=ask.digest)
                async with aclosing(self._begin(generation, ask.digest)) as told:
                    async for one in told:
                        yield one
                return
        skip, place = ask.have, 0
        async with aclosing(chunks) as source:
            async for chunk in source:
                ids = chunk.ids[skip:]
                skip = max(0, skip - len(chunk.ids))
                place += len(chunk.ids)
                yield Told(name=kept.begun.id, chunk=structs.replace(chunk, ids=ids), place=place)

    async def _begin(self, generation: Generation, digest: str) -> AsyncGenerator[Told, None]:
        place = 0
        try:
            async with aclosing(self.service(generation)) as chunks:
                async for chunk in chunks:
                    place += len(chunk.ids)
                    yield Told(
                        name=generation.id, chunk=structs.replace(chunk, ids=list(chunk.ids)), place=place, own=True
                    )
        finally:
            if digest:
                self.streams.release(digest)

    def leave(self) -> None:
        """SIGTERM: nothing new is accepted; what runs may end within the grace, then the connections are closed."""
        self.leaving = True
        self.life.spawn(self._drain())

    async def _drain(self) -> None:
        end = self.clock.now() + self.ground.settings.gateway.drain_s
        while self.tasks and self.clock.now() < end:
            await self.clock.sleep(0.05)
        self.ground.host.exit(self.name, self.pid)
