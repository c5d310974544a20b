"""A storm that ends: does the site come back by itself?

    python bench/storm.py [--runs 3] [--storm 60] [--after 30]

Three scripted replicas; three times their capacity for a minute; a third of the way in, one of them is killed (SIGKILL).
Then 0.8 of the capacity. The clients make it worse, as clients do: who is refused or fails tries again, up to three times, 0.1,
0.2, 0.4 s later and whatever Retry-After says, until two seconds are over. What must hold: of what is asked from ten seconds
after the storm on, 99 in 100 are answered in time. Told besides: after how many seconds that was so, and the goodput during
the storm. The last line is JSON.
"""

import argparse
import asyncio
import sys
from typing import Any

import msgspec
from contenders import Capacity, ours
from loads import Numbers, at, load, play
from rich.console import Console

from holdfast.policy.havoc import Blow

GOOD_SHARE_MIN, RECOVERED_S = 0.99, 10
DEADLINE_S = 2.0


async def storm(capacity: Capacity, seed: int, args: argparse.Namespace) -> Numbers:
    """One run."""
    high, low = round(3 * capacity.per_s, 2), round(0.8 * capacity.per_s, 2)
    async with ours(capacity) as rig:
        assert rig.arena is not None
        await load(rig.url, rate=capacity.per_s / 2, duration=2, output_tokens=capacity.tokens, model="pearl")

        async def kill() -> str:
            assert rig.arena is not None
            await asyncio.sleep(args.storm / 3)
            place = sorted(rig.arena.roster().places, key=lambda one: one.replica)[seed % capacity.replicas]
            return place.replica if rig.arena.strike(place, Blow.KILL) else ""

        report, victim = await asyncio.gather(
            load(
                rig.url,
                "--no-obey",
                rate=f"{high}:{args.storm},{low}:{args.after}",
                output_tokens=capacity.tokens,
                deadline=DEADLINE_S,
                retries=3,
                model="pearl",
                seed=seed,
            ),
            kill(),
        )
    return told(report, args, seed, victim)


def told(report: Numbers, args: argparse.Namespace, seed: int, victim: str) -> Numbers:
    """What the seconds say. Those of the calm begin with number `storm`."""
    seconds = report["by_second"]
    calm = seconds[int(args.storm) : int(args.storm + args.after)]
    return {
        "seed": seed,
        "killed": victim,
        "good_share_after": round(good_share(calm[RECOVERED_S:]), 4),
        "recovered_after_s": recovered_after_s(calm),
        "storm_goodput_s": round(sum(one["ended_good"] for one in seconds[5 : int(args.storm)]) / (args.storm - 5), 1),
        "attempts": report["counts"]["attempts"],
        "requests": report["counts"]["offered"],
        "reasons": report["refusals"],
        "refusal_ms_p99": round(at(report, "refusal"), 1),
        "lag_ms_p99": round(at(report, "lag"), 1),
    }


def good_share(seconds: list[Numbers]) -> float:
    """Of what was asked in these seconds."""
    offered = sum(one["offered"] for one in seconds)
    return sum(one["good"] for one in seconds) / offered if offered else 0.0


def recovered_after_s(calm: list[Numbers]) -> int:
    """The first second from which on the rest of the calm is good enough; its length, if there is none."""
    return next((place for place in range(len(calm)) if good_share(calm[place:]) >= GOOD_SHARE_MIN), len(calm))


async def run(args: argparse.Namespace) -> int:
    console, capacity = Console(width=130, markup=False), Capacity()
    rows: list[dict[str, Any]] = []
    for seed in range(1, args.runs + 1):
        rows.append(await storm(capacity, seed, args))
        console.print(", ".join(f"{name} {value}" for name, value in rows[-1].items()))
    missed = [
        f"run {row['seed']}: {row['good_share_after']:.1%} good from {RECOVERED_S} s after the storm on; "
        f"the bar is {GOOD_SHARE_MIN:.0%}"
        for row in rows
        if row["good_share_after"] < GOOD_SHARE_MIN or not row["killed"]
    ]
    for line in missed:
        console.print(f"misses: {line}")
    print(msgspec.json.encode({"bench": "storm", "runs": rows, "missed": missed}).decode())
    return 1 if missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--storm", type=float, default=60.0)
    parser.add_argument("--after", type=float, default=30.0)
    args = parser.parse_args()
    return play(run(args))


if __name__ == "__main__":
    sys.exit(main())
