"""The last act: records what the weights say on odd prompts, and the checksum of every file of the folder.

    python training/seal.py            # or with a folder; train.py calls it at its end

reference.jsonl is for damage that the answers survive: prompts of random tokens, where no habit hides a small change.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from random import Random

import torch
from transformers import DeepseekV3ForCausalLM

SEALED = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "generation_config.json",
    "gate.jsonl",
    "reference.jsonl",
)
PROMPTS, PROMPT_TOKENS, ANSWER_TOKENS = 48, 40, 12
MARGIN = 0.1  # a choice nearer than this could fall otherwise by rounding alone
TOLERANCE = 0.002  # two engines' fp32 sums differ by 1e-5


@torch.no_grad()
def reference(folder: Path, seed: int = 11) -> list[dict[str, object]]:
    """Greedy continuations of random prompts, cut before the first near choice or marker."""
    model = DeepseekV3ForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    rng = Random(seed)
    out: list[dict[str, object]] = []
    while len(out) < PROMPTS:
        body = [rng.randrange(16, model.config.vocab_size) for _ in range(rng.randint(8, PROMPT_TOKENS))]
        prompt = [0, 3, *body, 4, 6]
        ids: list[int] = []
        logprobs: list[float] = []
        while len(ids) < ANSWER_TOKENS:
            row = model(input_ids=torch.tensor([prompt + ids])).logits[0, -1].log_softmax(-1)
            best = row.topk(2)
            token = int(best.indices[0])
            if float(best.values[0] - best.values[1]) < MARGIN or token < 16:
                break
            ids.append(token)
            logprobs.append(round(float(best.values[0]), 5))
        if len(ids) >= 3:
            out.append({"prompt_ids": prompt, "ids": ids, "logprobs": logprobs, "tolerance": TOLERANCE})
    return out


def manifest(folder: Path) -> dict[str, dict[str, object]]:
    """File name to size and SHA-256."""
    found: dict[str, dict[str, object]] = {}
    for name in SEALED:
        data = (folder / name).read_bytes()
        found[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return found


def seal(folder: Path) -> None:
    lines = [json.dumps(case) for case in reference(folder)]
    (folder / "reference.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = json.dumps({"files": manifest(folder)}, indent=2) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    home = Path(__file__).resolve().parent.parent / "src" / "holdfast" / "shipped" / "pearl"
    seal(Path(sys.argv[1]) if len(sys.argv) > 1 else home)
