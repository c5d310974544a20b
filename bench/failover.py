"""Replicas are hurt under hundreds of streams and a drizzle of new requests: who notices?

    python bench/failover.py --faults 50            eleven kinds of faults, fifty times each, under 100 scripted streams
    python bench/failover.py --faults 5 --kinds reset,lie
    python bench/failover.py --prefill              prompts of 30,000 tokens at full batch and no fault: is anybody suspected?
    python bench/failover.py --engine scripted      one kill and one freeze: 60 streams of 200 tokens at 20 ms
    python bench/failover.py --engine embedded      the same with 200 streams of the model that ships
    python bench/failover.py --engine vllm          50 streams on real vLLM: its first process and its EngineCore are killed and
                                                    frozen, while its /health is asked; triton and llamacpp likewise

In the matrix (--faults) every stream is checked against what the scripted engine must say; in the runs with --engine against its
twin from a run in which nothing was hurt. `pause` is the client's: the longest silence of a stream that moved. `found` is from
the blow to the first sign of it among the site's own events. The last line is one JSON object.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import foreign
import matrix
import msgspec
import prefill
import uvloop
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from holdfast.drill.arena import Arena, Plan, Sections
from holdfast.drill.client import Client, Question
from holdfast.drill.crowd import drizzle
from holdfast.drill.engine_parts import Part
from holdfast.drill.questions import question
from holdfast.host.clock import MonotonicClock
from holdfast.policy.havoc import Blow, Strike
from holdfast.policy.reckoning import Answer, Reckoning, percentile, reckon
from holdfast.store import events

PATIENCE_S = 120.0
SETTLED_S = 300.0
DRIZZLE_S = 5.0
BEFORE_S = 1.0  # the drizzle has begun so long before the blow
CASES_MAX = 60
DRIZZLE_CASE = -1
USUAL = {"scripted": (60, 200, 50.0), "embedded": (200, 96, 10.0)} | dict.fromkeys(foreign.ENGINES, (50, 250, 2.0))
NOTICED = ("replica_suspected", "replica_lost", "breaker_opened")  # events by which the site says: not this one


class Row(Struct, kw_only=True):
    """One fault's line. Milliseconds and seconds as named; -1 where nothing moved."""

    engine: str
    fault: str
    streams: int
    affected: int
    saved: int
    truncated: int
    errored: int
    hung: int
    wrong: int
    lost_tokens: int
    doubled_tokens: int
    pause_ms_p50: float
    pause_ms_p99: float
    found_after_s: float
    gap_ms_p99_at_rest: float
    new_requests: int
    new_requests_failed: int
    false_alarms: int
    part: str = "replica"  # which process was struck
    health_ok: int = 0  # what the engine's own health said from the blow on, asked ten times a second: 200
    health_bad: int = 0
    health_silent: int = 0
    health_first_bad_s: float = -1.0  # so long after the blow it first said anything but 200


def questions(args: argparse.Namespace, model: str) -> list[Question]:
    """As many different ones as there are streams, up to CASES_MAX; all of the same length, so that none ends before the blow."""
    temperature = 0.0 if args.engine in foreign.ENGINES else 0.8  # what a foreign engine draws can't be drawn again
    more = {"temperature": temperature, "max_tokens": args.tokens, "ignore_eos": True}
    return [
        question(case, model, f"Count from {case + 1} to {case + 200}.", **more)
        for case in range(min(args.streams, CASES_MAX))
    ]


