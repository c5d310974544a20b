"""transformers, as the engine's bench compares with it."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, DeepseekV3Config, DeepseekV3ForCausalLM, logging

TYPES = {"fp32": "float32", "bf16": "bfloat16"}
# The shipped model's shape, for when it is not there.
SHAPE: dict[str, Any] = {
    "vocab_size": 1024,
    "hidden_size": 256,
    "intermediate_size": 640,
    "moe_intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "q_lora_rank": 128,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 32,
    "v_head_dim": 32,
    "n_routed_experts": 8,
    "n_shared_experts": 1,
    "num_experts_per_tok": 2,
    "n_group": 4,
    "topk_group": 2,
    "routed_scaling_factor": 1.0,
    "first_k_dense_replace": 1,
    "max_position_embeddings": 4096,
}


def load_theirs(model_dir: Path, dtype: str) -> Any:
    """A causal language model of transformers."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(str(model_dir), dtype=TYPES[dtype]).eval()


def generate(model: Any, asked: list[list[int]], tokens: int) -> list[list[int]]:
    """Greedy, all prompts (of one length) at once, exactly `tokens` each."""
    ids = torch.tensor(asked, device=model.device)
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    found: list[list[int]] = out[:, ids.shape[1] :].tolist()
    return found


def write_random(folder: Path) -> Path:
    """A folder of the shipped model's shape with random weights."""
    torch.manual_seed(0)
    DeepseekV3ForCausalLM(DeepseekV3Config(**SHAPE)).save_pretrained(folder)
    return folder
