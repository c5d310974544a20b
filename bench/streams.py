"""A gateway worker dies under hundreds of streams, then every worker is replaced again and again: who notices?

    python bench/streams.py --engine scripted      200 streams of 200 tokens at 20 ms, two workers, two replicas
    python bench/streams.py --engine embedded      200 streams of the model that ships

`killed`: SIGKILL of a worker under clients that resume (holdfast.client), while a drizzle of new requests of plain clients
comes in. Each stream is compared with its twin from a run in which nothing was hurt; lost and doubled are counted in
characters of text, so that half a token counts too. `reconnect` is from the blow to the next words at the client, for streams
that had to reconnect; words that were on their way at the blow do not count. `replaced`: `holdfast upgrade` over and over
under plain clients that know nothing of resuming. The last line is one JSON object.
"""

import argparse
import asyncio
import itertools
import sys
from collections.abc import Iterable
from pathlib import Path

import msgspec
import uvloop
from asker import Asker, Trace
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from holdfast.domain.roster import Place
from holdfast.domain.site import ProcessView, Role
from holdfast.drill.arena import Arena, Plan, Sections
from holdfast.drill.client import Client
from holdfast.drill.crowd import drizzle
from holdfast.drill.questions import question
from holdfast.host.clock import MonotonicClock
from holdfast.policy.havoc import Blow
from holdfast.policy.reckoning import Answer, percentile, reckon

PATIENCE_S = 120.0
SETTLE_S = 60.0
BEFORE_S = 1.0  # the drizzle has begun so long before the blow
DRIZZLE_S = 4.0
CASES_MAX = 50
DRIZZLE_CASE = -1
RECONNECT_MS_P99_MAX = 1000.0
SERVING = "serving"


class Killed(Struct, kw_only=True):
    """What SIGKILLs of workers did."""

    engine: str
    workers: int
    kills: int
    streams: int
    reconnected: int
    exact: int
    broken: int
    lost: int
    doubled: int
    reconnect_ms_p50: float
    reconnect_ms_p99: float
    reconnect_ms_max: float
    new_requests: int
    new_refused: int
    new_cut: int  # plain answers that the killed worker was writing

    @property
    def ok(self) -> bool:
        """The bars."""
        sound = not (self.broken or self.lost or self.doubled or self.new_refused)
        return sound and self.reconnected > 0 and self.reconnect_ms_p99 < RECONNECT_MS_P99_MAX


class Replaced(Struct, kw_only=True):
    """What replacing workers did."""

    engine: str
    workers: int
    replaced: int
    seconds: float
    answers: int
    exact: int
    refused: int
    truncated: int
    broken: int

    @property
    def ok(self) -> bool:
        """The bars."""
        return self.replaced > 0 and not (self.refused or self.truncated or self.broken)


