"""The only file that knows everybody: settings in, wired system out. One function for each kind of process of a site."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import uvloop
from starlette.applications import Starlette

from holdfast.dialect.open import open_dialect
from holdfast.domain.event import (
    AnswerMoved,
    BreakerOpened,
    Emit,
    Event,
    ReplicaCleared,
    ReplicaJoined,
    ReplicaLost,
    ReplicaSuspected,
    SettingsStale,
)
from holdfast.domain.ports import Child, Line, Sighting
from holdfast.domain.procedure import Done
from holdfast.domain.roster import Roster
from holdfast.domain.settings import BadSettings, Settings
from holdfast.domain.site import ProcessView, Role, Run, SiteView
from holdfast.engine import embedded
from holdfast.fleet.control import Papers, control_app
from holdfast.fleet.probe import Ears
from holdfast.fleet.supervise import Hands, Supervise, Want
from holdfast.fleet.unwatched import unwatched
from holdfast.gateway.http import settle
from holdfast.gateway.worker import Parts, work
from holdfast.host import ports, proc
from holdfast.host.clock import MonotonicClock, unix_s
from holdfast.host.processes import Processes
from holdfast.loop import run
from holdfast.policy.supervision import Rules
from holdfast.store import events, snapshot
from holdfast.store.births import Births
from holdfast.store.folder import Folder, folder_of, keep_settings
from holdfast.store.lock import SiteLock, Taken, holder
from holdfast.store.logs import last_words

# what a worker writes to the log: not every request, only what an operator would ask about later
TOLD = (AnswerMoved, BreakerOpened, ReplicaCleared, ReplicaJoined, ReplicaLost, ReplicaSuspected)
GATEWAY_GRACE_S = 5.0  # beyond its own drain_s a worker gets so long to close its connections


def _verb(*words: str) -> tuple[str, ...]:
    # -P: the folder that somebody starts us in must not decide which modules a child imports.
    return (sys.executable, "-P", "-m", "holdfast", *words)


def wants(settings: Settings, folder: Folder) -> list[Want]:
    """The processes of a site, in the order in which they start."""
    replica, gateway = settings.replica, settings.gateway
    found = []
    for number in range(replica.count):
        name = f"replica-{number}"
        threads = str(replica.threads)
        env = (("OMP_NUM_THREADS", threads), ("MKL_NUM_THREADS", threads))
        found.append(Want(role=Role.REPLICA, child=_child(folder, name, _replica_words(settings, folder, name), env)))
    for number in range(gateway.workers):
        name = f"gateway-{number}"
        words = ("gateway", "--settings", str(folder.settings), "--name", name)
        found.append(Want(role=Role.GATEWAY, child=_child(folder, name, words)))
    control = _child(folder, "control", ("control", "--settings", str(folder.settings)))
    return [*found, Want(role=Role.CONTROL, child=control)]


def _child(folder: Folder, name: str, words: tuple[str, ...], env: tuple[tuple[str, str], ...] = ()) -> Child:
    run_file = ("HOLDFAST_RUN_FILE", str(folder.run(name)))
    return Child(name=name, argv=_verb(*words), env=(*env, run_file), log_path=str(folder.log(name)))


def _replica_words(settings: Settings, folder: Folder, name: str) -> tuple[str, ...]:
    replica, model = settings.replica, settings.model
    options = {
        "--name": name,
        "--listen": f"unix:{folder.socket(name)}",
        "--model": model.path,
        "--serve-as": model.name,
        "--engine": replica.engine,
        "--slots": replica.slots,
        "--context": replica.context_tokens_max,
        "--chunk": replica.prefill_chunk_tokens,
        "--queue": replica.queue_max,
        "--dtype": replica.dtype,
        "--threads": replica.threads,
        "--drain-s": replica.drain_s,
    }
    if replica.health_port:
        options["--health"] = f"127.0.0.1:{replica.health_port + int(name.rpartition('-')[2])}"
    if replica.engine == "scripted":
        options["--token-ms"] = replica.token_ms
    return ("replica", *(f"{word}={value}" for word, value in options.items()))


def rules_of(settings: Settings) -> Rules:
    """What supervision goes by."""
    return Rules(
        restart=settings.restart,
        silent_s=settings.probe.silent_s,
        replica_grace_s=settings.replica.drain_s + 1,
        gateway_grace_s=settings.gateway.drain_s + GATEWAY_GRACE_S,
    )


class Busy(Exception):
    """Another supervisor runs this site."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"this site is already up: process {pid} supervises it. Stop it with: holdfast down")
        self.pid = pid


