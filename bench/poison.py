"""One request among sixty kills every engine that reads it: how many engines does it get, and who else notices?

    python bench/poison.py --runs 50

Real processes: the scripted engine in three replicas under a supervisor, which starts the dead again. Every run lets 60 answers
begin at random moments of a second, and a poisonous request somewhere among them; the five kinds of poison take turns. `raise`
is an exception out of the step, `abort` and `segv` are signals from native code, `silent` is a SIGKILL that leaves nothing
behind, `midway` an exception at the answer's twentieth token. Every innocent answer is compared with its twin from a run
without poison. The seed gives the moments. The last line is one JSON object; exit 1 when a promise was broken.
"""

import argparse
import asyncio
import os
import sys
from pathlib import Path
from random import Random

import msgspec
import uvloop
from msgspec import Struct
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer

import holdfast as package
from holdfast.cli.core_scripted import POISON_ENV
from holdfast.drill.arena import Arena, Plan, Sections
from holdfast.drill.client import Client, Question
from holdfast.drill.questions import question
from holdfast.drill.tail import Tail
from holdfast.host.clock import MonotonicClock
from holdfast.policy.reckoning import Answer, percentile

PEARL = Path(package.__file__).parent / "shipped" / "pearl"
PATIENCE_S = 120.0
SPREAD_S = 1.0
ENGINES_LOST_MAX = 2
KINDS = {
    "raise": ("raise", 0),
    "abort": ("abort", 0),
    "segv": ("segv", 0),
    "silent": ("silent", 0),
    "midway": ("raise", 20),
}
LETTERS = dict(zip(KINDS, "ΑΒΓΔΕ", strict=True))  # no innocent prompt holds one: their bytes are the poison
REFUSED = "as the only suspect"


class Row(Struct, kw_only=True):
    """One kind's line. Milliseconds as named, of innocents that moved; -1 where none did."""

    kind: str
    runs: int = 0
    engines_lost_max: int = 0
    engines_lost: int = 0
    poisons_refused: int = 0  # with the typed answer
    repeats_refused: int = 0  # the same request again, at the door
    innocents: int = 0
    innocents_moved: int = 0
    innocents_broken: int = 0
    pause_ms_p50: float = -1.0
    pause_ms_p99: float = -1.0


def poisons() -> str:
    """The poisons in the words of the scripted engine: each the last byte's token of its letter."""
    tokenizer = Tokenizer.from_file(str(PEARL / "tokenizer.json"))
    last = {kind: tokenizer.encode(letter).ids[-1] for kind, letter in LETTERS.items()}
    if len(set(last.values())) != len(last):
        raise ValueError(f"two poisons share a token: {last}")
    return ",".join(f"{last[kind]}:{how}:{after}" for kind, (how, after) in KINDS.items())