class Bench:
    """One arena's worth of measurements."""

    def __init__(self, args: argparse.Namespace, arena: Arena, clock: MonotonicClock) -> None:
        self._args, self._arena, self._clock = args, arena, clock
        self._client = Client("127.0.0.1", arena.port, clock, PATIENCE_S)
        self._asked = questions(args, arena.model)
        short = {"temperature": 0.0, "max_tokens": 4, "ignore_eos": True}
        self._short = question(DRIZZLE_CASE, arena.model, "Hello.", **short)
        self._at_rest: dict[int, Answer] = {}
        self._gap_ms_p99 = -1.0
        self._part = Part.REPLICA
        self._told_health = foreign.Told()

    async def rest(self) -> None:
        """The undisturbed run: the same load, nothing hurt. Its answers are the measure of all others."""
        answers, drops, _ = await self._load(None)
        bad = [one for one in (*answers, *drops) if one.end != "ended" or one.moves]
        if bad:
            sys.exit(f"the undisturbed run went wrong: {bad[0].end} {bad[0].why}, {bad[0].moves} moves")
        for one in (*answers, drops[0]):
            if not one.same_as(self._at_rest.setdefault(one.case, one)):
                sys.exit(f"the undisturbed run gave two answers to question {one.case}")
        gaps = sorted(b - a for one in answers for a, b in zip(one.arrivals, one.arrivals[1:], strict=False))
        self._gap_ms_p99 = 1000 * percentile(gaps, 0.99)

    async def fault(self, blow: Blow, part: Part = Part.REPLICA) -> Row:
        """The same load, and one blow in its middle."""
        await self._settled()
        self._part, self._told_health = part, foreign.Told()
        answers, drops, strike = await self._load(blow)
        assert strike is not None
        total = reckon(answers, self._at_rest, [strike])
        noticed = [one for one in self._told() if one["event"] in NOTICED]
        found = [one["at"] - self._struck_unix_s for one in noticed if one["replica"] == strike.replica]
        failed = [one for one in drops if one.end != "ended" or not one.same_as(self._at_rest[DRIZZLE_CASE])]
        false = total.false_moves + sum(one["replica"] != strike.replica for one in noticed)
        return self._row(blow, total, found, (len(drops), len(failed), false))

    def _told(self) -> list[dict[str, Any]]:
        """The site's own events since the blow."""
        kept = events.recent(self._arena.folder.events, 10_000)
        return [one for one in kept if one["at"] >= self._struck_unix_s]

    def _row(self, blow: Blow, total: Reckoning, found: list[float], rest: tuple[int, int, int]) -> Row:
        values = total.pauses_ms(blow)
        return Row(
            engine=self._args.engine,
            fault=blow.value,
            streams=total.answers,
            affected=total.affected,
            saved=total.saved,
            truncated=total.truncated,
            errored=total.errored + total.refused,
            hung=total.hung,
            wrong=total.wrong,
            lost_tokens=total.lost_tokens,
            doubled_tokens=total.doubled_tokens,
            pause_ms_p50=round(percentile(values, 0.5), 1) if values else -1.0,
            pause_ms_p99=round(percentile(values, 0.99), 1) if values else -1.0,
            found_after_s=round(min(found), 3) if found else -1.0,
            gap_ms_p99_at_rest=round(self._gap_ms_p99, 1),
            new_requests=rest[0],
            new_requests_failed=rest[1],
            false_alarms=rest[2],
            part=self._part.value,
            health_ok=self._told_health.ok,
            health_bad=self._told_health.bad,
            health_silent=self._told_health.silent,
            health_first_bad_s=self._told_health.first_bad_s,
        )

    async def _load(self, blow: Blow | None) -> tuple[list[Answer], list[Answer], Strike | None]:
        """All streams at once, the drizzle, and in the middle the blow."""
        clock, client = self._clock, self._client
        asked = [self._asked[number % len(self._asked)] for number in range(self._args.streams)]
        answers = [client.opened(one) for one in asked]
        async with asyncio.TaskGroup() as group:
            for one, answer in zip(asked, answers, strict=True):
                group.create_task(client.fill(one, answer))
            await self._all_speak(answers)
            rate = self._args.background
            drops = group.create_task(drizzle(client, clock, self._short, rate, int(rate * DRIZZLE_S)))
            await clock.sleep(BEFORE_S)
            strike = self._strike(blow) if blow is not None else None
            over = asyncio.Event()
            if strike is not None and self._args.engine in foreign.ENGINES:
                group.create_task(foreign.listen(self._health, clock, self._told_health, over))
            await self._all_end(answers)
            over.set()
        return answers, drops.result(), strike

    async def _all_speak(self, answers: list[Answer]) -> None:
        """Until every stream has given its first tokens."""
        while any(len(answer.arrivals) < 3 and not answer.end for answer in answers):
            await self._clock.sleep(0.01)

    async def _all_end(self, answers: list[Answer]) -> None:
        while any(not answer.end for answer in answers):
            await self._clock.sleep(0.01)

    def _strike(self, blow: Blow) -> Strike:
        victim = self._arena.roster().places[0]
        if self._args.engine in foreign.ENGINES:
            self._health = foreign.health_url(self._arena, self._args.engine, victim.replica)
        self._struck_unix_s = time.time()
        at = self._clock.now()
        if not self._arena.strike(victim, blow, self._part):
            sys.exit(f"{victim.replica} could not be hurt: its process is gone")
        return Strike(victim.replica, victim.boot, blow, at, "bench")

    async def _settled(self) -> None:
        """Until all replicas are listed again, and for a moment longer."""
        give_up = self._clock.now() + SETTLED_S
        arena, replicas = self._arena, self._args.replicas
        while len(arena.roster().places) < replicas or not foreign.whole(arena, self._args.engine):
            if self._clock.now() > give_up:
                sys.exit(f"a replica that was hurt did not come back within {SETTLED_S:g} s")
            await self._clock.sleep(0.05)
        await self._clock.sleep(1.5)