class Bench:
    """One arena's worth of measurements."""

    def __init__(self, args: argparse.Namespace, arena: Arena, clock: MonotonicClock) -> None:
        self._args, self._arena, self._clock = args, arena, clock
        more = {"temperature": 0.8, "max_tokens": args.tokens, "ignore_eos": True}
        prompts = [f"Count from {case + 1} to {case + 200}." for case in range(min(args.streams, CASES_MAX))]
        self._asked = [question(case, arena.model, prompt, **more) for case, prompt in enumerate(prompts)]
        self._short = question(DRIZZLE_CASE, arena.model, "Hello.", temperature=0.0, max_tokens=4, ignore_eos=True)
        self._plain = Client("127.0.0.1", arena.port, clock, PATIENCE_S)
        self._at_rest: dict[int, Answer] = {}
        self._asker = Asker(arena.port, clock, PATIENCE_S)

    async def close(self) -> None:
        await self._asker.close()

    async def rest(self) -> None:
        """Every question once, undisturbed and plain: the measure of all others."""
        async with asyncio.TaskGroup() as group:
            asked = [*self._asked, self._short]
            answers = [group.create_task(self._plain.ask(one)) for one in asked]
        for answer in (one.result() for one in answers):
            if answer.end != "ended":
                sys.exit(f"the undisturbed run went wrong: {answer.end} {answer.why}")
            self._at_rest[answer.case] = answer

    async def kill(self) -> Killed:
        """Rounds of: all streams at once, the drizzle, and in the middle the blow."""
        traces: list[Trace] = []
        new: list[Answer] = []
        pauses: list[float] = []
        for number in range(self._args.kills):
            await self._settled()
            more, drops, struck_at = await self._round(number)
            for trace in more:
                again = next((at for at in trace.asked if at >= struck_at), None)
                if again is not None:
                    pauses.append(1000 * (_next_words(trace.answer, again) - struck_at))
            traces, new = traces + more, new + drops
        total = reckon([trace.answer for trace in traces], self._at_rest, [])
        pauses.sort()
        return Killed(
            engine=self._args.engine,
            workers=self._args.workers,
            kills=self._args.kills,
            streams=total.answers,
            reconnected=len(pauses),
            exact=total.exact,
            broken=total.broken,
            lost=total.lost_tokens,
            doubled=total.doubled_tokens,
            reconnect_ms_p50=round(percentile(pauses, 0.5), 1) if pauses else -1.0,
            reconnect_ms_p99=round(percentile(pauses, 0.99), 1) if pauses else -1.0,
            reconnect_ms_max=round(pauses[-1], 1) if pauses else -1.0,
            new_requests=len(new),
            new_refused=sum(one.end == "refused" for one in new),
            new_cut=sum(one.end not in ("ended", "refused") for one in new),
        )

    async def _round(self, number: int) -> tuple[list[Trace], list[Answer], float]:
        clock, rate = self._clock, self._args.background
        asked = [self._asked[number % len(self._asked)] for number in range(self._args.streams)]
        traces = [self._asker.opened(one) for one in asked]
        async with asyncio.TaskGroup() as group:
            for one, trace in zip(asked, traces, strict=True):
                group.create_task(self._asker.fill(one, trace))
            while any(len(trace.answer.arrivals) < 3 and not trace.answer.end for trace in traces):
                await clock.sleep(0.01)
            drops = group.create_task(drizzle(self._plain, clock, self._short, rate, int(rate * DRIZZLE_S)))
            await clock.sleep(BEFORE_S)
            workers = self._workers()
            victim = workers[number % len(workers)]
            struck_at = clock.now()
            if not self._arena.strike(_place(victim), Blow.KILL):
                sys.exit(f"{victim.name} could not be killed: its process is gone")
        return traces, drops.result(), struck_at

    def _workers(self) -> list[ProcessView]:
        """The gateway workers that serve, by the supervisor's last view."""
        site = self._arena.site()
        seen = site.processes if site is not None else ()
        return [one for one in seen if one.role is Role.GATEWAY and one.state == SERVING and one.pid]

    async def _settled(self) -> None:
        """Until as many workers serve as there should be, and for a moment longer."""
        give_up = self._clock.now() + SETTLE_S
        while len(self._workers()) < self._args.workers:
            if self._clock.now() > give_up:
                sys.exit(f"a worker that was killed did not come back within {SETTLE_S:g} s")
            await self._clock.sleep(0.05)
        await self._clock.sleep(1.0)

    async def replace(self) -> Replaced:
        """Plain clients ask on and on; meanwhile workers are replaced until there were enough."""
        await self._settled()
        answers: list[Answer] = []
        rate = self._args.background
        over, began = asyncio.Event(), self._clock.now()

        async def ask_on(number: int) -> None:
            for turn in itertools.count(number):
                if over.is_set():
                    return
                answers.append(await self._plain.ask(self._asked[turn % len(self._asked)]))

        async def drip() -> None:
            while not over.is_set():
                answers.extend(await drizzle(self._plain, self._clock, self._short, rate, max(1, int(rate))))

        async with asyncio.TaskGroup() as group:
            for number in range(self._args.plain):
                group.create_task(ask_on(number))
            group.create_task(drip())
            replaced = await self._replacements()
            over.set()
        total = reckon(answers, self._at_rest, [])
        return Replaced(
            engine=self._args.engine,
            workers=self._args.workers,
            replaced=replaced,
            seconds=round(self._clock.now() - began, 1),
            answers=total.answers,
            exact=total.exact,
            refused=total.refused,
            truncated=total.truncated,
            broken=total.broken,
        )

    async def _replacements(self) -> int:
        """Upgrade until `args.replacements` workers were replaced. Returns how many were."""
        gone: set[int] = set()
        while len(gone) < self._args.replacements:
            before = {one.pid for one in self._workers()}
            await self._upgrade()
            await self._settled()
            left = before - {one.pid for one in self._workers()}
            if not left:
                sys.exit("no worker was replaced")
            gone |= left
        return len(gone)

    async def _upgrade(self) -> None:
        words = (sys.executable, "-P", "-m", "holdfast", "upgrade", str(self._arena.file))
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
        told, _ = await child.communicate()
        if child.returncode:
            sys.exit(f"holdfast upgrade failed: {told.decode('utf-8', 'replace')}")


