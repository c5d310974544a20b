"""holdfast down: stop a site in order, whether or not its supervisor lives."""

import argparse
import asyncio
import os
import select
import signal
import sys

from holdfast.app.acts import write_down_if_it_can
from holdfast.app.children import leave_s
from holdfast.app.supervisor import Busy, keep
from holdfast.domain.event import Event, ProcessStopped
from holdfast.domain.settings import BadSettings
from holdfast.store.folder import folder_of
from holdfast.store.lock import holder
from holdfast.store.settings_file import load_settings

SLACK_S = 15.0  # beyond what the site's own graces allow


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("down", help="stop a site", description=__doc__)
    parser.add_argument(
        "settings", nargs="?", default="", metavar="FILE", help="settings file (default: holdfast.toml)"
    )


def run(args: argparse.Namespace) -> int:
    """Stop it. 0: nothing runs any more. 1: the supervisor does not end. 2: the settings can't be used."""
    try:
        settings = load_settings(args.settings)
        folder = folder_of(settings)
        if not folder.root.is_dir():
            print(f"Nothing to stop: {folder.root} does not exist.")
            return 0
        write_down_if_it_can(folder, "down")
        pid = holder(folder.lock)
        if pid:
            patience_s = settings.gateway.drain_s + leave_s(settings) + SLACK_S
            return _ask(pid, patience_s)
        done = asyncio.run(keep(settings, _tell, stopping="holdfast down"))
    except (BadSettings, Busy) as error:
        print(f"holdfast down: {error}", file=sys.stderr)
        return 2
    print("The site is down.")
    return 0 if done.ok else 1


def _ask(pid: int, patience_s: float) -> int:
    """Tell a living supervisor to stop its site, and wait until it has."""
    try:
        fd = os.pidfd_open(pid)
        signal.pidfd_send_signal(fd, signal.SIGTERM)
    except ProcessLookupError:
        print("The site is down.")
        return 0
    ended = select.select([fd], [], [], patience_s)[0]
    os.close(fd)
    if not ended:
        print(f"holdfast down: the supervisor (pid {pid}) has not ended after {patience_s:.0f} s.", file=sys.stderr)
        return 1
    print("The site is down.")
    return 0


def _tell(event: Event) -> None:
    if isinstance(event, ProcessStopped):
        print(event.why)
