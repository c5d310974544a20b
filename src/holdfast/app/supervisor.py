"""The supervisor: fleet's procedures on real processes, sockets and files."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from msgspec import Struct, structs

from holdfast.app.acts import digest_of_settings, write_down_if_it_can
from holdfast.app.children import pool, rules_of, wants
from holdfast.app.evidence import gather
from holdfast.app.left_engines import sweep_after, sweep_all
from holdfast.app.renewal import LOCK_FD, Renewal, handed_on, hear_signals, hold_signals
from holdfast.domain.board import WorkerView
from holdfast.domain.event import Emit, Event, SettingsStale
from holdfast.domain.ports import Child, Line, Sighting
from holdfast.domain.procedure import Done
from holdfast.domain.roster import Roster
from holdfast.domain.settings import BadSettings, Settings
from holdfast.domain.site import ProcessView, Role, Run, SiteView
from holdfast.domain.wish import Wishes
from holdfast.engine import embedded
from holdfast.fleet.canary import Canaries
from holdfast.fleet.probe import Ears
from holdfast.fleet.supervise import Hands, Supervise, Want
from holdfast.host import ports, proc
from holdfast.host.clock import MonotonicClock, unix_s
from holdfast.host.doorway import LISTEN_FD, Doorway
from holdfast.host.engine_sweep import GONE_S
from holdfast.host.processes import Processes
from holdfast.loop import run
from holdfast.policy.muster import count
from holdfast.policy.wishes import afresh
from holdfast.store import events, snapshot, wishes
from holdfast.store.births import Births
from holdfast.store.board import board_folder, views
from holdfast.store.folder import Folder, folder_of, keep_settings
from holdfast.store.ledger import ledger_folder
from holdfast.store.lock import SiteLock, Taken
from holdfast.store.logs import last_words
from holdfast.store.pulse import Pulses
from holdfast.store.shelf import FileShelf, shelf_folder


class Busy(Exception):
    """Another supervisor runs this site."""

    def __init__(self, pid: int) -> None:
        super().__init__(f"this site is already up: process {pid} supervises it. Stop it with: holdfast down")
        self.pid = pid


class _Bodies(Struct):
    """What a supervisor holds of the machine."""

    host: Processes
    ears: Ears
    wake: asyncio.Event
    doorway: Doorway
    renewal: Renewal


async def keep(
    settings: Settings, tell: Emit, stopping: str = "", reload: Callable[[], Settings] | None = None
) -> Done:
    """Be the supervisor of a site until it has stopped. With `stopping` it is one that only stops what runs.

    `reload` reads the settings afresh before an upgrade; without it the same ones go on.

    Raises:
        BadSettings: a folder or a port can't be had. Nothing was started.
        Busy: the site has a supervisor.
    """
    if not hasattr(os, "pidfd_open"):
        raise BadSettings("supervision needs Linux 5.3 or newer: other systems have no pidfd to watch processes with.")
    folder = folder_of(settings)
    folder.make()
    hold_signals()  # an upgrade may have left some waiting, and a command may send one as soon as the lock is taken
    lock = SiteLock(folder.lock)
    try:
        lock.take(handed_on(LOCK_FD))
        return await _keep(settings, tell, stopping, (folder, lock, reload or (lambda: settings)))
    except Taken as taken:
        raise Busy(taken.pid) from None
    finally:
        lock.release()
        hear_signals()


async def _keep(
    settings: Settings, tell: Emit, stopping: str, place: tuple[Folder, SiteLock, Callable[[], Settings]]
) -> Done:
    folder, lock, reload = place
    clock, wake = MonotonicClock(), asyncio.Event()
    log = events.EventLog(folder.events, unix_s)

    def emit(event: Event) -> None:
        told = log.append(event)
        with contextlib.suppress(OSError):  # a terminal that was closed, a pipe that nobody reads
            tell(told)

    def woken(name: str) -> None:
        wake.set()

    host = Processes(Births(folder.births), clock, woken)
    evidence = gather(settings, folder, clock, emit)
    canaries = Canaries(evidence, clock, settings.canary.tokens)
    ears = Ears(
        partial(_dial, clock, min(2.0, settings.probe.silent_s / 3)),
        clock,
        settings.probe.every_s,
        wake.set,
        evidence=evidence,
        canaries=canaries,
    )
    doorway = Doorway(settings.gateway.host, settings.gateway.port)
    bodies = _Bodies(host, ears, wake, doorway, Renewal(lock, doorway, reload))
    try:
        adopted = host.adopt()
        await sweep_all(folder, {one.name for one in adopted}, clock, 0)
        wished = wishes.read(folder.wishes) if adopted else wishes.change(folder.wishes, afresh)
        wanted = [] if stopping else wants(settings, folder, wished.epoch, pool(settings))
        if not stopping:
            doorway.recover(handed_on(LISTEN_FD), _handovers(folder, adopted))
            _check_ports(settings, adopted, doorway)
            _warn_of_change(folder, settings, _stale(adopted, wished), emit)
            keep_settings(folder, settings)
            write_down_if_it_can(folder, "up", settings=digest_of_settings(settings))
        hands = replace(_hands(settings, folder, clock, emit, bodies), ailments=evidence.ailment)
        supervise = Supervise(wanted, rules_of(settings), hands, wished.epoch)
        if stopping:
            supervise.stop(stopping)
        _obey_signals(supervise, wake, doorway)
        done = await run(supervise, clock, emit, wake)
        for one in supervise.standings():
            host.forget(one.name)
            snapshot.remove(folder.run(one.name))
        await sweep_all(folder, set(), clock, GONE_S)
        if folder.root.is_dir():  # nothing runs any more: what answers were cut off, nobody can ask for
            FileShelf(shelf_folder(settings.journal.dir, folder.root)).dissolve()
            FileShelf(board_folder(folder.root)).dissolve()
            FileShelf(ledger_folder(folder.root)).dissolve()
        return done
    finally:
        await ears.close()
        host.close()
        doorway.close()


async def _dial(clock: MonotonicClock, timeout_s: float, address: str) -> Line:
    return await embedded.dial(address, clock, timeout_s, who="supervisor")


def _hands(
    settings: Settings,
    folder: Folder,
    clock: MonotonicClock,
    emit: Emit,
    bodies: _Bodies,
) -> Hands:
    def clear_run(name: str) -> None:
        snapshot.remove(folder.run(name))
        folder.handover(name).unlink(missing_ok=True)

    def equip(want: Want) -> Child:
        if not folder.settings.exists():  # somebody has removed it: no child could start without
            keep_settings(folder, settings)
        if want.role is not Role.GATEWAY:
            return want.child
        return structs.replace(want.child, fds=((LISTEN_FD, bodies.doorway.fd()),))

    def show(processes: tuple[ProcessView, ...], roster: Roster) -> None:
        serve, why = count(wishes.read(folder.wishes), rules_of(settings))
        view = SiteView(
            name=settings.site.name,
            at=round(unix_s(), 3),
            supervisor_pid=os.getpid(),
            address=settings.gateway.url,
            model=settings.model.name,
            release=roster.release,
            processes=processes,
            replicas=serve,
            replicas_why=why,
        )
        with contextlib.suppress(OSError):  # a full disk blinds those who look; it must not stop those who serve
            snapshot.put(folder.site, view)

    return Hands(
        wake=bodies.wake,
        host=bodies.host,
        ears=bodies.ears,
        clock=clock,
        emit=emit,
        read_run=lambda name: snapshot.take(folder.run(name), Run),
        clear_run=clear_run,
        last_words=lambda name: last_words(folder.log(name)),
        read_roster=lambda: snapshot.take(folder.roster, Roster) or Roster(),
        publish=lambda roster: snapshot.put(folder.roster, roster),
        show=show,
        age_s=proc.age_s,
        draw=lambda: int.from_bytes(os.urandom(6), "big") / 2**48,
        read_wishes=lambda: wishes.read(folder.wishes),
        change_wishes=lambda revise: wishes.change(folder.wishes, revise),
        read_pulse=Pulses().read,
        equip=equip,
        renew=bodies.renewal,
        sweep=partial(sweep_after, folder),
        read_views=partial(_views, folder),
    )


def _views(folder: Folder) -> list[WorkerView]:
    try:
        return views(board_folder(folder.root))
    except OSError:  # what workers tell is for scaling: the rest of supervision goes on without
        return []


def _obey_signals(supervise: Supervise, wake: asyncio.Event, doorway: Doorway) -> None:
    """The first signal stops the site in order, the second one at once. SIGUSR1: a wish was written down.

    A site that stops lets go of the door: once its workers have left, clients are refused and not left waiting.
    """
    loop = asyncio.get_running_loop()

    def stop(number: signal.Signals) -> None:
        if supervise.stopping:
            supervise.hurry()
        else:
            doorway.close()
            supervise.stop({signal.SIGINT: "Ctrl-C", signal.SIGHUP: "the terminal was closed"}.get(number, "SIGTERM"))

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # nohup's wish is kept
            loop.add_signal_handler(number, stop, number)
    loop.add_signal_handler(signal.SIGUSR1, wake.set)
    hear_signals()


def _handovers(folder: Folder, adopted: tuple[Sighting, ...]) -> list[Path]:
    return [folder.handover(one.name) for one in adopted if one.name.startswith(Role.GATEWAY)]


def _stale(adopted: tuple[Sighting, ...], wished: Wishes) -> list[str]:
    """Who will run on with the settings of before: an upgrade under way replaces the others."""
    if wished.finished_epoch >= wished.epoch:
        return [one.name for one in adopted]
    return [one.name for one in adopted if one.name.startswith(Role.REPLICA) and one.epoch >= wished.replicas_epoch]


def _warn_of_change(folder: Folder, settings: Settings, stale: list[str], emit: Emit) -> None:
    before = snapshot.take(folder.settings, Settings)
    if stale and before is not None and before != settings:
        emit(
            SettingsStale(
                why=f"the settings have changed, and {', '.join(stale)} run on with the old ones. "
                "For the new ones everywhere, without interruption: holdfast upgrade --all"
            )
        )


def _check_ports(settings: Settings, adopted: tuple[Sighting, ...], doorway: Doorway) -> None:
    """Refuse to start onto a port that somebody else listens on; our own, adopted listeners are welcome.

    The gateway's is bound here. Where it is still held by workers that are too frozen to hand it back, it is bound when
    they are gone.
    """
    names = {sighting.name for sighting in adopted}
    ours = {"gateway": any(name.startswith(Role.GATEWAY) for name in names), "control": "control" in names}
    for section, place in (("gateway", settings.gateway), ("control", settings.control)):
        complaint = "" if ours[section] else ports.complaint(place.host, place.port)
        if section == "gateway" and not complaint:
            with contextlib.suppress(OSError):  # tried again at the first worker's start, which will say why
                doorway.fd()
        if complaint:
            raise BadSettings(
                f"port {place.port} on {place.host} {complaint}. "
                f"Choose another with [{section}] port, or stop who holds it."
            )
