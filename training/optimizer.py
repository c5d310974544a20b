"""Muon for the matrices inside the network, AdamW for the rest (embeddings, head, norms, routers)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

_A, _B, _C = 3.4445, -4.7750, 2.0315
ROUNDS = 5


@torch.no_grad()
def orthogonal(gradient: Tensor, rounds: int = ROUNDS) -> Tensor:
    """Newton-Schulz: the nearest orthogonal matrix, for a stack [n, rows, columns]."""
    x = gradient.to(torch.bfloat16)
    turned = x.shape[-2] > x.shape[-1]
    if turned:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(rounds):
        square = x @ x.mT
        x = _A * x + (_B * square + _C * square @ square) @ x
    return (x.mT if turned else x).to(gradient.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal, scaled so that AdamW's learning rate fits it. Equal shapes go through together."""

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.95, weight_decay: float = 0.05) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            by_shape: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
            for param in group["params"]:
                state = self.state[param]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(param)
                state["momentum"].lerp_(param.grad, 1 - group["momentum"])
                update = param.grad.lerp(state["momentum"], group["momentum"])
                rows, columns = param.shape[-2:]
                by_shape.setdefault((rows, columns), []).append((param, update.reshape(-1, rows, columns)))
            for (rows, columns), pairs in by_shape.items():
                stack = orthogonal(torch.cat([update for _, update in pairs]))
                scale = 0.2 * max(rows, columns) ** 0.5
                parts = stack.split([update.shape[0] for _, update in pairs])
                for (param, _), part in zip(pairs, parts, strict=True):
                    param.mul_(1 - group["lr"] * group["weight_decay"])
                    param.add_(part.view_as(param), alpha=-group["lr"] * scale)


def split(model: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Matrices for Muon; everything else for AdamW."""
    inner: list[Tensor] = []
    rest: list[Tensor] = []
    for name, param in model.named_parameters():
        outer = "embed_tokens" in name or "lm_head" in name or "mlp.gate.weight" in name
        (rest if outer or param.ndim < 2 else inner).append(param)
    return inner, rest


def make(model: nn.Module, lr: float) -> tuple[Muon, torch.optim.AdamW]:
    inner, rest = split(model)
    matrices = [p for p in rest if p.ndim >= 2]
    vectors = [p for p in rest if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": vectors, "weight_decay": 0.0}]
    return Muon(inner, lr), torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98))
