"""A replica with many long streams is drained: how soon is it empty, how soon gone, and what do its clients notice?

    python bench/drain.py [--engine scripted|embedded] [--streams 100] [--rounds 3]

Two replicas share the streams, so the drained one has half of them. Its emptiness is asked of the replica itself, over a line of
the bench's own. A pause is the longest silence in an answer that moved, begun or running after the wish was written; beside it
stands the usual gap between two events. Passed means: nothing broken, and empty within a second plus the longest re-reading,
which is at most the longest pause. The last line is one JSON object.
"""

import argparse
import asyncio
import itertools
import sys

import msgspec
import uvloop
from msgspec import Struct

from holdfast.app.wishing import Wisher
from holdfast.domain.fault import Fault
from holdfast.domain.ports import Line
from holdfast.domain.roster import Place
from holdfast.drill.arena import Arena, Plan
from holdfast.drill.client import Client, Question
from holdfast.drill.crowd import Crowd
from holdfast.drill.demo import peaceful
from holdfast.drill.questions import question
from holdfast.engine import embedded
from holdfast.host import proc
from holdfast.host.clock import MonotonicClock
from holdfast.policy import wishes
from holdfast.policy.reckoning import Answer, percentile, reckon
from holdfast.policy.wishes import Refused
from holdfast.store.settings_file import load_settings

PATIENCE_S = 120.0
CASES = 6
BAR_S = 1.0
POLL_S = 0.005
DIAL_S = 1.0  # by then the gateway has a line to a replica that has just come into the roster
UNDER_WAY = 5  # events that each stream has got before the drain begins


class Round(Struct, kw_only=True):
    """One drain. Seconds from the moment at which the wish was written."""

    streams: int
    empty_s: float
    gone_s: float
    moved: int
    pauses_s: list[float]
    usual_gap_s: float
    broken: int
    answers: int


class Outcome(Struct, kw_only=True):
    """All rounds; the worst where it says so."""

    engine: str
    rounds: int
    streams_drained: int
    empty_s_max: float
    gone_s_max: float
    pause_ms_p50: float
    pause_ms_p99: float
    usual_gap_ms: float
    moved: int
    answers: int
    broken: int


class Rig:
    """A site, its questions, and hands to drain it."""

    def __init__(self, args: argparse.Namespace, arena: Arena, clock: MonotonicClock) -> None:
        self.args, self.arena, self.clock = args, arena, clock
        self.client = Client("127.0.0.1", arena.port, clock, PATIENCE_S)
        self.asked: list[Question] = [
            question(n, arena.model, f"Count from {n} to 999.", max_tokens=args.tokens, ignore_eos=True)
            for n in range(CASES)
        ]
        self.wisher = Wisher(load_settings(str(arena.file)))

    def place(self, name: str) -> Place:
        return next(place for place in self.arena.roster().places if place.replica == name)

    async def settle(self, count: int) -> None:
        """Wait until so many replicas may serve."""
        until = self.clock.now() + PATIENCE_S
        while sum(1 for place in self.arena.roster().places if place.weight) != count:
            if self.clock.now() > until:
                sys.exit(f"{count} replicas were not in service after {PATIENCE_S:g} s")
            await self.clock.sleep(POLL_S)
        await self.clock.sleep(DIAL_S)

    def wish(self, drain: str) -> None:
        """Drain a replica; with an empty name all may run again."""
        site = self.wisher.processes()
        if drain:
            asked = self.wisher.wish(lambda now: wishes.drain(now, site, drain, "bench/drain.py"))
        else:
            asked = self.wisher.wish(lambda now: wishes.undrain(now, site, wishes.HOST))
        if isinstance(asked, Refused):
            sys.exit(asked.why)

    async def emptied(self, line: Line) -> float:
        """When the replica says that it has no answer left, or is gone."""
        while not line.gone:
            try:
                load = (await line.probe()).load
            except Fault:
                break
            if load.running + load.queued == 0:
                break
            await self.clock.sleep(POLL_S)
        return self.clock.now()

    async def gone(self, place: Place) -> float:
        ticks = proc.start_ticks(place.pid)
        while proc.start_ticks(place.pid) == ticks:
            await self.clock.sleep(POLL_S)
        return self.clock.now()


