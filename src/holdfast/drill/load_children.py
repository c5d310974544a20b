"""The processes of a load: each plays its share of one schedule, and the parent adds up what they saw."""

import asyncio
import resource
import sys
from collections.abc import Callable

import msgspec
from msgspec import Struct

from holdfast.domain.ports import Clock
from holdfast.drill.load_crew import Crew
from holdfast.drill.load_plan import Plan
from holdfast.drill.load_tally import Sheet, Tally

START_S = 0.5  # for one process to draw its schedule and get ready, and so much more a million requests
LINE_BYTES_MAX = 64 * 1024 * 1024
LEAVE_S = 5.0


class Share(Struct, frozen=True):
    """What one process is told."""

    plan: Plan
    share: int
    of: int
    begin_at: float


class Word(Struct):
    """What it says: how far it is, and at its end everything."""

    counts: dict[str, int] = {}
    sheet: Sheet | None = None


class Lost(RuntimeError):
    """A process of the load ended without its word."""


async def play(share: Share, clock: Clock, say: Callable[[bytes], None]) -> None:
    """A child's whole life."""
    raise_descriptors()
    crew = Crew(share.plan, clock, share.share, share.of)
    tally = await crew.run(share.begin_at, lambda so_far: say(msgspec.json.encode(Word(so_far.counts))))
    used = resource.getrusage(resource.RUSAGE_SELF)
    tally.cpu_s = used.ru_utime + used.ru_stime
    say(msgspec.json.encode(Word(tally.counts, tally.sheet())))


async def run(plan: Plan, processes: int, clock: Clock, tell: Callable[[dict[str, int]], None]) -> Tally:
    """Play a plan. `tell` hears the counts so far, of all processes together, a few times a second.

    Raises:
        Lost: a process died.
    """
    tally = Tally()
    requests = sum(phase.rate * phase.seconds for phase in plan.phases)
    begin_at = clock.now() + START_S * processes + 2 * START_S * requests / 1e5
    so_far: list[dict[str, int]] = [{} for _ in range(processes)]

    def heard(share: int, word: Word) -> None:
        so_far[share] = word.counts
        total: dict[str, int] = {}
        for counts in so_far:
            for name, count in counts.items():
                total[name] = total.get(name, 0) + count
        tell(total)

    shares = [Share(plan, number, processes, begin_at) for number in range(processes)]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_child(share, heard)) for share in shares]
    except ExceptionGroup as several:
        raise Lost(str(several.exceptions[0])) from several
    for task in tasks:
        tally.add(task.result())
    return tally


async def _child(share: Share, heard: Callable[[int, Word], None]) -> Sheet:
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "holdfast", "load", "--raw", "raw"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=LINE_BYTES_MAX,
        start_new_session=True,
    )
    try:
        assert child.stdin is not None and child.stdout is not None
        child.stdin.write(msgspec.json.encode(share) + b"\n")
        child.stdin.close()
        async for line in child.stdout:
            word = msgspec.json.decode(line, type=Word)
            heard(share.share, word)
            if word.sheet is not None:
                return word.sheet
        raise Lost(f"process {share.share} of the load ended with {await child.wait()} before it had told what it saw")
    finally:
        if child.returncode is None:
            child.terminate()
            try:
                async with asyncio.timeout(LEAVE_S):
                    await child.wait()
            except TimeoutError:
                child.kill()


def raise_descriptors() -> None:
    """As many open files as this process may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
