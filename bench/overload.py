"""Too much load: what is left of a site that can do 64 answers a second, when it is asked for 64, 128, 320, 640?

    python bench/overload.py                                   ours, sglang-router and HAProxy, with and without a limit
    python bench/overload.py --only holdfast --seconds 10

Engines of a fixed capacity (three of 8 slots; an answer takes 25 steps of 15 ms), streams in an open loop, a deadline of two
seconds: a client hangs up then, and only answers that were complete count. Goodput is counted by when answers ended, while
requests came and without the first tenth, so that neither the filling nor the emptying of queues is counted; its share is of
the contender's own best. Refusals are timed from when their request was due. Ours is told the deadline in a header; the others
have no use for it. Memory is the gateway's own, at the end of a level. The last line is JSON.
"""

import argparse
import asyncio
import os
import sys
from typing import Any

import msgspec
from contenders import PEER_NAMES, Capacity, Rig, contender
from loads import at, load, play
from rich.console import Console
from rich.table import Table
from rigs import Missing, cpu_s, rss_mb

DEADLINE_S = 2.0
REST_S = 3.0  # between two levels, for the queues to empty
GOODPUT_SHARE_MIN, REFUSAL_MS_MAX = 0.97, 10.0
Row = dict[str, Any]


async def level(rig: Rig, capacity: Capacity, times: float, args: argparse.Namespace) -> Row:
    """One contender at one multiple of the capacity."""
    before = [cpu_s(pid) for pid in rig.pids]
    report = await load(
        rig.url,
        rate=round(capacity.per_s * times, 2),
        duration=args.seconds,
        arrival=args.arrival,
        output_tokens=capacity.tokens,
        prompt_tokens=args.prompt_tokens,
        deadline=DEADLINE_S,
        model="pearl",
        seed=args.seed,
        **({"no_stream": True} if args.whole else {}),
    )
    counts = report["counts"]
    return {
        "times": times,
        "offered": counts["offered"],
        "goodput_s": round(report["steady_goodput_s"], 2),
        "good": counts["good"],
        "refused": counts["refused"],
        "late_or_lost": counts["late"] + counts["errored"] + counts["gave_up"],
        "refusal_ms_p50": round(at(report, "refusal", "p50"), 2),
        "refusal_ms_p99": round(at(report, "refusal"), 2),
        "ttft_ms_p99": round(at(report, "ttft"), 1),
        "reasons": report["refusals"],
        "rss_mb": round(sum(rss_mb(pid) for pid in rig.pids), 1),
        "cpu_s": round(sum(cpu_s(pid) for pid in rig.pids) - sum(before), 2),
        "lag_ms_p99": round(at(report, "lag"), 2),
    }


async def measure(name: str, capacity: Capacity, args: argparse.Namespace) -> list[Row]:
    """All levels of one contender. Raises Missing."""
    rows = []
    async with contender(name, capacity) as rig:
        await load(rig.url, rate=capacity.per_s / 2, duration=2, output_tokens=capacity.tokens, model="pearl")
        for times in args.levels:
            rows.append(await level(rig, capacity, times, args))
            await asyncio.sleep(REST_S)
    best = max(row["goodput_s"] for row in rows)
    for row in rows:
        row["share"] = round(row["goodput_s"] / best, 3) if best else 0.0
    return rows


def show(name: str, rows: list[Row], console: Console) -> None:
    """One contender's table."""
    table = Table(title=name, title_justify="left")
    columns = ["offered", "goodput/s", "of its best", "good", "refused", "late or lost", "refusal ms p50 / p99"]
    for column in [*columns, "first token ms p99", "RSS MB", "CPU s"]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            f"{row['times']:g}x = {row['offered']}",
            f"{row['goodput_s']:.1f}",
            f"{row['share']:.2f}",
            str(row["good"]),
            str(row["refused"]),
            str(row["late_or_lost"]),
            f"{row['refusal_ms_p50']:.1f} / {row['refusal_ms_p99']:.1f}" if row["refused"] else "-",
            f"{row['ttft_ms_p99']:.0f}",
            f"{row['rss_mb']:.0f}",
            f"{row['cpu_s']:.1f}",
        )
    console.print(table)
    console.print("  " + "; ".join(f"{row['times']:g}x: {row['reasons']}" for row in rows if row["reasons"]))


def verdicts(rows: list[Row]) -> list[str]:
    """What misses the bars, in words."""
    missed = [
        f"{row['times']:g}x: goodput is {row['share']:.1%} of its best, the bar is {GOODPUT_SHARE_MIN:.0%}"
        for row in rows
        if row["share"] < GOODPUT_SHARE_MIN
    ]
    return missed + [
        f"{row['times']:g}x: refusals take {row['refusal_ms_p99']:.1f} ms (p99), the bar is {REFUSAL_MS_MAX:g} ms"
        for row in rows
        if row["refused"] and row["refusal_ms_p99"] >= REFUSAL_MS_MAX
    ]


async def run(args: argparse.Namespace) -> int:
    console, capacity = Console(width=130, markup=False), Capacity()
    found: dict[str, list[Row]] = {}
    for name in [args.only] if args.only else ["holdfast", *PEER_NAMES]:
        try:
            found[name] = await measure(name, capacity, args)
        except Missing as why:
            console.print(f"{name} is left out: {why}")
            continue
        show(name, found[name], console)
    missed = verdicts(found.get("holdfast", []))
    for line in missed:
        console.print(f"misses: {line}")
    told = {"bench": "overload", "cores": os.cpu_count(), "arrival": args.arrival, "seconds": args.seconds}
    print(msgspec.json.encode({**told, "missed": missed, "contenders": found}).decode())
    return 1 if missed else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--arrival", choices=("poisson", "constant"), default="poisson")
    parser.add_argument("--levels", type=float, nargs="+", default=[1.0, 2.0, 5.0, 10.0])
    parser.add_argument("--prompt-tokens", default="32")
    parser.add_argument("--whole", action="store_true", help="answers in one piece instead of streams")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("holdfast", *PEER_NAMES))
    args = parser.parse_args()
    return play(run(args))


if __name__ == "__main__":
    sys.exit(main())
