"""The Host port in virtual time: processes that load, answer pings, freeze, crash, leave late, and outlive supervisors.

A replica among them carries a SimReplica, so that the same ears and gateways can listen to it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec import structs

from holdfast.domain.fault import EngineLost
from holdfast.domain.ports import Child, Clock, Line, Sighting
from holdfast.domain.site import Role, Run
from holdfast.sim.lives import nobody
from holdfast.sim.replica import SimReplica

WELCOME_S = 2.0  # a handshake with a frozen process is given up after so many seconds


@dataclass
class SimProcess:
    """One life of one name. `faulty`: the exit code that it ends with instead of becoming ready."""

    name: str
    pid: int
    ready_at: float
    replica: SimReplica | None
    faulty: int | None = None
    exit_code: int | None = None
    alive: bool = True
    asked_to_leave: bool = False
    epoch: int = 0
    frozen_at: float | None = None

    @property
    def token(self) -> str:
        return f"token-{self.pid}"


@dataclass
class SimHost:
    """Levers: `load_s` until a process is ready, `stage` what it says of its start until then, `away` ones wait for an engine
    elsewhere instead, `leave_s` until one that was told to leave is gone, `stubborn` ones never leave by themselves, `faulty`
    names end their start with this exit code, `refusing` makes starts fail."""

    clock: Clock
    load_s: float = 1.0
    stage: Callable[["SimProcess"], str] = lambda process: ""
    leave_s: float = 0.5
    away: set[str] = field(default_factory=set)
    stubborn: set[str] = field(default_factory=set)
    faulty: dict[str, int] = field(default_factory=dict)
    refusing: str = ""
    on_death: Callable[[str], None] = lambda name: None
    born: Callable[["SimProcess"], None] = lambda process: None  # called with every process that starts
    gone: Callable[["SimProcess"], None] = lambda process: None  # and with every one that ends
    leaving: Callable[["SimProcess"], bool] = lambda process: False  # told to leave: True if it will `exit` by itself
    processes: dict[str, SimProcess] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)  # every start, by name
    ended: list[str] = field(default_factory=list)
    told: list[tuple[str, int]] = field(default_factory=list)  # every SIGTERM: name and pid
    _pid: int = 100

    async def start(self, child: Child) -> Sighting:
        """See the port."""
        if self.refusing:
            raise OSError(self.refusing)
        before = self.processes.get(child.name)
        if before is not None and before.alive:
            return self._sighting(before)
        self._pid += 1
        is_replica = child.name.startswith((Role.REPLICA, "smaller"))
        replica = SimReplica(child.name, self.clock, boots=self._pid) if is_replica else None
        faulty = self.faulty.get(child.name)
        process = SimProcess(child.name, self._pid, self.clock.now() + self.load_s, replica, faulty)
        process.epoch = child.epoch
        self.processes[child.name] = process
        self.started.append(child.name)
        if replica is not None:
            replica.on_death = lambda crash: self._end(process, -6)
        self.born(process)
        if faulty is not None:
            self._later(self.load_s, process, faulty)
        return self._sighting(process)

    async def stop(self, name: str, grace_s: float) -> None:
        """See the port."""
        process = self.processes.get(name)
        if process is None or not process.alive:
            return
        if grace_s <= 0:
            self._end(process, -9)
            return
        process.asked_to_leave = True
        self.told.append((name, process.pid))
        if process.replica is not None:
            process.replica.draining = True
        frozen = process.replica.frozen if process.replica else process.frozen_at is not None
        if not self.leaving(process) and name not in self.stubborn and not frozen:
            self._later(min(self.leave_s, grace_s), process, 0)
        self._later(grace_s, process, -9)

    async def look(self) -> tuple[Sighting, ...]:
        """See the port."""
        return tuple(self._sighting(process) for process in self.processes.values())

    def forget(self, name: str) -> None:
        """See the port."""
        process = self.processes.get(name)
        if process is not None and not process.alive:
            del self.processes[name]

    def run_of(self, name: str) -> Run | None:
        """The run file that a ready process has written, or one whose start takes long."""
        process = self.processes.get(name)
        if process is None or process.faulty is not None:
            return None
        away = name in self.away
        if away or self.clock.now() < process.ready_at:
            stage = "waits for http://e:1" if away else self.stage(process)
            told = Run(name=name, pid=process.pid, token=process.token, listen=f"sim:{name}", ready=False, stage=stage)
            return structs.replace(told, away=away) if stage else None
        boot = process.replica.boot if process.replica else process.token
        pulse = "" if process.replica else f"sim:{name}"
        return Run(name=name, pid=process.pid, token=process.token, listen=f"sim:{name}", boot=boot, pulse=pulse)

    def pulse(self, path: str) -> float | None:
        """The last sign of life of the process whose run file names this pulse."""
        process = self.processes.get(path.removeprefix("sim:"))
        if process is None or not process.alive:
            return None
        return self.clock.now() if process.frozen_at is None else process.frozen_at

    async def dial(self, address: str) -> Line:
        """Connect to a replica by the address in its run file."""
        process = self.processes.get(address.removeprefix("sim:"))
        if process is None or process.replica is None or not process.alive:
            raise ConnectionRefusedError(f"nobody answers at {address}")
        end = self.clock.now() + WELCOME_S
        while process.alive and process.replica.frozen:  # the kernel accepts for it; the Welcome comes after the thaw
            if self.clock.now() >= end:
                raise EngineLost(f"{address} did not say Welcome in {WELCOME_S:g} s")
            await self.clock.sleep(0.1)
        return process.replica.dial()

    def kill(self, name: str) -> None:
        """A death from outside: SIGKILL, out of memory."""
        process = self.processes.get(name)
        if process is not None:
            self._end(process, -9)

    def exit(self, name: str, pid: int) -> None:
        """This life of it is done, by itself."""
        process = self.processes.get(name)
        if process is not None and process.pid == pid:
            self._end(process, 0)

    def freeze(self, name: str, frozen: bool = True) -> None:
        """SIGSTOP, or SIGCONT."""
        process = self.processes.get(name)
        if process is not None and process.replica is not None:
            process.replica.frozen = frozen
        elif process is not None:
            process.frozen_at = self.clock.now() if frozen else None

    def alive(self) -> dict[str, int]:
        """Name -> pid of what runs."""
        return {process.name: process.pid for process in self.processes.values() if process.alive}

    def _later(self, after_s: float, process: SimProcess, exit_code: int) -> None:
        asyncio.get_running_loop().call_later(after_s, self._end, process, exit_code, context=nobody())

    def _end(self, process: SimProcess, exit_code: int) -> None:
        if not process.alive:
            return
        process.alive, process.exit_code = False, exit_code
        self.ended.append(process.name)
        if process.replica is not None:
            process.replica.kill()
        self.gone(process)
        self.on_death(process.name)

    def _sighting(self, process: SimProcess) -> Sighting:
        return Sighting(
            name=process.name,
            pid=process.pid,
            start_ticks=process.pid,
            token=process.token,
            alive=process.alive,
            exit_code=process.exit_code,
            epoch=process.epoch,
        )
