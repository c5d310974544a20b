"""Chats of several turns over the embedded engine, with and without affinity: how much of a prompt is found in a cache?

    python bench/affinity.py [--chats 8] [--turns 5] [--replicas 3] [--slots 8] [--words 45] [--tokens 16] [--rounds 1]

So many people talk at the same time; each says something new, reads the answer, thinks a while and goes on. The prompt of a turn
is the whole conversation so far, and whoever has read it before needs to read the new part only. Counted for all turns but each
chat's first: `cached_share` is the share of prompt tokens that the replica found in its cache (it says so itself, in `usage`),
`read_before_share` the share that the turn before had in its prompt, `first_token_ms` runs from the request to the first piece of
the answer. The people, their words and their pauses are the same in all runs.
The last line is one JSON object.
"""

import argparse
import asyncio
import json
import time
from random import Random
from typing import Any

import uvloop
from msgspec import Struct
from openai import AsyncOpenAI

from holdfast.drill.arena import Arena, Plan
from holdfast.host.clock import MonotonicClock

THINK_S = 3.0  # on average
WORDS = (
    "river",
    "stone",
    "cloud",
    "lamp",
    "paper",
    "garden",
    "window",
    "bread",
    "winter",
    "harbour",
    "letter",
    "bridge",
)


class Turn(Struct):
    """What one turn took."""

    number: int
    prompt_tokens: int
    cached_tokens: int
    before_tokens: int  # of the turn before
    first_token_s: float


def percentile(values: list[float], share: float) -> float:
    """The value that so large a share does not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]


async def turn(
    client: AsyncOpenAI, model: str, said: list[Any], args: argparse.Namespace, number: int
) -> tuple[Turn, str]:
    """Ask once; returns what it took and the answer."""
    began, first_s, text, usage = time.perf_counter(), 0.0, "", None
    stream = await client.chat.completions.create(
        model=model,
        messages=said,
        max_tokens=args.tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"thinking": {"type": "disabled"}, "ignore_eos": True},
    )
    async for event in stream:
        piece = event.choices[0].delta.content if event.choices else None
        if piece:
            first_s = first_s or time.perf_counter() - began
            text += piece
        usage = event.usage or usage
    if usage is None or usage.prompt_tokens_details is None:
        raise SystemExit("the site does not tell its usage")
    cached = usage.prompt_tokens_details.cached_tokens or 0
    return Turn(number, usage.prompt_tokens, cached, 0, first_s), text


async def chat(client: AsyncOpenAI, model: str, args: argparse.Namespace, seed: int) -> list[Turn]:
    """One person's conversation."""
    random, said, found = Random(seed), [], []
    await asyncio.sleep(random.uniform(0, 2 * THINK_S))
    for number in range(args.turns):
        said.append({"role": "user", "content": " ".join(random.choices(WORDS, k=args.words))})
        took, text = await turn(client, model, said, args, number)
        took.before_tokens = found[-1].prompt_tokens if found else 0
        found.append(took)
        said.append({"role": "assistant", "content": text})
        await asyncio.sleep(random.expovariate(1 / THINK_S))
    return found


async def talk(args: argparse.Namespace, affinity: bool, seed: int) -> list[Turn]:
    """All chats on a site of their own."""
    more = {"balance": {"affinity": affinity}, "replica": {"slots": args.slots}}
    async with Arena(Plan(replicas=args.replicas, more=more), MonotonicClock()) as arena:
        client = AsyncOpenAI(base_url=f"http://127.0.0.1:{arena.port}/v1", api_key="none", max_retries=0)
        async with client:
            chats = [chat(client, arena.model, args, 1000 * seed + number) for number in range(args.chats)]
            return [one for found in await asyncio.gather(*chats) for one in found]


def summary(turns: list[Turn], affinity: bool) -> dict[str, Any]:
    """One row."""
    later = [one for one in turns if one.number > 0]
    prompts = sum(one.prompt_tokens for one in later)
    first_ms = [1000 * one.first_token_s for one in later]
    return {
        "affinity": affinity,
        "turns": len(later),
        "prompt_tokens": prompts,
        "read_before_share": round(sum(one.before_tokens for one in later) / prompts, 3),
        "cached_share": round(sum(one.cached_tokens for one in later) / prompts, 3),
        "first_token_ms_p50": round(percentile(first_ms, 0.5), 1),
        "first_token_ms_p90": round(percentile(first_ms, 0.9), 1),
        "first_token_ms_p99": round(percentile(first_ms, 0.99), 1),
    }


def main() -> int:
    """Run it without and with affinity in turn, and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("chats", 8), ("turns", 5), ("replicas", 3), ("slots", 8), ("words", 45), ("tokens", 16)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    found: dict[bool, list[Turn]] = {False: [], True: []}
    for number in range(args.rounds):
        for affinity in (False, True):
            found[affinity] += uvloop.run(talk(args, affinity, number))
    rows = [summary(turns, affinity) for affinity, turns in found.items()]
    for row in rows:
        print("  ".join(f"{key} {value}" for key, value in row.items()))
    print(json.dumps({"bench": "affinity", "replicas": args.replicas, "chats": args.chats, "rows": rows}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