async def drain_once(rig: Rig, at_rest: dict[int, Answer], target: str) -> Round:
    """Fill the site, drain one replica, and let every answer end."""
    crowd = Crowd(rig.client, rig.clock, lambda stream, number: rig.asked[stream % CASES])
    running = asyncio.create_task(crowd.run(rig.args.streams, rig.clock.now() + 3600))
    while len(crowd.open) < rig.args.streams or min(len(one.arrivals) for _, one in crowd.open.values()) < UNDER_WAY:
        await rig.clock.sleep(POLL_S)
    crowd.closing = True
    place = rig.place(target)
    line = await embedded.dial(place.address, rig.clock, timeout_s=2.0, who="bench")
    load = (await line.probe()).load
    began = rig.clock.now()
    rig.wish(target)
    empty, gone = await asyncio.gather(rig.emptied(line), rig.gone(place))
    await line.close()
    await running
    total = reckon(crowd.answers, at_rest, [])
    moved = [answer for answer in crowd.answers if answer.moves]
    gaps = sorted(later - one for answer in crowd.answers for one, later in itertools.pairwise(answer.arrivals))
    return Round(
        streams=load.running + load.queued,
        empty_s=empty - began,
        gone_s=gone - began,
        moved=len(moved),
        pauses_s=sorted(longest_gap(answer, began, empty) for answer in moved),
        usual_gap_s=percentile(gaps, 0.5),
        broken=total.broken,
        answers=total.answers,
    )


def longest_gap(answer: Answer, began: float, empty: float) -> float:
    """The longest silence that overlaps the drain."""
    pairs = itertools.pairwise(answer.arrivals)
    return max((later - one for one, later in pairs if later >= began and one <= empty), default=0.0)


async def measure(args: argparse.Namespace) -> Outcome:
    """All rounds on one site; the replicas take turns."""
    clock = MonotonicClock()
    more = {"replica": {"slots": args.streams, "drain_s": 60.0, "token_ms": args.token_ms}}
    found: list[Round] = []
    arena = Arena(Plan(replicas=2, engine=args.engine, more=more), clock)
    async with arena:
        rig = Rig(args, arena, clock)
        at_rest = await peaceful(rig.client, rig.asked)
        for number in range(args.rounds):
            await rig.settle(2)
            one = await drain_once(rig, at_rest, f"replica-{number % 2}")
            found.append(one)
            print(
                f"round {number + 1}: {one.streams} streams, empty after {one.empty_s:.2f} s, gone after {one.gone_s:.2f} s, "
                f"{one.moved} moved, {one.broken} of {one.answers} broken",
                flush=True,
            )
            rig.wish("")
    if arena.survivors:
        sys.exit(f"left running and killed: {arena.survivors}")
    pauses = sorted(pause for one in found for pause in one.pauses_s) or [0.0]
    return Outcome(
        engine=args.engine,
        rounds=len(found),
        streams_drained=sum(one.streams for one in found),
        empty_s_max=round(max(one.empty_s for one in found), 3),
        gone_s_max=round(max(one.gone_s for one in found), 3),
        pause_ms_p50=round(1000 * percentile(pauses, 0.5), 1),
        pause_ms_p99=round(1000 * percentile(pauses, 0.99), 1),
        usual_gap_ms=round(1000 * max(one.usual_gap_s for one in found), 1),
        moved=sum(one.moved for one in found),
        answers=sum(one.answers for one in found),
        broken=sum(one.broken for one in found),
    )


def main() -> int:
    """Exit 1 when an answer broke, or a replica was not empty in time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("scripted", "embedded"), default="scripted")
    parser.add_argument("--streams", type=int, default=100, help="over both replicas")
    parser.add_argument("--tokens", type=int, default=400)
    parser.add_argument("--token-ms", type=float, default=20.0, help="scripted engine's pace")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(measure(args))
    print(
        f"{outcome.streams_drained} streams drained in {outcome.rounds} rounds ({outcome.engine}): empty after at most "
        f"{outcome.empty_s_max:g} s, gone after at most {outcome.gone_s_max:g} s; pause p50 {outcome.pause_ms_p50:g} ms, "
        f"p99 {outcome.pause_ms_p99:g} ms (usual gap {outcome.usual_gap_ms:g} ms); {outcome.broken} of {outcome.answers} broken"
    )
    print(msgspec.json.encode({"bench": "drain", **msgspec.structs.asdict(outcome)}).decode())
    in_time = outcome.empty_s_max < BAR_S + outcome.pause_ms_p99 / 1000
    return 0 if outcome.broken == 0 and outcome.moved > 0 and in_time else 1


if __name__ == "__main__":
    sys.exit(main())
