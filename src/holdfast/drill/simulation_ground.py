"""What everybody in a simulated world stands on: its chance, its machine, its network, its time; and how they speak."""

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Protocol

from msgspec import Struct

from holdfast.domain.fault import Fault
from holdfast.domain.ports import Clock
from holdfast.domain.request import Chunk, Generation
from holdfast.domain.roster import Roster
from holdfast.domain.settings import Settings
from holdfast.domain.wish import Wishes
from holdfast.drill.simulation_cells import SimCells
from holdfast.drill.simulation_plant import Plant
from holdfast.gateway.journal import Journal
from holdfast.gateway.quarantine import OwnRegister
from holdfast.gateway.stack import Moving, Wiring
from holdfast.gateway.streams import Streams
from holdfast.sim.clock import VirtualClock
from holdfast.sim.host import SimHost
from holdfast.sim.lives import Life, nobody
from holdfast.sim.network import Lane, Way
from holdfast.sim.shelf import SimShelf, SimShelves

COARSE_S = 30.0  # between two looks of everybody while nothing happens


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

    def __init__(self, clock: Clock, least_s: Callable[[], float]) -> None:
        self._clock, self._least_s = clock, least_s
        self._naps: dict[asyncio.Future[None], None] = {}  # in their order

    def now(self) -> float:
        return self._clock.now()

    async def sleep(self, seconds: float) -> None:
        if self._least_s() <= seconds:
            await self._clock.sleep(seconds)
            return
        nap: asyncio.Future[None] = asyncio.ensure_future(self._clock.sleep(max(seconds, self._least_s())))
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


class Hand(Protocol):
    """A worker, as those see it who look at it from outside."""

    life: Life
    shelf: SimShelf
    desk: SimShelf  # at the board
    journal: Journal
    wiring: Wiring
    moving: Moving
    streams: Streams
    ready: bool
    thawed_at: float
    wires: "dict[Wire, None]"

    @property
    def who(self) -> str: ...

    def heed(self, said: "tuple[Wire, Ask | None]") -> None: ...


class Wire:
    """One client connection."""

    def __init__(self, way: Way, worker: Hand) -> None:
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


class Ground:
    """One world's state. What is random about it is drawn from `random`."""

    def __init__(self, random: Random, plant: Plant, settings: Settings) -> None:
        self.random, self.plant, self.settings = random, plant, settings
        self.clock = VirtualClock()
        self.boards = SimShelves()
        self.shelves, self.cells, self.register = plant.shelves(), SimCells(), OwnRegister(b"key")
        self.host = SimHost(self.clock, load_s=0.5, leave_s=0.3)
        self.workers: dict[int, Hand] = {}
        self.events: Counter[str] = Counter()
        self.ways: dict[tuple[str, str], Way] = {}
        self.pulses: dict[int, float] = {}
        self.roster = Roster()
        self.wishes = Wishes()
        self.quiet = False
        self.unix_offset_s = 1.7e9
        self.step_s = random.choice((0.02, 0.05))
        self.slots = random.choice((2, 8, 32))
        self.replicas = random.choice((2, 2, 3))
        self.warm = 1 if self.slots == 8 else 0  # a third of the worlds have a standby

    def rest_s(self) -> float:
        """The least that loops sleep which only look now and then."""
        return COARSE_S if self.quiet else 0.0

    def unix_s(self) -> float:
        """The time of day, which may jump."""
        return self.clock.now() + self.unix_offset_s

    def read_roster(self) -> Roster | None:
        """What the supervisor published last."""
        return self.roster

    def way(self, a: str, b: str) -> Way:
        """What lies between two processes. Names with a life's number are cut: a machine's cable outlives its processes."""
        key = a.partition("/")[0], b
        if key not in self.ways:
            self.ways[key] = Way(self.random)
        return self.ways[key]

    def living(self) -> list[Hand]:
        """Workers that live, frozen ones too."""
        return [one for one in self.workers.values() if not one.life.dead]

    def hang_up(self, who: str) -> None:
        """The kernel closes a dead process's connections to replicas."""
        for process in self.host.processes.values():
            if process.replica is not None:
                for line in [one for one in process.replica.lines if one.who == who]:
                    process.replica.hung_up(line)
