"""Answers fail: does the site degrade in time, does it come back, does it say why, and does it stay still under noise?

    python bench/ladder_drill.py [--rate 150] [--noise 60] [--seed 1] [--no-smaller]

A real site of scripted replicas that fail a given share of their attempts, evenly spread. What a replica fails and another one
makes good is no error of the site's: with failover as usual the same errors must change nothing (`moved`). Then failover is
switched off (moves_max = 0), so that each of them reaches its client, and:

    degrade   6 % of all answers fail: how soon is the first rung taken, and what do the rungs do to requests
    recover   no more errors: how soon is full service back
    noise     each second another share, drawn from 0 to 10 %: twice the limit at times, half of it at others
    smaller   40 % of the site's own model's answers fail: how many of the smaller model's do

Passed: the first rung within [degradation] window_s and a look; back at full service in the end; both workers on one rung; every
change in the log with its sentence; not more upward turns in the noisy run than policy/ladder.py promises. The last line is JSON.
"""

import argparse
import asyncio
import contextlib
import sys
from pathlib import Path
from random import Random
from typing import Any

import httpx
import msgspec
import uvloop
from msgspec import Struct
from rich.console import Console

from holdfast.domain.settings import Settings
from holdfast.drill.arena import Arena, Plan, Sections
from holdfast.drill.client import Client, Question
from holdfast.drill.crowd import Drizzle
from holdfast.drill.questions import question
from holdfast.drill.tail import Tail
from holdfast.host.clock import MonotonicClock
from holdfast.policy.ladder import RELAPSES
from holdfast.policy.reckoning import Answer
from holdfast.sim.levers import Pull
from holdfast.store.board import board_folder, views

SHIPPED = Path(__file__).parents[1] / "src/holdfast/shipped/pearl"
RULES = Settings().degradation
SHARE = 0.06
NOISE_MAX = 0.10
BAD = 0.4
MARGIN_S = 1.0  # looks and tellings: 0.25 s and 0.1 s, on a machine that has other things to do
GIVE_UP_S = 90.0
REPLICAS = 3


class Change(Struct, frozen=True):
    """One step of the ladder, as the log has it; `after_s` since its part of the drill began."""

    after_s: float
    before: int
    after: int
    name: str
    why: str


class Part(Struct, kw_only=True):
    """One part of the drill."""

    name: str
    seconds: float
    answers: int
    failed: int
    refused: int
    changes: list[Change] = []
    first_rung_s: float = -1.0
    full_service_s: float = -1.0
    notes: dict[str, Any] = {}

    @property
    def up_turns(self) -> int:
        """How often it went up after it had gone down."""
        turns, falling = 0, False
        for one in self.changes:
            if one.after < one.before:
                falling = True
            elif falling:
                turns, falling = turns + 1, False
        return turns


