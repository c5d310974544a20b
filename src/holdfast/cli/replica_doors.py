"""What every replica process has, whatever its engine: its doors, its health, its black box, and what it says of itself."""

import argparse
import asyncio
import logging
import os
import secrets
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct, structs

from holdfast.domain.address import parse_address
from holdfast.domain.ports import Core
from holdfast.domain.site import Run
from holdfast.host import proc
from holdfast.host.clock import MonotonicClock
from holdfast.host.discretion import keep_quiet
from holdfast.host.health import HealthServer
from holdfast.pearl.listen import address_of, claim
from holdfast.pearl.server import ReplicaServer, ServerOptions
from holdfast.store import snapshot
from holdfast.store.black_box import LastWords

RUN_FILE_ENV = "HOLDFAST_RUN_FILE"
TOKEN_ENV = "HOLDFAST_TOKEN"


class Replica(Struct):
    """A replica that may be served."""

    server: ReplicaServer
    listener: socket.socket
    health: HealthServer
    run_file: Run
    model: str


def furnished(args: argparse.Namespace, clock: MonotonicClock, core: Core, context_tokens_max: int) -> Replica:
    """Doors, health and black box around a core that is ready. Raises OSError, ValueError."""
    options = ServerOptions(
        replica=args.name,
        boot=secrets.token_hex(8),
        context_tokens_max=context_tokens_max,
        still_s_max=args.still_s,
        pause_s=args.token_ms / 1000,
        batch_window_s=args.batch_window_ms / 1000,
    )
    server = ReplicaServer(core, clock, options, getattr(core, "tap", None), _last_words(args.box, options.boot))
    listener = claim(parse_address(args.listen))
    model = core.release().model
    health = HealthServer(lambda: dict.fromkeys(("", model, args.name), server.complaint()), clock.now)
    run_file = structs.replace(
        about(args),
        boot=options.boot,
        listen=address_of(listener),
        health=health.start(parse_address(args.health)) if args.health else "",
        ready=True,
    )
    return Replica(server, listener, health, run_file, model)


def about(args: argparse.Namespace) -> Run:
    """What this process says of itself before it is ready."""
    return Run(
        name=args.name,
        pid=os.getpid(),
        start_ticks=proc.start_ticks(os.getpid()),
        token=os.environ.get(TOKEN_ENV, ""),
        listen=args.listen,
        box=str(args.box.absolute()) if args.box else "",
        ready=False,
    )


def _last_words(box: Path | None, boot: str) -> LastWords | None:
    """The black box, if it was asked for. One that can't be written is no reason not to serve."""
    if box is None:
        return None
    try:
        return LastWords(box, boot)
    except OSError as error:
        logging.getLogger("holdfast.replica").warning("no black box at %s: %s", box, error)
        return None


async def serve(replica: Replica, drain_s: float, ready: Callable[[], None]) -> None:
    """Serve until drained; SIGTERM and Ctrl-C begin the drain. `ready` is called when that can be."""
    loop = asyncio.get_running_loop()
    keep_quiet(loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, replica.server.drain, drain_s)
    ready()
    await replica.server.serve(replica.listener)


def tell_ready(replica: Replica, took_s: float) -> None:
    """The run file first: whoever waits for the line on stdout may read it at once."""
    seen = replica.run_file
    write_run_file(seen)
    health = f" health={seen.health}" if seen.health else ""
    print(f"ready replica={seen.name} listen={seen.listen}{health} model={replica.model} in {took_s:.1f} s", flush=True)


def write_run_file(run: Run) -> None:
    """Where the supervisor has asked for it; nobody else does. Raises OSError."""
    path = os.environ.get(RUN_FILE_ENV)
    if path:
        snapshot.put(Path(path), run)
