"""A whole site in one simulated world: a host with replicas and gateway workers, one supervisor after another, a network."""

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import cast

from holdfast.domain.dialect import Dialect
from holdfast.domain.event import Event
from holdfast.domain.fault import EngineLost
from holdfast.domain.ports import Child, Clock, Line, Shelf
from holdfast.domain.roster import Roster
from holdfast.domain.settings import (
    Failover,
    Gateway,
    Journal as JournalSettings,
    Poison,
    ProbeSettings,
    ReplicaSettings,
    Restart,
    Settings,
)
from holdfast.domain.site import Role
from holdfast.domain.wish import Wishes
from holdfast.drill.simulation_cells import SimCells
from holdfast.drill.simulation_check import Check
from holdfast.drill.simulation_plant import Plant
from holdfast.drill.simulation_worker import Drowsy, SimWorker, Wire
from holdfast.fleet.probe import Ears
from holdfast.fleet.supervise import Hands, Supervise, Want
from holdfast.gateway.archive import Archive
from holdfast.gateway.journal import Journal
from holdfast.gateway.quarantine import OwnRegister
from holdfast.gateway.service import Service
from holdfast.gateway.stack import Wiring, stack
from holdfast.loop import run as run_procedure
from holdfast.policy.supervision import Rules
from holdfast.sim.clock import VirtualClock
from holdfast.sim.host import SimHost, SimProcess
from holdfast.sim.lives import Life, nobody
from holdfast.sim.network import Way
from holdfast.sim.shelf import SimShelves

HANDSHAKE_S = 2.0
COARSE_S = 30.0  # between two looks of everybody while nothing happens
POISONS = {7001: ("RuntimeError: poisoned", 0), 7002: ("", 0), 7003: ("Fatal Python error: Aborted", 5)}

SETTINGS = Settings(
    replica=ReplicaSettings(count=2, drain_s=5.0),
    gateway=Gateway(workers=2, drain_s=5.0),
    failover=Failover(moves_max=40),
    journal=JournalSettings(grace_s=10.0, linger_s=3.0),
    poison=Poison(keep_s=600.0),
    restart=Restart(free=3, first_delay_s=0.5, delay_max_s=3.0, deaths_max=1000, healthy_reset_s=60.0, start_s=20.0),
    probe=ProbeSettings(every_s=0.5, silent_s=5.0),
)


class Renewed(Exception):
    """The supervisor becomes a new one in the same process."""


