"""Half an hour of steady load with a fault every ten seconds: does anything grow, does any answer break?

    python bench/soak.py --minutes 30

Streams of scripted replicas, each checked token for token; the faults are of all kinds that a site is to survive without a
broken answer (wrong tokens are not among them: see the matrix of bench/failover.py), drawn by the seed. Every few seconds memory,
descriptors and tasks of gateway workers, supervisor and control plane are read: from /proc, and tasks from the workers' own
/metrics. Memory is told apart: a process's own, and the journal's pages, which have a bound of their own and leave after their
grace. Drift is the change of the mean from the first settled third to the last, in per cent. `at rest` is the same before the
load and after it. The last line is one JSON object.
"""

import argparse
import asyncio
import re
import sys
from pathlib import Path

import msgspec
import uvloop
from matrix import settings
from msgspec import Struct, structs

from holdfast.drill.arena import Arena, Plan
from holdfast.drill.chaos import Chaos
from holdfast.drill.client import Client
from holdfast.drill.crowd import Crowd
from holdfast.drill.truth import Truth
from holdfast.host.clock import MonotonicClock
from holdfast.policy.havoc import Blow, Havoc, Pace
from holdfast.policy.reckoning import Reckoning, drift_percent, percentile, reckon

PATIENCE_S = 120.0
CASES = 400
SETTLED_SHARE = 0.2  # caches, pools and histograms fill in the first fifth of the run
REST_S = 8.0
GRACE_S = 75.0  # ended answers stay in the journal for [journal] grace_s
SCRAPES_MAX = 24
KINDS = tuple(blow for blow in Blow if blow is not Blow.WRONG)
_TASKS = re.compile(r'^holdfast_tasks\{pid="(\d+)"\} ([0-9.e+]+)$', re.MULTILINE)


class Sample(Struct, frozen=True, kw_only=True):
    """One process at one moment."""

    at: float
    name: str
    pid: int
    own_mib: float  # resident, without what is shared
    journal_mib: float  # shared: bounded by [journal] bytes_max, and gone after its grace
    descriptors: int
    tasks: int = -1  # -1: it does not tell


class Drift(Struct, kw_only=True):
    """One figure of one process over the run. `at_rest` is before the load and after it."""

    name: str
    figure: str
    first: float
    last: float
    percent: float
    at_rest: tuple[float, float]


class Outcome(Struct, kw_only=True):
    """What was seen."""

    minutes: float
    faults: int
    answers: int
    broken: int
    affected: int
    pause_ms_p50: float
    pause_ms_p99: float
    samples: int
    replaced: list[str]  # processes that are not to die here, and did
    drifts: list[Drift]
    whys: list[str]


class Meter:
    """Reads the processes that nobody hurts."""

    def __init__(self, arena: Arena, clock: MonotonicClock) -> None:
        self._arena, self._clock = arena, clock
        self.samples: list[Sample] = []

    async def run(self, until: float, every_s: float) -> None:
        """Sample until the clock says `until`."""
        while self._clock.now() < until:
            self.samples += await self.look()
            await self._clock.sleep(every_s)

    async def look(self) -> list[Sample]:
        """All of them, now."""
        site = self._arena.site()
        found = {one.name: one.pid for one in site.processes if one.role != "replica" and one.pid} if site else {}
        found["supervisor"] = self._arena.supervisor_pid
        workers = {pid for name, pid in found.items() if name.startswith("gateway")}
        tasks = await self._tasks(workers)
        now = self._clock.now()
        return [self._sample(now, name, pid, tasks.get(pid, -1)) for name, pid in sorted(found.items()) if pid]

    def _sample(self, now: float, name: str, pid: int, tasks: int) -> Sample:
        proc = Path(f"/proc/{pid}")
        try:
            status = (proc / "status").read_text()
            descriptors = len(list((proc / "fd").iterdir()))
        except OSError:
            return Sample(at=now, name=name, pid=pid, own_mib=-1.0, journal_mib=-1.0, descriptors=-1)
        resident, shared = (re.search(rf"{word}:\s+(\d+) kB", status) for word in ("VmRSS", "RssShmem"))
        return Sample(
            at=now,
            name=name,
            pid=pid,
            own_mib=round((int(resident[1]) - int(shared[1])) / 1024, 2) if resident and shared else -1.0,
            journal_mib=round(int(shared[1]) / 1024, 2) if shared else -1.0,
            descriptors=descriptors,
            tasks=tasks,
        )

    async def _tasks(self, workers: set[int]) -> dict[int, int]:
        """Ask /metrics until every worker has answered: they share the port."""
        found: dict[int, int] = {}
        for _ in range(SCRAPES_MAX):
            if workers <= set(found):
                break
            for pid, value in _TASKS.findall(await self._scrape()):
                found[int(pid)] = int(float(value))
        return found

    async def _scrape(self) -> str:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._arena.port)
            writer.write(b"GET /metrics HTTP/1.1\r\nhost: soak\r\nconnection: close\r\n\r\n")
            async with asyncio.timeout(5):
                said = await reader.read()
            writer.close()
        except (OSError, TimeoutError):
            return ""
        return said.decode("utf-8", "replace")


