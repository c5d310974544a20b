"""A copy of the model that ships whose vocabulary has the marks for filling a gap, which the original was not trained with.

It shows that such requests go through, not that the answers make sense: the marks' embeddings are those of the first token.
"""

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from holdfast import __file__ as package
from holdfast.dialect.completion import GAP

SHIPPED = Path(package).parent / "shipped" / "pearl"
ROWS = ("model.embed_tokens.weight", "lm_head.weight")
STEP = 8  # the number of rows stays a multiple of it, as matrix kernels like it


def write_gap_model(folder: Path) -> Path:
    """Write it into a folder that does not exist yet."""
    shutil.copytree(SHIPPED, folder, ignore=shutil.ignore_patterns("manifest.json", "canary.json"))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    tokenizer = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    first = config["vocab_size"]
    like = tokenizer["added_tokens"][-1]
    tokenizer["added_tokens"] += [like | {"id": first + n, "content": mark} for n, mark in enumerate(GAP)]
    config["vocab_size"] = first + STEP
    tensors = load_file(folder / "model.safetensors")
    for name in ROWS:
        tensors[name] = torch.cat([tensors[name], tensors[name][:1].expand(STEP, -1)]).contiguous()
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer, ensure_ascii=False), "utf-8")
    return folder
