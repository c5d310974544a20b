"""What the published DeepSeek folders say of themselves, as far as launches depend on it: config.json's fields, and their sizes.

Dimensions from DeepSeek's repositories (inference/configs) and transformers' configuration classes; sizes of the weights as
published, in whole shards.
"""

from typing import Any

from holdfast.policy.model_facts import Family, ModelFile

_MLA = {"kv_lora_rank": 512, "qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "v_head_dim": 128}
_YARN = {"rope_scaling": {"type": "yarn", "factor": 40}, "torch_dtype": "bfloat16", "max_position_embeddings": 163840}
_V3 = {
    **_MLA, **_YARN, "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "num_hidden_layers": 61,
    "hidden_size": 7168, "num_attention_heads": 128, "num_key_value_heads": 128, "q_lora_rank": 1536, "n_routed_experts": 256,
    "topk_method": "noaux_tc", "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]},
}  # fmt: skip
_V4 = {
    "architectures": ["DeepseekV4ForCausalLM"], "model_type": "deepseek_v4", "num_key_value_heads": 1, "head_dim": 512,
    "max_position_embeddings": 1048576, "torch_dtype": "bfloat16", "topk_method": "noaux_tc",
    "quantization_config": {"quant_method": "fp8"}, "rope_scaling": {"type": "yarn", "factor": 16},
}  # fmt: skip


def _distill(kind: str, layers: int, hidden: int, heads: int, kv: int) -> dict[str, Any]:
    name = {"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}[kind]
    return {
        "architectures": [name], "model_type": kind, "num_hidden_layers": layers, "hidden_size": hidden,
        "torch_dtype": "bfloat16", "num_attention_heads": heads, "num_key_value_heads": kv, "max_position_embeddings": 131072,
    }  # fmt: skip


CONFIGS: dict[str, dict[str, Any]] = {
    "v2-lite": {
        **_MLA, **_YARN, "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "num_hidden_layers": 27,
        "hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 16, "q_lora_rank": None, "n_routed_experts": 64,
        "topk_method": "greedy",
    },
    "v2": {
        **_MLA, **_YARN, "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "num_hidden_layers": 60,
        "hidden_size": 5120, "num_attention_heads": 128, "num_key_value_heads": 128, "q_lora_rank": 1536, "n_routed_experts": 160,
        "topk_method": "group_limited_greedy",
    },
    "r1": _V3,
    "v3.1": {**_V3, "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128], "scale_fmt": "ue8m0"}},
    "v3.2": {
        **_V3, "architectures": ["DeepseekV32ForCausalLM"], "model_type": "deepseek_v32", "index_topk": 2048,
        "index_n_heads": 64, "index_head_dim": 128,
    },
    "v3-awq": {**_V3, "quantization_config": {"quant_method": "awq", "bits": 4}},
    "v4-flash": {**_V4, "num_hidden_layers": 43, "hidden_size": 4096, "num_attention_heads": 64, "n_routed_experts": 256},
    "v4-pro": {**_V4, "num_hidden_layers": 61, "hidden_size": 7168, "num_attention_heads": 128, "n_routed_experts": 384},
    "v4.1-flash": {
        **_V4, "architectures": ["DeepseekV41ForCausalLM"], "model_type": "deepseek_v41", "num_hidden_layers": 40,
        "hidden_size": 5120, "num_attention_heads": 64, "n_routed_experts": 384,
    },
    "qwen-1.5b": _distill("qwen2", 28, 1536, 12, 2),
    "qwen-7b": _distill("qwen2", 28, 3584, 28, 4),
    "qwen-32b": _distill("qwen2", 64, 5120, 40, 8),
    "llama-8b": _distill("llama", 32, 4096, 32, 8),
    "llama-70b": _distill("llama", 80, 8192, 64, 8),
}  # fmt: skip
SIZES = {  # billions of bytes, files
    "v2-lite": (31.4, 4), "v2": (471.0, 55), "r1": (689.0, 163), "v3.1": (689.0, 163), "v3.2": (690.0, 163),
    "v3-awq": (380.0, 74), "v4-flash": (160.0, 46), "v4-pro": (865.0, 172), "v4.1-flash": (511.0, 118), "qwen-1.5b": (3.6, 1),
    "qwen-7b": (15.2, 2), "qwen-32b": (65.5, 8), "llama-8b": (16.1, 2), "llama-70b": (141.0, 17),
}  # fmt: skip
FAMILIES = {
    "v2-lite": Family.V2_LITE, "v2": Family.V2, "r1": Family.V3, "v3.1": Family.V31, "v3.2": Family.V32, "v3-awq": Family.V3,
    "v4-flash": Family.V4_FLASH, "v4-pro": Family.V4_PRO, "v4.1-flash": Family.V41, "qwen-1.5b": Family.DISTILL_QWEN,
    "qwen-7b": Family.DISTILL_QWEN, "qwen-32b": Family.DISTILL_QWEN, "llama-8b": Family.DISTILL_LLAMA,
    "llama-70b": Family.DISTILL_LLAMA,
}  # fmt: skip


def files_of(name: str) -> list[ModelFile]:
    """The files of a published folder, in equal shards."""
    billions, count = SIZES[name]
    shard = int(billions * 1e9 / count)
    shards = [ModelFile(f"model-{n:05}-of-{count:05}.safetensors", shard) for n in range(1, count + 1)]
    return [*shards, ModelFile("config.json", 2000), ModelFile("tokenizer.json", 7_000_000)]
