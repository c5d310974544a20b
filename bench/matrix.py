"""The matrix: every kind of fault, many times each, under continuous load; every stream is checked token for token.

One site of scripted replicas with levers (holdfast.sim.levers), so what each stream must say is known before it is asked. The
load never stops within a kind: as many streams as asked for, each asking anew when its answer has ended, and a drizzle of short
requests beside them. After each blow the site is given the time to settle: all replicas listed, and each at work again.
"""

import argparse
import asyncio
import sys
import time
from typing import Any

from msgspec import Struct, field
from rich.console import Console
from rich.table import Table

from holdfast.domain.replica import ReplicaState
from holdfast.domain.roster import Place
from holdfast.drill.arena import Arena, Plan, Sections
from holdfast.drill.client import Client, Question
from holdfast.drill.crowd import Crowd, Drizzle
from holdfast.host.clock import MonotonicClock
from holdfast.policy.havoc import Blow, Strike
from holdfast.policy.reckoning import Answer, percentile, reckon, silence_s_max
from holdfast.sim.levers import Pull

PATIENCE_S = 90.0
CASES = 400
DRIZZLE_CASE, DRIZZLE_TOKENS, DRIZZLE_PER_S = 100_000, 4, 10.0
LOOK_S = 0.02
Window = tuple[float, float]  # from a blow until the site has settled
IDLE_S = 2.6  # after two seconds without work a gateway looks less often: the blow falls into that
DWELL_S = 0.6  # from settled to the next blow
SETTLE_S_MAX = 60.0
FLOWS_S = 0.5  # a stream flows when its last token is no older
# A slow replica is known by the pace of twenty steps without a prompt in them, within half of slow_s: at 100 ms a step, and with
# new requests all the time, that takes four seconds.
PONG_S, SLOW_S = 0.05, 8.0
# by these events a site says of a replica: this one is not well. A fault is found when the first of them names the victim.
NOTICED = {
    *("replica_suspected", "replica_lost", "replica_ailing", "replica_drained", "breaker_opened", "answer_moved"),
    *("process_died", "process_quarantined"),
}
OUT = NOTICED - {"answer_moved"}  # those that keep a replica from work: for one that nobody hurt, a false ejection
KINDS: dict[str, tuple[Blow, bool, float]] = {  # the blow, whether the site is idle, how long it may remain unnoticed
    "SIGKILL": (Blow.KILL, False, 10.0),
    "SIGSTOP": (Blow.FREEZE, False, 10.0),
    "SIGSTOP-idle": (Blow.FREEZE, True, 10.0),
    "memory": (Blow.MEMORY, False, 10.0),
    "reset": (Blow.RESET, False, 10.0),
    "half-open": (Blow.HALF_OPEN, False, 10.0),
    "error": (Blow.ERROR, False, 10.0),
    "garbage": (Blow.GARBAGE, False, 10.0),
    "slow": (Blow.SLOW, False, 30.0),
    "wrong": (Blow.WRONG, False, 30.0),
    "lie": (Blow.LIE, False, 20.0),
}


class Row(Struct, kw_only=True):
    """One kind's line. Milliseconds and seconds as named; -1 where there was nothing to measure.

    `missed` faults were never noticed and had to be healed by the drill; `not_back` ones were, but the replica did not return
    to work by itself; `ended` processes were killed for a fault that had passed. `wrong` answers ended well and say something
    else; they are broken too, except where wrong tokens are the fault itself. `pause` is the longest silence of an answer that
    moved, the wait for its first token included; `gap_ms_max` that of any answer. `false_moves` are those of answers that were
    open while nobody was hurt.
    """

    kind: str
    faults: int = 0
    missed: int = 0
    not_back: int = 0
    ended: int = 0
    answers: int = 0
    affected: int = 0
    broken: int = 0
    wrong: int = 0
    pause_ms_p50: float = -1.0
    pause_ms_p99: float = -1.0
    gap_ms_max: float = -1.0
    found_s_p50: float = -1.0
    found_s_p99: float = -1.0
    back_s_p50: float = -1.0
    new_requests: int = 0
    new_failed: int = 0
    false_ejections: int = 0
    false_moves: int = 0
    seconds: float = 0.0
    whys: list[str] = field(default_factory=list)  # of what went wrong, one of each


