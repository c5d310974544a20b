"""holdfast audit: what operators did on this site, and whether the log of it is whole."""

import argparse
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from holdfast.domain.settings import BadSettings
from holdfast.policy.audit import Broken
from holdfast.store import audit
from holdfast.store.folder import folder_of
from holdfast.store.settings_file import load_settings

ANCHOR = re.compile(r"(\d{1,12}):([0-9a-f]{64})")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("audit", help="show and check what operators did", description=__doc__)
    add = parser.add_argument
    add("what", nargs="?", choices=("show", "verify"), default="show")
    add(
        "--anchor",
        type=_anchor,
        metavar="NUMBER:DIGEST",
        help="what an earlier verify printed: find a log written anew",
    )
    add("--settings", default="", metavar="FILE", help="settings file (default: holdfast.toml)")


def _anchor(text: str) -> tuple[int, str]:
    found = ANCHOR.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no anchor: write NUMBER:DIGEST as verify prints it")
    return int(found[1]), found[2]


def run(args: argparse.Namespace) -> int:
    """0: shown, or whole. 1: it is not whole. 2: asked wrongly, or it can't be read."""
    try:
        path = folder_of(load_settings(args.settings)).audit
        if args.what == "verify":
            return _verify(path, args.anchor)
        found = audit.entries(path)
    except (BadSettings, OSError) as error:
        print(f"holdfast audit: {error}", file=sys.stderr)
        return 2
    if not found:
        print("nothing was recorded yet")
        return 0
    table = Table("number", "when (UTC)", "who", "act", "what", box=None)
    for one in found:
        when = datetime.fromtimestamp(one.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
        what = ", ".join(f"{name}={value}" for name, value in one.what.items())
        table.add_row(str(one.number), when, one.who, one.act, what)
    Console(soft_wrap=True).print(table)
    return 0


def _verify(path: Path, anchor: tuple[int, str] | None) -> int:
    verdict = audit.judged(path, anchor)
    if isinstance(verdict, Broken):
        print(f"holdfast audit: {path}: {verdict.why}", file=sys.stderr)
        return 1
    print(verdict.why)
    print(f"anchor {verdict.head.number}:{verdict.head.digest}")
    return 0