class Site:
    """An arena under a steady stream of short requests."""

    def __init__(self, arena: Arena, args: argparse.Namespace) -> None:
        self._arena, self._clock = arena, MonotonicClock()
        self._client = Client("127.0.0.1", arena.port, self._clock, 30.0)
        self._question: Question = question(0, arena.model, "Hello.", max_tokens=6, ignore_eos=True)
        self._rate, self._tail = args.rate, Tail(arena.folder.events)
        self._drizzle = Drizzle(self._client, self._clock, self._question, args.rate)
        self.rungs: set[tuple[int, ...]] = set()
        self.apart_s = self._apart_since = 0.0

    async def load(self) -> None:
        """Ask on and on."""
        await self._drizzle.run()

    def close(self) -> None:
        """Ask nothing more."""
        self._drizzle.closing = True
        self._tail.close()

    async def errors(self, share: float, replicas: str = "replica-") -> None:
        """All replicas of that name fail this share of what begins from now on."""
        for place in self._arena.roster().places:
            if place.replica.startswith(replicas):
                pull = Pull("errors", share=share) if share else Pull("heal")
                if await self._arena.pull(place.replica, pull) is None:
                    sys.exit(f"{place.replica} has no levers")

    async def part(self, name: str, until_rung: int | None, seconds: float) -> Part:
        """Watch for `seconds`, or until the site stands on a rung (at most GIVE_UP_S)."""
        began, done, part = (
            self._clock.now(),
            len(self._drizzle.answers),
            Part(name=name, seconds=0, answers=0, failed=0, refused=0),
        )
        while True:
            await self._clock.sleep(0.05)
            now = self._clock.now() - began
            for one in self._tail.more():
                if one["event"] == "rung_changed":
                    change = Change(round(now, 2), one["before"], one["after"], one["name"], one["why"])
                    part.changes.append(change)
                    if change.after > change.before and part.first_rung_s < 0:
                        part.first_rung_s = change.after_s
                    if not change.after:
                        part.full_service_s = change.after_s
            rung = self._look()
            if now >= (seconds if until_rung is None else GIVE_UP_S) or (until_rung is not None and rung == until_rung):
                break
        answers = self._drizzle.answers[done:]
        part.seconds, part.answers = round(now, 2), len(answers)
        part.failed = sum(
            _is(one, "errored", "engine_lost", "503: ") and not _is(one, "refused", "degraded") for one in answers
        )
        part.refused = sum(one.end == "refused" for one in answers)
        return part

    def _look(self) -> int:
        """The rung that the workers tell of; how long they tell of different ones is taken down."""
        told = views(board_folder(self._arena.folder.root))
        rungs, now = {view.rung for view in told}, self._clock.now()
        if len(rungs) < 2:
            self._apart_since = 0.0
        elif not self._apart_since:
            self._apart_since = now
        else:
            self.apart_s = max(self.apart_s, now - self._apart_since)
        return max(rungs, default=0)

    async def ask(self, max_tokens: int = 600, **headers: str) -> dict[str, Any]:
        """One request beside the stream, as a client would send it."""
        body = {"model": self._arena.model, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": max_tokens}
        url = f"http://127.0.0.1:{self._arena.port}/v1/chat/completions"
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        async with httpx.AsyncClient(timeout=30) as client:
            for _ in range(5):  # it may itself be one of those that fail
                answer = await client.post(url, json={**body, "thinking": {"type": "enabled"}}, headers=headers)
                said = answer.json()
                if answer.status_code == 200 or said["error"]["code"] != "engine_lost":
                    break
        told = {"status": answer.status_code, "degraded": answer.headers.get("x-holdfast-degraded", "")}
        if answer.status_code == 200:
            usage = said["usage"]
            thought = usage["completion_tokens_details"]["reasoning_tokens"]
            return {**told, "model": said["model"], "tokens": usage["completion_tokens"], "of_reasoning": thought}
        return {**told, "message": said["error"]["message"]}


def _is(answer: Answer, *words: str) -> bool:
    return any(word in answer.end or word in answer.why for word in words)


@contextlib.asynccontextmanager
async def site(args: argparse.Namespace, moves_max: int, smaller: bool):
    """A site that is up, with its stream of requests running."""
    more: Sections = {
        "replica": {"token_ms": 2.0, "slots": 32, "context_tokens_max": 1024},
        "gateway": {"workers": 2},
        "failover": {"moves_max": moves_max},
        "breaker": {"errors_share": 1.0, "failures_max": 100_000},  # replicas' breakers are another matter
    }
    if smaller:
        more["smaller"] = {"path": str(SHIPPED), "name": "tiny", "count": 1}
    arena = Arena(Plan(replicas=REPLICAS, engine="scripted", more=more), MonotonicClock())
    async with arena:
        one = Site(arena, args)
        load = asyncio.create_task(one.load())
        try:
            yield one
        finally:
            one.close()
            await load
    if arena.survivors:
        sys.exit(f"left running and killed: {arena.survivors}")


async def drill(args: argparse.Namespace) -> tuple[list[Part], float]:
    """All parts, and how long the workers stood on different rungs at most."""
    parts = []
    async with site(args, Settings().failover.moves_max, smaller=False) as one:
        await one.errors(SHARE)
        parts.append(await one.part("moved", None, RULES.window_s + 5))
    async with site(args, 0, smaller=args.smaller) as one:
        parts.append(await one.part("quiet", None, 5))
        await one.errors(SHARE)
        parts.append(await one.part("degrade", 1, 0))
        parts.append(await one.part("persist", 3, 0))
        parts[-1].notes = {
            "asked": await one.ask(),
            "never": await one.ask(x_holdfast_degrade="never"),
            "sheddable": await one.ask(x_holdfast_priority="-1"),
        }
        await one.errors(0)
        parts.append(await one.part("recover", 0, 0))
        draw, noisy = Random(args.seed), Part(name="noise", seconds=0, answers=0, failed=0, refused=0)
        for _ in range(args.noise):
            await one.errors(draw.uniform(0, NOISE_MAX))
            _add(noisy, await one.part("noise", None, 1))
        parts.append(noisy)
        await one.errors(0)
        parts.append(await one.part("calm again", 0, 0))
        if args.smaller:
            await one.errors(BAD)
            parts.append(await one.part("to rung 4", 4, 0))
            parts.append(await one.part("smaller", None, 5))
            parts[-1].notes = {"asked": await one.ask(), "never": await one.ask(x_holdfast_degrade="never")}
            await one.errors(0)
            parts.append(await one.part("last", 0, 0))
        return parts, one.apart_s


def _add(whole: Part, part: Part) -> None:
    changes = [msgspec.structs.replace(one, after_s=round(one.after_s + whole.seconds, 2)) for one in part.changes]
    whole.changes += changes
    whole.seconds = round(whole.seconds + part.seconds, 2)
    whole.answers, whole.failed, whole.refused = (
        whole.answers + part.answers,
        whole.failed + part.failed,
        whole.refused + part.refused,
    )


def faults(parts: list[Part], apart_s: float, smaller: bool) -> list[str]:
    """What is not as promised."""
    by, found = {part.name: part for part in parts}, []
    if by["moved"].changes or by["moved"].failed:
        found.append("errors that failover made good have changed something")
    if by["quiet"].changes:
        found.append("it degraded in peace")
    if not 0 <= by["degrade"].first_rung_s <= RULES.window_s + MARGIN_S:
        found.append(f"the first rung came after {by['degrade'].first_rung_s} s, not within {RULES.window_s:g}")
    if by["recover"].full_service_s < 0 or (by["calm again"].full_service_s < 0 and by["noise"].changes):
        found.append("full service did not come back")
    allowed = 1 + by["noise"].seconds / (RELAPSES * RULES.calm_s)
    if by["noise"].up_turns > allowed:
        found.append(f"{by['noise'].up_turns} upward turns in the noisy run, {allowed:.0f} are allowed")
    if any(not change.why for part in parts for change in part.changes):
        found.append("a change without a sentence")
    if apart_s > MARGIN_S:
        found.append(f"the workers stood on different rungs for {apart_s:.1f} s")
    notes = by["persist"].notes
    if (
        "max_tokens=512" not in notes["asked"]["degraded"]
        or notes["never"]["degraded"]
        or notes["never"]["tokens"] != 600
    ):
        found.append("the header does not say what was done")
    if notes["sheddable"]["status"] != 503:
        found.append("a request of a priority below 0 was served on rung 3")
    if smaller and (
        by["smaller"].notes["asked"].get("model") != "tiny" or by["smaller"].notes["never"].get("model") == "tiny"
    ):
        found.append("the smaller model did not answer for those who let it, and for them alone")
    return found


def main() -> int:
    """Exit 1 when something is not as promised."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=150.0, help="requests a second")
    parser.add_argument("--noise", type=int, default=60, help="seconds of noise")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-smaller", dest="smaller", action="store_false")
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        parts, apart_s = runner.run(drill(args))
    console = Console(width=150, highlight=False)
    for part in parts:
        share = part.failed / part.answers if part.answers else 0.0
        console.print(
            f"[bold]{part.name}[/]: {part.seconds:g} s, {part.answers} answers, {share:.1%} failed, {part.refused} refused"
        )
        for one in part.changes:
            console.print(f"   {one.after_s:6.2f} s  {one.before} -> {one.after} {one.name}: {one.why}")
        for name, note in part.notes.items():
            console.print(f"   {name}: {note}")
    complaints = faults(parts, apart_s, args.smaller)
    for one in complaints:
        console.print(f"[red]{one}[/]")
    row = {"bench": "ladder_drill", "passed": not complaints, "workers_apart_s": round(apart_s, 2), "parts": parts}
    print(msgspec.json.encode(row).decode())
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
