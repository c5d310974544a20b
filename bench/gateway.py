"""What does the gateway cost? Requests a second, tokens a second and added latency on one core, beside sglang-router.

    python bench/gateway.py [--rounds 3] [--seconds 3] [--only holdfast]

The gateway has one core to itself; load and engine share the other. Rounds alternate between the gateways, so that whatever
else the machine does falls on all of them; the table shows medians. A gateway that reads its engine's frames may put several
tokens into one event when it is behind; so besides streams as fast as they go, streams are read at a pace that all can keep,
one token an event, and the processor time of one event is told. The last line is JSON.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rigs import OTHER_CORE, Missing, cpu_s, holdfast, http_engine, router, rss_mb

KINDS = ("whole", "stream", "steady", "paced")
Row = dict[str, float]


@contextmanager
def direct() -> Iterator[tuple[int, int]]:
    """No gateway: the load on the HTTP engine itself. Its latency is what the others add to."""
    with http_engine() as port:
        yield port, os.getpid()


def measure(port: int, pid: int, kind: str, seconds: float) -> Row:
    """One run of the load generator, and the processor time that the gateway took for it."""
    argv = [sys.executable, str(Path(__file__).parent / "load.py"), f"--port={port}", f"--kind={kind}"]
    before = cpu_s(pid)
    with subprocess.Popen([*argv, f"--seconds={seconds}"], stdout=subprocess.PIPE) as child:
        os.sched_setaffinity(child.pid, {OTHER_CORE})
        out, _ = child.communicate(timeout=seconds * 3 + 60)
    row: Row = json.loads(out)
    row["cpu_s"] = cpu_s(pid) - before
    return row


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--only", choices=("holdfast", "sglang-router", "direct"))
    args = parser.parse_args()
    if len(os.sched_getaffinity(0)) < 2:
        print("this measurement needs two cores")
        return 2
    found: dict[str, dict[str, list[Row]]] = {}
    memory: dict[str, float] = {}
    with ExitStack() as stack:
        places = {}
        for name, rig in (("direct", direct), ("holdfast", holdfast), ("sglang-router", router)):
            if args.only in (None, name):
                try:
                    places[name] = stack.enter_context(rig())
                except Missing as why:
                    print(f"{name} is left out: {why}")
        for _ in range(args.rounds):
            for kind in KINDS:
                for name, (port, pid) in places.items():
                    row = measure(port, pid, kind, args.seconds)
                    found.setdefault(name, {}).setdefault(kind, []).append(row)
                    memory[name] = rss_mb(pid)
    show(found, memory)
    return 0


def median(rows: list[Row], key: str) -> float:
    return statistics.median(row[key] for row in rows)


def show(found: dict[str, dict[str, list[Row]]], memory: dict[str, float]) -> None:
    """The table, and the same numbers as one JSON line."""
    base = {key: median(found["direct"]["paced"], key) if "direct" in found else 0.0 for key in ("ms_p50", "ms_p99")}
    columns = [
        "gateway",
        "req/s",
        "CPU us/req",
        "tokens/s at full speed",
        "in events/s",
        "events/s, paced",
        "CPU us/event",
    ]
    columns += ["added ms at 200 req/s, p50 / p99", "RSS MB", "failed"]
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    told = {}
    for name, kinds in found.items():
        whole, stream, steady, paced = (kinds[kind] for kind in KINDS)
        per_event = statistics.median(row["cpu_s"] / max(1, row["events_ever"]) for row in steady)
        requests = median(whole, "answers_s")
        seconds = statistics.median(row["cpu_s"] / max(1, row["answers_ever"]) for row in whole)
        one = {
            "requests_s": round(requests),
            "cpu_us_per_request": round(seconds * 1e6, 1),
            "tokens_s": round(median(stream, "tokens_s")),
            "events_s": round(median(stream, "events_s")),
            "steady_events_s": round(median(steady, "events_s")),
            "cpu_us_per_event": round(per_event * 1e6, 1),
            "added_ms_p50": round(median(paced, "ms_p50") - base["ms_p50"], 3),
            "added_ms_p99": round(median(paced, "ms_p99") - base["ms_p99"], 3),
            "rss_mb": round(memory[name]),
            "failed": sum(row["failed"] for rows in kinds.values() for row in rows),
        }
        told[name] = one
        print(
            f"| {name} | {one['requests_s']:,} | {one['cpu_us_per_request']} | {one['tokens_s']:,} | {one['events_s']:,} | "
            f"{one['steady_events_s']:,} | {one['cpu_us_per_event']} | "
            f"{one['added_ms_p50']} / {one['added_ms_p99']} | {one['rss_mb']} | {one['failed']} |"
        )
    print(json.dumps({"bench": "gateway", "cores": os.cpu_count(), "gateways": told}))


if __name__ == "__main__":
    sys.exit(main())
