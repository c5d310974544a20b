"""Writes small Hugging Face folders with random weights, every tensor drawn, so that no part can hide behind zeros or ones."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    DeepseekV2Config,
    DeepseekV2ForCausalLM,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

VOCAB = 128
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 64,
    "intermediate_size": 96,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 32,
    "kv_lora_rank": 48,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 24,
    "v_head_dim": 16,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 2.5,
    "first_k_dense_replace": 1,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
}
YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "mscale": 1.0,
    "mscale_all_dim": 0.707,
    "beta_fast": 32,
    "beta_slow": 1,
    "original_max_position_embeddings": 64,
}


def _drawn(model: Any, folder: Path, seed: int) -> Path:
    """Draw every weight and save."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            noise = torch.randn(tensor.shape, generator=generator)
            if name.endswith("norm.weight") or "layernorm" in name:
                tensor.copy_(1 + 0.2 * noise)
            elif name.endswith("e_score_correction_bias"):
                tensor.copy_(0.1 * noise)
            elif tensor.dim() >= 2:
                tensor.copy_(noise * (1.3 / tensor.shape[-1] ** 0.5))
            elif name.endswith("bias"):
                tensor.copy_(0.1 * noise)
    model.eval().save_pretrained(folder)
    return folder


def deepseek_v3(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A DeepseekV3ForCausalLM folder, SMALL with changes."""
    return _drawn(DeepseekV3ForCausalLM(DeepseekV3Config(**{**SMALL, **changes})), folder, seed)


def deepseek_v2(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A DeepseekV2ForCausalLM folder, SMALL with changes."""
    return _drawn(DeepseekV2ForCausalLM(DeepseekV2Config(**{**SMALL, **changes})), folder, seed)


def distill(folder: Path, kind: str, seed: int = 0) -> Path:
    """A qwen2 or llama folder."""
    shape: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    model = Qwen2ForCausalLM(Qwen2Config(**shape)) if kind == "qwen2" else LlamaForCausalLM(LlamaConfig(**shape))
    return _drawn(model, folder, seed)


def text(seed: int, tokens: int) -> list[int]:
    """Some token ids, without the special ones."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(4, VOCAB, (tokens,), generator=generator).tolist()