async def keep(settings: Settings, tell: Emit, stopping: str = "") -> Done:
    """Be the supervisor of a site until it has stopped. With `stopping` it is one that only stops what runs.

    Raises:
        BadSettings: a folder or a port can't be had. Nothing was started.
        Busy: the site has a supervisor.
    """
    if not hasattr(os, "pidfd_open"):
        raise BadSettings("supervision needs Linux 5.3 or newer: other systems have no pidfd to watch processes with.")
    folder = folder_of(settings)
    folder.make()
    lock = SiteLock(folder.lock)
    try:
        lock.take()
    except Taken as taken:
        raise Busy(taken.pid) from None
    clock, wake = MonotonicClock(), asyncio.Event()
    log = events.EventLog(folder.events, unix_s)

    def emit(event: Event) -> None:
        told = log.append(event)
        with contextlib.suppress(OSError):  # a terminal that was closed, a pipe that nobody reads
            tell(told)

    def woken(name: str) -> None:
        wake.set()

    host = Processes(Births(folder.births), clock, woken)
    ears = Ears(partial(_dial, clock), clock, settings.probe.every_s, wake.set)
    try:
        adopted = host.adopt()
        if not stopping:
            _check_ports(settings, adopted)
            _warn_of_change(folder, settings, adopted, emit)
            keep_settings(folder, settings)
        wanted = [] if stopping else wants(settings, folder)
        hands = _hands(settings, folder, clock, emit, (host, ears, wake))
        supervise = Supervise(wanted, rules_of(settings), hands)
        if stopping:
            supervise.stop(stopping)
        _obey_signals(supervise)
        done = await run(supervise, clock, emit, wake)
        for one in supervise.standings():
            host.forget(one.name)
            folder.run(one.name).unlink(missing_ok=True)
        return done
    finally:
        await ears.close()
        host.close()
        lock.release()


async def _dial(clock: MonotonicClock, address: str) -> Line:
    return await embedded.dial(address, clock, timeout_s=2.0, who="supervisor")


def _hands(
    settings: Settings,
    folder: Folder,
    clock: MonotonicClock,
    emit: Emit,
    bodies: tuple[Processes, Ears, asyncio.Event],
) -> Hands:
    host, ears, wake = bodies

    def show(processes: tuple[ProcessView, ...], roster: Roster) -> None:
        view = SiteView(
            name=settings.site.name,
            at=round(unix_s(), 3),
            supervisor_pid=os.getpid(),
            address=settings.gateway.url,
            model=settings.model.name,
            release=roster.release,
            processes=processes,
        )
        with contextlib.suppress(OSError):  # a full disk blinds those who look; it must not stop those who serve
            snapshot.put(folder.site, view)

    return Hands(
        wake=wake,
        host=host,
        ears=ears,
        clock=clock,
        emit=emit,
        read_run=lambda name: snapshot.take(folder.run(name), Run),
        clear_run=lambda name: folder.run(name).unlink(missing_ok=True),
        last_words=lambda name: last_words(folder.log(name)),
        read_roster=lambda: snapshot.take(folder.roster, Roster) or Roster(),
        publish=lambda roster: snapshot.put(folder.roster, roster),
        show=show,
        age_s=proc.age_s,
        draw=lambda: int.from_bytes(os.urandom(6), "big") / 2**48,
    )


