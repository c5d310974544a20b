"""A serving replica is killed under full load: when is its capacity back, with a warm standby and without one?

    python bench/standby.py [--engine embedded|scripted] [--slots 8] [--rounds 5] [--cold-rounds 2]

Two replicas serve, all their slots taken and more streams waiting. One is ended by SIGKILL. Counted from that moment:

    listed   as many replicas have weight in the roster as before
    works    the replica that took its place runs an answer
    full     all slots of the site are running answers again

What runs is asked of the replicas themselves, over lines of the bench's own. Cold is the same site without a standby: the lost
replica's process has to be started and its model loaded. Every answer is compared with what it is at rest. Passed means: warm,
all of it within a second each time, and not one answer wrong. The last line is one JSON object.
"""

import argparse
import asyncio
import sys

import msgspec
import uvloop
from msgspec import Struct

from holdfast.domain.fault import Fault
from holdfast.domain.ports import Line
from holdfast.domain.replica import Load
from holdfast.domain.roster import Place
from holdfast.drill.arena import Arena, Plan
from holdfast.drill.client import Client
from holdfast.drill.crowd import Crowd
from holdfast.drill.demo import peaceful
from holdfast.drill.questions import question
from holdfast.engine import embedded
from holdfast.host.clock import MonotonicClock
from holdfast.policy.havoc import Blow
from holdfast.policy.reckoning import Answer, reckon

SERVE = 2
CASES = 6
POLL_S = 0.005
PATIENCE_S = 120.0
SETTLE_S = 1.0  # full for so long before the blow
BAR_S = 1.0


class Round(Struct, kw_only=True):
    """One blow. Seconds from the kill."""

    warm: bool
    took_over: str
    listed_s: float
    works_s: float
    full_s: float
    answers: int
    exact: int
    broken: int
    refused: int
    moves: int


class Outcome(Struct, kw_only=True):
    """The worst of each."""

    engine: str
    slots: int
    streams: int
    warm_listed_s_max: float
    warm_works_s_max: float
    warm_full_s_max: float
    cold_listed_s_min: float
    cold_full_s_min: float
    answers: int
    exact: int
    broken: int
    rounds: list[Round]


class Ears:
    """Lines of the bench's own to every replica that the roster names."""

    def __init__(self, arena: Arena, clock: MonotonicClock) -> None:
        self._arena, self._clock = arena, clock
        self._lines: dict[str, Line] = {}

    def places(self) -> list[Place]:
        """Those that may take traffic."""
        return [place for place in self._arena.roster().places if place.weight > 0]

    async def running(self, slots: int) -> dict[str, int]:
        """By boot: how many answers each runs, as far as it answers."""
        found: dict[str, int] = {}
        for place in self._arena.roster().places:
            load = await self._load(place)
            found[place.boot] = min(load.running, slots) if load is not None else 0
        return found

    async def _load(self, place: Place) -> Load | None:
        try:
            if place.boot not in self._lines:
                self._lines[place.boot] = await embedded.dial(place.address, self._clock, timeout_s=1.0, who="bench")
            return (await self._lines[place.boot].probe()).load
        except (Fault, OSError):
            return None

    async def close(self) -> None:
        for line in self._lines.values():
            await line.close()
        self._lines.clear()


class Rig:
    """One site and its crowd."""

    def __init__(self, args: argparse.Namespace, arena: Arena, clock: MonotonicClock) -> None:
        self.args, self.arena, self.clock = args, arena, clock
        self.client = Client("127.0.0.1", arena.port, clock, PATIENCE_S)
        self.asked = [
            question(n, arena.model, f"Count from {n} to 99.", max_tokens=args.tokens, ignore_eos=True)
            for n in range(CASES)
        ]

    async def wait(self, what: str, ears: Ears, full: bool) -> None:
        """Until as many replicas as are wanted serve (and, if so asked, run answers in all their slots)."""
        until = self.clock.now() + PATIENCE_S
        while True:
            places = ears.places()
            running = await ears.running(self.args.slots)
            busy = sum(running.get(place.boot, 0) for place in places)
            if len(places) == SERVE and (not full or busy >= SERVE * self.args.slots):
                return
            if self.clock.now() > until:
                sys.exit(f"{what}: {len(places)} replicas serve and run {busy} answers after {PATIENCE_S:g} s")
            await self.clock.sleep(POLL_S)

    async def blow(self, warm: bool, at_rest: dict[int, Answer]) -> Round:
        """Fill the site, kill one replica, wait until the site is full again, and let every answer end."""
        clock, slots = self.clock, self.args.slots
        ears = Ears(self.arena, clock)
        crowd = Crowd(self.client, clock, lambda stream, number: self.asked[(stream + number) % CASES])
        running = asyncio.create_task(crowd.run(self.args.streams, float("inf")))
        await self.wait("before the blow", ears, full=True)
        await clock.sleep(SETTLE_S)
        await self.wait("before the blow", ears, full=True)
        victim = ears.places()[0]
        before = {place.boot for place in ears.places()}
        began = clock.now()
        if not self.arena.strike(victim, Blow.KILL):
            sys.exit(f"{victim.replica} could not be killed")
        at = {"listed": 0.0, "works": 0.0, "full": 0.0}
        heir = ""
        while not at["full"]:
            places = ears.places()
            fresh = [place for place in places if place.boot not in before]
            if len(places) == SERVE and fresh and not at["listed"]:
                at["listed"], heir = clock.now() - began, fresh[0].replica
            runs = await ears.running(slots)
            if fresh and runs.get(fresh[0].boot, 0) and not at["works"]:
                at["works"] = clock.now() - began
            if at["works"] and sum(runs.get(place.boot, 0) for place in places) >= SERVE * slots:
                at["full"] = clock.now() - began
            if clock.now() - began > PATIENCE_S:
                sys.exit(f"the site was not full again after {PATIENCE_S:g} s: {at}, {runs}")
            await clock.sleep(POLL_S)
        crowd.closing = True
        await running
        await ears.close()
        total = reckon(crowd.answers, at_rest, [])
        return Round(
            warm=warm,
            took_over=heir,
            listed_s=round(at["listed"], 3),
            works_s=round(at["works"], 3),
            full_s=round(at["full"], 3),
            answers=total.answers,
            exact=total.exact,
            broken=total.broken,
            refused=sum(1 for answer in crowd.answers if answer.end == "refused"),
            moves=crowd.moves,
        )