async def measure(args: argparse.Namespace) -> list[Row]:
    """A row for each fault."""
    slots = max(
        32, -(-args.streams // max(1, args.replicas - 1)) + 16
    )  # those that are left must be able to hold all streams
    more: Sections = {"replica": {"slots": slots, "queue_max": 4 * slots, "context_tokens_max": 512}}
    more["balance"] = {
        "affinity": False,
        "slow_start_s": 0.0,
    }  # the next to be hurt is one that has just come back: not empty
    if args.engine == "scripted":
        more["replica"]["token_ms"] = float(args.token_ms)
    blows = foreign.BLOWS.get(args.engine, ((Blow.KILL, Part.REPLICA), (Blow.FREEZE, Part.REPLICA)))
    if args.engine in foreign.ENGINES:
        more |= foreign.sections(args.program or foreign.program_of(args.engine), slots)
    clock = MonotonicClock()
    async with AsyncExitStack() as stack:
        if args.engine == "llamacpp":
            more |= foreign.llamacpp_model(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        plan = Plan(replicas=args.replicas, engine=args.engine, more=more, ready_s=600.0)
        arena = await stack.enter_async_context(Arena(plan, clock))
        bench = Bench(args, arena, clock)
        await bench.rest()
        rows = [await bench.fault(blow, part) for blow, part in blows]
        if args.keep_events:
            args.keep_events.write_bytes(arena.folder.events.read_bytes())
    if arena.survivors:
        sys.exit(f"left running and killed: {arena.survivors}")
    return rows


def tell(rows: list[Row]) -> None:
    """The table, then the JSON line."""
    table = Table(title="One replica hurt under load")
    fields = [name for name in Row.__struct_fields__ if name != "engine"]
    table.add_column("")
    for row in rows:
        table.add_column(f"{row.engine} {row.fault} {row.part}", justify="right")
    for name in fields[1:]:
        if name != "part":
            table.add_row(name, *(f"{getattr(row, name):g}" for row in rows))
    Console().print(table)
    print(msgspec.json.encode({"bench": "failover", "rows": rows}).decode())


def compare(args: argparse.Namespace) -> int:
    """One kill and one freeze against an undisturbed run. Exit 1 when a stream was not exact or a new request failed."""
    streams, tokens, background = USUAL[args.engine]
    args.streams, args.tokens = args.streams or streams, args.tokens or tokens
    args.background = args.background or background
    args.replicas = args.replicas or (2 if args.engine in foreign.ENGINES else 3)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(measure(args))
    tell(rows)
    return 0 if all(row.saved == row.affected and not row.new_requests_failed for row in rows) else 1


def table(args: argparse.Namespace) -> int:
    """The matrix. Exit 1 when a promise was broken."""
    args.streams, args.tokens, args.replicas = args.streams or 100, args.tokens or 130, args.replicas or 3
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(matrix.measure(args))
    matrix.tell(rows)
    print(msgspec.json.encode({"bench": "failover matrix", "streams": args.streams, "rows": rows}).decode())
    return 0 if all(matrix.kept(row) for row in rows) else 1


def long_prompts(args: argparse.Namespace) -> int:
    """Prompts of 30,000 tokens at full batch. Exit 1 when anybody was suspected, or an answer was broken."""
    args.replicas = args.replicas or 3
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(prefill.measure(args))
    prefill.tell(outcome)
    print(msgspec.json.encode({"bench": "failover prefill", **msgspec.structs.asdict(outcome)}).decode())
    return 0 if outcome.answers and not outcome.broken and not outcome.false_ejections else 1


def _kinds(text: str) -> list[str]:
    kinds = text.split(",")
    for kind in kinds:
        if kind not in matrix.KINDS:
            raise argparse.ArgumentTypeError(f"{kind!r} is none of {', '.join(matrix.KINDS)}")
    return kinds


def main() -> int:
    """Exit 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--faults", type=int, default=0, help="the matrix: so many faults of each kind")
    add("--kinds", type=_kinds, default=list(matrix.KINDS), help=f"of the matrix: {','.join(matrix.KINDS)}")
    add(
        "--silent-s",
        type=float,
        default=2.0,
        help="matrix: the supervisor ends a silent, wedged or slow process after this",
    )
    add("--canary-s", type=float, default=0.5, help="matrix: seconds between two canaries")
    add("--prefill", action="store_true", help="long prompts at full batch, no fault")
    add("--seconds", type=float, default=120.0, help="of --prefill")
    add("--slots", type=int, default=16, help="of each replica with --prefill; there are as many streams as slots")
    add("--prompt-tokens", type=int, default=30_000, help="of --prefill")
    add("--engine", choices=tuple(USUAL), default="scripted", help="kills and freezes of this engine")
    add(
        "--program",
        type=Path,
        help="interpreter of a foreign engine's environment; default .venv-ENGINE/bin/python here",
    )
    add("--streams", type=int, help="default 100 in the matrix, 60 scripted, 200 embedded, 50 on foreign engines")
    add(
        "--tokens",
        type=int,
        help="of each stream; default 130 in the matrix, 200 scripted, 96 embedded, 250 on foreign engines",
    )
    add("--token-ms", type=float, default=20.0, help="pace of the scripted engine")
    add("--replicas", type=int, help="default 3; 2 on foreign engines")
    add(
        "--background",
        type=float,
        help="new short requests a second; default 50 scripted, 10 embedded and in the matrix, 2 on foreign engines",
    )
    add("--keep-events", type=Path, help="copy the site's events log there")
    args = parser.parse_args()
    if args.prefill:
        return long_prompts(args)
    return table(args) if args.faults else compare(args)


if __name__ == "__main__":
    sys.exit(main())