class SimSite:
    """The site. What is random about it is drawn from `random`."""

    def __init__(self, random: Random, plant: Plant, settings: Settings = SETTINGS) -> None:
        self.random, self.plant, self.settings = random, plant, settings
        self.clock = VirtualClock()
        self.dialect = cast(Dialect, None)  # text is no part of this world
        self.shelves, self.cells, self.register = plant.shelves(), SimCells(), OwnRegister(b"key")
        self.check = Check(self)
        self.events: Counter[str] = Counter()
        self.workers: dict[int, SimWorker] = {}
        self.ways: dict[tuple[str, str], Way] = {}
        self.pulses: dict[int, float] = {}
        self.roster = Roster()
        self.wishes = Wishes()
        self.quiet = False
        self.unix_offset_s = 1.7e9
        self.step_s = random.choice((0.02, 0.05))
        self.slots = random.choice((2, 8, 32))
        self.replicas = random.choice((2, 2, 3))
        self.host = SimHost(self.clock, load_s=0.5, leave_s=0.3)
        self.host.born, self.host.gone, self.host.leaving = self._born, self._gone, self._told_to_leave
        self.boss: Life | None = None
        self.bosses = 0
        self.drowsy = Drowsy(self.rest_s)
        self.wake = asyncio.Event()

    # what workers see

    def rest_s(self) -> float:
        return COARSE_S if self.quiet else 0.0

    def unix_s(self) -> float:
        return self.clock.now() + self.unix_offset_s

    def read_roster(self) -> Roster | None:
        return self.roster

    def note(self, who: str, event: Event) -> None:
        self.events[type(event).__name__] += 1
        self.check.event(who, event)

    def way(self, a: str, b: str) -> Way:
        """What lies between two processes. Names with a life's number are cut: a machine's cable outlives its processes."""
        key = a.partition("/")[0], b
        if key not in self.ways:
            self.ways[key] = Way(self.random)
        return self.ways[key]

    async def dial(self, replica: str, who: str) -> Line:
        """Connect a worker or a supervisor to a replica, and shake hands. Raises OSError, EngineLost."""
        end = self.clock.now() + HANDSHAKE_S
        while self._deaf(replica, who):
            if self.clock.now() >= end:
                raise EngineLost(f"{replica} did not say Welcome in {HANDSHAKE_S:g} s")
            await self.clock.sleep(0.1)
        process = self.host.processes.get(replica)
        if process is None or process.replica is None or not process.alive or self.clock.now() < process.ready_at:
            raise ConnectionRefusedError(f"nobody answers at {replica}")
        line = process.replica.dial(who)
        line.on_submit = lambda generation: self.check.submitted(who, generation)
        return line

    def _deaf(self, replica: str, who: str) -> bool:
        """Whether nothing comes back from there at present."""
        process = self.host.processes.get(replica)
        one = process.replica if process is not None and process.alive else None
        return one is not None and (one.frozen or self.way(who, replica).holds)

    # clients

    def connect(self, random: Random) -> Wire | None:
        """A client connects: any worker that accepts; None while there is none (the connection waits in the queue)."""
        free = [one for one in self.living() if one.ready and not one.leaving and not one.life.frozen]
        if not free:
            return None
        worker = random.choice(free)
        return Wire(self.way("street", worker.name), worker)

    def living(self) -> list[SimWorker]:
        return [one for one in self.workers.values() if not one.life.dead]

    # processes

    def _born(self, process: SimProcess) -> None:
        if process.replica is not None:
            one = process.replica
            one.step_s, one.slots, one.poison = self.step_s, self.slots, POISONS
            one.chunk_tokens, one.line_of = 64, self.plant.line_of
            one.way = lambda who: self.way(who, one.name)
            crash = one.on_death

            def died(why: str) -> None:
                self.check.poisoned(one)
                crash(why)

            one.on_death = died
        elif process.name.startswith(Role.GATEWAY):
            self.workers[process.pid] = worker = SimWorker(process.name, process.pid, self)
            asyncio.get_running_loop().call_at(process.ready_at, worker.start, context=nobody())

    def _gone(self, process: SimProcess) -> None:
        if process.replica is not None:
            self.check.dead.add(process.replica.boot)
        worker = self.workers.get(process.pid)
        if worker is not None and not worker.life.dead:
            self._bury(worker)

    def _told_to_leave(self, process: SimProcess) -> bool:
        worker = self.workers.get(process.pid)
        if worker is None or not worker.ready:
            return False
        worker.leave()
        return True

    def _bury(self, worker: SimWorker, torn: int | None = None) -> None:
        """What the kernel does for a dead worker: its sockets close, its locks are let go."""
        worker.life.kill()
        self.shelves.die(worker.shelf, torn)
        self.cells.die(worker.who)
        self._hang_up(worker.who)
        for wire in list(worker.wires):
            wire.reset()

    def tear(self, worker: SimWorker) -> None:
        """The worker dies in the middle of its last write, before it could send what it wrote."""
        self._bury(worker, torn=self.random.randrange(1 << 16))
        self.host.kill(worker.name)

    def freeze(self, worker: SimWorker) -> None:
        worker.life.freeze()
        self.shelves.freeze(worker.shelf)

    def thaw(self, worker: SimWorker) -> None:
        if not worker.life.dead and worker.life.frozen:
            self.shelves.thaw(worker.shelf)
            worker.thawed_at = self.clock.now()
            worker.life.thaw()

    def _hang_up(self, who: str) -> None:
        for process in self.host.processes.values():
            if process.replica is not None:
                for line in [one for one in process.replica.lines if one.who == who]:
                    process.replica.hung_up(line)

    # the supervisor

    def hire(self) -> None:
        """A fresh supervisor that remembers nothing."""
        self.bosses += 1
        self.boss = Life(f"supervisor/{self.bosses}")
        self.boss.on_crash = lambda error: self.check.violated(f"the supervisor crashed: {error!r}")
        self.boss.spawn(self._supervise(self.boss.name))

    def dismiss(self) -> None:
        """SIGKILL for the supervisor."""
        if self.boss is not None:
            self.boss.kill()
            self._hang_up(self.boss.name)
            self.boss = None

    async def _supervise(self, who: str) -> None:
        while True:
            wake = self.wake = asyncio.Event()
            self.host.on_death = lambda name: self.wake.set()
            ears = Ears(lambda address: self._hear(address, who), self.clock, self._every_s(), wake.set)
            supervise = self.plant.supervise(self._wants(), self._rules(), self._hands(wake, ears), self.wishes.epoch)
            try:
                await run_procedure(supervise, self.drowsy, lambda event: self.note(who, event), wake)
            except Renewed:
                await ears.close()

    async def _hear(self, address: str, who: str) -> Line:
        return await self.dial(address.removeprefix("sim:"), who)

    def _every_s(self) -> float:
        return COARSE_S if self.quiet else self.settings.probe.every_s

    def _rules(self) -> Rules:
        s = self.settings
        patience = 20.0 if self.quiet else 1.0
        return Rules(
            restart=s.restart,
            silent_s=s.probe.silent_s * patience,
            worker_silent_s=s.probe.worker_silent_s * patience,
            late_s=1.0 * patience * 3,
            replica_grace_s=s.replica.drain_s + 1,
            gateway_grace_s=s.gateway.drain_s + 5,
        )

    def names(self) -> list[str]:
        epoch = self.wishes.epoch
        workers = [f"gateway-{n}.{epoch}" if epoch else f"gateway-{n}" for n in range(self.settings.gateway.workers)]
        return [f"replica-{n}" for n in range(self.replicas)] + workers

    def _wants(self) -> list[Want]:
        return [
            Want(
                role=Role.REPLICA if name.startswith(Role.REPLICA) else Role.GATEWAY,
                child=Child(name=name, argv=("sim",), epoch=self.wishes.epoch),
            )
            for name in self.names()
        ]

    def _hands(self, wake: asyncio.Event, ears: Ears) -> Hands:
        def renew() -> None:
            raise Renewed

        def change(revise: Callable[[Wishes], Wishes]) -> None:
            self.wishes = revise(self.wishes)

        return Hands(
            wake=wake,
            host=self.host,
            ears=ears,
            clock=self.clock,
            emit=lambda event: self.note("supervisor", event),
            read_run=self.host.run_of,
            clear_run=lambda name: None,
            last_words=lambda name: "",
            read_roster=lambda: self.roster,
            publish=self._publish,
            show=lambda views, roster: None,
            age_s=float,
            draw=self.random.random,
            read_wishes=lambda: self.wishes,
            change_wishes=change,
            read_pulse=self._pulse,
            renew=renew,
        )

    def _pulse(self, path: str) -> float | None:
        process = self.host.processes.get(path.removeprefix("sim:"))
        return None if process is None else self.pulses.get(process.pid)

    def _publish(self, roster: Roster) -> None:
        self.check.published(roster)
        self.roster = roster

    # quiet

    def hush(self) -> None:
        """Nothing will happen for a while: everybody looks rarely."""
        self.quiet = True
        self._resettle()

    def rouse(self) -> None:
        """The quiet is over."""
        self.quiet = False
        for worker in self.living():
            if worker.ready:
                worker.drowsy.rouse()
        self.drowsy.rouse()
        self._resettle()

    def _resettle(self) -> None:
        for worker in self.living():
            if worker.ready:
                worker.watch.idle_s = COARSE_S if self.quiet else 0.5
                worker.wiring.lines.stirred.set()
        if self.boss is not None:
            self.dismiss()
            self.hire()

    def settled(self) -> str:
        """What is not as wanted; empty when all is."""
        alive = {name: process for name, process in self.host.processes.items() if process.alive}
        out = {*self.wishes.drained, *self.wishes.condemned}
        wanted = {name for name in self.names() if name not in out}
        if set(alive) != wanted:
            return f"{sorted(alive)} run, {sorted(wanted)} are wanted"
        places = {place.replica: place.boot for place in self.roster.places if place.weight > 0}
        boots = {name: one.replica.boot for name, one in alive.items() if one.replica is not None}
        if places != boots:
            return f"the roster has {places}, there are {boots}"
        for worker in self.living():
            known = worker.wiring.lines.known() if worker.ready else {}
            lines = {name: one.line.boot for name, one in known.items() if one.may_serve}
            if lines != boots:
                return f"{worker.who} has lines to {lines}, there are {boots}"
        return ""