async def play(args: argparse.Namespace, warm: int, rounds: int) -> list[Round]:
    """So many blows against one site."""
    clock = MonotonicClock()
    more: dict[str, dict[str, str | int | float]] = {
        "replica": {"slots": args.slots, "token_ms": args.token_ms},
        "scaling": {"warm": warm},
        "request": {"deadline_s": PATIENCE_S},
        "admission": {"first_token_s": PATIENCE_S},  # whoever waits here is to wait, not to be refused
    }
    found = []
    arena = Arena(Plan(replicas=SERVE, engine=args.engine, more=more), clock)
    async with arena:
        rig = Rig(args, arena, clock)
        at_rest = await peaceful(rig.client, rig.asked)
        for _ in range(rounds):
            while len(arena.roster().places) < SERVE + warm:  # the one that was lost stands by again
                await clock.sleep(POLL_S)
            one = await rig.blow(bool(warm), at_rest)
            found.append(one)
            kind = "warm" if warm else "cold"
            print(
                f"{kind}: {one.took_over} listed after {one.listed_s:.3f} s, works after {one.works_s:.3f} s, site full after "
                f"{one.full_s:.3f} s; {one.moves} moves, {one.exact} of {one.answers} exact, {one.refused} refused",
                flush=True,
            )
    if arena.survivors:
        sys.exit(f"left running and killed: {arena.survivors}")
    return found


async def measure(args: argparse.Namespace) -> Outcome:
    """Warm, then cold."""
    warm = await play(args, 1, args.rounds)
    cold = await play(args, 0, args.cold_rounds)
    return Outcome(
        engine=args.engine,
        slots=args.slots,
        streams=args.streams,
        warm_listed_s_max=max(one.listed_s for one in warm),
        warm_works_s_max=max(one.works_s for one in warm),
        warm_full_s_max=max(one.full_s for one in warm),
        cold_listed_s_min=min((one.listed_s for one in cold), default=0.0),
        cold_full_s_min=min((one.full_s for one in cold), default=0.0),
        answers=sum(one.answers for one in warm + cold),
        exact=sum(one.exact for one in warm + cold),
        broken=sum(one.broken for one in warm + cold),
        rounds=warm + cold,
    )


def main() -> int:
    """Exit 1 when the capacity was not back in time, or an answer was not what it is at rest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=("scripted", "embedded"), default="embedded")
    parser.add_argument("--slots", type=int, default=8, help="of one replica")
    parser.add_argument("--streams", type=int, default=0, help="0: four more than there are slots")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--token-ms", type=float, default=20.0, help="scripted engine's pace")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cold-rounds", type=int, default=2)
    args = parser.parse_args()
    args.streams = args.streams or SERVE * args.slots + 4
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seen = runner.run(measure(args))
    print(
        f"{args.engine}, {SERVE} x {args.slots} slots, {args.streams} streams: listed after at most "
        f"{seen.warm_listed_s_max:g} s, works after {seen.warm_works_s_max:g} s, full after {seen.warm_full_s_max:g} s; "
        f"cold at best {seen.cold_listed_s_min:g} s and {seen.cold_full_s_min:g} s; {seen.exact} of {seen.answers} exact"
    )
    print(msgspec.json.encode({"bench": "standby", **msgspec.structs.asdict(seen)}).decode())
    return 0 if seen.warm_full_s_max < BAR_S and seen.exact == seen.answers else 1


if __name__ == "__main__":
    sys.exit(main())
