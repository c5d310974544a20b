"""A gateway worker: the gateway's rooms on real lines, files and sockets."""

import asyncio
import os
import signal
import sys
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import uvloop

from holdfast.app.announce import announce
from holdfast.dialect.open import open_dialect
from holdfast.domain.event import (
    AnswerMoved,
    BreakerOpened,
    Event,
    ReplicaCleared,
    ReplicaJoined,
    ReplicaLost,
    ReplicaSuspected,
)
from holdfast.domain.ports import Line
from holdfast.domain.roster import Place, Roster
from holdfast.domain.settings import BadSettings, Settings
from holdfast.engine import embedded
from holdfast.gateway.http import settle
from holdfast.gateway.worker import Parts, work
from holdfast.host.clock import MonotonicClock, unix_s
from holdfast.store import events, snapshot
from holdfast.store.black_box import black_box
from holdfast.store.folder import folder_of

# what a worker writes to the log: not every request, only what an operator would ask about later
TOLD = (AnswerMoved, BreakerOpened, ReplicaCleared, ReplicaJoined, ReplicaLost, ReplicaSuspected)


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

    async def dialler(place: Place) -> Line:
        return await embedded.dial(
            place.address, clock, timeout_s=2.0, who=name, black_box=partial(black_box, place.box, place.boot)
        )

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
