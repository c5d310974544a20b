"""Real clients over the whole surface, at rest and under fire: does each hear the same when the replica that serves it is killed?

    python bench/clients.py [--runs 500] [--seed 1] [--replicas 3] [--only NAME,...]

Each client (bench/callers.py) first asks for each feature at rest; what it hears is checked and kept. Then a crowd of them asks
for everything again and again, while replicas of a copy of the shipped model (bench/gap_model.py) are killed at random, until
`--runs` answers were cut at some token and went on elsewhere. What is heard must be the same: text, reasoning, whole calls
with the same arguments, JSON that the schema describes. `--runs 0` stops after the first. Retries are asked of a second
site, which lets in a request a second. The last line is one JSON object; exit 1 when anything was missed.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any

import jsonschema
import msgspec
import uvloop
from callers import FEATURES, NODE, SCHEMA, Anthropic, Caller, Heard, Node, Python
from chains import LangChain
from gap_model import write_gap_model
from langchain_deepseek import ChatDeepSeek
from langchain_openai import ChatOpenAI
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from holdfast.drill.arena import Arena, Plan, Sections
from holdfast.host.clock import MonotonicClock
from holdfast.policy.havoc import Blow

ROOT = Path(__file__).parents[1]
NODE_FOLDER = ROOT / ".venv" / "node"
NODE_CLIENT = "openai@6"
MOVED = "answer_moved"
AT_ONCE = 24
HIT_S = 0.5  # a kill comes so long after all replicas serve, at most
GONE_S = 0.5  # by then the supervisor has taken it out of the roster
ERRORS = {
    "openai (Python)": "404 model; 400 temperature; 400 messages",
    "openai (Node.js)": "404 model; 400 temperature; 400 messages",
    "ChatOpenAI": "404 model; 400 temperature",
    "ChatDeepSeek": "404 model; 400 temperature",
    "anthropic (Python)": "404 not_found_error; 400 invalid_request_error; 400 invalid_request_error",
}


class Outcome(Struct, kw_only=True):
    """`table`: by client and feature, `green`, `no` or `missed` with the why. The rest is of those under fire."""

    table: dict[str, dict[str, str]]
    asked: int = 0
    violations: int = 0
    kills: int = 0
    moves: int = 0


def has_numbers(text: str) -> bool:
    """Whether it is JSON that the bench's schema describes."""
    try:
        jsonschema.validate(json.loads(text), SCHEMA)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def is_sum(heard: Heard) -> bool:
    return "42" in heard.content


CHECKS: dict[str, Callable[[Heard], bool]] = {
    "chat": is_sum,
    "stream": lambda heard: "67, 68" in heard.content.replace(" 67 68", " 67, 68") or "67 68" in heard.content,
    "reasoning": lambda heard: is_sum(heard) and bool(heard.reasoning),
    "tools": lambda heard: heard.calls == (("get_weather", '{"city": "Rome"}'),) and "sunny" in heard.content,
    "forced tool": lambda heard: [name for name, _ in heard.calls] == ["note"] and has_numbers(heard.calls[0][1]),
    "JSON schema": lambda heard: has_numbers(heard.content),
    "prefix": lambda heard: bool(heard.content) and not heard.content.lstrip().startswith("7"),
    "FIM": lambda heard: heard.finish in ("stop", "length"),
    "n": lambda heard: len(set(json.loads(heard.content))) == 3,
    "logprobs": lambda heard: heard.content.startswith("True: ") and is_sum(heard),
    "completions": lambda heard: all(json.loads(heard.content)),
    "responses": lambda heard: heard.calls == (("get_weather", '{"city": "Rome"}'),) and heard.finish == "completed",
    "retries": lambda heard: heard.content.count("42") == 3,
}


def complaint(caller: Caller, feature: str, heard: Heard) -> str:
    """What is wrong with it; empty when nothing is."""
    right = heard.content == ERRORS[caller.name] if feature == "errors" else CHECKS[feature](heard)
    return "" if right else f"heard {heard}"


def node_client() -> Path | None:
    """The folder with the openai package for Node.js, installed there if need be; None where there is no Node.js."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return None
    if not (NODE_FOLDER / "node_modules" / "openai").is_dir():
        NODE_FOLDER.mkdir(parents=True, exist_ok=True)
        (NODE_FOLDER / "package.json").write_text("{}")
        words = ["npm", "install", "--no-audit", "--no-fund", "--silent", NODE_CLIENT]
        subprocess.run(words, cwd=NODE_FOLDER, check=True, timeout=300)
    shutil.copyfile(NODE, NODE_FOLDER / NODE.name)
    return NODE_FOLDER


def callers(site: str, poor: str) -> Iterable[Caller]:
    """All of them. `site` and `poor` are addresses without a path; the poor site lets in a request a second."""
    yield Python(site, poor).caller()
    node = node_client()
    if node is not None:
        yield Node(node, site, poor).caller()
    yield Anthropic(site, poor).caller()
    yield LangChain(ChatOpenAI, site, poor).caller()
    yield LangChain(ChatDeepSeek, site, poor).caller()


async def asked(caller: Caller, feature: str) -> tuple[Heard | None, str]:
    """What it hears, or why it hears nothing. A client's own error is a finding here, whatever its kind."""
    outcome = (await asyncio.gather(asyncio.to_thread(caller.asks[feature]), return_exceptions=True))[0]
    if isinstance(outcome, Heard):
        return outcome, complaint(caller, feature, outcome)
    return None, f"{type(outcome).__name__}: {outcome}"


