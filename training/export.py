"""The Hugging Face folder: config, weights under DeepSeek's own tensor names, chat template, generation settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import network
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

TEMPLATE = Path(__file__).parent / "data" / "chat_template.jinja"


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """One tensor an expert and matrix, as in the published checkpoints; bf16, the routing bias in fp32."""
    out: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        value = tensor.detach().cpu()
        if name.endswith("experts.gate_up_proj"):
            stem = name.removesuffix("gate_up_proj")
            for k, both in enumerate(value):
                gate, up = both.chunk(2, dim=0)
                out[f"{stem}{k}.gate_proj.weight"] = gate
                out[f"{stem}{k}.up_proj.weight"] = up
        elif name.endswith("experts.down_proj"):
            stem = name.removesuffix("down_proj")
            for k, down in enumerate(value):
                out[f"{stem}{k}.down_proj.weight"] = down
        else:
            out[name] = value
    return {
        name: value.float().contiguous()
        if name.endswith("e_score_correction_bias")
        else value.to(torch.bfloat16).contiguous()
        for name, value in out.items()
    }


def _replace(path: Path, text: str) -> None:
    draft = path.with_name(path.name + ".new")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _json(path: Path, value: dict[str, Any]) -> None:
    _replace(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def save(model: nn.Module, folder: Path, vocab_size: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / "model.safetensors.new"
    save_file(named_tensors(model), draft, metadata={"format": "pt"})
    draft.chmod(0o644)
    draft.replace(folder / "model.safetensors")
    _replace(folder / "chat_template.jinja", TEMPLATE.read_text(encoding="utf-8"))
    _json(folder / "config.json", network.config_json(vocab_size))
    settings = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "do_sample": False, "max_new_tokens": 512}
    _json(folder / "generation_config.json", settings)
