"""holdfast drain: move a replica's streams elsewhere, then stop its process; it stays down until `holdfast undrain`."""

import argparse
import sys

from holdfast.app.children import leave_s
from holdfast.app.wishing import Wisher
from holdfast.domain.settings import BadSettings
from holdfast.policy import wishes
from holdfast.policy.wishes import Refused
from holdfast.store.settings_file import load_settings

SLACK_S = 10.0


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("drain", help="take a replica out of service without breaking an answer")
    parser.description = __doc__
    add = parser.add_argument
    add("target", help="a replica (replica-0), all on a device (cuda:0 or gpu:0), or all of this machine (host)")
    add("--why", default="an operator asked for it", help="a few words for status and events")
    add("--force", action="store_true", help="also the last replica that serves: the service ends")
    add("--no-wait", action="store_true", help="only write the wish down")
    add("--settings", default="", metavar="FILE", help="settings file (default: holdfast.toml)")


def run(args: argparse.Namespace) -> int:
    """Drain. 0: the processes are gone. 1: refused, or not done (yet). 2: the settings can't be used."""
    try:
        wisher = Wisher(load_settings(args.settings), "drain")
        site = wisher.processes()
        asked = wisher.wish(lambda now: wishes.drain(now, site, args.target, args.why, args.force))
    except (BadSettings, OSError) as error:
        print(f"holdfast drain: {error}", file=sys.stderr)
        return 2
    if isinstance(asked, Refused):
        print(f"holdfast drain: {asked.why}", file=sys.stderr)
        return 1
    print(asked.why)
    if not wisher.supervised:
        print("Nobody supervises this site: it will be done by the next `holdfast up`.")
        return 1
    return 0 if args.no_wait else _watch(wisher, asked.names)


def _watch(wisher: Wisher, names: tuple[str, ...]) -> int:
    """Tell of each process that is gone."""
    there = list(names)

    def seen(passed_s: float) -> bool:
        running = {one.name for one in wisher.processes() if one.pid}
        for name in [name for name in there if name not in running]:
            there.remove(name)
            print(f"{name} is drained and gone after {passed_s:.1f} s", flush=True)
        return not there

    patience_s = leave_s(wisher.settings) + SLACK_S
    if wisher.watch(seen, patience_s) is None:
        print(f"holdfast drain: {', '.join(there)} still there after {patience_s:.0f} s", file=sys.stderr)
        return 1
    return 0
