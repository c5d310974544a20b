"""Folds a folder's weights into the matrices that the forward pass multiplies with.

A norm's weight (and the sqrt(n) that turns a Euclidean norm into a root mean square) moves into the matrix behind it; the
softmax scale moves into the query matrix; rows for the quarter turn are appended; the cached latent's norm weight moves into
the two halves of kv_b_proj. All in float32 or better, before anything is rounded to the type of the arithmetic.
"""

import math
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from holdfast.pearl.attention import Attention, AttentionWeights
from holdfast.pearl.config import ModelConfig
from holdfast.pearl.experts import (
    ALL_AT_ONCE_MAX,
    ALL_AT_ONCE_MAX_GPU,
    AllAtOnce,
    Dense,
    FeedForward,
    Gate,
    OneByOne,
    Router,
)
from holdfast.pearl.matrix import Matrix, matrix
from holdfast.pearl.rope import halves, quarter_turn

_EXTRA = 16  # columns that the residual stream has beyond hidden_size: one is used, the rest keeps rows aligned
_INNER_EPS = 1e-6  # q_a_layernorm and kv_a_layernorm keep RMSNorm's default in DeepSeek's and transformers' code


class Source(Protocol):
    """Where tensors come from: a folder, or a random number generator."""

    def take(self, name: str, *shape: int) -> Tensor:
        """One tensor, float32."""
        ...


