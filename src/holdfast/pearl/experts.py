"""The feed-forward half of a layer: dense, or DeepSeekMoE (arXiv 2401.06066) with V3's or V2's gate.

Few experts are computed all at once, in two products, with the gate's weights as a mask (8 experts: faster than picking
from three tokens up, and the same arithmetic for every number of tokens). Many experts are computed one after the other,
each for the tokens that chose it.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from holdfast.pearl.attention import unit
from holdfast.pearl.config import ModelConfig
from holdfast.pearl.matrix import Matrix
from holdfast.pearl.sheet import ROW_STEP

ALL_AT_ONCE_MAX = 16  # experts, shared ones included, up to which all are computed for every token
ALL_AT_ONCE_MAX_GPU = 72  # there, reading the weights is what costs, and a batch of 32 reads nearly all of 64 anyway


class FeedForward(Protocol):
    """Adds to the residual stream: x [rows, hidden] to the same shape. `fixed`: its work has the same shape whatever x is."""

    fixed: bool

    def __call__(self, x: Tensor) -> Tensor: ...


class Dense:
    """down(silu(gate x) * up x); the first matrix yields gates, then ups."""

    fixed = True

    def __init__(self, gate_up: Matrix, down: Matrix) -> None:
        self._gate_up = gate_up
        self._down = down

    def __call__(self, x: Tensor) -> Tensor:
        """See FeedForward."""
        gate, up = self._gate_up.rows(unit(x)).chunk(2, -1)
        return self._down.onto(x, functional.silu(gate).mul_(up))


@dataclass(slots=True)
class Gate:
    """Chooses experts from router logits [rows, experts]. `bias` steers V3's choice, not its weights."""

    config: ModelConfig
    bias: Tensor  # [experts] float32; unused by V2's gates
    tiny: Tensor  # 1e-20, against a division by zero

    def __call__(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Indices and weights, both [rows, num_experts_per_tok], as transformers' DeepseekV3TopkRouter and V2's."""
        config = self.config
        if config.gate == "noaux_tc":
            scores = torch.sigmoid(logits)
            choice = scores + self.bias
            if config.topk_group < config.n_group:
                groups = choice.view(-1, config.n_group, config.n_routed_experts // config.n_group)
                best = groups if groups.shape[-1] == 2 else groups.topk(2, -1)[0]
                _leave(groups, best.sum(-1), config.topk_group, float("-inf"))
            indices = choice.topk(config.num_experts_per_tok, -1, sorted=False)[1]
            weights = scores.gather(1, indices)
            if config.norm_topk_prob:
                weights.div_(weights.sum(-1, keepdim=True).add_(self.tiny))
        else:
            scores = logits.softmax(-1)
            if config.gate == "group_limited_greedy":
                groups = scores.view(-1, config.n_group, config.n_routed_experts // config.n_group)
                _leave(groups, groups.amax(-1), config.topk_group, 0.0)
            weights, indices = scores.topk(config.num_experts_per_tok, -1, sorted=False)
        if config.routed_scaling_factor != 1.0:
            weights = weights * config.routed_scaling_factor
        return indices, weights


def _leave(groups: Tensor, scores: Tensor, count: int, instead: float) -> None:
    """Overwrite the groups [rows, groups, members] that aren't among the `count` best of `scores` [rows, groups]."""
    best = scores.topk(count, -1, sorted=False)[1]
    shut = torch.ones_like(scores, dtype=torch.bool).scatter_(1, best, False)
    groups.masked_fill_(shut[:, :, None], instead)


class Router:
    """The gate's matrix, in float32 whatever the rest is computed in."""

    def __init__(self, matrix: Matrix, gate: Gate) -> None:
        self._matrix = matrix
        self._gate = gate

    def __call__(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x [rows, hidden], normalised."""
        return self._gate(self._matrix.rows(x.float()))


class AllAtOnce:
    """Every expert for every token: `gate_up` yields all experts' gates, then all ups, then (float32 only) the router's
    logits; `down` takes all experts' inner values side by side, the shared ones last."""

    fixed = True

    def __init__(
        self, gate_up: Matrix, down: Matrix, router: Gate | Router, config: ModelConfig, device: torch.device
    ) -> None:
        experts = config.n_routed_experts + config.n_shared_experts
        self._inner = config.moe_intermediate_size
        self._routed = config.n_routed_experts
        self._experts = experts
        self._parts = [experts * self._inner] * 2
        self._router = router
        if isinstance(router, Gate):
            self._parts.append(self._routed)
        self._gate_up = gate_up
        self._down = down
        shared = torch.arange(experts) >= config.n_routed_experts
        self._shared_only = shared.float()[None].to(device)

    def __call__(self, x: Tensor) -> Tensor:
        """See FeedForward."""
        normal = unit(x)
        parts = self._gate_up.rows(normal).split_with_sizes(self._parts, -1)
        indices, weights = self._router(parts[2] if len(parts) == 3 else normal)
        shares = self._shared_only.expand(x.shape[0], -1).scatter(1, indices, weights).to(x.dtype)
        inner = functional.silu(parts[0]).mul_(parts[1])
        inner.view(-1, self._experts, self._inner).mul_(shares[:, :, None])
        return self._down.onto(x, inner)


class OneByOne:
    """Each expert for the tokens that chose it, in the experts' order, so that a token's sum has one order too."""

    fixed = False

    def __init__(self, experts: list[tuple[Matrix, Matrix]], shared: tuple[Matrix, Matrix], router: Router):
        """Pairs are (gates and ups, down)."""
        self._experts = experts
        self._shared = shared
        self._router = router

    def __call__(self, x: Tensor) -> Tensor:
        """See FeedForward."""
        normal = unit(x)
        indices, weights = self._router(normal)
        chosen = indices.flatten()
        order = chosen.argsort(stable=True)
        rows = order // indices.shape[1]
        shares = weights.flatten()[order].to(x.dtype)[:, None]
        total = torch.zeros_like(x)
        start = 0
        for expert, count in enumerate(chosen.bincount(minlength=len(self._experts)).tolist()):
            if count:
                part = slice(start, start + count)
                out = _padded_expert(self._experts[expert], normal[rows[part]])
                total.index_add_(0, rows[part], out * shares[part])
                start += count
        gate, up = self._shared[0].rows(normal).chunk(2, -1)
        return self._shared[1].onto(x + total, functional.silu(gate).mul_(up))


def _padded_expert(expert: tuple[Matrix, Matrix], x: Tensor) -> Tensor:
    count = x.shape[0]
    if count % ROW_STEP:
        x = functional.pad(x, (0, 0, 0, ROW_STEP - count % ROW_STEP))
    gate, up = expert[0].rows(x).chunk(2, -1)
    return expert[1].rows(functional.silu(gate).mul_(up))[:count]
