"""The supervisor is killed under load, and later another one is started: does any client notice, does any process restart?

    python bench/supervisor.py

Streams run and new requests drizzle the whole time. Passed means: every answer exact, no new request failed, and the second
supervisor watches the very processes that the first one started. The last line is one JSON object.
"""

import argparse
import asyncio
import sys

import msgspec
import uvloop
from msgspec import Struct

from holdfast.drill.arena import Arena, Plan
from holdfast.drill.client import Client, Question
from holdfast.drill.crowd import Crowd, drizzle
from holdfast.drill.demo import peaceful
from holdfast.drill.questions import question
from holdfast.host.clock import MonotonicClock
from holdfast.policy.reckoning import reckon

PATIENCE_S = 60.0
CASES = 12
ADOPTED_WITHIN_S = 30.0


class Outcome(Struct, kw_only=True):
    """What was seen."""

    streams: int
    answers: int
    exact: int
    new_requests: int
    new_requests_failed: int
    moves: int
    headless_s: float
    adopted_after_s: float
    processes: int
    processes_kept: int


def pids(arena: Arena) -> dict[str, int]:
    """Every process of the site but the supervisor."""
    site = arena.site()
    return {process.name: process.pid for process in site.processes} if site is not None else {}


async def adopted(arena: Arena, clock: MonotonicClock) -> float:
    """Start a supervisor and wait until it has shown all its processes. Returns the seconds that took."""
    began = clock.now()
    await arena.start_supervisor()
    while clock.now() - began < ADOPTED_WITHIN_S:
        site = arena.site()
        if site is not None and site.supervisor_pid == arena.supervisor_pid and all(one.pid for one in site.processes):
            return clock.now() - began
        await clock.sleep(0.02)
    sys.exit(f"the second supervisor has not adopted everything within {ADOPTED_WITHIN_S:g} s")


async def measure(args: argparse.Namespace) -> Outcome:
    """One run: load, kill, a while without supervisor, start, a while with it."""
    clock = MonotonicClock()
    arena = Arena(Plan(engine="scripted", more={"replica": {"token_ms": 20.0}}), clock)
    async with arena:
        client = Client("127.0.0.1", arena.port, clock, PATIENCE_S)
        more = {"max_tokens": args.tokens, "ignore_eos": True}
        asked: list[Question] = [question(n, arena.model, f"Count from {n} to 99.", **more) for n in range(CASES)]
        at_rest = await peaceful(client, asked)
        before = pids(arena)
        seconds = 2 * args.headless_s + 2.0
        until = clock.now() + seconds
        crowd = Crowd(client, clock, lambda stream, number: asked[(stream + number) % CASES])
        async with asyncio.TaskGroup() as group:
            group.create_task(crowd.run(args.streams, until))
            drops = group.create_task(drizzle(client, clock, asked[0], args.background, int(args.background * seconds)))
            await clock.sleep(1.0)
            await arena.kill_supervisor()
            await clock.sleep(args.headless_s)
            took_s = await adopted(arena, clock)
        after = pids(arena)
    if arena.survivors:
        sys.exit(f"left running and killed: {arena.survivors}")
    total = reckon(crowd.answers, at_rest, [])
    return Outcome(
        streams=args.streams,
        answers=total.answers,
        exact=total.exact,
        new_requests=len(drops.result()),
        new_requests_failed=sum(not one.same_as(at_rest[0]) or one.end != "ended" for one in drops.result()),
        moves=crowd.moves,
        headless_s=args.headless_s,
        adopted_after_s=round(took_s, 3),
        processes=len(before),
        processes_kept=sum(after.get(name) == pid for name, pid in before.items()),
    )


def main() -> int:
    """Exit 1 when anything was noticed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=30)
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--background", type=float, default=10.0, help="new requests a second")
    parser.add_argument("--headless-s", type=float, default=4.0, help="how long nobody supervises")
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(measure(args))
    failed = outcome.answers - outcome.exact + outcome.new_requests_failed
    print(
        f"supervisor killed under {outcome.streams} streams: {outcome.answers} answers, {outcome.exact} exact; "
        f"{outcome.new_requests} new requests, {outcome.new_requests_failed} failed; "
        f"{outcome.processes_kept} of {outcome.processes} processes adopted with their pids after "
        f"{outcome.adopted_after_s:g} s"
    )
    print(msgspec.json.encode({"bench": "supervisor", **msgspec.structs.asdict(outcome)}).decode())
    return 0 if failed == 0 and outcome.processes_kept == outcome.processes else 1


if __name__ == "__main__":
    sys.exit(main())