async def at_rest(all_of_them: list[Caller]) -> tuple[Outcome, dict[tuple[str, str], Heard]]:
    """Everything once, one after the other."""
    outcome, known = Outcome(table={}), {}
    for caller in all_of_them:
        row = outcome.table.setdefault(caller.name, {})
        for feature in FEATURES:
            if feature not in caller.asks:
                row[feature] = f"no: {caller.reasons[feature]}"
                continue
            heard, why = await asked(caller, feature)
            row[feature] = f"missed: {why}" if why else "green"
            if heard is not None and not why:
                known[caller.name, feature] = heard
    return outcome, known


async def under_fire(arena: Arena, pairs: list[tuple[Caller, str, Heard]], args: argparse.Namespace) -> Outcome:
    """A crowd asks without a pause, and one replica after the other is killed, until so many answers had to move."""
    random, clock, outcome = Random(args.seed), MonotonicClock(), Outcome(table={})
    found: Counter[str] = Counter()

    async def ask_on() -> None:
        while outcome.moves < args.runs:
            caller, feature, known = random.choice(pairs)
            heard, why = await asked(caller, feature)
            outcome.asked += 1
            if heard != known:
                outcome.violations += 1
                found[f"{caller.name}, {feature}: {why or f'heard {heard}, at rest {known}'}"] += 1

    with contextlib.closing(arena.tail()) as tail:
        crowd = [asyncio.create_task(ask_on()) for _ in range(AT_ONCE)]
        while outcome.moves < args.runs:
            while len(arena.roster().places) < args.replicas:
                await clock.sleep(0.05)
            await clock.sleep(random.random() * HIT_S)
            outcome.kills += arena.strike(random.choice(arena.roster().places), Blow.KILL)
            await clock.sleep(GONE_S)
            outcome.moves += sum(event.get("event") == MOVED for event in tail.more())
            told = f"{outcome.asked} asked, {outcome.kills} kills, {outcome.moves} answers moved"
            print(f"{told}, {outcome.violations} violations", flush=True)
        await asyncio.gather(*crowd)
    for said, times in found.most_common(20):
        print(f"{times} x {said}"[:1500])
    return outcome


async def measure(args: argparse.Namespace) -> Outcome:
    """Both sites, from start to end."""
    clock = MonotonicClock()
    async with AsyncExitStack() as after:
        folder = Path(after.enter_context(tempfile.TemporaryDirectory(prefix="holdfast-model-")))
        model: Sections = {"model": {"path": str(write_gap_model(folder / "pearl")), "name": "pearl"}}
        poor: Sections = {**model, "admission": {"requests_per_s": 1, "burst": 1}}
        arena = await after.enter_async_context(Arena(Plan(replicas=args.replicas, more=model), clock))
        other = await after.enter_async_context(Arena(Plan(replicas=1, more=poor), clock))
        site, beside = (f"http://127.0.0.1:{one.port}" for one in (arena, other))
        wanted = [one for one in callers(site, beside) if not args.only or one.name in args.only]
        outcome, known = await at_rest(wanted)
        if args.runs:
            pairs = [
                (one, feature, known[one.name, feature])
                for one in wanted
                for feature in one.asks
                if (one.name, feature) in known and feature != "retries"
            ]
            fired = await under_fire(arena, pairs, args)
            fired.table = outcome.table
            outcome = fired
    return outcome


def shown(outcome: Outcome) -> Table:
    """Feature by client."""
    table = Table("feature", *outcome.table)
    for feature in FEATURES:
        table.add_row(feature, *(row.get(feature, "") for row in outcome.table.values()))
    return table


def main() -> int:
    """Exit 1 when a feature is neither green nor explained, or an answer under fire was another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500, help="answers that have to move")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--only", type=lambda words: words.split(","), default=[])
    args = parser.parse_args()
    os.environ |= {"LANGCHAIN_TRACING_V2": "false", "LANGSMITH_TRACING": "false"}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        outcome = runner.run(measure(args))
    Console(width=200).print(shown(outcome))
    told: dict[str, Any] = {"bench": "clients", **msgspec.structs.asdict(outcome)}
    print(json.dumps(told, ensure_ascii=False))
    missed = [said for row in outcome.table.values() for said in row.values() if said.startswith("missed")]
    return 1 if missed or outcome.violations or (args.runs and not outcome.moves) else 0


if __name__ == "__main__":
    sys.exit(main())
