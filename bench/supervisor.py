"""What only looks on is killed or removed under load: does any client notice, does any process restart?

    python bench/supervisor.py

Four blows, one after the other, while streams run and new requests drizzle: the control plane is killed; the files that hold the
site's state (roster, view, events) are removed; the supervisor is killed, and a while later another one started; the files are
removed and the supervisor is killed before it can write them anew. Passed means: every answer exact, no new request failed, and
every process that was not killed lives on under its pid. The last line is one JSON object.
"""

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import uvloop
from msgspec import Struct, structs

from holdfast.drill.arena import Arena, Plan
from holdfast.drill.client import Client
from holdfast.drill.crowd import Crowd, Drizzle
from holdfast.host.clock import MonotonicClock
from holdfast.policy.reckoning import reckon

PATIENCE_S = 60.0
CASES = 60
WITHIN_S = 30.0
FILES_S = 5.0  # how long we look whether removed files come back
BETWEEN_S = 1.0


class Row(Struct, kw_only=True):
    """One blow. `over_after_s`: until everything was as before (control serves again, all processes adopted)."""

    blow: str
    over_after_s: float
    processes: int  # that were not to die
    kept: int  # under their pids
    files_back: list[str]


class Outcome(Struct, kw_only=True):
    """What was seen."""

    streams: int
    answers: int
    exact: int
    moves: int
    new_requests: int
    new_requests_failed: int
    headless_s: float
    rows: list[Row]
    whys: list[str]


class Blows:
    """What is done to the site."""

    def __init__(self, arena: Arena, clock: MonotonicClock, headless_s: float) -> None:
        self._arena, self._clock, self._headless_s = arena, clock, headless_s

    async def strike(self, name: str, blow: Callable[[], Awaitable[float]], dies: str = "") -> Row:
        """Do it, and see who lives on."""
        before = self._pids()
        over_after_s = await blow()
        await self._clock.sleep(BETWEEN_S)
        after = self._pids()
        stay = {process: pid for process, pid in before.items() if process != dies}
        return Row(
            blow=name,
            over_after_s=round(over_after_s, 3),
            processes=len(stay),
            kept=sum(after.get(process) == pid for process, pid in stay.items()),
            files_back=[path.name for path in self._files() if path.exists()],
        )

    async def control(self) -> float:
        """SIGKILL to the control plane."""
        pid, began = self._pids()["control"], self._clock.now()
        os.kill(pid, signal.SIGKILL)

        def again() -> bool:
            site = self._arena.site()
            control = next((one for one in site.processes if one.name == "control"), None) if site else None
            return control is not None and control.pid not in (0, pid) and control.state == "serving"

        return await self._until(again, began, WITHIN_S)

    async def files(self) -> float:
        """Remove the state files; the supervisor lives."""
        began = self._clock.now()
        self._remove()
        return await self._until(lambda: all(path.exists() for path in self._files()[:2]), began, FILES_S)

    async def supervisor(self) -> float:
        """SIGKILL to the supervisor, nobody for a while, then another one."""
        await self._arena.kill_supervisor()
        await self._clock.sleep(self._headless_s)
        return await self._adopted()

    async def both(self) -> float:
        """The files go while nobody is there to write them anew."""
        await self._arena.kill_supervisor()
        self._remove()
        await self._clock.sleep(self._headless_s)
        return await self._adopted()

    async def _adopted(self) -> float:
        began = self._clock.now()
        await self._arena.start_supervisor()

        def done() -> bool:
            site = self._arena.site()
            ours = site is not None and site.supervisor_pid == self._arena.supervisor_pid
            return site is not None and ours and all(one.pid for one in site.processes)

        return await self._until(done, began, WITHIN_S)

    async def _until(self, done: Callable[[], bool], began: float, within_s: float) -> float:
        """Seconds until it is done; -1 if it is not in time."""
        while self._clock.now() - began < within_s:
            if done():
                return self._clock.now() - began
            await self._clock.sleep(0.02)
        return -1.0

    def _files(self) -> tuple[Path, ...]:
        folder = self._arena.folder
        older = folder.events.with_name(folder.events.name + ".1")
        return folder.roster, folder.site, folder.events, older, folder.root / "wishes.json"

    def _remove(self) -> None:
        for path in self._files():
            path.unlink(missing_ok=True)

    def _pids(self) -> dict[str, int]:
        """Every process of the site but the supervisor."""
        site = self._arena.site()
        return {process.name: process.pid for process in site.processes} if site is not None else {}


async def measure(args: argparse.Namespace) -> Outcome:
    """One run: load, and the blows one after the other."""
    clock = MonotonicClock()
    async with Arena(Plan(engine="scripted", more={"replica": {"token_ms": 20.0}}), clock) as arena:
        truth = arena.truth()
        client = Client("127.0.0.1", arena.port, clock, PATIENCE_S)
        asked = [truth.ask(n, f"Count from {n} to 99.", args.tokens) for n in range(CASES)]
        crowd = Crowd(client, clock, lambda stream, number: asked[(stream + number) % CASES])
        drizzle = Drizzle(client, clock, truth.ask(CASES, "Hello.", 4), args.background)
        blows = Blows(arena, clock, args.headless_s)
        async with asyncio.TaskGroup() as group:
            group.create_task(crowd.run(args.streams, float("inf")))
            group.create_task(drizzle.run())
            await clock.sleep(BETWEEN_S)
            rows = [
                await blows.strike("control plane killed", blows.control, dies="control"),
                await blows.strike("state files removed", blows.files),
                await blows.strike("supervisor killed", blows.supervisor),
                await blows.strike("files removed, supervisor killed", blows.both),
            ]
            crowd.closing = drizzle.closing = True
    if arena.survivors:
        sys.exit(f"left running and killed: {arena.survivors}")
    total, short = reckon(crowd.answers, truth.answers, []), reckon(drizzle.answers, truth.answers, [])
    return Outcome(
        streams=args.streams,
        answers=total.answers,
        exact=total.exact,
        moves=crowd.moves,
        new_requests=short.answers,
        new_requests_failed=short.broken,
        headless_s=args.headless_s,
        rows=rows,
        whys=sorted({why[:200] for why in (*total.whys, *short.whys)})[:12],
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
        seen = runner.run(measure(args))
    failed = seen.answers - seen.exact + seen.new_requests_failed
    print(
        f"{seen.streams} streams: {seen.answers} answers, {seen.exact} exact, {seen.moves} moves; "
        f"{seen.new_requests} new requests, {seen.new_requests_failed} failed"
    )
    for row in seen.rows:
        print(
            f"{row.blow}: {row.kept} of {row.processes} processes live on with their pids, as before after "
            f"{row.over_after_s:g} s; there are now: {', '.join(row.files_back)}"
        )
    for why in seen.whys:
        print(why)
    print(msgspec.json.encode({"bench": "supervisor", **structs.asdict(seen)}).decode())
    return 0 if failed == 0 and all(row.kept == row.processes and row.over_after_s >= 0 for row in seen.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
