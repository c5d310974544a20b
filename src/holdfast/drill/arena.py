"""A whole site, started as any operator would start it, that lives in a temporary folder for the length of a drill.

It is a site of its own in every respect: free ports, its own state folder, its own supervisor process. A drill hurts only
processes whose token it finds written down in that folder, through a pidfd, so that no other process of the machine can be
hit by mistake. When the arena closes, nothing of it runs any more, and it says so if that was not easy.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType

from msgspec import Struct

from holdfast.domain.fault import NoReplica
from holdfast.domain.ports import Clock
from holdfast.domain.roster import Place, Roster
from holdfast.domain.settings import Settings
from holdfast.domain.settings_text import read
from holdfast.domain.site import SiteView
from holdfast.drill import engine_parts
from holdfast.drill.engine_parts import Part
from holdfast.drill.tail import Tail
from holdfast.drill.truth import Truth
from holdfast.host import proc
from holdfast.host.ports import free_ports
from holdfast.policy.havoc import Blow
from holdfast.sim.levers import Pull, State, pull_lever
from holdfast.store import snapshot
from holdfast.store.births import Births
from holdfast.store.folder import Folder, folder_of

POLL_S = 0.05
LEAVE_S = 20.0
LOG_LINES = 5
STARTS_MAX = 3
LEVERS_ENV = "HOLDFAST_LEVERS"  # app/children.py gives it to scripted replicas


Sections = dict[str, dict[str, str | int | float]]


class Plan(Struct, frozen=True, kw_only=True):
    """What kind of site. `more` is further settings, section by section; they win."""

    replicas: int = 3
    engine: str = "embedded"
    more: Sections = {}
    ready_s: float = 180.0


def toml(plan: Plan, state_dir: Path, ports: tuple[int, ...]) -> str:
    """The settings file. Deaths are free of charge here: whoever kills on purpose wants them back at once."""
    gateway_port, control_port, health_port = ports
    sections: Sections = {
        "site": {"name": "drill", "state_dir": str(state_dir)},
        "replica": {"count": plan.replicas, "engine": plan.engine, "drain_s": 2.0},
        "gateway": {"port": gateway_port, "drain_s": 2.0},
        "restart": {"free": 100_000, "deaths_max": 100_000},
        "control": {"port": control_port, "health_port": health_port},
    }
    lines = []
    for name in {**sections, **plan.more}:
        keys = {**sections.get(name, {}), **plan.more.get(name, {})}
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
    return "\n".join(lines) + "\n"


class Arena:
    """`async with Arena(plan, clock) as arena`: inside, all replicas serve at 127.0.0.1:`port`."""

    def __init__(self, plan: Plan, clock: Clock) -> None:
        self._plan, self._clock = plan, clock
        self._after = AsyncExitStack()
        self._supervisor: asyncio.subprocess.Process | None = None
        self._frozen: list[int] = []
        self.port = 0
        self.survivors: list[str] = []

    async def __aenter__(self) -> "Arena":
        async with AsyncExitStack() as after:  # whatever happens on the way, Ctrl-C included: nothing is left running
            folder = tempfile.TemporaryDirectory(prefix="holdfast-drill-", ignore_cleanup_errors=True)
            root = Path(after.enter_context(folder))
            ports = free_ports(3)
            self.port, self.control_port, _ = ports
            self.file = root / "holdfast.toml"
            self.file.write_text(toml(self._plan, root / "state", ports))
            self._levers = root / "levers"
            self._levers.mkdir()
            self.folder: Folder = folder_of(read(self.file.read_text(), str(self.file)))
            self._output = root / "up.log"
            after.push_async_callback(self._stop)
            await self.start_supervisor()
            await self._ready()
            self._after = after.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._after.aclose()

    @property
    def supervisor_pid(self) -> int:
        """The pid of `holdfast up`; 0 when it does not run."""
        one = self._supervisor
        return one.pid if one is not None and one.returncode is None else 0

    @property
    def model(self) -> str:
        """The name that clients ask for."""
        release = self.roster().release
        return release.model if release is not None else ""

    def truth(self) -> Truth:
        """Questions to this site's scripted replicas, whose answers are known."""
        settings = snapshot.take(self.folder.settings, Settings) or Settings()
        return Truth(Path(settings.model.path), self.model)

    def tail(self) -> Tail:
        """The site's events from now on. Close it."""
        return Tail(self.folder.events)

    async def start_supervisor(self) -> None:
        """Run `holdfast up` on the arena's settings. After a death of the supervisor the new one adopts what lives."""
        with self._output.open("ab") as output:
            self._supervisor = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "holdfast", "up", str(self.file)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, LEVERS_ENV: str(self._levers)},
            )

    async def kill_supervisor(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._supervisor is not None and self._supervisor.returncode is None:
            self._supervisor.kill()
            await self._supervisor.wait()

    def roster(self) -> Roster:
        """Who may take traffic, as the supervisor last published it."""
        return snapshot.take(self.folder.roster, Roster) or Roster()

    def site(self) -> SiteView | None:
        """What the supervisor last saw."""
        return snapshot.take(self.folder.site, SiteView)

    def strike(self, place: Place, blow: Blow, part: Part = Part.REPLICA) -> bool:
        """Hurt one replica of this arena, or a part of its foreign engine; false when that is gone already or is not ours."""
        try:
            pidfd = os.pidfd_open(place.pid)
        except OSError:
            return False
        ours = {birth.token for birth in Births(self.folder.root / "birth").read() if birth.pid == place.pid}
        victim: int | None = pidfd
        if proc.token(place.pid) not in ours:
            victim = None
        elif part is Part.REPLICA:
            signal.pidfd_send_signal(pidfd, signal.Signals[blow.value])
        else:
            pid = engine_parts.pid_of(self.folder.run(place.replica), part)
            victim = engine_parts.strike(pid, blow) if pid else None
        if victim != pidfd:
            os.close(pidfd)
        if victim is None:
            return False
        if blow is Blow.FREEZE:
            self._frozen.append(victim)
        else:
            os.close(victim)
        return True

    async def hurt(self, place: Place, blow: Blow, seed: int = 0) -> float | None:
        """Strike with any blow; those that are no signals need a scripted replica. Returns when it took effect, by the Clock, or
        None when nothing could be done: the process is gone, or has no levers."""
        if blow in (Blow.KILL, Blow.FREEZE):
            at = self._clock.now()
            return at if self.strike(place, blow) else None
        state = await self.pull(place.replica, Pull(blow.value, seed=seed))
        return state.at if state is not None else None

    async def pull(self, replica: str, pull: Pull) -> State | None:
        """Pull a lever of a scripted replica; None when it is not there, or can't obey."""
        try:
            state = await asyncio.to_thread(pull_lever, self._levers / replica, pull)
        except OSError:
            return None
        return None if state.why else state

    async def _ready(self) -> None:
        """Wait until every replica is in the roster and the gateway accepts.

        Raises:
            NoReplica: it took too long, a process dies over and over, or `holdfast up` ended; the why holds the ends of the logs.
        """
        give_up = self._clock.now() + self._plan.ready_s
        while len(self.roster().places) < self._plan.replicas or not await self._accepts():
            if not self.supervisor_pid:
                raise NoReplica(f"the drill's own site has ended. {self._log_ends()}")
            if self._clock.now() > give_up:
                listed = f"{len(self.roster().places)} of {self._plan.replicas} replicas may serve"
                raise NoReplica(
                    f"the drill's own site is not ready after {self._plan.ready_s:g} s: {listed}. {self._log_ends()}"
                )
            site = self.site()
            for process in site.processes if site is not None else ():
                if process.restarts > STARTS_MAX:
                    raise NoReplica(f"{process.name} dies over and over: {process.why}. {self._log_ends()}")
            await self._clock.sleep(POLL_S)

    async def _accepts(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.write(b"GET /health/ready HTTP/1.1\r\nhost: drill\r\nconnection: close\r\n\r\n")
        try:
            return b" 200 " in await reader.readline()
        except OSError:
            return False
        finally:
            writer.close()

    def _log_ends(self) -> str:
        lines = ["The logs end so:"]
        for log in (self._output, *sorted(self.folder.root.glob("log/*.log"))):
            lines += [f"  {log.stem}: {line}" for line in log.read_text("utf-8", "replace").splitlines()[-LOG_LINES:]]
        return "\n".join(lines)

    async def _stop(self) -> None:
        """Stop the site, then look for anything that is still there."""
        for pidfd in self._frozen:
            _signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
        self._frozen.clear()
        if self._supervisor is not None and self._supervisor.returncode is None:
            self._supervisor.terminate()
            try:
                async with asyncio.timeout(LEAVE_S):
                    await self._supervisor.wait()
            except TimeoutError:
                self.survivors.append(f"supervisor, pid {self._supervisor.pid}")
                self._supervisor.kill()
                await self._supervisor.wait()
        for birth in Births(self.folder.root / "birth").read():
            if birth.pid and proc.token(birth.pid) == birth.token:
                self.survivors.append(f"{birth.name}, pid {birth.pid}")
                os.kill(birth.pid, signal.SIGKILL)


def _signal(pidfd: int, number: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return
