"""A gateway worker: the gateway's rooms on real lines, files and sockets."""

import asyncio
import contextlib
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import uvloop
from prometheus_client import CollectorRegistry

from holdfast.app.announce import announce
from holdfast.app.metrics import show_metrics
from holdfast.dialect.open import open_dialect
from holdfast.domain.board import Board
from holdfast.domain.event import (
    AnswerFenced,
    AnswerMoved,
    BreakerClosed,
    BreakerOpened,
    BufferFull,
    CertificateEnding,
    CertificateKept,
    CertificateLoaded,
    DescriptorsLow,
    EjectionFrozen,
    Event,
    JournalOff,
    JournalOn,
    KeysChanged,
    KeysStale,
    ReplicaAiling,
    ReplicaCleared,
    ReplicaJoined,
    ReplicaLost,
    ReplicaSuspected,
    RequestCondemned,
    RequestSuspected,
    RungChanged,
    SelfDoubted,
    SharingFound,
    SharingLost,
    StreamResumed,
)
from holdfast.domain.fault import EngineLost
from holdfast.domain.ports import Line
from holdfast.domain.roster import Place, Roster
from holdfast.domain.settings import BadSettings, Settings
from holdfast.engine import embedded
from holdfast.gateway.access import Access
from holdfast.gateway.http import settle
from holdfast.gateway.smaller import SmallerModel
from holdfast.gateway.telling import OwnBoard
from holdfast.gateway.worker import Parts, work
from holdfast.host.certificate import Certificate
from holdfast.host.clock import MonotonicClock, unix_s
from holdfast.host.discretion import keep_quiet
from holdfast.host.doorway import Handover, lent_listener
from holdfast.host.vitals import Vitals
from holdfast.store import events, snapshot
from holdfast.store.access import AccessFile
from holdfast.store.black_box import black_box
from holdfast.store.board import FileBoard, board_folder
from holdfast.store.folder import Folder, folder_of
from holdfast.store.keys import KeyFiles
from holdfast.store.ledger import open_ledger
from holdfast.store.pulse import Pulse
from holdfast.store.quarantine import QuarantineCells, QuarantineRegister
from holdfast.store.shelf import FileShelf, shelf_folder

# what a worker writes to the log: not every request, only what an operator would ask about later
Tended = Callable[[], Coroutine[Any, Any, None]]
TOLD = (
    AnswerFenced,
    AnswerMoved,
    BreakerClosed,
    BreakerOpened,
    BufferFull,
    CertificateEnding,
    CertificateKept,
    CertificateLoaded,
    DescriptorsLow,
    EjectionFrozen,
    JournalOff,
    JournalOn,
    KeysChanged,
    KeysStale,
    ReplicaAiling,
    ReplicaCleared,
    ReplicaJoined,
    ReplicaLost,
    ReplicaSuspected,
    RequestCondemned,
    RequestSuspected,
    RungChanged,
    SelfDoubted,
    SharingFound,
    SharingLost,
    StreamResumed,
)


def _beside(figures: Tended, ledger: Tended | None, certificate: Certificate | None) -> tuple[Tended, ...]:
    """What runs as long as the worker serves."""
    tended = figures, ledger, None if certificate is None else certificate.run
    return tuple(one for one in tended if one is not None)