def settings(args: argparse.Namespace) -> Sections:
    """The arena's settings. What decides how soon a stream moves is left at its default; what the supervisor waits before it
    ends a process, and how often a canary sings, is shortened, or fifty faults of a kind would take hours."""
    slots = -(-args.streams // max(1, args.replicas - 1)) + 22
    return {
        "replica": {"token_ms": float(args.token_ms), "slots": slots, "queue_max": 4 * slots},
        "probe": {"every_s": PONG_S, "silent_s": args.silent_s},
        "ailing": {"wedged_s": args.silent_s, "slow_s": SLOW_S},
        "canary": {"every_s": args.canary_s, "tokens": 8},
        "restart": {"free": 100_000, "deaths_max": 100_000},
        "balance": {"affinity": False, "slow_start_s": 0.0},  # who has just come back is hurt next: not empty
    }


class Unsettled(RuntimeError):
    """The site does not come to rest: there is nothing to go on with."""


class Matrix:
    """One arena, and its kinds one after the other."""

    def __init__(self, args: argparse.Namespace, arena: Arena, clock: MonotonicClock) -> None:
        self._args, self._arena, self._clock = args, arena, clock
        self._tail = arena.tail()
        self._client = Client("127.0.0.1", arena.port, clock, PATIENCE_S)
        self._truth = arena.truth()
        self._asked = [self._truth.ask(n, f"Count from {n}.", args.tokens + n % 40) for n in range(CASES)]
        self._short = self._truth.ask(DRIZZLE_CASE, "Hello.", DRIZZLE_TOKENS)
        self._turn = 0
        self._healed: set[str] = set()  # boots that the drill itself has put right again

    def close(self) -> None:
        """Let the events log go."""
        self._tail.close()

    async def row(self, kind: str) -> Row:
        """All faults of a kind, and what came of them."""
        blow, idle, unnoticed_s = KINDS[kind]
        row, began = Row(kind=kind), self._clock.now()
        windows: list[Window] = []
        found: list[float] = []
        back: list[float] = []
        answers: list[Answer] = []
        async with asyncio.TaskGroup() as group:
            crowd = Crowd(self._client, self._clock, self._question)
            drizzle = Drizzle(self._client, self._clock, self._short, DRIZZLE_PER_S)
            if not idle:
                group.create_task(crowd.run(self._args.streams, float("inf")))
                group.create_task(drizzle.run())
            for _ in range(self._args.faults):
                await self._settle(row, None, None if idle else crowd)
                await self._clock.sleep(IDLE_S if idle else DWELL_S)
                strike = await self._strike(blow)
                if strike is None:
                    row.whys.append(f"{kind}: a blow could not be struck")
                    continue
                row.faults += 1
                seen = await self._noticed(strike, row, unnoticed_s)
                if seen is not None:
                    found.append(seen)
                if idle:
                    answers += await asyncio.gather(*(self._client.ask(one) for one in self._asked[:20]))
                back.append(await self._settle(row, strike, None if idle else crowd))
                if blow is Blow.GARBAGE:  # on a line that swallows all that follows, a silence begins only now
                    await self._watch(row, strike, self._args.silent_s + 1.0)
                    await self._settle(row, strike, crowd)
                windows.append((strike.at, self._clock.now()))
            crowd.closing = drizzle.closing = True
        self._sum_up(row, (blow, windows), answers + crowd.answers, drizzle.answers)
        row.found_s_p50, row.found_s_p99 = _p50_p99(found)
        row.back_s_p50, _ = _p50_p99(back)
        row.seconds = round(self._clock.now() - began, 1)
        return row

    def _question(self, stream: int, number: int) -> Question:
        return self._asked[(stream * 7 + number * 101) % CASES]

    async def _strike(self, blow: Blow) -> Strike | None:
        """Hurt the next replica in turn."""
        self._tail.more()
        self._turn += 1
        places = sorted(self._arena.roster().places, key=lambda place: place.replica)
        victim: Place = places[self._turn % len(places)]
        unix_s = time.time() - self._clock.now()
        at = await self._arena.hurt(victim, blow, self._turn)
        if at is None:
            return None
        self._unix_s = unix_s
        return Strike(victim.replica, victim.boot, blow, at, f"blow {self._turn}")

    async def _noticed(self, strike: Strike, row: Row, unnoticed_s: float) -> float | None:
        """Wait until the site has said of the victim that it is not well. Returns the seconds that took; None: it never did."""
        while self._clock.now() - strike.at < unnoticed_s:
            for event in self._tail.more():
                self._judge(event, strike, row)
                if event["event"] in NOTICED and _subject(event) in (strike.replica, strike.boot):
                    return max(0.0, round(event["at"] - self._unix_s - strike.at, 4))
            await self._clock.sleep(LOOK_S)
        row.missed += 1
        row.whys.append(f"{row.kind}: unnoticed for {unnoticed_s:g} s")
        await self._heal(strike)
        return None

    async def _watch(self, row: Row, strike: Strike, seconds: float) -> None:
        """Wait, and take what the site says for this blow's consequences."""
        until = self._clock.now() + seconds
        while self._clock.now() < until:
            for event in self._tail.more():
                self._judge(event, strike, row)
                if event["event"] == "process_died" and _subject(event) == strike.replica:
                    row.ended += 1
            await self._clock.sleep(LOOK_S)

    async def _heal(self, strike: Strike) -> None:
        self._healed.add(strike.boot)
        await self._arena.pull(strike.replica, Pull("heal"))

    def _judge(self, event: dict[str, Any], strike: Strike | None, row: Row) -> None:
        """Count what is said against a replica that nobody hurt."""
        hurt = strike.replica if strike is not None else ""
        subject = _subject(event)
        if event["event"] in OUT and subject.startswith("replica") and subject != hurt:
            row.false_ejections += 1
            row.whys.append(f"{event['event']} of {subject}: {event['why']}")
        if event["event"] == "process_died" and not subject.startswith("replica"):
            row.whys.append(f"{subject} died: {event['why']}")

    async def _settle(self, row: Row, strike: Strike | None, crowd: Crowd | None) -> float:
        """Until every replica is listed, in service, connected and, under load, at work, and every stream flows.

        Returns the seconds since the blow.
        """
        began, idle = self._clock.now(), crowd is None
        healed = pardoned = False
        while not (await self._whole(strike, idle) and self._flowing(crowd)):
            for event in self._tail.more():
                self._judge(event, strike, row)
            waited_s = self._clock.now() - began
            if strike is not None and not pardoned and self._in_quarantine(strike.replica):
                pardoned = True
                await self._undrain(strike.replica, row)
            if strike is not None and not healed and waited_s > SETTLE_S_MAX / 4:
                healed, row.not_back = True, row.not_back + 1
                row.whys.append(f"{row.kind}: {strike.replica} was not back after {waited_s:.0f} s and was healed")
                await self._heal(strike)
            if waited_s > SETTLE_S_MAX:
                where = f"{self._standing()}; {await self._states()}"
                raise Unsettled(f"the site has not settled within {SETTLE_S_MAX:g} s of {strike}: {where}")
            await self._clock.sleep(0.05)
        for event in self._tail.more():
            self._judge(event, strike, row)
        return self._clock.now() - (strike.at if strike is not None else began)

    def _flowing(self, crowd: Crowd | None) -> bool:
        late = self._clock.now() - FLOWS_S
        return crowd is None or all(
            (answer.arrivals[-1] if answer.arrivals else answer.opened_at) >= late for _, answer in crowd.open.values()
        )

    async def _whole(self, strike: Strike | None, idle: bool) -> bool:
        site, places = self._arena.site(), self._arena.roster().places
        serving = site is not None and all(
            one.state is ReplicaState.SERVING for one in site.processes if one.role == "replica"
        )
        if not serving or len([one for one in places if one.weight and not one.leaving]) < self._args.replicas:
            return False
        boots = {place.boot for place in places}
        hurt = strike is not None and strike.boot in boots - self._healed
        if strike is not None and hurt and not (strike.blow.passes or strike.blow is Blow.HALF_OPEN):
            return False  # the process that was hurt is still there
        for place in places:
            state = await self._arena.pull(place.replica, Pull("state"))
            if state is None or state.connections < 2 or not (idle or state.running > 0):
                return False
        return True

    async def _states(self) -> str:
        said = [
            f"{one.replica} {await self._arena.pull(one.replica, Pull('state'))}" for one in self._arena.roster().places
        ]
        return "; ".join(said)

    async def _states(self) -> str:
        said = [
            f"{one.replica} {await self._arena.pull(one.replica, Pull('state'))}" for one in self._arena.roster().places
        ]
        return "; ".join(said)

    def _standing(self) -> str:
        site = self._arena.site()
        return "; ".join(f"{one.name} {one.state}: {one.why}" for one in site.processes) if site else "nothing is known"

    def _in_quarantine(self, replica: str) -> bool:
        site = self._arena.site()
        return site is not None and any(
            one.name == replica and one.state is ReplicaState.QUARANTINED for one in site.processes
        )

    async def _undrain(self, replica: str, row: Row) -> None:
        """What an operator does after he has looked."""
        done = await asyncio.create_subprocess_exec(
            *(
                sys.executable,
                "-P",
                "-m",
                "holdfast",
                "undrain",
                replica,
                "--no-wait",
                f"--settings={self._arena.file}",
            ),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        said, _ = await done.communicate()
        if done.returncode:
            row.whys.append(f"undrain {replica}: {said.decode('utf-8', 'replace').strip()[-200:]}")

    def _sum_up(self, row: Row, struck: tuple[Blow, list[Window]], answers: list[Answer], drops: list[Answer]) -> None:
        blow, windows = struck
        total, short = reckon(answers, self._truth.answers, []), reckon(drops, self._truth.answers, [])
        row.answers, row.affected, row.wrong = total.answers, total.affected, total.wrong
        row.broken = total.broken - (total.wrong if blow is Blow.WRONG else 0)
        row.new_requests = short.answers
        row.new_failed = short.broken - (short.wrong if blow is Blow.WRONG else 0)
        moved = [one for one in (*answers, *drops) if one.moves]
        row.false_moves = sum(one.moves for one in moved if not any(_met(one, window) for window in windows))
        row.pause_ms_p50, row.pause_ms_p99 = _p50_p99([1000 * silence_s_max(one) for one in moved], 1)
        row.gap_ms_max = round(1000 * max((silence_s_max(one) for one in answers), default=-0.001), 1)
        ends = {why[:200] for why in (*total.whys, *short.whys)}
        row.whys = sorted({*row.whys, *ends})[:12]


def _met(answer: Answer, window: Window) -> bool:
    """Whether an answer was open at some moment between a blow and the site's coming to rest."""
    began, over = window
    last = answer.arrivals[-1] if answer.arrivals else answer.opened_at
    return answer.opened_at <= over and last >= began


def _subject(event: dict[str, Any]) -> str:
    return str(event.get("replica") or event.get("name") or "")


def _p50_p99(values: list[float], digits: int = 3) -> tuple[float, float]:
    ordered = sorted(values)
    if not ordered:
        return -1.0, -1.0
    return round(percentile(ordered, 0.5), digits), round(percentile(ordered, 0.99), digits)


async def measure(args: argparse.Namespace) -> list[Row]:
    """A row for each kind asked for."""
    clock, rows = MonotonicClock(), []
    async with Arena(Plan(replicas=args.replicas, engine="scripted", more=settings(args)), clock) as arena:
        matrix = Matrix(args, arena, clock)
        for kind in args.kinds:
            try:
                rows.append(await matrix.row(kind))
            except* Unsettled as error:
                rows.append(Row(kind=kind, missed=1, whys=[str(one) for one in error.exceptions]))
            if not rows[-1].faults:
                break
            print(f"{kind}: {rows[-1].faults} faults in {rows[-1].seconds:.0f} s, {rows[-1].broken} broken", flush=True)
        matrix.close()
        if args.keep_events:
            args.keep_events.write_bytes(arena.folder.events.read_bytes())
    if arena.survivors:
        sys.exit(f"left running and killed: {arena.survivors}")
    return rows


def tell(rows: list[Row]) -> None:
    """The table for people."""
    table = Table(title="Faults under load")
    fields = [name for name in Row.__struct_fields__ if name not in ("kind", "whys")]
    table.add_column("")
    for row in rows:
        table.add_column(row.kind, justify="right")
    for name in fields:
        table.add_row(name, *(f"{getattr(row, name):g}" for row in rows))
    Console(width=max(120, 24 + 13 * len(rows))).print(table)
    for row in rows:
        for why in row.whys:
            print(f"{row.kind}: {why}")


def kept(row: Row) -> bool:
    """Whether the promise was kept for this kind."""
    return row.faults > 0 and not (row.broken or row.new_failed or row.false_ejections or row.missed or row.not_back)
