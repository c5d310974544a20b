"""Writes a DeepSeek-V2 or -V3 folder as one GGUF file, so that llama.cpp serves the same weights under the same ids.

llama.cpp's name for the architecture is deepseek2. It keeps latent attention as pearl does, absorbed: kv_b_proj is cut into
the half that makes keys (turned round) and the half that makes values, and what it calls key and value lengths are those of
the latents, beside the `_mla` lengths of the heads. All experts of a layer lie in one tensor. The format is written by the
`gguf` package (`pip install holdfast[gguf]`), which is llama.cpp's own; it is looked for only when a file is to be written.
All tensors are held in main memory until then: for the published large models take llama.cpp's own converter.
"""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from holdfast.pearl.config import ModelConfig, read_config
from holdfast.pearl.digest import weights_digest
from holdfast.pearl.gguf_words import Words, read_words
from holdfast.pearl.options import BadModel
from holdfast.pearl.weights import Weights

ARCHITECTURE = "deepseek2"
FILE_TYPES = {"f32": 0, "bf16": 32}  # llama.cpp's LLAMA_FTYPE_ALL_F32, LLAMA_FTYPE_MOSTLY_BF16
KINDS = tuple(FILE_TYPES)
MADE_OF = "holdfast.weights"  # the digest of the folder, by which its engines are known to serve the same weights
_LITE_LAYERS = (26, 27)  # the only models without query latents that llama.cpp takes for such (llama-model deepseek2)


def write_gguf(model_dir: Path, path: Path, kind: str = "f32") -> int:
    """Write `path` and return its size in bytes. `kind` is the type of the matrices; norms and gates are always float32.

    float32 is the one that gives pearl's tokens: on a CPU llama.cpp rounds what it multiplies with bfloat16 to bfloat16.

    Raises:
        BadModel: the folder is no model that llama.cpp serves as deepseek2, or the package is missing; the sentence says which.
        OSError: the file can't be written.
    """
    package = _package()
    config = read_config(model_dir)
    _refuse(model_dir, config)
    words = read_words(model_dir, config.vocab_size)
    begun = path.with_name(f".{path.name}.begun")  # the file is whole, or absent
    writer = package.GGUFWriter(begun, ARCHITECTURE)
    try:
        writer.add_name(model_dir.resolve().name)
        writer.add_file_type(FILE_TYPES[kind])
        writer.add_string(MADE_OF, weights_digest(model_dir))  # among the first: store/gguf_head.py reads it
        _write_geometry(writer, config, package)
        _write_rope(writer, config, package)
        _write_words(writer, words, package)
        for name, tensor in _tensors(config, Weights(model_dir, config.fp8_block)):
            _write_tensor(writer, name, tensor, kind, package)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        begun.replace(path)
    finally:
        writer.close()
        begun.unlink(missing_ok=True)
    return path.stat().st_size


def _package() -> ModuleType:
    try:
        return importlib.import_module("gguf")
    except ImportError:
        raise BadModel("writing GGUF needs the gguf package: pip install 'holdfast[gguf]'") from None


def _refuse(model_dir: Path, config: ModelConfig) -> None:
    if not config.rope_interleave:
        raise BadModel(
            f"{model_dir}: rope_interleave is false; only the published order of rotary rows is written as GGUF"
        )
    if not config.q_lora_rank and config.num_hidden_layers not in _LITE_LAYERS:
        raise BadModel(
            f"{model_dir}: llama.cpp takes models without query latents (q_lora_rank) only with 26 or 27 layers, "
            f"and this one has {config.num_hidden_layers}"
        )
    if config.gate == "group_limited_greedy" and config.n_group > 1:
        raise BadModel(
            f"{model_dir}: llama.cpp scores a group of experts by its two best, as V3 does; V2's groups, scored by the best, "
            "would be others"
        )
    rope = config.rope
    if rope.kind == "yarn" and rope.mscale != rope.mscale_all_dim:
        raise BadModel(
            f"{model_dir}: llama.cpp has one yarn factor for mscale and mscale_all_dim, and here they differ"
        )