def gateway_worker(settings: Settings, name: str) -> int:
    """Be a gateway worker until SIGTERM. Returns the exit code.

    Raises:
        OSError: the port can't be had.
        BadSettings: the model folder's tokenizer or chat template can't be used, [admission] shared_url, or the certificate.
    """
    folder, model = folder_of(settings), Path(settings.model.path)
    clock, log = MonotonicClock(), events.EventLog(folder.events, unix_s)
    pulse, listener, bits = Pulse(), lent_listener(), Random(os.urandom(32)).getrandbits
    try:
        dialect = open_dialect(model)
    except ValueError as error:
        raise BadSettings(f"[model] path: {model}: {error}") from None

    shelf = FileShelf(shelf_folder(settings.journal.dir, folder.root), folder.root)

    def farewell(owes: bool) -> None:
        if not owes:
            shelf.dissolve()  # unless another worker holds a part of it

    def emit(event: Event) -> None:
        if isinstance(event, TOLD):
            log.append(event)

    async def dialler(place: Place) -> Line:
        box = partial(black_box, place.box, place.boot)
        try:
            line = await embedded.dial(place.address, clock, timeout_s=2.0, who=name, black_box=box)
        except ValueError as error:  # one place of a roster that makes no sense must not end those who serve the others
            raise EngineLost(f"{place.replica} can't be dialled: {error}") from error
        if place.address.startswith("unix:"):  # on this machine, then
            with contextlib.suppress(OSError):
                line.watch_over(Vitals(line.welcome.pid))
        return line

    owner = f"{name}.{bits(32):08x}"
    board = _board(folder, owner)
    registry = CollectorRegistry()
    ledger, tend_ledger = open_ledger(settings, folder, clock, emit)
    certificate = Certificate(settings.gateway, clock, unix_s, emit) if settings.gateway.tls_cert else None
    parts = Parts(
        dialler=dialler,
        dialect=dialect,
        read_roster=lambda: snapshot.take(folder.roster, Roster),
        context_tokens_max=min(settings.replica.context_tokens_max, _context_of(model)),
        clock=clock,
        unix_s=unix_s,
        bits=bits,
        emit=emit,
        announce=partial(announce, name, pulse=pulse.path),
        listener=listener,
        beat=pulse.beat,
        cells=QuarantineCells(folder.quarantine),
        register=QuarantineRegister(folder.quarantine, clock.now, unix_s),
        board=board,
        ledger=ledger,
        beside=_beside(partial(show_metrics, folder.metrics(name), registry), tend_ledger, certificate),
        registry=registry,
        tls=None if certificate is None else lambda: certificate.context,
        shelf=shelf if settings.journal.on else None,
        owner=owner,
        farewell=farewell,
        descriptors=descriptors,
        smaller=_smaller(settings),
        access=_access(settings, folder, name),
        look_at_keys=KeyFiles(folder.keys).look,
    )

    async def serve() -> None:
        leave, loop = asyncio.Event(), asyncio.get_running_loop()
        keep_quiet(loop)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, leave.set)
        settle()
        handover = None if listener is None else Handover(folder.handover(name), listener)
        try:
            await work(settings, parts, leave)
        finally:
            if handover is not None:
                handover.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve())
    if isinstance(board, FileBoard):
        board.close()
    return 0


def descriptors() -> tuple[int, int]:
    """File descriptors that this process has open, and how many it may have."""
    with os.scandir("/proc/self/fd") as entries:
        return sum(1 for _ in entries), resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _access(settings: Settings, folder: Folder, name: str) -> Access | None:
    """The access log where one is kept. Raises OSError."""
    if not settings.gateway.access_log:
        return None
    return Access(AccessFile(folder.access(name)).write, MonotonicClock().now, unix_s)


def _smaller(settings: Settings) -> SmallerModel | None:
    """The [smaller] section; None where it names no model. Raises BadSettings."""
    path, name = Path(settings.smaller.path), settings.smaller.name
    if not settings.smaller.path:
        return None
    try:
        dialect = open_dialect(path)
    except ValueError as error:
        raise BadSettings(f"[smaller] path: {path}: {error}") from None
    return SmallerModel(name or path.name, dialect, min(settings.replica.context_tokens_max, _context_of(path)))


def _board(folder: Folder, owner: str) -> Board:
    """This worker's place at the site's board. Where there is none it goes on alone: replicas refuse what they can't hold."""
    try:
        return FileBoard(FileShelf(board_folder(folder.root), folder.root), owner)
    except OSError as error:
        print(f"holdfast gateway: no board, so what other workers do is not seen: {error}", file=sys.stderr)
        return OwnBoard()


def _context_of(model: Path) -> int:
    """The model's own context, in tokens; without a limit where its folder tells none."""
    config = snapshot.take(model / "config.json", dict[str, Any]) or {}
    return int(config.get("max_position_embeddings", sys.maxsize))
