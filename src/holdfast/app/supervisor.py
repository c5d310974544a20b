"""The supervisor: fleet's procedures on real processes, sockets and files."""

import asyncio
import contextlib
import os
import signal
from functools import partial

from holdfast.app.children import rules_of, wants
from holdfast.domain.event import Emit, Event, SettingsStale
from holdfast.domain.ports import Line, Sighting
from holdfast.domain.procedure import Done
from holdfast.domain.roster import Roster
from holdfast.domain.settings import BadSettings, Settings
from holdfast.domain.site import ProcessView, Role, Run, SiteView
from holdfast.engine import embedded
from holdfast.fleet.probe import Ears
from holdfast.fleet.supervise import Hands, Supervise
from holdfast.host import ports, proc
from holdfast.host.clock import MonotonicClock, unix_s
from holdfast.host.processes import Processes
from holdfast.loop import run
from holdfast.store import events, snapshot
from holdfast.store.births import Births
from holdfast.store.folder import Folder, folder_of, keep_settings
from holdfast.store.lock import SiteLock, Taken
from holdfast.store.logs import last_words


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
