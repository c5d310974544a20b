"""The GPU ladder: what each step of tuning gives, from one float32 stream to 32 bf16 streams replayed as CUDA graphs.

Not yet run on a GPU.
"""

import time
from pathlib import Path
from typing import Any

import torch
from prompts import random_prompts
from torch import Tensor

from holdfast.domain.ports import Work
from holdfast.domain.release import Release
from holdfast.domain.request import Sampling
from holdfast.pearl.batch import BatchCore
from holdfast.pearl.build import Builder
from holdfast.pearl.config import ModelConfig, Rope
from holdfast.pearl.constraint import Grammars
from holdfast.pearl.model import DTYPES, Model
from holdfast.pearl.open import open_core
from holdfast.pearl.options import CoreOptions

RUNGS: tuple[tuple[str, int, dict[str, Any]], ...] = (
    ("float32, 1 stream", 1, {"dtype": "fp32"}),
    ("bf16, 1 stream", 1, {"dtype": "bf16"}),
    ("bf16, 32 streams", 32, {"dtype": "bf16"}),
    ("bf16, 1 stream, graphs", 1, {"dtype": "bf16", "graphs": True}),
    ("bf16, 32 streams, graphs", 32, {"dtype": "bf16", "graphs": True}),
)
V2_LITE = ModelConfig(
    model_type="deepseek_v2",
    vocab_size=102400,
    hidden_size=2048,
    intermediate_size=10944,
    moe_intermediate_size=1408,
    num_hidden_layers=27,
    num_attention_heads=16,
    q_lora_rank=0,
    kv_lora_rank=512,
    qk_rope_head_dim=64,
    qk_nope_head_dim=128,
    v_head_dim=128,
    n_routed_experts=64,
    n_shared_experts=2,
    num_experts_per_tok=6,
    n_group=1,
    topk_group=1,
    routed_scaling_factor=1.0,
    gate="greedy",
    norm_topk_prob=False,
    first_k_dense_replace=1,
    rms_norm_eps=1e-6,
    max_position_embeddings=32768,
    rope_interleave=True,
    tie_word_embeddings=False,
    rope=Rope(),
)


class RandomSource:
    """Draws every tensor on the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def take(self, name: str, *shape: int) -> Tensor:
        """Ones for norms, else normal numbers that keep activations near 1."""
        if name.endswith("norm.weight"):
            return torch.ones(shape, device=self._device)
        return torch.randn(shape, device=self._device) / shape[-1] ** 0.5


def random_core(config: ModelConfig, options: CoreOptions) -> BatchCore:
    """A core on random weights."""
    device = torch.device(options.device)
    with torch.inference_mode():
        builder = Builder(config, RandomSource(device), device, DTYPES[options.dtype])
        model = Model(config, builder, options, options.context_tokens_max)
    return BatchCore(
        model,
        Release(model="random", engine="embedded", digest="random"),
        options,
        Grammars(config.vocab_size, "random weights have no tokenizer"),
    )


def pace(core: BatchCore, asked: list[list[int]], tokens: int) -> dict[str, Any]:
    """Tokens a second of decoding alone, after the prompts have been read and the graphs recorded."""
    for again in range(2):
        for ticket, prompt in enumerate(asked):
            sampling = Sampling(temperature=0)
            work = Work(prompt_ids=prompt, delivered_ids=[], sampling=sampling, max_tokens=tokens, seed=0, stop_ids=())
            core.submit(ticket + again * len(asked), work)
        said = 0
        while said < len(asked):
            said += sum(len(produced.ids) for produced in core.step())
        started, first = time.perf_counter(), said
        while core.load().running:
            said += sum(len(produced.ids) for produced in core.step())
        took = time.perf_counter() - started
    rate = (said - first) / took
    return {"tokens_s": round(rate), "ms_per_token": round(1000 * len(asked) / rate, 2)}


def ladder(model_dir: Path, tokens: int) -> list[dict[str, Any]]:
    """Every rung for the folder's model and for one of V2-Lite's size."""
    found = []
    for name, streams, changes in RUNGS:
        options = CoreOptions(device="cuda", slots=32, context_tokens_max=1024, **changes)
        small = pace(open_core(model_dir, options), random_prompts(model_dir, streams, 34), tokens)
        found.append({"model": model_dir.name, "rung": name, **small})
        asked = [[(7 * n + 13 * k) % V2_LITE.vocab_size for k in range(34)] for n in range(streams)]
        large = pace(random_core(V2_LITE, options), asked, tokens)
        found.append({"model": "random weights of V2-Lite's size", "rung": name, **large})
        torch.cuda.empty_cache()
    return found
