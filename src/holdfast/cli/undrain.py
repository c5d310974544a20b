"""holdfast undrain: let a replica run again that was drained, or that is in quarantine."""

import argparse
import sys

from holdfast.app.wishing import Wisher
from holdfast.domain.replica import ReplicaState
from holdfast.domain.settings import BadSettings
from holdfast.policy import wishes
from holdfast.policy.wishes import Refused
from holdfast.store.settings_file import load_settings

SETTLED_S = 3.0  # so long a quarantine of before may still be shown


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("undrain", help="let a drained or quarantined replica run again")
    parser.description = __doc__
    add = parser.add_argument
    add("target", help="a replica (replica-0), all on a device (cuda:0 or gpu:0), or all of this machine (host)")
    add("--no-wait", action="store_true", help="only write the wish down")
    add("--settings", default="", metavar="FILE", help="settings file (default: holdfast.toml)")


def run(args: argparse.Namespace) -> int:
    """Undrain. 0: it serves, or waits for an engine elsewhere. 1: refused, or it does not come up. 2: asked wrongly."""
    try:
        wisher = Wisher(load_settings(args.settings), "undrain")
        site = wisher.processes()
        asked = wisher.wish(lambda now: wishes.undrain(now, site, args.target))
    except (BadSettings, OSError) as error:
        print(f"holdfast undrain: {error}", file=sys.stderr)
        return 2
    if isinstance(asked, Refused):
        print(f"holdfast undrain: {asked.why}", file=sys.stderr)
        return 1
    print(asked.why)
    if not wisher.supervised:
        print("Nobody supervises this site: it will be done by the next `holdfast up`.")
        return 1
    return 0 if args.no_wait else _watch(wisher, [name for name in asked.names if wisher.process(name)])


def _watch(wisher: Wisher, waiting: list[str]) -> int:
    """Tell of each process that serves, or that will not."""
    failed: list[str] = []

    def seen(passed_s: float) -> bool:
        there = wisher.processes()
        for name in [name for name in waiting if passed_s > SETTLED_S and name not in {one.name for one in there}]:
            waiting.remove(name)
            print(f"{name} may run, and is not needed at present", flush=True)
        for one in there:
            if one.name in waiting and one.state in (ReplicaState.SERVING, ReplicaState.WARM):
                waiting.remove(one.name)
                does = "serves" if one.state is ReplicaState.SERVING else "stands by"
                print(f"{one.name} {does} after {passed_s:.1f} s", flush=True)
            elif one.name in waiting and one.away:
                waiting.remove(one.name)
                print(f"{one.name} runs, and {one.why}", flush=True)
            elif one.name in waiting and one.state is ReplicaState.QUARANTINED and passed_s > SETTLED_S:
                waiting.remove(one.name)
                failed.append(one.name)
                print(f"holdfast undrain: {one.why}", file=sys.stderr)
        return not waiting

    patience_s = wisher.settings.restart.start_s
    if wisher.watch(seen, patience_s) is None:
        print(f"holdfast undrain: {', '.join(waiting)} not in service after {patience_s:.0f} s", file=sys.stderr)
        return 1
    return 1 if failed else 0
