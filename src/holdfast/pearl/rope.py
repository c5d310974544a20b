"""Rotary positions: the table of cosines and sines, plain or stretched by YaRN (arXiv 2309.00071, section 3)."""

import math

import torch
from torch import Tensor

from holdfast.pearl.config import Rope, yarn_mscale


def frequencies(rope: Rope, dim: int) -> tuple[Tensor, float]:
    """Angle per position of each of the `dim / 2` pairs, float32, and the factor on cosine and sine."""
    pairs = rope.theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
    plain = 1.0 / pairs
    if rope.kind == "default":
        return plain, 1.0
    stretched = 1.0 / (rope.factor * pairs)

    def pair_that_turns(times: float) -> float:
        positions = rope.original_positions
        return dim * math.log(positions / (times * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair_that_turns(rope.beta_fast), pair_that_turns(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dim - 1)
    span = high - low or 0.001
    keep = 1 - torch.clamp((torch.arange(dim // 2, dtype=torch.float32) - low) / span, 0, 1)
    return stretched * (1 - keep) + plain * keep, _attention_factor(rope)


def _attention_factor(rope: Rope) -> float:
    if rope.attention_factor is not None:
        return rope.attention_factor
    if rope.mscale and rope.mscale_all_dim:
        return yarn_mscale(rope.factor, rope.mscale) / yarn_mscale(rope.factor, rope.mscale_all_dim)
    return yarn_mscale(rope.factor, 1.0)


def table(rope: Rope, dim: int, positions: int) -> Tensor:
    """[positions, 2 * dim] float32: cosines, then sines, each repeated for both halves of a head."""
    angle, factor = frequencies(rope, dim)
    turned = torch.arange(positions, dtype=torch.float32)[:, None] * angle
    turned = torch.cat((turned, turned), dim=-1)
    return torch.cat((turned.cos() * factor, turned.sin() * factor), dim=-1)


def halves(rows: Tensor, dim: int, interleaved: bool) -> Tensor:
    """Order the rows of a rotary projection [..., dim, in] so that a pair's members lie `dim / 2` apart."""
    if not interleaved:
        return rows
    return torch.cat((rows[..., 0::2, :], rows[..., 1::2, :]), dim=-2)


def quarter_turn(rows: Tensor, dim: int) -> Tensor:
    """Rows that yield (-second half, first half) of what `rows` yield, so that rotating costs one multiply and one add."""
    return torch.cat((-rows[..., dim // 2 :, :], rows[..., : dim // 2, :]), dim=-2)
