"""Cuts answers at a random token and lets another process go on with them: how many end as they would have at home?

    python bench/exactness.py src/holdfast/shipped/pearl [--prompts 320] [--tokens 64]

Three processes: one gives the whole answers, 32 at a time. One continues them 24 at a time in another order, its prompts read
in pieces of 37 tokens. One continues them one by one. Each greedily and at temperature 0.8 with a seed. Prints a table and
ends with one JSON line.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

from prompts import prompts

from holdfast.domain.ports import Work
from holdfast.domain.request import Sampling
from holdfast.pearl.open import open_core
from holdfast.pearl.options import CoreOptions

TEMPERATURES = (0.0, 0.8)


def answer(model_dir: Path, job: dict[str, Any]) -> dict[str, Any]:
    """Run a job's attempts, at most `slots` at a time, in the order given."""
    core = open_core(model_dir, CoreOptions(queue_max=10**6, **job["options"]))
    found: dict[int, list[int]] = {}
    for ticket, one in enumerate(job["attempts"]):
        found[ticket] = []
        core.submit(
            ticket,
            Work(
                prompt_ids=one["prompt"],
                delivered_ids=one["said"],
                sampling=Sampling(temperature=one["temperature"]),
                max_tokens=job["tokens"],
                seed=one["seed"],
                stop_ids=(),
            ),
        )
    left = len(found)
    while left:
        for produced in core.step():
            found[produced.ticket] += produced.ids
            left -= produced.finish is not None or bool(produced.fault)
    return {"ids": list(found.values()), "exactness": str(core.release().exactness), "digest": core.release().digest}


def elsewhere(model_dir: Path, job: dict[str, Any]) -> dict[str, Any]:
    """The same in a process of its own."""
    argv = [sys.executable, __file__, str(model_dir), "--child"]
    done = subprocess.run(argv, input=json.dumps(job), capture_output=True, text=True, check=True)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


def measure(model_dir: Path, count: int, tokens: int, dtype: str) -> dict[str, Any]:
    """One row a temperature and way of continuing."""
    asked = prompts(model_dir, count)
    rng = Random(1)
    whole = [
        {"prompt": prompt, "said": [], "temperature": temperature, "seed": 1000 + n}
        for temperature in TEMPERATURES
        for n, prompt in enumerate(asked)
    ]
    home = elsewhere(model_dir, {"options": {"slots": 32, "dtype": dtype}, "tokens": tokens, "attempts": whole})
    cuts = [rng.randrange(1, len(ids)) for ids in home["ids"]]
    order = list(range(len(whole)))
    rng.shuffle(order)
    resumed = [{**whole[n], "said": home["ids"][n][: cuts[n]]} for n in order]
    rows = []
    ways = {"24 at once, pieces of 37": {"slots": 24, "prefill_chunk_tokens": 37}, "one by one": {"slots": 1}}
    for way, options in ways.items():
        job = {"options": {**options, "dtype": dtype}, "tokens": tokens, "attempts": resumed}
        away = elsewhere(model_dir, job)
        if away["digest"] != home["digest"]:
            sys.exit("the two processes don't agree on the release")
        same = {n: home["ids"][n][: cuts[n]] + ids == home["ids"][n] for n, ids in zip(order, away["ids"], strict=True)}
        for temperature in TEMPERATURES:
            kept = [same[n] for n in order if whole[n]["temperature"] == temperature]
            rows.append({"temperature": temperature, "continued": way, "n": len(kept), "identical": sum(kept)})
    return {"dtype": dtype, "exactness": home["exactness"], "tokens": tokens, "rows": rows}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("--prompts", type=int, default=320)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--dtype", choices=("fp32", "bf16"), action="append")
    parser.add_argument("--child", action="store_true")
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(answer(asked.model_dir, json.load(sys.stdin))))
        return
    results = [measure(asked.model_dir, asked.prompts, asked.tokens, dtype) for dtype in asked.dtype or ["fp32"]]
    print(f"{'dtype':6} {'temperature':>11} {'continued in another process':30} {'n':>5} {'identical':>9}")
    for result in results:
        for row in result["rows"]:
            told = (row["temperature"], row["continued"], row["n"], row["identical"])
            print(f"{result['dtype']:6} {told[0]:>11} {told[1]:30} {told[2]:>5} {told[3]:>9}")
    print(json.dumps({"bench": "exactness", "model": asked.model_dir.name, "results": results}))


if __name__ == "__main__":
    main()