def _write_geometry(writer: Any, config: ModelConfig, package: ModuleType) -> None:
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(1)  # absorbed, all heads read one latent
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_leading_dense_block_count(config.first_k_dense_replace)
    if config.q_lora_rank:
        writer.add_q_lora_rank(config.q_lora_rank)
    writer.add_kv_lora_rank(config.kv_lora_rank)
    writer.add_key_length(config.latent_dim)
    writer.add_value_length(config.kv_lora_rank)
    writer.add_key_length_mla(config.qk_nope_head_dim + config.qk_rope_head_dim)
    writer.add_value_length_mla(config.v_head_dim)
    writer.add_expert_count(config.n_routed_experts)
    writer.add_expert_used_count(config.num_experts_per_tok)
    writer.add_expert_shared_count(config.n_shared_experts)
    writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    writer.add_expert_weights_scale(config.routed_scaling_factor)
    writer.add_expert_weights_norm(config.norm_topk_prob)
    sigmoid = config.gate == "noaux_tc"
    gates = package.ExpertGatingFuncType
    writer.add_expert_gating_func(gates.SIGMOID if sigmoid else gates.SOFTMAX)
    if config.gate != "greedy" and config.n_group > 1:
        writer.add_expert_group_count(config.n_group)
        writer.add_expert_group_used_count(config.topk_group)


