"""Cuts greedy answers of a real vLLM at a random token and has it go on with them: how many end as they would have uncut?

    python bench/greedy.py [--prompts 240] [--tokens 64] [--dtype float32] [--at-once 8] [--full]

Needs vLLM's own environment (make engines). Every prompt is asked of vLLM, `--at-once` at a time; then each answer is cut at a
seeded random place and continued by a second request, in another order, so that batches differ. The same prompts are answered by
the embedded engine, to see what a change of engines in midst of an answer would cost. Where two answers part, the margin is told:
log-probability of vLLM's first choice less that of its second, at the first token that differs. `--full` goes on after the
answer's own end up to `--tokens`, where a model has little to say and margins are small.

Prints a table and ends with one JSON line.
"""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from prompts import prompts

from holdfast.domain.ports import Work
from holdfast.domain.request import Chunk, Generation, Sampling
from holdfast.engine.http import HttpDoor
from holdfast.engine.serving import Serving
from holdfast.engine.vllm import VllmEngine
from holdfast.pearl.open import open_core
from holdfast.pearl.options import CoreOptions

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "live"))

from vllm_process import CLOCK, SHIPPED, VllmProcess, vllm_python

CONTEXT, EOS = 1024, 1


class Answered:
    """One answer: its ids, and at each place by how much the first choice led the second."""

    def __init__(self, chunks: list[Chunk]) -> None:
        self.ids = [id for chunk in chunks for id in chunk.ids]
        tops = [one.top for chunk in chunks for one in chunk.logprobs or ()]
        self.margins = [top[0][1] - top[1][1] for top in tops]


async def answers(
    engine: VllmEngine, asked: list[Generation], at_once: int, order: list[int]
) -> tuple[list[Answered], float]:
    """All of them, in the order given, and the seconds that it took."""
    room, found, began = asyncio.Semaphore(at_once), [Answered([])] * len(asked), CLOCK.now()

    async def one(number: int) -> None:
        async with room:
            found[number] = Answered([chunk async for chunk in engine.generate(asked[number])])

    await asyncio.gather(*(one(number) for number in order))
    return found, CLOCK.now() - began


def asked_of(number: int, prompt_ids: list[int], said: list[int], options: argparse.Namespace) -> Generation:
    return Generation(
        id=str(number),
        prompt_ids=prompt_ids,
        delivered_ids=said,
        sampling=Sampling(temperature=0.0, logprobs=2, ignore_eos=options.full),
        max_tokens=options.tokens,
        stop_ids=() if options.full else (EOS,),
    )


async def ask_vllm(url: str, questions: list[list[int]], options: argparse.Namespace) -> dict[str, Any]:
    """Whole answers, and their continuations behind a cut."""
    engine = VllmEngine(HttpDoor(url, CLOCK), Serving(model="pearl", digest="-"))
    rng = Random(options.seed)
    try:
        abilities = await engine.learn()
        whole_asked = [asked_of(n, ids, [], options) for n, ids in enumerate(questions)]
        order = list(range(len(questions)))
        whole, whole_s = await answers(engine, whole_asked, options.at_once, order)
        cuts = [rng.randrange(1, len(one.ids)) if len(one.ids) > 1 else 0 for one in whole]
        rest_asked = [asked_of(n, questions[n], whole[n].ids[: cuts[n]], options) for n in order]
        rng.shuffle(order)
        rest, rest_s = await answers(engine, rest_asked, options.at_once, order)
    finally:
        await engine.close()
    return {"whole": whole, "rest": rest, "cuts": cuts, "s": whole_s + rest_s, "version": abilities.version}


