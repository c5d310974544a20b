"""holdfast upgrade: replace Holdfast's own processes by new ones, one after the other, while they serve.

Code and settings are read afresh: first the supervisor becomes a new one in the same process, then new gateway workers start and
the old ones leave once all new ones serve, then the control plane. With --all replicas follow, one at a time, drained first.
"""

import argparse
import sys

from holdfast.app.children import leave_s
from holdfast.app.wishing import Wisher
from holdfast.cli.up import settings_of
from holdfast.domain.settings import BadSettings
from holdfast.policy import wishes
from holdfast.policy.wishes import Refused

SLACK_S = 60.0


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("upgrade", help="replace Holdfast's own processes while they serve")
    parser.description = __doc__
    add = parser.add_argument
    add("settings", nargs="?", default="", metavar="FILE", help="settings file (default: holdfast.toml)")
    add("--all", action="store_true", help="replicas too")
    add("--force", action="store_true", help="with --all: also an only replica, which interrupts the service")
    add("--no-wait", action="store_true", help="only write the wish down")


def run(args: argparse.Namespace) -> int:
    """Upgrade. 0: nothing older runs. 1: refused, or not done (yet). 2: the settings can't be used."""
    try:
        wisher = Wisher(settings_of(args.settings), "upgrade")
        if not wisher.supervised:
            print("holdfast upgrade: nobody supervises this site. Start it: holdfast up", file=sys.stderr)
            return 1
        site = wisher.processes()
        asked = wisher.wish(lambda now: wishes.upgrade(now, site, args.all, args.force))
    except (BadSettings, OSError) as error:
        print(f"holdfast upgrade: {error}", file=sys.stderr)
        return 2
    if isinstance(asked, Refused):
        print(f"holdfast upgrade: {asked.why}", file=sys.stderr)
        return 1
    print(asked.why)
    return 0 if args.no_wait else _watch(wisher, asked.wishes.epoch)


def _watch(wisher: Wisher, epoch: int) -> int:
    replica, gateway, start_s = wisher.settings.replica, wisher.settings.gateway, wisher.settings.restart.start_s
    patience_s = gateway.workers * gateway.drain_s + replica.count * (leave_s(wisher.settings) + start_s) + SLACK_S

    def seen(passed_s: float) -> bool:
        now = wisher.wishes()
        return now.finished_epoch >= epoch or now.epoch < epoch

    took_s = wisher.watch(seen, patience_s)
    now = wisher.wishes()
    if took_s is None or (now.epoch < epoch and now.refused):
        why = now.refused or f"not complete after {patience_s:.0f} s; holdfast status tells what is still there"
        print("\n".join((f"holdfast upgrade: {why}", *wisher.away())), file=sys.stderr)
        return 1
    print(f"Upgrade {epoch} is complete after {took_s:.1f} s: nothing older runs.")
    for one in wisher.away():
        print(one)
    return 0
