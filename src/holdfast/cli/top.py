"""holdfast top: what the site is asked for and what it does about it, live: the verdict first, then where it comes from."""

import argparse
import asyncio
import sys

import httpx
import msgspec
from rich.console import Console
from rich.live import Live

from holdfast.app.control import read_load
from holdfast.cli.top_screen import screen
from holdfast.domain.settings import BadSettings, Settings
from holdfast.fleet.load import SiteLoad
from holdfast.host.clock import MonotonicClock
from holdfast.store.settings_file import load_settings

TIMEOUT_S = 2.0
CONTROL, FILES = "the control plane", "the board itself, since the control plane does not answer"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("top", help="watch the load, live", description=__doc__)
    add = parser.add_argument
    add("settings", nargs="?", default="", metavar="FILE", help="settings file (default: holdfast.toml)")
    add("--once", action="store_true", help="print it once and leave")
    add("--json", action="store_true", help="print it once, as one JSON object")
    add("--every", type=float, default=1.0, metavar="S", help="seconds between two looks (default: 1)")


def run(args: argparse.Namespace) -> int:
    """0: shown. 1: it was to be shown once, and no gateway worker tells anything. 2: asked wrongly."""
    try:
        settings = load_settings(args.settings)
        if not 0.1 <= args.every <= 60:
            raise BadSettings("--every takes seconds from 0.1 to 60.")
        if not (args.once or args.json):
            return _watch(settings, args.every)
        load, source = look(settings, None)
    except BadSettings as error:
        print(f"holdfast top: {error}", file=sys.stderr)
        return 2
    if args.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(load)).decode() + "\n")
    else:
        console = Console(highlight=False)
        console.print(screen(load, source, console.width))
    return 0 if len(load.workers) > len(load.silent) else 1


def look(settings: Settings, client: httpx.Client | None) -> tuple[SiteLoad, str]:
    """The load, and who told it: the control plane, else the board's own files. Raises BadSettings."""
    where = settings.control
    host = f"[{where.host}]" if ":" in where.host else where.host
    get = httpx.get if client is None else client.get
    try:
        answer = get(f"http://{host}:{where.port}/v1/load", timeout=TIMEOUT_S)
        load = msgspec.json.decode(answer.content, type=SiteLoad)
    except (httpx.HTTPError, msgspec.MsgspecError):
        return read_load(settings), FILES
    if answer.status_code == 200 and load.site == settings.site.name:
        return load, CONTROL
    return read_load(settings), FILES


def _watch(settings: Settings, every_s: float) -> int:
    """Until Ctrl-C."""
    console = Console(highlight=False)
    if not console.is_terminal:
        raise BadSettings("this is no terminal: say --once for one look, or --json for a script.")

    async def watch() -> None:
        clock = MonotonicClock()
        with httpx.Client(trust_env=False) as client, Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                load, source = look(settings, client)
                live.update(screen(load, source, console.width, console.height), refresh=True)
                await clock.sleep(every_s)

    try:
        asyncio.run(watch())
    except KeyboardInterrupt:
        return 0
    return 0