def ask_embedded(questions: list[list[int]], options: argparse.Namespace) -> list[list[int]]:
    """The embedded engine's answers to the same."""
    dtype = "fp32" if options.dtype == "float32" else "bf16"
    core = open_core(SHIPPED, CoreOptions(slots=options.at_once, queue_max=10**6, dtype=dtype))
    found: list[list[int]] = [[] for _ in questions]
    for number, prompt_ids in enumerate(questions):
        asked = asked_of(number, prompt_ids, [], options)
        core.submit(
            number,
            Work(
                prompt_ids=prompt_ids,
                delivered_ids=[],
                sampling=Sampling(temperature=0.0, ignore_eos=options.full),
                max_tokens=options.tokens,
                seed=0,
                stop_ids=asked.stop_ids,
            ),
        )
    left = len(questions)
    while left:
        for produced in core.step():
            found[produced.ticket] += produced.ids
            left -= produced.finish is not None or bool(produced.fault)
    return found


def compared(name: str, whole: list[Answered], others: list[list[int]]) -> dict[str, Any]:
    """How many are the same to the end, and the margin where they part. An end that comes later parts too (-1)."""
    margins, same_tokens, tokens = [], 0, 0
    for one, other in zip(whole, others, strict=True):
        same = next(
            (n for n, (a, b) in enumerate(zip(one.ids, other, strict=False)) if a != b), min(len(one.ids), len(other))
        )
        same_tokens += same
        tokens += len(one.ids)
        if one.ids != other:
            margins.append(round(one.margins[same], 5) if same < len(one.margins) else -1.0)
    count = len(whole)
    return {
        "name": name,
        "answers": count,
        "same": count - len(margins),
        "share": (count - len(margins)) / count,
        "tokens": tokens,
        "tokens_same_share": same_tokens / tokens,
        "margins_nats": sorted(margins),
    }


def measured(url: str, options: argparse.Namespace) -> dict[str, Any]:
    questions = prompts(SHIPPED, options.prompts)
    told = asyncio.run(ask_vllm(url, questions, options))
    whole: list[Answered] = told["whole"]
    spliced = [one.ids[:cut] + rest.ids for one, cut, rest in zip(whole, told["cuts"], told["rest"], strict=True)]
    small = sorted(margin for one in whole for margin in one.margins)
    return {
        "vllm": told["version"],
        "dtype": options.dtype,
        "at_once": options.at_once,
        "full": options.full,
        "seconds": round(told["s"], 1),
        "rows": [
            compared("continued on vLLM", whole, spliced),
            compared("embedded engine", whole, ask_embedded(questions, options)),
        ],
        "margin_nats_p1": round(small[len(small) // 100], 5),
        "margins_below_0_01": sum(margin < 0.01 for margin in small) / len(small),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=240)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--at-once", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--url", default="", help="a vLLM that already serves the shipped model, without a key")
    options = parser.parse_args()
    if not options.url and vllm_python() is None:
        sys.exit("no vLLM here: `make engines` installs its CPU build")
    with tempfile.TemporaryDirectory() as folder:
        began = CLOCK.now()
        process = None if options.url else VllmProcess(Path(folder), *_words(options), dtype=options.dtype)
        try:
            start = {}
            if process is not None:
                asyncio.run(process.ready())
                start = {"start_s": round(CLOCK.now() - began, 1), "rss_mib": process.rss_mib()}
            found = start | measured(options.url or (process.url if process is not None else ""), options)
        finally:
            if process is not None:
                process.end()
    print(f"vLLM {found['vllm']}, {found['dtype']}, {found['at_once']} at once, {found['seconds']} s of answers")
    if "start_s" in found:
        print(f"ready after {found['start_s']} s; resident MiB: {found['rss_mib']}")
    for row in found["rows"]:
        print(
            f"{row['name']:<20} {row['same']:>4} of {row['answers']} identical ({row['share']:.2%}), "
            f"{row['tokens_same_share']:.2%} of {row['tokens']} tokens; margins where they part: {row['margins_nats']}"
        )
    print(f"1 % of all margins lie below {found['margin_nats_p1']} nats")
    print(json.dumps(found))


def _words(options: argparse.Namespace) -> tuple[str, ...]:
    return ("--max-model-len", str(CONTEXT), "--max-num-seqs", str(options.at_once))


if __name__ == "__main__":
    main()
