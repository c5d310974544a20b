"""holdfast sim: whole sites full of faults in virtual time, one a seed. A seed that breaks an invariant prints its replay."""

import argparse
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import msgspec

from holdfast.drill.planted import PLANTS
from holdfast.drill.simulation import HOUR, HOUR_S, SHORT, Report, play
from holdfast.drill.simulation_plant import Mixed, Plant
from holdfast.host.clock import MonotonicClock


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("sim", help="play seeded sites in virtual time", description=__doc__)
    parser.add_argument(
        "--seeds", default="0..99", metavar="A..B", help="the seeds to play, both ends included; or one"
    )
    parser.add_argument("--hours", type=int, default=0, metavar="H", help="play so many simulated hours, one a seed")
    parser.add_argument("--hour", action="store_true", help="each of --seeds is an hour, as those of --hours are")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that share the seeds")
    parser.add_argument("--log", action="store_true", help="print what went wrong in the world, in its order")
    parser.add_argument("--plant", default="", metavar="NAME", help=f"plant a bug first: {', '.join(PLANTS)}")
    parser.add_argument("--mixed", action="store_true", help="sites with engines of two kinds on the same weights")
    parser.add_argument("--raw", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """Play. 0: every invariant held. 1: one did not. 2: the words make no sense."""
    try:
        first, last = _range(args.seeds)
    except ValueError:
        print(f"holdfast sim: --seeds {args.seeds}: write A..B, both numbers, or one number", file=sys.stderr)
        return 2
    if args.plant and args.plant not in PLANTS:
        print(f"holdfast sim: --plant {args.plant}: there are {', '.join(PLANTS)}", file=sys.stderr)
        return 2
    hour = args.hour or args.hours > 0
    if args.hours:
        last = first + args.hours - 1
    if args.raw:
        for seed in range(first, last + 1):
            plant = PLANTS[args.plant]() if args.plant else Mixed() if args.mixed else Plant()
            print(msgspec.json.encode(play(seed, HOUR if hour else SHORT, plant)).decode(), flush=True)
        return 0
    words = [*(["--hour"] if hour else []), *(["--mixed"] if args.mixed else [])]
    words += ["--plant", args.plant] if args.plant else []
    clock = MonotonicClock()
    began, total, broken = clock.now(), Counter[str](), 0
    for report in _reports((first, last), max(1, args.jobs), words):
        total.update(seeds=1, simulated_s=int(report.simulated_s), answers=report.answers, tokens=report.tokens)
        total.update(moves=report.moves, resumed=report.resumed)
        total.update({f"fault {kind}": count for kind, count in report.faults.items()})
        total.update({f"ended {kind}": count for kind, count in report.refusals.items()})
        if args.log:
            print("\n".join(report.log))
        if report.violation:
            broken += 1
            print(f"seed {report.seed}: {report.violation}")
            print(f"  replay: holdfast sim --seeds {report.seed} {' '.join([*words, '--log'])}", flush=True)
        elif total["seeds"] % 100 == 0:
            print(f"{total['seeds']} of {last - first + 1} seeds, {clock.now() - began:.0f} s", flush=True)
    _sum_up(total, clock.now() - began, broken)
    return 1 if broken else 0


def _range(words: str) -> tuple[int, int]:
    first, dots, last = words.partition("..")
    return int(first), int(last) if dots else int(first)


def _reports(seeds: tuple[int, int], jobs: int, more: list[str]) -> Iterator[Report]:
    """Reports as they come. Each job is a process of its own with hashes that do not vary: else no story could be replayed."""
    first, last = seeds
    bounds = [first + (last + 1 - first) * n // jobs for n in range(jobs + 1)]
    words = [sys.executable, "-P", "-m", "holdfast", "sim", "--raw", *more]
    children = [
        subprocess.Popen(
            [*words, "--seeds", f"{a}..{b - 1}"],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONHASHSEED": "0"},
            text=True,
        )
        for a, b in pairwise(bounds)
        if a < b
    ]
    try:
        left = list(children)
        while left:
            for child in list(left):
                line = child.stdout.readline() if child.stdout is not None else ""
                if line:
                    yield msgspec.json.decode(line, type=Report)
                else:
                    left.remove(child)
        failed = [child.args for child in children if child.wait() != 0]
        if failed:
            raise OSError(f"a job of the simulator ended badly: {failed[0]!r}")
    finally:
        for child in children:
            child.kill()
            child.wait()


def _sum_up(total: Counter[str], wall_s: float, broken: int) -> None:
    """The last lines of the log."""
    hours = total["simulated_s"] / HOUR_S
    faults = {name[6:]: count for name, count in sorted(total.items()) if name.startswith("fault ")}
    ended = {name[6:]: count for name, count in sorted(total.items()) if name.startswith("ended ")}
    print(f"{total['seeds']} seeds, {hours:.1f} simulated hours in {wall_s:.0f} s")
    print(f"{total['answers']} answers, {total['tokens']} tokens, {total['moves']} moves, {total['resumed']} resumed")
    print(f"{sum(faults.values())} faults: " + ", ".join(f"{name} {count}" for name, count in faults.items()))
    print("answers that ended with a typed fault: " + (", ".join(f"{n} {c}" for n, c in ended.items()) or "none"))
    print(f"{broken} violations")
