"""A model folder in Hugging Face format with random weights: DeepSeek-V3's architecture, small enough to be made in no time."""

import json
from pathlib import Path
from shutil import copyfile

import numpy as np
from safetensors.numpy import save_file

TOKENIZER = Path(__file__).parents[2] / "src" / "holdfast" / "shipped" / "pearl" / "tokenizer.json"
VOCAB = len(json.loads(TOKENIZER.read_text("utf-8"))["model"]["vocab"])
HIDDEN, HEADS, Q_LORA, KV_LORA, ROPE, NOPE, V, DENSE, EXPERT, EXPERTS = 64, 2, 32, 32, 16, 16, 16, 128, 32, 8
CONFIG = {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": DENSE,
    "moe_intermediate_size": EXPERT,
    "num_hidden_layers": 2,
    "num_attention_heads": HEADS,
    "num_key_value_heads": HEADS,
    "n_shared_experts": 1,
    "n_routed_experts": EXPERTS,
    "routed_scaling_factor": 2.5,
    "q_lora_rank": Q_LORA,
    "kv_lora_rank": KV_LORA,
    "qk_rope_head_dim": ROPE,
    "qk_nope_head_dim": NOPE,
    "v_head_dim": V,
    "n_group": 4,
    "topk_group": 2,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "norm_topk_prob": True,
    "scoring_func": "sigmoid",
    "topk_method": "noaux_tc",
    "moe_layer_freq": 1,
    "hidden_act": "silu",
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "rope_interleave": True,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "torch_dtype": "float32",
}


def write_tiny_model(folder: Path, seed: int = 1) -> None:
    """Write config.json, model.safetensors and the shipped tokenizer; equal seeds give equal files."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=1))
    copyfile(TOKENIZER, folder / "tokenizer.json")
    save_file(_tensors(np.random.default_rng(seed)), folder / "model.safetensors", {"format": "pt"})


def _tensors(rng: np.random.Generator) -> dict[str, np.ndarray]:
    def matrix(rows: int, columns: int) -> np.ndarray:
        return (rng.standard_normal((rows, columns)) * columns**-0.5).astype(np.float32)

    def gated(prefix: str, inner: int) -> dict[str, np.ndarray]:
        return {
            f"{prefix}.gate_proj.weight": matrix(inner, HIDDEN),
            f"{prefix}.up_proj.weight": matrix(inner, HIDDEN),
            f"{prefix}.down_proj.weight": matrix(HIDDEN, inner),
        }

    ones = np.ones(HIDDEN, np.float32)
    tensors = {"model.embed_tokens.weight": matrix(VOCAB, HIDDEN), "model.norm.weight": ones}
    tensors["lm_head.weight"] = matrix(VOCAB, HIDDEN) * 4  # so that greedy answers are no near-ties
    for layer in range(2):
        name = f"model.layers.{layer}"
        tensors |= {
            f"{name}.input_layernorm.weight": ones.copy(),
            f"{name}.post_attention_layernorm.weight": ones.copy(),
            f"{name}.self_attn.q_a_proj.weight": matrix(Q_LORA, HIDDEN),
            f"{name}.self_attn.q_a_layernorm.weight": np.ones(Q_LORA, np.float32),
            f"{name}.self_attn.q_b_proj.weight": matrix(HEADS * (NOPE + ROPE), Q_LORA),
            f"{name}.self_attn.kv_a_proj_with_mqa.weight": matrix(KV_LORA + ROPE, HIDDEN),
            f"{name}.self_attn.kv_a_layernorm.weight": np.ones(KV_LORA, np.float32),
            f"{name}.self_attn.kv_b_proj.weight": matrix(HEADS * (NOPE + V), KV_LORA),
            f"{name}.self_attn.o_proj.weight": matrix(HIDDEN, HEADS * V),
        }
    tensors |= gated("model.layers.0.mlp", DENSE)
    tensors["model.layers.1.mlp.gate.weight"] = matrix(EXPERTS, HIDDEN)
    tensors["model.layers.1.mlp.gate.e_score_correction_bias"] = np.zeros(EXPERTS, np.float32)
    tensors |= gated("model.layers.1.mlp.shared_experts", EXPERT)
    for expert in range(EXPERTS):
        tensors |= gated(f"model.layers.1.mlp.experts.{expert}", EXPERT)
    return tensors
