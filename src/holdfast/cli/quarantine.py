"""holdfast quarantine: requests that have cost two engines and are refused, by fingerprint; and how to let one in again."""

import argparse
import sys

import msgspec
from rich.console import Console
from rich.table import Table

from holdfast.app.acts import write_down_if_it_can
from holdfast.domain.settings import BadSettings
from holdfast.host.clock import unix_s
from holdfast.store import quarantine
from holdfast.store.folder import Folder, folder_of
from holdfast.store.settings_file import load_settings


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("quarantine", help="list refused requests", description=__doc__)
    add = parser.add_argument
    add("what", nargs="?", choices=("list", "forget"), default="list")
    add("fingerprint", nargs="?", default="", help="which one to forget")
    add("--settings", default="", metavar="FILE", help="settings file (default: holdfast.toml)")
    add("--json", action="store_true", help="print one JSON list")


def run(args: argparse.Namespace) -> int:
    """0: listed, or let in again. 1: no such fingerprint. 2: asked wrongly."""
    try:
        site = folder_of(load_settings(args.settings))
    except BadSettings as error:
        print(f"holdfast quarantine: {error}", file=sys.stderr)
        return 2
    if args.what == "forget":
        return _forget(args, site)
    now = unix_s()
    found = quarantine.sentences(site.quarantine, now)
    if args.json:
        sys.stdout.write(msgspec.json.encode(found).decode() + "\n")
    elif not found:
        print("nobody is in quarantine")
    else:
        table = Table("fingerprint", "refused for another", "why", box=None)
        for one in found:
            table.add_row(one.fingerprint, f"{(one.until_unix_s - now) / 60:.0f} min", one.why)
        Console().print(table)
    return 0


def _forget(args: argparse.Namespace, site: Folder) -> int:
    if not args.fingerprint:
        print("holdfast quarantine: forget whom? `holdfast quarantine` lists the fingerprints.", file=sys.stderr)
        return 2
    try:
        known = quarantine.forget(site.quarantine, args.fingerprint)
    except OSError as error:
        print(f"holdfast quarantine: {error}", file=sys.stderr)
        return 2
    if not known:
        print(f"holdfast quarantine: {args.fingerprint} is not on the list.", file=sys.stderr)
        return 1
    write_down_if_it_can(site, "quarantine_forget", fingerprint=args.fingerprint)
    print(f"{args.fingerprint} is let in again.")
    return 0