class Bench:
    """One site's worth of runs."""

    def __init__(self, args: argparse.Namespace, arena: Arena, clock: MonotonicClock) -> None:
        self._args, self._arena, self._clock = args, arena, clock
        self._client = Client("127.0.0.1", arena.port, clock, PATIENCE_S)
        self._more = {"temperature": 0.8, "max_tokens": args.tokens, "ignore_eos": True}
        self._asked = [
            question(case, arena.model, f"Count from {case + 1} to {case + 200}.", **self._more)
            for case in range(args.streams)
        ]
        self._at_rest: list[Answer] = []
        self._tail = Tail(arena.folder.events)

    async def rest(self) -> None:
        """The run without poison."""
        self._at_rest = await asyncio.gather(*(self._client.ask(one) for one in self._asked))
        bad = [one for one in self._at_rest if one.end != "ended" or one.moves]
        if bad:
            sys.exit(f"the undisturbed run went wrong: {bad[0].end} {bad[0].why}, {bad[0].moves} moves")

    async def run(self, number: int, row: Row) -> list[float]:
        """One poison among the innocents; returns the pauses of those that moved, in seconds."""
        await self._settled()
        self._tail.more()
        chance = Random(self._args.seed * 1000 + number)
        poison = question(1000, self._arena.model, f"Run {number}: {LETTERS[row.kind]}", **self._more)
        got = await asyncio.gather(
            self._later(poison, chance.uniform(0.2, SPREAD_S + 0.2)),
            *(self._later(one, chance.uniform(0.0, SPREAD_S)) for one in self._asked),
        )
        again = await self._client.ask(poison)
        lost = sum(
            1 for one in self._tail.more() if one["event"] == "process_died" and one["name"].startswith("replica")
        )
        row.runs += 1
        row.engines_lost += lost
        row.engines_lost_max = max(row.engines_lost_max, lost)
        row.poisons_refused += REFUSED in got[0].why
        row.repeats_refused += again.end == "refused" and again.why.startswith("422") and REFUSED in again.why
        row.innocents += len(self._asked)
        broken = [one for one in got[1:] if one.end != "ended" or not one.same_as(self._at_rest[one.case])]
        for one in broken:
            print(f"run {number} {row.kind}: answer {one.case} {one.end} {one.why}", file=sys.stderr)
        row.innocents_broken += len(broken)
        moved = [one for one in got[1:] if one.moves]
        row.innocents_moved += len(moved)
        return [max(b - a for a, b in zip(one.arrivals, one.arrivals[1:], strict=False)) for one in moved]

    async def _later(self, asked: Question, after_s: float) -> Answer:
        await self._clock.sleep(after_s)
        return await self._client.ask(asked)

    async def _settled(self) -> None:
        """Wait until every replica serves again."""
        until = self._clock.now() + PATIENCE_S
        while len(self._arena.roster().places) < self._args.replicas:
            if self._clock.now() > until:
                sys.exit(f"only {len(self._arena.roster().places)} replicas came back")
            await self._clock.sleep(0.05)
        await self._clock.sleep(0.5)


async def measure(args: argparse.Namespace) -> list[Row]:
    """All runs, the kinds in turn."""
    clock, rows = MonotonicClock(), {kind: Row(kind=kind) for kind in args.kinds}
    pauses: dict[str, list[float]] = {kind: [] for kind in args.kinds}
    os.environ[POISON_ENV] = poisons()
    more: Sections = {
        "model": {"path": str(PEARL), "name": "pearl"},
        "replica": {"slots": args.streams, "token_ms": args.token_ms},
        "gateway": {"workers": args.workers},
    }
    async with Arena(Plan(replicas=args.replicas, engine="scripted", more=more), clock) as arena:
        bench = Bench(args, arena, clock)
        await bench.rest()
        for number in range(args.runs):
            kind = args.kinds[number % len(args.kinds)]
            pauses[kind] += await bench.run(number, rows[kind])
    for kind, row in rows.items():
        if pauses[kind]:
            row.pause_ms_p50 = round(1000 * percentile(sorted(pauses[kind]), 0.5), 1)
            row.pause_ms_p99 = round(1000 * percentile(sorted(pauses[kind]), 0.99), 1)
    return list(rows.values())


def tell(rows: list[Row], args: argparse.Namespace) -> None:
    """The table, then the JSON line."""
    table = Table(title=f"A poisonous request beside {args.streams} answers on {args.replicas} replicas")
    table.add_column("")
    for row in rows:
        table.add_column(row.kind, justify="right")
    for name in Row.__struct_fields__[1:]:
        table.add_row(name, *(f"{getattr(row, name):g}" for row in rows))
    Console().print(table)
    print(msgspec.json.encode({"bench": "poison", "seed": args.seed, "streams": args.streams, "rows": rows}).decode())


def main() -> int:
    """Exit 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--runs", type=int, default=50)
    add("--kinds", type=lambda text: text.split(","), default=list(KINDS), help=",".join(KINDS))
    add("--streams", type=int, default=60)
    add("--tokens", type=int, default=150)
    add("--token-ms", type=float, default=20.0, help="pace of the scripted engine")
    add("--replicas", type=int, default=3)
    add("--workers", type=int, default=1)
    add("--seed", type=int, default=1)
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rows = runner.run(measure(args))
    tell(rows, args)
    kept = all(
        row.engines_lost_max <= ENGINES_LOST_MAX
        and not row.innocents_broken
        and row.poisons_refused == row.repeats_refused == row.runs
        for row in rows
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
