"""holdfast control: the control plane. It shows the site and serves its gRPC health; nothing stops when it does."""

import argparse
import signal
import socket
import sys
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from holdfast.app.announce import announce
from holdfast.app.control import control_plane
from holdfast.domain.settings import BadSettings, Control
from holdfast.host.certificate import load
from holdfast.store.folder import kept_settings


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("control", help="run the control plane", description=__doc__)
    parser.add_argument(
        "--settings", required=True, type=Path, metavar="FILE", help="settings.json of the state folder"
    )


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM. 2: it could not start; one sentence on stderr says why."""
    try:
        settings = kept_settings(args.settings)
        where = settings.control
        listener = socket.create_server((where.host, where.port), family=_family(where.host))
    except (BadSettings, OSError) as error:
        print(f"holdfast control: {error}", file=sys.stderr)
        return 2
    plane = control_plane(settings, lambda health: announce("control", f"{where.host}:{where.port}", health=health))
    try:
        config = _config(plane.app, where)
    except BadSettings as error:
        print(f"holdfast control: {error}", file=sys.stderr)
        return 2
    server = uvicorn.Server(config)
    # uvicorn raises the signal that stopped it once more when it has ended; here that would look like a crash
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with listener:
        server.run(sockets=[listener])
    plane.health.stop()
    return 0


def _config(app: Starlette, where: Control) -> uvicorn.Config:
    """With its certificate read as that of the API is. Raises BadSettings."""
    context = load(where)[0] if where.tls_cert else None
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
        ssl_certfile=where.tls_cert or None,
        ssl_keyfile=where.tls_key or None,
    )
    config.load()
    config.ssl = context
    return config


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
