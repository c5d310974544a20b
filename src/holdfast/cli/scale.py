"""holdfast scale: how many replicas serve, by an operator's word, until `holdfast scale auto` takes it back.

More are started, or called from those that stand by; fewer leave by migration, without breaking an answer.
"""

import argparse
import sys

from holdfast.app.children import leave_s
from holdfast.app.wishing import Wisher
from holdfast.domain.replica import ReplicaState
from holdfast.domain.settings import BadSettings
from holdfast.domain.site import ProcessView, Role
from holdfast.policy import wishes
from holdfast.policy.wishes import Refused
from holdfast.store.settings_file import load_settings

AUTO = "auto"
SLACK_S = 10.0


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("scale", help="say how many replicas serve")
    parser.description = __doc__
    add = parser.add_argument
    add("count", help="how many replicas should serve, or `auto`: as the load asks, or the settings say")
    add("--force", action="store_true", help="also outside of [scaling] min and max, and 0")
    add("--no-wait", action="store_true", help="only write the wish down")
    add("--settings", default="", metavar="FILE", help="settings file (default: holdfast.toml)")


def run(args: argparse.Namespace) -> int:
    """Scale. 0: so many serve. 1: refused, or not done (yet). 2: asked wrongly, or the settings can't be used."""
    count = None if args.count == AUTO else int(args.count) if args.count.isdecimal() else -1
    if count == -1:
        print(f"holdfast scale: {args.count!r} is neither a whole number nor `auto`", file=sys.stderr)
        return 2
    try:
        wisher = Wisher(load_settings(args.settings), "scale")
        asked = wisher.wish(lambda now: wishes.scale(now, count, wisher.settings.scaling, args.force))
    except (BadSettings, OSError) as error:
        print(f"holdfast scale: {error}", file=sys.stderr)
        return 2
    if isinstance(asked, Refused):
        print(f"holdfast scale: {asked.why}", file=sys.stderr)
        return 1
    print(asked.why)
    if not wisher.supervised:
        print("Nobody supervises this site: it will be done by the next `holdfast up`.")
        return 1
    return 0 if args.no_wait or count is None else _watch(wisher, count)


def _watch(wisher: Wisher, count: int) -> int:
    """Tell of each replica that comes or goes, until so many serve and nobody else is on its way out."""
    states: dict[str, ReplicaState] = {one.name: one.state for one in _replicas(wisher)}
    out = {*wisher.wishes().drained, *wisher.wishes().condemned}
    warm = wisher.settings.scaling.warm

    def seen(passed_s: float) -> bool:
        there = _replicas(wisher)
        now = {one.name: one.state for one in there}
        for name in sorted({*now, *states}):
            after = now.get(name, ReplicaState.DOWN)
            if after is not states.get(name, ReplicaState.DOWN):
                print(f"{name} is {after} after {passed_s:.1f} s", flush=True)
        states.clear()
        states.update(now)
        serving = sum(1 for state in now.values() if state is ReplicaState.SERVING)
        leaving = any(state is ReplicaState.DRAINING for state in now.values())
        away = sum(one.away for one in there)
        missing = away + sum(one.name in out or one.state is ReplicaState.QUARANTINED for one in there if not one.away)
        # who is away may be one of those that leave: then it is still counted beside them
        return count - missing <= serving <= count and serving + away <= count + warm and not leaving

    patience_s = wisher.settings.restart.start_s + leave_s(wisher.settings) + SLACK_S
    if wisher.watch(seen, patience_s) is None:
        serving = sum(1 for state in states.values() if state is ReplicaState.SERVING)
        print(f"holdfast scale: {serving} replicas serve after {patience_s:.0f} s", file=sys.stderr)
        return 1
    for one in wisher.away():
        print(one)
    return 0


def _replicas(wisher: Wisher) -> list[ProcessView]:
    return [one for one in wisher.processes() if one.role is Role.REPLICA and not one.model]
