"""holdfast up: start a site and keep it alive until Ctrl-C or `holdfast down`."""

import argparse
import asyncio
import sys
from functools import partial

from rich.console import Console
from rich.text import Text

from holdfast import __version__
from holdfast.app.children import devices_of
from holdfast.app.exposure import who_is_served
from holdfast.app.supervisor import Busy, keep
from holdfast.domain import event as events
from holdfast.domain.event import Event
from holdfast.domain.settings import BadSettings, Settings
from holdfast.host.certificate import load
from holdfast.store.folder import folder_of
from holdfast.store.settings_file import load_settings, with_model

# event -> (mark, colour); what is not here is only written to the events log
MARKS: dict[type[Event], tuple[str, str]] = {
    events.ProcessStarted: ("+", "cyan"),
    events.ProcessAdopted: ("=", "cyan"),
    events.ProcessReady: ("✓", "green"),
    events.ProcessDied: ("✗", "red"),
    events.ProcessStopped: ("-", "dim"),
    events.ProcessQuarantined: ("!", "bold red"),
    events.ReplicaSuspected: ("?", "yellow"),
    events.ReplicaCleared: ("✓", "green"),
    events.SelfDoubted: ("?", "yellow"),
    events.SettingsStale: ("!", "yellow"),
    events.ReplicaDrained: ("-", "cyan"),
    events.ReplicaAiling: ("!", "yellow"),
    events.EjectionFrozen: ("!", "bold yellow"),
    events.HostAiling: ("!", "bold red"),
    events.UpgradeBegun: ("^", "cyan"),
    events.UpgradeEnded: ("^", "green"),
    events.StepFailed: ("!", "red"),
}


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("up", help="start a site and keep it alive", description=__doc__)
    parser.add_argument(
        "settings", nargs="?", default="", metavar="FILE", help="settings file (default: holdfast.toml)"
    )


def run(args: argparse.Namespace) -> int:
    """Run until the site has stopped. 0: as told. 1: it could not come up. 2: it was asked wrongly; nothing was started."""
    console = Console(highlight=False, soft_wrap=True)
    try:
        settings = settings_of(args.settings)
        _greet(console, settings)
        reload = partial(settings_of, args.settings)
        scheme = settings.gateway.url.partition(":")[0]
        done = asyncio.run(keep(settings, _Teller(console, scheme), reload=reload))
    except (BadSettings, Busy) as error:
        print(f"holdfast up: {error}", file=sys.stderr)
        return 2
    if not done.ok:
        print(f"holdfast up: {done.why}", file=sys.stderr)
        return 1
    console.print("Everything has stopped.")
    return 0


def settings_of(file: str) -> Settings:
    """What a site is started with, checked as far as that can be done without starting it. Raises BadSettings."""
    settings = with_model(load_settings(file))
    devices_of(settings.replica.devices)
    who_is_served(settings)
    for door in (settings.gateway, settings.control):
        if door.tls_cert:
            load(door)
    return settings


def _greet(console: Console, settings: Settings) -> None:
    replica = settings.replica
    count = f"{replica.count} replica{'' if replica.count == 1 else 's'}"
    console.print(
        Text(f"Holdfast {__version__}", "bold"), Text(f"site {settings.site.name}, state in {folder_of(settings).root}")
    )
    console.print(
        f"model {settings.model.name}, {count} ({replica.engine} engine), {settings.gateway.workers} gateway worker(s)"
    )
    console.print(who_is_served(settings))


class _Teller:
    """Prints what an operator wants to see scroll by."""

    def __init__(self, console: Console, scheme: str) -> None:
        self._console, self._scheme = console, scheme

    def __call__(self, event: Event) -> None:
        if isinstance(event, events.SiteReady):
            self._console.print(
                Text(f"ready: {self._scheme}://{_local(event.address)}/v1", "bold green") + "  try: holdfast chat"
            )
        mark = MARKS.get(type(event))
        if mark is not None:
            pid = f", pid {event.pid}" if isinstance(event, events.ProcessStarted) else ""
            self._console.print(Text("  ") + Text(*mark) + Text(f" {event.why}{pid}"))


def _local(address: str) -> str:
    return address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")