def _write_rope(writer: Any, config: ModelConfig, package: ModuleType) -> None:
    rope = config.rope
    writer.add_rope_dimension_count(config.qk_rope_head_dim)
    writer.add_rope_freq_base(rope.theta)
    if rope.kind != "yarn":
        writer.add_rope_scaling_type(package.RopeScalingType.NONE)
        return
    writer.add_rope_scaling_type(package.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(rope.factor)
    writer.add_rope_scaling_orig_ctx_len(rope.original_positions)
    writer.add_rope_scaling_yarn_beta_fast(rope.beta_fast)
    writer.add_rope_scaling_yarn_beta_slow(rope.beta_slow)
    writer.add_rope_scaling_yarn_log_mul(
        0.1 * rope.mscale_all_dim
    )  # llama.cpp divides by 0.1 again, for this architecture


def _write_words(writer: Any, words: Words, package: ModuleType) -> None:
    kinds = {
        "plain": package.TokenType.NORMAL,
        "marker": package.TokenType.CONTROL,
        "added": package.TokenType.USER_DEFINED,
        "unused": package.TokenType.UNUSED,
    }
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(words.splitting)
    writer.add_token_list(words.tokens)
    writer.add_token_types([kinds[kind] for kind in words.kinds])
    writer.add_token_merges(words.merges)
    writer.add_add_bos_token(words.adds_bos)
    if words.bos is not None:
        writer.add_bos_token_id(words.bos)
    if words.eos is not None:
        writer.add_eos_token_id(words.eos)
    if words.pad is not None:
        writer.add_pad_token_id(words.pad)
    if words.template:
        writer.add_chat_template(words.template)


def _write_tensor(writer: Any, name: str, tensor: Tensor, kind: str, package: ModuleType) -> None:
    plain = tensor.contiguous().numpy()
    if kind == "bf16" and tensor.dim() > 1 and "ffn_gate_inp" not in name:
        half = package.GGMLQuantizationType.BF16
        writer.add_tensor(name, package.quantize(plain, half), raw_dtype=half)
    else:
        writer.add_tensor(name, plain)


def _tensors(c: ModelConfig, weights: Weights) -> Iterator[tuple[str, Tensor]]:
    """All tensors under llama.cpp's names, float32."""
    yield "token_embd.weight", weights.take("model.embed_tokens.weight", c.vocab_size, c.hidden_size)
    yield "output_norm.weight", weights.take("model.norm.weight", c.hidden_size)
    if not c.tie_word_embeddings:
        yield "output.weight", weights.take("lm_head.weight", c.vocab_size, c.hidden_size)
    for layer in range(c.num_hidden_layers):
        there, here = f"blk.{layer}", f"model.layers.{layer}"
        yield f"{there}.attn_norm.weight", weights.take(f"{here}.input_layernorm.weight", c.hidden_size)
        yield f"{there}.ffn_norm.weight", weights.take(f"{here}.post_attention_layernorm.weight", c.hidden_size)
        yield from _attention(c, weights, there, f"{here}.self_attn")
        if layer < c.first_k_dense_replace:
            for name, tensor in _mlp(weights, f"{here}.mlp", c.hidden_size, c.intermediate_size):
                yield f"{there}.ffn_{name}.weight", tensor
        else:
            yield from _experts(c, weights, there, f"{here}.mlp")


def _attention(c: ModelConfig, weights: Weights, there: str, here: str) -> Iterator[tuple[str, Tensor]]:
    heads, nope, rope, v = c.num_attention_heads, c.qk_nope_head_dim, c.qk_rope_head_dim, c.v_head_dim
    queries = heads * (nope + rope)
    if c.q_lora_rank:
        yield f"{there}.attn_q_a.weight", weights.take(f"{here}.q_a_proj.weight", c.q_lora_rank, c.hidden_size)
        yield f"{there}.attn_q_a_norm.weight", weights.take(f"{here}.q_a_layernorm.weight", c.q_lora_rank)
        yield f"{there}.attn_q_b.weight", weights.take(f"{here}.q_b_proj.weight", queries, c.q_lora_rank)
    else:
        yield f"{there}.attn_q.weight", weights.take(f"{here}.q_proj.weight", queries, c.hidden_size)
    yield (
        f"{there}.attn_kv_a_mqa.weight",
        weights.take(f"{here}.kv_a_proj_with_mqa.weight", c.latent_dim, c.hidden_size),
    )
    yield f"{there}.attn_kv_a_norm.weight", weights.take(f"{here}.kv_a_layernorm.weight", c.kv_lora_rank)
    both = weights.take(f"{here}.kv_b_proj.weight", heads * (nope + v), c.kv_lora_rank).view(
        heads, nope + v, c.kv_lora_rank
    )
    yield f"{there}.attn_k_b.weight", both[:, :nope].transpose(1, 2)
    yield f"{there}.attn_v_b.weight", both[:, nope:]
    yield f"{there}.attn_output.weight", weights.take(f"{here}.o_proj.weight", c.hidden_size, heads * v)


def _experts(c: ModelConfig, weights: Weights, there: str, here: str) -> Iterator[tuple[str, Tensor]]:
    inner = c.moe_intermediate_size
    yield f"{there}.ffn_gate_inp.weight", weights.take(f"{here}.gate.weight", c.n_routed_experts, c.hidden_size)
    if c.gate == "noaux_tc":
        yield f"{there}.exp_probs_b.bias", weights.take(f"{here}.gate.e_score_correction_bias", c.n_routed_experts)
    shared = inner * c.n_shared_experts
    for name, tensor in _mlp(weights, f"{here}.shared_experts", c.hidden_size, shared):
        yield f"{there}.ffn_{name}_shexp.weight", tensor
    for part in ("gate", "up", "down"):
        shape = (c.hidden_size, inner) if part == "down" else (inner, c.hidden_size)
        names = [f"{here}.experts.{expert}.{part}_proj.weight" for expert in range(c.n_routed_experts)]
        yield f"{there}.ffn_{part}_exps.weight", torch.stack([weights.take(name, *shape) for name in names])


def _mlp(weights: Weights, here: str, hidden: int, inner: int) -> Iterator[tuple[str, Tensor]]:
    yield "gate", weights.take(f"{here}.gate_proj.weight", inner, hidden)
    yield "up", weights.take(f"{here}.up_proj.weight", inner, hidden)
    yield "down", weights.take(f"{here}.down_proj.weight", hidden, inner)