class Builder:
    """Builds one model's parts on one device in one type."""

    def __init__(self, config: ModelConfig, weights: Source, device: torch.device, dtype: torch.dtype) -> None:
        self._c = config
        self._w = weights
        self._device = device
        self._dtype = dtype

    def _number(self, value: float) -> Tensor:
        return torch.tensor(value, dtype=torch.float32, device=self._device)

    def _matrix(self, weight: Tensor, dtype: torch.dtype | None = None) -> Matrix:
        return matrix(weight, self._device, dtype or self._dtype)

    def _from_stream(self, weight: Tensor, dtype: torch.dtype | None = None) -> Matrix:
        """A matrix that reads the residual stream: nothing of the extra columns."""
        return self._matrix(functional.pad(weight, (0, _EXTRA)), dtype)

    def _to_stream(self, weight: Tensor) -> Matrix:
        """A matrix that adds to the residual stream: nothing to the extra columns."""
        return self._matrix(functional.pad(weight, (0, 0, 0, _EXTRA)))

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor.to(device=self._device, dtype=self._dtype).contiguous()

    def _norm(self, name: str, width: int) -> Tensor:
        """Norm weight times sqrt(n), to fold into the columns of the next matrix."""
        return self._w.take(name, width) * math.sqrt(width)

    def embedding(self) -> Tensor:
        """[vocab, hidden + _EXTRA]: the first extra column holds sqrt(eps * hidden) for every token and no layer adds to it, so
        that the Euclidean norm of a row of the residual stream has the norm's epsilon in it."""
        c = self._c
        wide = torch.zeros(c.vocab_size, c.hidden_size + _EXTRA)
        wide[:, : c.hidden_size] = self._w.take("model.embed_tokens.weight", c.vocab_size, c.hidden_size)
        wide[:, c.hidden_size] = math.sqrt(c.rms_norm_eps * c.hidden_size)
        return self._placed(wide)

    def head(self) -> Matrix:
        """The last norm and the output matrix, tied to the embedding where config.json says so."""
        c = self._c
        name = "model.embed_tokens.weight" if c.tie_word_embeddings else "lm_head.weight"
        return self._from_stream(
            self._w.take(name, c.vocab_size, c.hidden_size) * self._norm("model.norm.weight", c.hidden_size)
        )

    def attention(self, layer: int) -> Attention:
        """One layer's attention."""
        c, prefix = self._c, f"model.layers.{layer}.self_attn"
        heads, nope, rope, v, kv = dims = head_dims(c)
        before = self._norm(f"model.layers.{layer}.input_layernorm.weight", c.hidden_size)
        both = self._w.take(f"{prefix}.kv_a_proj_with_mqa.weight", kv + rope, c.hidden_size) * before
        key = halves(both[kv:], rope, c.rope_interleave)
        tail = [both[:kv], key, quarter_turn(key, rope)]
        up: Matrix | None = None
        if c.q_lora_rank:
            low = self._w.take(f"{prefix}.q_a_proj.weight", c.q_lora_rank, c.hidden_size) * before
            high = self._w.take(f"{prefix}.q_b_proj.weight", heads * (nope + rope), c.q_lora_rank)
            up = self._matrix(self._queries(high * self._norm(f"{prefix}.q_a_layernorm.weight", c.q_lora_rank)))
        else:
            low = self._queries(self._w.take(f"{prefix}.q_proj.weight", heads * (nope + rope), c.hidden_size) * before)
        expand = self._w.take(f"{prefix}.kv_b_proj.weight", heads * (nope + v), kv)
        expand = (expand * self._norm(f"{prefix}.kv_a_layernorm.weight", kv)).view(heads, nope + v, kv)
        weights = AttentionWeights(
            down=self._from_stream(torch.cat((low, *tail))),
            up=up,
            to_latent=self._placed(expand[:, :nope]),
            from_latent=self._placed(expand[:, nope:].transpose(1, 2)),
            out=self._to_stream(self._w.take(f"{prefix}.o_proj.weight", c.hidden_size, heads * v)),
            query_floor=self._number(_INNER_EPS * c.q_lora_rank),
            latent_floor=self._number(_INNER_EPS * kv),
        )
        return Attention(layer, weights, dims)

    def _queries(self, rows: Tensor) -> Tensor:
        """From rows by head, plain part before rope part, to: all plain parts, all rope parts, all quarter turns."""
        heads, nope, rope, _v, _kv = head_dims(self._c)
        by_head = (rows * self._c.softmax_scale).view(heads, nope + rope, -1)
        turned = halves(by_head[:, nope:], rope, self._c.rope_interleave)
        parts = (by_head[:, :nope], turned, quarter_turn(turned, rope))
        return torch.cat([part.reshape(-1, rows.shape[-1]) for part in parts])

    def feed_forward(self, layer: int) -> FeedForward:
        """One layer's second half."""
        c, prefix = self._c, f"model.layers.{layer}.mlp"
        after = self._norm(f"model.layers.{layer}.post_attention_layernorm.weight", c.hidden_size)
        if layer < c.first_k_dense_replace:
            gate, up, down = self._mlp(prefix, c.intermediate_size)
            return Dense(self._from_stream(torch.cat((gate, up)) * after), self._to_stream(down))
        at_once = ALL_AT_ONCE_MAX if self._device.type == "cpu" else ALL_AT_ONCE_MAX_GPU
        if c.n_routed_experts + c.n_shared_experts <= at_once:
            return self._all_at_once(prefix, after)
        shared = self._pair(f"{prefix}.shared_experts", c.moe_intermediate_size * c.n_shared_experts, after)
        inner = c.moe_intermediate_size
        experts = [self._pair(f"{prefix}.experts.{k}", inner, after) for k in range(c.n_routed_experts)]
        router = Router(self._from_stream(self._router_rows(prefix) * after, torch.float32), self._gate(prefix))
        return OneByOne(experts, shared, router)

    def _mlp(self, prefix: str, inner: int) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self._c.hidden_size
        return (
            self._w.take(f"{prefix}.gate_proj.weight", inner, hidden),
            self._w.take(f"{prefix}.up_proj.weight", inner, hidden),
            self._w.take(f"{prefix}.down_proj.weight", hidden, inner),
        )

    def _pair(self, prefix: str, inner: int, after: Tensor) -> tuple[Matrix, Matrix]:
        gate, up, down = self._mlp(prefix, inner)
        return self._from_stream(torch.cat((gate, up)) * after), self._to_stream(down)

    def _router_rows(self, prefix: str) -> Tensor:
        return self._w.take(f"{prefix}.gate.weight", self._c.n_routed_experts, self._c.hidden_size)

    def _gate(self, prefix: str) -> Gate:
        c = self._c
        bias = torch.zeros(c.n_routed_experts)
        if c.gate == "noaux_tc":
            bias = self._w.take(f"{prefix}.gate.e_score_correction_bias", c.n_routed_experts)
        return Gate(c, bias.to(self._device), self._number(1e-20))

    def _all_at_once(self, prefix: str, after: Tensor) -> AllAtOnce:
        c = self._c
        triples = [self._mlp(f"{prefix}.experts.{k}", c.moe_intermediate_size) for k in range(c.n_routed_experts)]
        triples.append(self._mlp(f"{prefix}.shared_experts", c.moe_intermediate_size * c.n_shared_experts))
        rows = [gate for gate, _, _ in triples] + [up for _, up, _ in triples]
        down = self._to_stream(torch.cat([down for _, _, down in triples], dim=1))
        router_rows, gate = self._router_rows(prefix), self._gate(prefix)
        if self._dtype == torch.float32:
            return AllAtOnce(self._from_stream(torch.cat([*rows, router_rows]) * after), down, gate, c, self._device)
        router = Router(self._from_stream(router_rows * after, torch.float32), gate)
        return AllAtOnce(self._from_stream(torch.cat(rows) * after), down, router, c, self._device)


def head_dims(config: ModelConfig) -> tuple[int, int, int, int, int]:
    """Heads, nope, rope, v and kv_lora_rank: what the attention is cut by."""
    return (
        config.num_attention_heads,
        config.qk_nope_head_dim,
        config.qk_rope_head_dim,
        config.v_head_dim,
        config.kv_lora_rank,
    )