def drifts(samples: list[Sample], rests: tuple[list[Sample], list[Sample]]) -> list[Drift]:
    """Each figure of each process that lived through the run."""
    before, after = ({one.name: one for one in samples} for samples in rests)
    found = []
    for name in sorted(before):
        mine = [one for one in samples if one.name == name and one.pid == before[name].pid]
        for figure in ("own_mib", "journal_mib", "descriptors", "tasks"):
            values = [float(getattr(one, figure)) for one in mine if getattr(one, figure) >= 0]
            if len(values) < 3:
                continue
            seen = drift_percent(values, SETTLED_SHARE)
            rest = (getattr(before[name], figure), getattr(after[name], figure) if name in after else -1)
            found.append(
                Drift(
                    name=name,
                    figure=figure,
                    first=round(seen.first, 2),
                    last=round(seen.last, 2),
                    percent=round(seen.percent, 2),
                    at_rest=rest,
                )
            )
    return found


async def warm(client: Client, truth: Truth) -> None:
    """Every kind of thing once, so that what is loaded late is loaded before the first look."""
    asked = [truth.ask(50_000 + n, f"Warm {n}.", 20) for n in range(200)]
    for answer in await asyncio.gather(*(client.ask(one) for one in asked)):
        if answer.end != "ended":
            sys.exit(f"the site could not answer in peace: {answer.end}, {answer.why}")


async def measure(args: argparse.Namespace) -> Outcome:
    """One run."""
    clock = MonotonicClock()
    more = settings(args)
    more["gateway"] = {"workers": args.workers}
    async with Arena(Plan(replicas=args.replicas, engine="scripted", more=more), clock) as arena:
        truth = arena.truth()
        client = Client("127.0.0.1", arena.port, clock, PATIENCE_S)
        asked = [truth.ask(n, f"Count from {n}.", args.tokens + n % 40) for n in range(CASES)]
        crowd = Crowd(client, clock, lambda stream, n: asked[(stream * 7 + n * 101) % CASES])
        meter = Meter(arena, clock)
        await warm(client, truth)
        await clock.sleep(REST_S)
        before = await meter.look()
        until = clock.now() + 60 * args.minutes
        pace = Pace(first_s=args.every_s, every_s_min=args.every_s, every_s_max=args.every_s, kinds=args.kinds)
        chaos = Chaos(arena, Havoc(args.seed, pace, clock.now()), clock)
        total = Reckoning()
        async with asyncio.TaskGroup() as group:
            group.create_task(chaos.run(until - args.every_s))
            group.create_task(meter.run(until, args.sample_s))
            load = group.create_task(crowd.run(args.streams, until))
            group.create_task(_count(crowd, truth, chaos, total, (clock, load)))
        await clock.sleep(GRACE_S)
        after = await meter.look()
    if arena.survivors:
        sys.exit(f"left running and killed: {arena.survivors}")
    return _outcome(args, (meter.samples, before, after), total, len(chaos.strikes))


