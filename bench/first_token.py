"""A fresh process up to its first token: what bench/engine.py times. Loads transformers only if it is to be timed.

python bench/first_token.py MODEL_DIR own|transformers THREADS
"""

import importlib
import json
import sys
from pathlib import Path

import torch
from prompts import random_prompts

from holdfast.domain.ports import Work
from holdfast.domain.request import Sampling
from holdfast.pearl.open import open_core
from holdfast.pearl.options import CoreOptions


def main() -> None:
    model_dir, who, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    asked = random_prompts(model_dir, 1, 34)[0]
    if who == "own":
        core = open_core(model_dir, CoreOptions(threads=threads))
        sampling = Sampling(temperature=0)
        core.submit(0, Work(prompt_ids=asked, delivered_ids=[], sampling=sampling, max_tokens=1, seed=0, stop_ids=()))
        while not any(produced.ids for produced in core.step()):
            pass
    else:
        strangers = importlib.import_module("strangers")
        torch.set_num_threads(threads)
        strangers.generate(strangers.load_theirs(model_dir, "fp32"), [asked], 1)
    status = Path("/proc/self/status").read_text("ascii")  # getrusage would count the parent's memory before exec
    peak = int(status.split("VmHWM:")[1].split()[0]) // 1024
    print(json.dumps({"memory_mb_max": peak}), flush=True)


if __name__ == "__main__":
    main()
