"""holdfast status: what runs, in which state, and why. From the control plane, or from the state files when that is gone."""

import argparse
import sys
from typing import Any

import httpx
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from holdfast.domain.settings import BadSettings, Settings
from holdfast.domain.site import SiteView, plain
from holdfast.fleet.unwatched import unwatched
from holdfast.host import proc
from holdfast.store import events, snapshot
from holdfast.store.births import Births
from holdfast.store.folder import folder_of
from holdfast.store.lock import holder
from holdfast.store.settings_file import load_settings

COLOURS = {
    "serving": "green",
    "warm": "blue",
    "starting": "cyan",
    "draining": "cyan",
    "suspect": "yellow",
    "quarantined": "bold red",
}
TIMEOUT_S = 2.0


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("status", help="show what runs", description=__doc__)
    parser.add_argument(
        "settings", nargs="?", default="", metavar="FILE", help="settings file (default: holdfast.toml)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Print the state. 0: the site is supervised. 1: it is not, or there is none. 2: the settings can't be used."""
    try:
        settings = load_settings(args.settings)
        site = _from_control_plane(settings) or _from_files(settings)
    except BadSettings as error:
        print(f"holdfast status: {error}", file=sys.stderr)
        return 2
    if args.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(site)).decode() + "\n")
    else:
        _print(site)
    return 0 if site["supervised"] else 1


def _from_control_plane(settings: Settings) -> dict[str, Any] | None:
    """The site as the control plane tells it; None when it does not answer, or answers for another site."""
    where = settings.control
    host = f"[{where.host}]" if ":" in where.host else where.host
    try:
        answer = httpx.get(f"http://{host}:{where.port}/v1/site", timeout=TIMEOUT_S, trust_env=False)
        body: dict[str, Any] = answer.json()
    except (httpx.HTTPError, ValueError):
        return None
    if answer.status_code != 200 or body.get("name") != settings.site.name:
        return None
    return {"source": "the control plane", **body}


def _from_files(settings: Settings) -> dict[str, Any]:
    folder = folder_of(settings)
    supervised = holder(folder.lock) != 0
    view = snapshot.take(folder.site, SiteView)
    source = "the state files, since the control plane does not answer"
    if view is None:
        return {"source": source, "name": settings.site.name, "supervised": supervised, "processes": [], "events": []}
    if not supervised:
        view = unwatched(view, Births(folder.births).read(), proc.running_s)
    found = [event for event in events.recent(folder.events, 60) if event.get("event") != "step_taken"][-20:]
    return {"source": source, **plain(view), "supervised": supervised, "events": found}


def _print(site: dict[str, Any]) -> None:
    console = Console(highlight=False)
    supervisor = f"supervisor pid {site['supervisor_pid']}" if site["supervised"] else "no supervisor"
    console.print(Text(f"site {site['name']}", "bold"), Text(f"{supervisor}; told by {site['source']}"))
    if not site["supervised"]:
        fix = (
            "nothing restarts what dies; `holdfast up` adopts what runs"
            if site["processes"]
            else "start it: holdfast up"
        )
        console.print(Text(fix, "yellow"))
    if not site["processes"]:
        return
    wanted = f"  {site['replicas']} replicas should serve: {site['replicas_why']}" if site["replicas_why"] else ""
    console.print(Text(f"{site['address']}  model {site['model']}{wanted}"))
    table = Table(box=None, pad_edge=False)
    on_gpus = any(one["device"] not in ("", "cpu") for one in site["processes"])
    for column in ("process", "state", *(("device",) if on_gpus else ()), "pid", "up", "load", "restarts", "why"):
        table.add_column(column, overflow="fold", justify="right" if column in ("pid", "up", "restarts") else "left")
    for one in site["processes"]:
        table.add_row(
            one["name"],
            Text(one["state"], COLOURS.get(one["state"], "")),
            *((one["device"] or "-",) if on_gpus else ()),
            str(one["pid"] or "-"),
            _span(one["uptime_s"]) if one["pid"] else "-",
            _load(one["load"]),
            str(one["restarts"]),
            Text(one["why"]),
        )
    console.print(table)
    engines: dict[str, list[str]] = {}
    for one in site["processes"]:
        if ":" in one.get("engine", ""):  # of our own there is nothing more to tell
            engines.setdefault(one["engine"], []).append(one["name"])
    for engine, names in engines.items():
        console.print(Text(f"engine of {', '.join(names)}: {engine}", "dim"))


def _load(load: dict[str, int] | None) -> str:
    return "-" if load is None else f"{load['running']}/{load['slots']} run, {load['queued']} wait"


def _span(seconds: float) -> str:
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min"
    return (
        f"{whole // 3600} h {whole % 3600 // 60} min"
        if whole < 86400
        else f"{whole // 86400} d {whole % 86400 // 3600} h"
    )
