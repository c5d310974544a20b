"""A whole site in one simulated world: a host with replicas and gateway workers, one supervisor after another, a network."""

import asyncio
from random import Random

from holdfast.domain.fault import EngineLost
from holdfast.domain.ports import Line
from holdfast.domain.settings import Failover, Poison, ProbeSettings, ReplicaSettings, Restart, Settings
from holdfast.domain.settings import Journal as JournalSettings
from holdfast.domain.settings_door import Gateway
from holdfast.domain.settings_overload import Tenant
from holdfast.domain.site import Role
from holdfast.drill.simulation_boss import Boss
from holdfast.drill.simulation_check import Check
from holdfast.drill.simulation_ground import COARSE_S, Ground, Wire
from holdfast.drill.simulation_plant import Plant
from holdfast.drill.simulation_worker import SimWorker
from holdfast.sim.host import SimProcess
from holdfast.sim.lives import nobody

HANDSHAKE_S = 2.0
POISONS = {7001: ("RuntimeError: poisoned", 0), 7002: ("", 0), 7003: ("Fatal Python error: Aborted", 5)}

SETTINGS = Settings(
    replica=ReplicaSettings(count=2, drain_s=5.0),
    gateway=Gateway(workers=2, drain_s=5.0),
    failover=Failover(moves_max=40),
    journal=JournalSettings(grace_s=10.0, linger_s=3.0),
    poison=Poison(keep_s=600.0),
    restart=Restart(free=3, first_delay_s=0.5, delay_max_s=3.0, deaths_max=1000, healthy_reset_s=60.0, start_s=20.0),
    probe=ProbeSettings(every_s=0.5, silent_s=5.0),
    tenants={"default": Tenant(tokens_per_min=1e9)},  # never used up, but every token of it is to be settled
)


class SimSite:
    """The site over its ground."""

    def __init__(self, random: Random, plant: Plant, settings: Settings = SETTINGS) -> None:
        self.ground = ground = Ground(random, plant, settings)
        self.check = Check(ground)
        self.clock, self.host = ground.clock, ground.host
        self.host.born, self.host.gone, self.host.leaving = self._born, self._gone, self._told_to_leave
        self.boss = Boss(ground, self.check, self.dial)
        self.workers: dict[int, SimWorker] = {}

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

    def connect(self, random: Random) -> Wire | None:
        """A client connects: any worker that accepts; None while there is none (the connection waits in the queue)."""
        free = [one for one in self.living() if one.ready and not one.leaving and not one.life.frozen]
        if not free:
            return None
        worker = random.choice(free)
        return Wire(self.ground.way("street", worker.name), worker)

    def living(self) -> list[SimWorker]:
        """Workers that live, frozen ones too."""
        return [one for one in self.workers.values() if not one.life.dead]

    def freeze(self, worker: SimWorker) -> None:
        """SIGSTOP: what it writes from here on is seen by nobody."""
        worker.life.freeze()
        self.ground.shelves.freeze(worker.shelf)
        self.ground.boards.freeze(worker.desk)

    def thaw(self, worker: SimWorker) -> None:
        """SIGCONT."""
        if not worker.life.dead and worker.life.frozen:
            self.ground.shelves.thaw(worker.shelf)
            self.ground.boards.thaw(worker.desk)
            worker.thawed_at = self.clock.now()
            worker.life.thaw()

    def hush(self) -> None:
        """Nothing will happen for a while: everybody looks rarely."""
        self.ground.quiet = True
        self._resettle()

    def rouse(self) -> None:
        """The quiet is over."""
        self.ground.quiet = False
        for worker in self.living():
            if worker.ready:
                worker.drowsy.rouse()
        self.boss.drowsy.rouse()
        self._resettle()

    def settled(self) -> str:
        """What is not as wanted; empty when all is."""
        wishes, roster = self.ground.wishes, self.ground.roster
        alive = {name: process for name, process in self.host.processes.items() if process.alive}
        wanted = {name for name in self.boss.names() if name not in wishes.drained and name not in wishes.condemned}
        if set(alive) != wanted:
            return f"{sorted(alive)} run, {sorted(wanted)} are wanted"
        places = {place.replica: place.boot for place in roster.places if place.weight > 0 or place.warm}
        boots = {name: one.replica.boot for name, one in alive.items() if one.replica is not None}
        if places != boots:
            return f"the roster has {places}, there are {boots}"
        serving = {place.replica: place.boot for place in roster.places if place.weight > 0}
        if len(serving) != min(len(boots), self.ground.replicas):
            return f"{sorted(serving)} serve of {sorted(boots)}, {self.ground.replicas} are wanted"
        for worker in self.living():
            known = worker.wiring.lines.known() if worker.ready else {}
            lines = {name: one.line.boot for name, one in known.items() if one.may_serve}
            if lines != serving:
                return f"{worker.who} sends to {lines}, {serving} serve"
        return ""

    def _deaf(self, replica: str, who: str) -> bool:
        """Whether nothing comes back from there at present."""
        process = self.host.processes.get(replica)
        one = process.replica if process is not None and process.alive else None
        return one is not None and (one.frozen or self.ground.way(who, replica).holds)

    def _born(self, process: SimProcess) -> None:
        ground = self.ground
        if process.replica is not None:
            one = process.replica
            one.step_s, one.slots, one.poison = ground.step_s, ground.slots, POISONS
            one.chunk_tokens, one.line_of = 64, ground.plant.line_of
            if ground.plant.kinds:
                one.release = ground.plant.kinds[int(one.name.rpartition("-")[2]) % len(ground.plant.kinds)]
            one.way = lambda who: ground.way(who, one.name)
            crash = one.on_death

            def died(why: str) -> None:
                self.check.poisoned(one)
                crash(why)

            one.on_death = died
        elif process.name.startswith(Role.GATEWAY):
            worker = SimWorker(process.name, process.pid, ground, self.check, self.dial, self._tear)
            self.workers[process.pid] = ground.workers[process.pid] = worker
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
        self.ground.shelves.die(worker.shelf, torn)
        self.ground.boards.die(worker.desk)
        self.ground.cells.die(worker.who)
        self.ground.hang_up(worker.who)
        for wire in list(worker.wires):
            wire.reset()

    def _tear(self, worker: SimWorker) -> None:
        """The worker dies in the middle of its last write, before it could send what it wrote."""
        self._bury(worker, torn=self.ground.random.randrange(1 << 16))
        self.host.kill(worker.name)

    def _resettle(self) -> None:
        for worker in self.living():
            if worker.ready:
                worker.watch.idle_s = COARSE_S if self.ground.quiet else 0.5
                worker.wiring.lines.stirred.set()
        if self.boss.life is not None:
            self.boss.dismiss()
            self.boss.hire()
