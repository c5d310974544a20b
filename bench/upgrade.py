"""Holdfast is upgraded again and again under load: does any client find the door shut, or its answer cut off?

    python bench/upgrade.py [--upgrades 20] [--workers 2] [--streams 20]

Plain clients, without holdfast.client: streams that are always open, and a drizzle of new requests, a new connection each. Each
round is one `holdfast upgrade`, the command itself: the supervisor renews itself in its process, workers and control plane are
replaced. Passed means: nothing refused, truncated or wrong, every worker of every round another process, and one supervisor pid
from first to last. The last line is one JSON object.
"""

import argparse
import asyncio
import sys

import msgspec
import uvloop
from msgspec import Struct

from holdfast.drill.arena import Arena, Plan
from holdfast.drill.client import Client, Question
from holdfast.drill.crowd import Crowd, Drizzle
from holdfast.drill.demo import peaceful
from holdfast.drill.questions import question
from holdfast.host.clock import MonotonicClock
from holdfast.policy.reckoning import Answer, percentile, reckon
from holdfast.store.events import recent

PATIENCE_S = 60.0
CASES = 8
EVENTS_MAX = 100_000


class Outcome(Struct, kw_only=True):
    """What was seen. `workers_seen` counts the processes that were a gateway worker at an upgrade's end, `deaths` what ended
    without having been told to."""

    upgrades: int
    upgrades_failed: int
    upgrade_s_p50: float
    upgrade_s_max: float
    answers: int
    exact: int
    refused: int
    truncated: int
    other: int
    workers_seen: int
    workers_due: int
    deaths: int
    supervisor_kept: bool
    replicas_kept: bool


async def upgrade(arena: Arena, clock: MonotonicClock) -> tuple[bool, float]:
    """Run the command to its end. Returns whether it succeeded, and how long it took."""
    began = clock.now()
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "holdfast", "upgrade", str(arena.file)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await command.communicate()
    if command.returncode:
        print(said.decode(), file=sys.stderr)
    return command.returncode == 0, clock.now() - began


def pids(arena: Arena, role: str) -> dict[str, int]:
    site = arena.site()
    rows = site.processes if site is not None else ()
    return {row.name: row.pid for row in rows if row.role == role and row.pid}


async def measure(args: argparse.Namespace) -> Outcome:
    """One run: load from before the first upgrade until after the last."""
    clock = MonotonicClock()
    more = {"replica": {"token_ms": 10.0}, "gateway": {"workers": args.workers, "drain_s": 30.0}}
    arena = Arena(Plan(replicas=2, engine="scripted", more=more), clock)
    took: list[float] = []
    failed, workers = 0, set()
    async with arena:
        client = Client("127.0.0.1", arena.port, clock, PATIENCE_S)
        extra = {"max_tokens": args.tokens, "ignore_eos": True}
        asked: list[Question] = [question(n, arena.model, f"Count from {n} to 99.", **extra) for n in range(CASES)]
        at_rest = await peaceful(client, asked)
        supervisor, replicas = arena.supervisor_pid, pids(arena, "replica")
        workers |= set(pids(arena, "gateway").values())
        crowd = Crowd(client, clock, lambda stream, number: asked[(stream + number) % CASES])
        drizzle = Drizzle(client, clock, asked[0], args.background)
        async with asyncio.TaskGroup() as group:
            group.create_task(crowd.run(args.streams, clock.now() + 3600))
            group.create_task(drizzle.run())
            await clock.sleep(1.0)
            for number in range(args.upgrades):
                done, took_s = await upgrade(arena, clock)
                failed += not done
                took.append(took_s)
                workers |= set(pids(arena, "gateway").values())
                print(f"upgrade {number + 1}: {took_s:.1f} s, workers {pids(arena, 'gateway')}", flush=True)
            await clock.sleep(1.0)
            crowd.closing = drizzle.closing = True
        kept = arena.supervisor_pid == supervisor, pids(arena, "replica") == replicas
        died = [one for one in recent(arena.folder.events, EVENTS_MAX) if one["event"] == "process_died"]
    if arena.survivors:
        sys.exit(f"left running and killed: {arena.survivors}")
    answers: list[Answer] = [*crowd.answers, *drizzle.answers]
    total = reckon(answers, at_rest, [])
    for why in (*total.whys[:10], *(one["why"] for one in died)):
        print(why, file=sys.stderr)
    took.sort()
    return Outcome(
        upgrades=args.upgrades,
        upgrades_failed=failed,
        upgrade_s_p50=round(percentile(took, 0.5), 2),
        upgrade_s_max=round(took[-1], 2),
        answers=total.answers,
        exact=total.exact,
        refused=total.refused,
        truncated=total.truncated,
        other=total.broken - total.refused - total.truncated,
        workers_seen=len(workers),
        workers_due=args.workers * (args.upgrades + 1),
        deaths=len(died),
        supervisor_kept=kept[0],
        replicas_kept=kept[1],
    )


def main() -> int:
    """Exit 1 when anything was noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upgrades", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--streams", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--background", type=float, default=20.0, help="new requests a second")
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(measure(args))
    print(
        f"{outcome.upgrades} upgrades under {args.streams} streams and {args.background:g} new requests a second: "
        f"{outcome.answers} answers, {outcome.exact} exact, {outcome.refused} refused, {outcome.truncated} truncated, "
        f"{outcome.other} otherwise broken; {outcome.workers_seen} worker processes, {outcome.deaths} died, "
        f"the supervisor's pid {'is the same' if outcome.supervisor_kept else 'has changed'}; "
        f"an upgrade took {outcome.upgrade_s_p50:g} s (median), {outcome.upgrade_s_max:g} s at most"
    )
    print(msgspec.json.encode({"bench": "upgrade", **msgspec.structs.asdict(outcome)}).decode())
    whole = outcome.answers == outcome.exact and outcome.upgrades_failed == 0
    anew = outcome.workers_seen == outcome.workers_due and outcome.supervisor_kept and outcome.replicas_kept
    return 0 if whole and anew else 1


if __name__ == "__main__":
    sys.exit(main())