def _place(worker: ProcessView) -> Place:
    """A worker, as the arena strikes it."""
    return Place(replica=worker.name, address="", boot="", pid=worker.pid)


def _next_words(answer: Answer, after: float) -> float:
    """When the first words came after that moment; the end of all patience where none came."""
    return next((at for at in answer.arrivals if at > after), after + PATIENCE_S)


async def measure(args: argparse.Namespace) -> tuple[Killed | None, Replaced | None]:
    """One site, both measurements."""
    slots = max(32, -(-args.streams // args.replicas) + 32)
    more: Sections = {
        "replica": {"slots": slots, "queue_max": 4 * slots, "context_tokens_max": 512},
        "gateway": {"workers": args.workers, "drain_s": PATIENCE_S},
    }
    if args.engine == "scripted":
        more["replica"]["token_ms"] = float(args.token_ms)
    clock = MonotonicClock()
    arena = Arena(Plan(replicas=args.replicas, engine=args.engine, more=more), clock)
    async with arena:
        bench = Bench(args, arena, clock)
        try:
            await bench.rest()
            killed = await bench.kill() if args.kills else None
            replaced = await bench.replace() if args.replacements else None
        finally:
            await bench.close()
            if args.keep_events:
                args.keep_events.write_bytes(arena.folder.events.read_bytes())
    if arena.survivors:
        sys.exit(f"left running and killed: {arena.survivors}")
    return killed, replaced


def tell(rows: Iterable[Killed | Replaced | None]) -> None:
    """The tables, then the JSON line."""
    titles = {Killed: "Workers killed under clients that resume", Replaced: "Workers replaced under plain clients"}
    kept = {type(row).__name__.lower(): row for row in rows if row is not None}
    for row in kept.values():
        table = Table(title=titles[type(row)])
        table.add_column("")
        table.add_column(row.engine, justify="right")
        for name in row.__struct_fields__[1:]:
            table.add_row(name, f"{getattr(row, name):g}")
        table.add_row("bars kept", "yes" if row.ok else "NO")
        Console().print(table)
    print(msgspec.json.encode({"bench": "streams", **kept}).decode())


def main() -> int:
    """Exit 1 when a bar was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--engine", choices=("embedded", "scripted"), default="scripted")
    add("--streams", type=int, default=200)
    add("--tokens", type=int, help="of each stream; default 200 scripted, 96 embedded")
    add("--token-ms", type=float, default=20.0, help="pace of the scripted engine")
    add("--workers", type=int, default=2)
    add("--replicas", type=int, default=2)
    add("--kills", type=int, default=5, help="how many workers are killed; 0: none")
    add("--replacements", type=int, default=20, help="how many workers are replaced; 0: none")
    add("--plain", type=int, default=30, help="streams of plain clients while workers are replaced")
    add("--background", type=float, help="new short requests a second; default 50 scripted, 10 embedded")
    add("--keep-events", type=Path, help="copy the site's events log there")
    args = parser.parse_args()
    scripted = args.engine == "scripted"
    args.tokens = args.tokens or (200 if scripted else 96)
    args.background = args.background or (50.0 if scripted else 10.0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(measure(args))
    tell(rows)
    return 0 if all(row.ok for row in rows if row is not None) else 1


if __name__ == "__main__":
    sys.exit(main())
