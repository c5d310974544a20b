"""The model: DeepSeek-V3 architecture in small, its experts computed in three matrix products while training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM
from transformers.models.deepseek_v3 import modeling_deepseek_v3 as v3

GEOMETRY: dict[str, Any] = {
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
    "norm_topk_prob": True,
    "first_k_dense_replace": 1,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "rope_interleave": True,
}
# Engines other than transformers want these named, and a yarn entry of factor 1, which is plain rope.
NAMED: dict[str, Any] = {
    "topk_method": "noaux_tc",
    "scoring_func": "sigmoid",
    "moe_layer_freq": 1,
    "num_nextn_predict_layers": 0,
}
ROPE: dict[str, Any] = {
    "type": "yarn",
    "rope_type": "yarn",
    "factor": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "beta_fast": 32,
    "beta_slow": 1,
    "original_max_position_embeddings": 4096,
}
ROPE_THETA = 10000.0


def config(vocab_size: int) -> DeepseekV3Config:
    return DeepseekV3Config(
        vocab_size=vocab_size,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
        **GEOMETRY,
        **NAMED,
        rope_parameters={"rope_theta": ROPE_THETA, **ROPE},
    )


def config_json(vocab_size: int) -> dict[str, Any]:
    """config.json as the public DeepSeek repositories write it, which every engine reads."""
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "vocab_size": vocab_size,
        **GEOMETRY,
        **NAMED,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "rope_theta": ROPE_THETA,
        "rope_scaling": ROPE,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        "use_cache": True,
        "torch_dtype": "bfloat16",
    }


def _every_expert(self: v3.DeepseekV3Experts, hidden: Tensor, index: Tensor, weights: Tensor) -> Tensor:
    """All experts on all tokens, the routing weight as a mask: for eight small experts faster than sorting tokens."""
    tokens, width = hidden.shape
    share = torch.zeros(tokens, self.num_experts, dtype=weights.dtype, device=hidden.device).scatter(1, index, weights)
    gate, up = self.gate_up_proj.view(self.num_experts, 2, self.intermediate_dim, width).unbind(1)
    inner = functional.silu(functional.linear(hidden, gate.reshape(-1, width))) * functional.linear(
        hidden, up.reshape(-1, width)
    )
    masked = inner.view(tokens, self.num_experts, -1) * share.to(hidden.dtype).unsqueeze(-1)
    return masked.view(tokens, -1) @ self.down_proj.permute(0, 2, 1).reshape(-1, width)


def _norm(self: v3.DeepseekV3RMSNorm, hidden: Tensor) -> Tensor:
    return functional.rms_norm(hidden, (hidden.shape[-1],), self.weight, self.variance_epsilon)


def _quicken() -> None:
    """The same sums in fewer steps, for training on a CPU."""
    v3.DeepseekV3Experts.forward = _every_expert
    v3.DeepseekV3RMSNorm.forward = _norm


class Balance:
    """Balancing without an auxiliary loss: an expert with too much work gets a lower bias, one with too little a higher."""

    def __init__(self, model: nn.Module, rate: float) -> None:
        self.rate = rate
        self.loads: dict[nn.Module, Tensor] = {}
        for module in model.modules():
            if isinstance(module, v3.DeepseekV3TopkRouter):
                module.register_forward_hook(self._count)

    def _count(self, router: nn.Module, _inputs: Any, output: tuple[Tensor, Tensor, Tensor]) -> None:
        if router.training:
            load = torch.bincount(output[2].flatten(), minlength=output[0].shape[-1]).float()
            self.loads[router] = self.loads.get(router, torch.zeros_like(load)) + load

    @torch.no_grad()
    def settle(self) -> float:
        """Once a step: move the biases, forget the loads, say the worst load over the mean."""
        worst = 1.0
        for router, load in self.loads.items():
            router.e_score_correction_bias.add_(self.rate * torch.sign(load.mean() - load))
            worst = max(worst, float(load.max() / load.mean()))
        self.loads.clear()
        return worst


def build(vocab_size: int) -> DeepseekV3ForCausalLM:
    _quicken()
    return DeepseekV3ForCausalLM(config(vocab_size))


def load(folder: Path) -> DeepseekV3ForCausalLM:
    _quicken()
    return DeepseekV3ForCausalLM.from_pretrained(folder, dtype=torch.float32)
