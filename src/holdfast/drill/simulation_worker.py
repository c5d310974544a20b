"""One gateway worker in a simulated world: the real layers, journal and streams, behind a door that speaks chunks, not HTTP.

The door does what the real one does at the level of answers: an Idempotency-Key is reserved before an answer is begun, a lost
connection lets a resumable answer go on for a while, any worker resumes any answer.
"""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from holdfast.domain.event import Event
from holdfast.domain.fault import BadRequest, Fault
from holdfast.domain.ports import Line
from holdfast.domain.request import Chunk, Generation
from holdfast.domain.roster import Place, Roster
from holdfast.gateway.archive import Archive
from holdfast.gateway.follow import Follower
from holdfast.gateway.journal import Journal
from holdfast.gateway.service import Service
from holdfast.gateway.stack import Wiring, stack
from holdfast.gateway.streams import Streams
from holdfast.gateway.worker import Parts, patience_of, wire
from holdfast.sim.clock import VirtualClock
from holdfast.sim.lives import Life, nobody
from holdfast.sim.network import Lane, Way

if TYPE_CHECKING:
    from holdfast.drill.simulation_site import SimSite


class Ask(Struct, frozen=True, kw_only=True):
    """What a client sends: a new answer, or with `resume` the rest of one of which it has `have` tokens."""

    generation: Generation
    digest: str = ""
    resume: str = ""
    have: int = 0
    resumable: bool = False


class Told(Struct, frozen=True, kw_only=True):
    """What a worker sends back. `name` comes with every message: it is the answer's id."""

    name: str = ""
    chunk: Chunk | None = None
    place: int = 0  # tokens of the answer up to here
    own: bool = False  # made here, not followed
    fault: Fault | None = None
    lost: bool = False  # the connection broke


class Drowsy:
    """A clock whose sleeps are stretched while the world is quiet: for loops that only look now and then."""

    def __init__(self, least_s: Callable[[], float]) -> None:
        self._least_s = least_s
        self._naps: dict[asyncio.Future[None], None] = {}  # in their order

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        if self._least_s() <= seconds:
            await asyncio.sleep(seconds)
            return
        nap: asyncio.Future[None] = asyncio.ensure_future(asyncio.sleep(max(seconds, self._least_s())))
        self._naps[nap] = None
        try:
            await asyncio.wait({nap})
        finally:
            nap.cancel()
            self._naps.pop(nap, None)

    def rouse(self) -> None:
        """The quiet is over."""
        for nap in list(self._naps):
            nap.cancel()


class Wire:
    """One client connection."""

    def __init__(self, way: Way, worker: "SimWorker") -> None:
        self.worker = worker
        self.box: list[Told] = []
        self.lost = self.closed = self.resumable = False
        self._bell: asyncio.Future[None] | None = None
        self._down = Lane(way, nobody(), self._put)
        self._up = Lane(way, worker.life.context, worker.heed)
        worker.wires[self] = None

    def say(self, ask: Ask | None) -> None:
        """The client sends its request; None: it hangs up."""
        self._up.send((self, ask))
        self.resumable = self.resumable or (ask is not None and ask.resumable)
        self.closed = self.closed or ask is None

    async def hear(self, patience_s: float) -> Told | None:
        """The next message for the client; None when nothing came for so long."""
        if not self.box:
            self._bell = asyncio.get_running_loop().create_future()
            await asyncio.wait({self._bell}, timeout=patience_s)
        return self.box.pop(0) if self.box else None

    def tell(self, told: Told) -> None:
        """The worker sends."""
        if not self.lost and not self.closed:
            self._down.send(told)

    def reset(self) -> None:
        """The worker's process is gone, or the network resets the connection: what was under way is lost with it."""
        self._down.close()
        self._up.close()
        self.worker.wires.pop(self, None)
        if not self.lost and not self.closed:
            self.lost = True
            self._put(Told(lost=True))

    def _put(self, told: Told) -> None:
        self.box.append(told)
        if self._bell is not None and not self._bell.done():
            self._bell.set_result(None)


@dataclass(eq=False)
class SimWorker:
    """One life of a gateway worker."""

    name: str
    pid: int
    site: "SimSite"
    wires: dict[Wire, None] = field(default_factory=dict)  # in their order
    ready: bool = False
    leaving: bool = False
    thawed_at: float = float("-inf")
    doomed: bool = False  # dies in the middle of its next journal write

    def __post_init__(self) -> None:
        self.life = Life(f"{self.name}/{self.pid}")
        self.life.on_crash = lambda error: self.site.check.violated(f"{self.who} crashed: {error!r}")
        self.shelf = self.site.shelves.shelf()
        self.tasks: dict[Wire, asyncio.Task[None]] = {}
        self.clock = VirtualClock()

    @property
    def who(self) -> str:
        return self.life.name

    def start(self) -> None:
        self.life.spawn(self._run())

    async def _run(self) -> None:
        site, clock = self.site, self.clock
        parts = Parts(
            dialler=self._dial,
            dialect=site.dialect,
            read_roster=site.read_roster,
            context_tokens_max=1 << 20,
            clock=clock,
            unix_s=site.unix_s,
            bits=site.random.getrandbits,
            emit=self._emit,
            announce=lambda address: None,
            cells=site.cells.of(self.who),
            register=site.register,
        )
        self.drowsy = Drowsy(site.rest_s)
        self.wiring: Wiring = site.plant.wiring(wire(site.settings, parts))
        self.archive = Archive(self.shelf, clock)
        self.archive.grace_s = site.settings.journal.grace_s
        self.journal = site.plant.journal(self.shelf, self.archive, f"{self.name}-{self.pid}", self.drowsy, self._emit)
        self.journal.grace_s = site.settings.journal.grace_s
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
        await asyncio.gather(self.watch.run(), follower.run(), self.journal.run())

    def _beat(self, now: float) -> None:
        self.site.pulses[self.pid] = now

    def _emit(self, event: Event) -> None:
        self.site.note(self.who, event)

    async def _dial(self, place: Place) -> Line:
        return await self.site.dial(place.replica, self.who)

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
        await asyncio.wait({task}, timeout=self.site.settings.journal.linger_s)
        task.cancel()

    async def _serve(self, wire: Wire, ask: Ask) -> None:
        name = ""
        try:
            async with aclosing(self._answer(ask)) as told:
                async for one in told:
                    name = one.name or name
                    if self.doomed and one.chunk is not None and one.chunk.ids:
                        self.site.tear(self)
                        await asyncio.get_running_loop().create_future()
                    self.site.check.sent(self, one)
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
                    yield Told(name=generation.id, chunk=structs.replace(chunk, ids=list(chunk.ids)), place=place, own=True)
        finally:
            if digest:
                self.streams.release(digest)

    def leave(self) -> None:
        """SIGTERM: nothing new is accepted; what runs may end within the grace, then the connections are closed."""
        self.leaving = True
        self.life.spawn(self._drain())

    async def _drain(self) -> None:
        end = self.clock.now() + self.site.settings.gateway.drain_s
        while self.tasks and self.clock.now() < end:
            await self.clock.sleep(0.05)
        self.site.host.exit(self.name, self.pid)