async def _count(
    crowd: Crowd, truth: Truth, chaos: Chaos, total: Reckoning, world: tuple[MonotonicClock, "asyncio.Task[None]"]
) -> None:
    """Reckon as answers come and forget them: half an hour of them would not fit."""
    clock, load = world
    over = False
    while not over:
        over = load.done()
        done, crowd.answers = crowd.answers, []
        recent = [strike for strike in chaos.strikes if clock.now() - strike.at < 2 * PATIENCE_S]
        part = reckon(done, truth.answers, recent)
        for name in Reckoning.__struct_fields__:
            setattr(total, name, getattr(total, name) + getattr(part, name))
        await clock.sleep(0.5)


def _outcome(
    args: argparse.Namespace, seen: tuple[list[Sample], list[Sample], list[Sample]], total: Reckoning, faults: int
) -> Outcome:
    samples, before, after = seen
    now = {one.name: one.pid for one in after}
    pauses = sorted(1000 * pause.seconds for pause in total.pauses)
    return Outcome(
        minutes=args.minutes,
        faults=faults,
        answers=total.answers,
        broken=total.broken,
        affected=total.affected,
        pause_ms_p50=round(percentile(pauses, 0.5), 1) if pauses else -1.0,
        pause_ms_p99=round(percentile(pauses, 0.99), 1) if pauses else -1.0,
        samples=len({one.at for one in samples}),
        replaced=[one.name for one in before if now.get(one.name) != one.pid],
        drifts=drifts(samples, (before, after)),
        whys=sorted({why[:200] for why in total.whys})[:12],
    )


def tell(seen: Outcome) -> None:
    """For people."""
    print(
        f"{seen.minutes:g} minutes, {seen.faults} faults, {seen.answers} answers, {seen.affected} of them moved, "
        f"{seen.broken} broken; pause p50 {seen.pause_ms_p50:g} ms, p99 {seen.pause_ms_p99:g} ms; {seen.samples} samples"
    )
    for one in seen.drifts:
        print(
            f"{one.name:12} {one.figure:12} {one.first:9.2f} -> {one.last:9.2f}  {one.percent:+6.2f} %   "
            f"at rest {one.at_rest[0]:g} -> {one.at_rest[1]:g}"
        )
    for why in (*(f"{name} did not live through it" for name in seen.replaced), *seen.whys):
        print(why)


def _kinds(text: str) -> tuple[Blow, ...]:
    return tuple(Blow(one) for one in text.split(","))


def main() -> int:
    """Exit 1 when an answer was broken, a figure has drifted, or a process that nobody hurt was replaced."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--minutes", type=float, default=30.0)
    add("--streams", type=int, default=100)
    add("--tokens", type=int, default=130)
    add("--token-ms", type=float, default=20.0)
    add("--replicas", type=int, default=3)
    add("--workers", type=int, default=1)
    add("--every-s", type=float, default=10.0, help="from fault to fault")
    add("--sample-s", type=float, default=5.0)
    add("--seed", type=int, default=1)
    add("--silent-s", type=float, default=2.0, help="as in bench/failover.py")
    add("--canary-s", type=float, default=5.0, help="seconds between two canaries")
    add("--drift-max", type=float, default=2.0, help="per cent")
    add("--kinds", type=_kinds, default=KINDS, help=",".join(KINDS))
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seen = runner.run(measure(args))
    tell(seen)
    print(msgspec.json.encode({"bench": "soak", "seed": args.seed, **structs.asdict(seen)}).decode())
    grown = [one for one in seen.drifts if one.percent > args.drift_max and one.figure != "journal_mib"]
    return 0 if seen.answers and not (seen.broken or grown or seen.replaced) else 1


if __name__ == "__main__":
    sys.exit(main())
