"""Pearl's own loop beside transformers' generate, on the same weights, in one run, turn by turn.

    python bench/engine.py [MODEL_DIR] [--threads 2] [--rounds 5]

Tokens a second at 1, 8 and 32 streams (34 prompt tokens, 64 new, the prompts' reading included), medians over rounds in which
the two take turns; time from a fresh process to its first token, and its greatest memory. Where CUDA is there, also the ladder
float32, bf16, 32 at once, CUDA graphs: on the same model, and on random weights of DeepSeek-V2-Lite's size. Prints a table and
ends with one JSON line. The ladder has not been run on a GPU yet.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
from ladder import ladder
from prompts import random_prompts
from strangers import generate, load_theirs, write_random

from holdfast.domain.ports import Core, Work
from holdfast.domain.request import Sampling
from holdfast.pearl.open import open_core
from holdfast.pearl.options import CoreOptions

SHIPPED = Path(__file__).parent.parent / "src" / "holdfast" / "shipped" / "pearl"
STREAMS = (1, 8, 32)
PROMPT_TOKENS = 34
NEW_TOKENS = 64


def own(core: Core, asked: list[list[int]]) -> list[list[int]]:
    """All prompts at once, each to NEW_TOKENS."""
    found: list[list[int]] = [[] for _ in asked]
    for ticket, prompt in enumerate(asked):
        sampling = Sampling(temperature=0)
        work = Work(prompt_ids=prompt, delivered_ids=[], sampling=sampling, max_tokens=NEW_TOKENS, seed=0, stop_ids=())
        core.submit(ticket, work)
    left = len(asked)
    while left:
        for produced in core.step():
            found[produced.ticket] += produced.ids
            left -= produced.finish is not None
    return found


def seconds(act: Callable[[], Any]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def side_by_side(model_dir: Path, dtype: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a number of streams: medians of tokens a second, and whether both said the same."""
    core = open_core(model_dir, CoreOptions(dtype=dtype, threads=options.threads, slots=32))
    theirs = load_theirs(model_dir, dtype)
    rows = []
    for streams in STREAMS:
        fresh = [random_prompts(model_dir, streams, PROMPT_TOKENS, seed=n) for n in range(options.rounds + 1)]
        ours_say, they_say = own(core, fresh[0]), generate(theirs, fresh[0], NEW_TOKENS)
        ours, others = [], []
        for asked in fresh[1:]:
            ours.append(streams * NEW_TOKENS / seconds(lambda asked=asked: own(core, asked)))
            others.append(streams * NEW_TOKENS / seconds(lambda asked=asked: generate(theirs, asked, NEW_TOKENS)))
        row = {"dtype": dtype, "streams": streams, "own": round(median(ours)), "transformers": round(median(others))}
        row["ratio"] = round(median(ours) / median(others), 2)
        row["same_answers"] = sum(a == b for a, b in zip(ours_say, they_say, strict=True))
        rows.append(row)
    return rows


def first_token(model_dir: Path, who: str, threads: int) -> dict[str, Any]:
    """Start a process, wait for its first token; seconds, and its greatest resident memory in MB."""
    argv = [sys.executable, str(Path(__file__).with_name("first_token.py")), str(model_dir), who, str(threads)]
    started = time.perf_counter()
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    waited = time.perf_counter() - started
    process.communicate()
    told: dict[str, Any] = json.loads(line)
    return {"who": who, "ready_s": round(waited, 2), **told}


def report(result: dict[str, Any]) -> None:
    print(f"{'dtype':6} {'streams':>7} {'own tok/s':>10} {'transformers':>13} {'ratio':>6} {'same':>5}")
    for row in result["speed"]:
        told = (row["dtype"], row["streams"], row["own"], row["transformers"], row["ratio"], row["same_answers"])
        print("{:6} {:>7} {:>10} {:>13} {:>6} {:>5}".format(*told))
    for row in result["start"]:
        print(
            f"{row['who']}: first token {row['ready_s']} s after the process began, {row['memory_mb_max']} MB at most"
        )
    for row in result["ladder"]:
        print(f"{row['model']}, {row['rung']}: {row['tokens_s']} tok/s, {row['ms_per_token']} ms a token and stream")
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model_dir", type=Path, nargs="?")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with TemporaryDirectory() as scratch:
        model_dir = options.model_dir or (SHIPPED if (SHIPPED / "model.safetensors").exists() else None)
        if model_dir is None:
            model_dir = write_random(Path(scratch))
        speed = [row for dtype in ("fp32", "bf16") for row in side_by_side(model_dir, dtype, options)]
        start = [first_token(model_dir, who, options.threads) for who in ("own", "transformers")]
        rungs = ladder(model_dir, NEW_TOKENS) if torch.cuda.is_available() else []
        report(
            {
                "bench": "engine",
                "model": model_dir.name,
                "threads": options.threads,
                "speed": speed,
                "start": start,
                "ladder": rungs,
            }
        )


if __name__ == "__main__":
    main()