def _obey_signals(supervise: Supervise) -> None:
    """The first signal stops the site in order, the second one at once."""
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        if supervise.stopping:
            supervise.hurry()
        else:
            supervise.stop({signal.SIGINT: "Ctrl-C", signal.SIGHUP: "the terminal was closed"}.get(number, "SIGTERM"))

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup's wish is kept
            loop.add_signal_handler(number, stop, number)


def _warn_of_change(folder: Folder, settings: Settings, adopted: tuple[Sighting, ...], emit: Emit) -> None:
    before = snapshot.take(folder.settings, Settings)
    if adopted and before is not None and before != settings:
        names = ", ".join(sighting.name for sighting in adopted)
        emit(
            SettingsStale(
                why=f"the settings have changed, and {names} run on with the old ones. "
                "For the new ones everywhere: holdfast down, then holdfast up"
            )
        )


def _check_ports(settings: Settings, adopted: tuple[Sighting, ...]) -> None:
    """Refuse to start onto a port that somebody else listens on; our own, adopted listeners are welcome."""
    names = {sighting.name for sighting in adopted}
    ours = {"gateway": any(name.startswith(Role.GATEWAY) for name in names), "control": "control" in names}
    for section, place in (("gateway", settings.gateway), ("control", settings.control)):
        complaint = "" if ours[section] else ports.complaint(place.host, place.port)
        if complaint:
            raise BadSettings(
                f"port {place.port} on {place.host} {complaint}. "
                f"Choose another with [{section}] port, or stop who holds it."
            )


def announce(name: str, listen: str) -> None:
    """Tell the supervisor that this process is ready and listens there. Does nothing outside a site. Raises OSError."""
    path = os.environ.get("HOLDFAST_RUN_FILE")
    if path:
        pid, token = os.getpid(), os.environ.get(proc.TOKEN, "")
        ticks = proc.start_ticks(pid)
        snapshot.put(
            Path(path), Run(name=name, pid=pid, token=token, start_ticks=ticks, boot=token[:16], listen=listen)
        )


def gateway_worker(settings: Settings, name: str) -> int:
    """Be a gateway worker until SIGTERM. Returns the exit code.

    Raises:
        OSError: the port can't be had.
        BadSettings: the model folder's tokenizer or chat template can't be used.
    """
    folder, model = folder_of(settings), Path(settings.model.path)
    clock, log = MonotonicClock(), events.EventLog(folder.events, unix_s)
    try:
        dialect = open_dialect(model)
    except ValueError as error:
        raise BadSettings(f"[model] path: {model}: {error}") from None

    def emit(event: Event) -> None:
        if isinstance(event, TOLD):
            log.append(event)

    async def dialler(address: str) -> Line:
        return await embedded.dial(address, clock, timeout_s=2.0, who=name)

    parts = Parts(
        dialler=dialler,
        dialect=dialect,
        read_roster=lambda: snapshot.take(folder.roster, Roster),
        context_tokens_max=min(settings.replica.context_tokens_max, _context_of(model)),
        clock=clock,
        unix_s=unix_s,
        bits=Random(os.urandom(32)).getrandbits,
        emit=emit,
        announce=partial(announce, name),
    )

    async def serve() -> None:
        leave, loop = asyncio.Event(), asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, leave.set)
        settle()
        await work(settings, parts, leave)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
    return 0


def _context_of(model: Path) -> int:
    """The model's own context, in tokens; without a limit where its folder tells none."""
    config = snapshot.take(model / "config.json", dict[str, Any]) or {}
    return int(config.get("max_position_embeddings", sys.maxsize))


def control_plane(settings: Settings, started: Callable[[], None]) -> Starlette:
    """The control plane's application; `started` is called when it begins to answer."""
    folder = folder_of(settings)

    def read_site() -> SiteView | None:
        view = snapshot.take(folder.site, SiteView)
        if view is None or holder(folder.lock):
            return view
        return unwatched(view, Births(folder.births).read(), proc.running_s)

    return control_app(Papers(read_site=read_site, read_events=partial(events.recent, folder.events)), started)
