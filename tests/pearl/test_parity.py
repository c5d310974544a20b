"""Pearl computes what transformers computes, on every architecture variant that it serves."""

from pathlib import Path
from typing import Any

import folders
import pytest
import torch
from transformers import AutoModelForCausalLM

from holdfast.pearl.model import Model
from holdfast.pearl.options import CoreOptions
from holdfast.pearl.sheet import Sheet

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "v3": ("v3", {}),
    "v3 without query latents": ("v3", {"q_lora_rank": None}),
    "v3 yarn": ("v3", {"rope_parameters": folders.YARN}),
    "v3 yarn of factor 1": ("v3", {"rope_parameters": {**folders.YARN, "factor": 1.0, "mscale_all_dim": 1.0}}),
    "v3 rope by halves": ("v3", {"rope_interleave": False}),
    "v3 tied": ("v3", {"tie_word_embeddings": True}),
    "v3 unnormalised gate": ("v3", {"norm_topk_prob": False}),
    "v3 one group": ("v3", {"n_group": 1, "topk_group": 1, "num_experts_per_tok": 3}),
    "v3 groups of four": ("v3", {"n_group": 2, "topk_group": 1}),
    "v3 many experts": ("v3", {"n_routed_experts": 24, "num_experts_per_tok": 5, "n_shared_experts": 2}),
    "v3 two shared": ("v3", {"n_shared_experts": 2}),
    "v3 all dense": ("v3", {"first_k_dense_replace": 3}),
    "v2 greedy": ("v2", {"topk_method": "greedy", "routed_scaling_factor": 1.0}),
    "v2 greedy many": (
        "v2",
        {"topk_method": "greedy", "n_routed_experts": 20, "q_lora_rank": None, "n_shared_experts": 2},
    ),
    "v2 by groups": ("v2", {"topk_method": "group_limited_greedy", "n_routed_experts": 16}),
    "v2 yarn": ("v2", {"topk_method": "greedy", "rope_parameters": {**folders.YARN, "mscale": 0.707}}),
}


def spoken(model: Model, slot: int, text: list[int], pieces: list[int]) -> torch.Tensor:
    """Logits after every token, the text read in pieces of these sizes (the last size repeats)."""
    found, start = [], 0
    while start < len(text):
        size = pieces.pop(0) if len(pieces) > 1 else pieces[0]
        part = text[start : start + size]
        sheet = Sheet()
        sheet.many(model.cache, slot, part, start)
        sheet.picks = list(range(len(part)))
        found.append(model.forward(sheet))
        start += size
    return torch.cat(found)


@pytest.mark.parametrize("name", VARIANTS)
def test_logits_equal_transformers(name: str, tmp_path: Path) -> None:
    kind, changes = VARIANTS[name]
    folder = (folders.deepseek_v3 if kind == "v3" else folders.deepseek_v2)(tmp_path, **changes)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = Model.open(folder, CoreOptions(slots=3, prefill_chunk_tokens=128))
    for seed, tokens in enumerate((1, 2, 3, 17, 32, 33, 100)):
        text = folders.text(seed, tokens)
        with torch.no_grad():
            wanted = theirs(torch.tensor([text])).logits[0]
        scale = float(wanted.abs().max())
        assert scale > 1, "logits near zero would prove nothing"
        for pieces in ([tokens], [7], [tokens // 2 or 1, 1]):
            ours = spoken(model, seed % 3, text, list(pieces))
            assert float((ours - wanted).abs().max()) < 2e-5 * scale, (tokens, pieces)


def test_published_rope_spelling_is_read_alike(tmp_path: Path) -> None:
    """rope_theta beside rope_scaling, as on DeepSeek's own pages, gives the same logits as transformers 5's rope_parameters."""
    folder = folders.deepseek_v3(tmp_path, rope_parameters=folders.YARN)
    text = folders.text(1, 40)
    new = spoken(Model.open(folder, CoreOptions(slots=1)), 0, text, [40])
    config = (folder / "config.json").read_text()
    assert '"rope_parameters"' in config
    config = config.replace('"rope_parameters"', '"rope_scaling"').replace('"rope_type"', '"type"')
    (folder / "config.json").write_text(config)
    assert torch.equal(spoken(Model.open(folder, CoreOptions(slots=1)), 0, text, [40]), new)


def test_bf16_stays_near(v3: Path) -> None:
    text = folders.text(3, 50)
    exact = spoken(Model.open(v3, CoreOptions(slots=1)), 0, text, [50])
    short = spoken(Model.open(v3, CoreOptions(slots=1, dtype="bf16")), 0, text, [50])
    off = (exact - short).abs()
    assert 0 < float(off.median()) < 0.05 * float(exact.abs().median())
