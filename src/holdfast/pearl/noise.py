"""Noise that has no state: a pure function of (seed, absolute position, token id).

A sampled answer draws, at each place, what it would have drawn in any other process and in any other batch, so it can be
continued token for token. The draw is the Gumbel-max trick: the token with the greatest (logit / temperature + Gumbel noise)
is a sample of the softmax. Mixing: splitmix64 (Steele, Lea, Flood 2014) over seed and position, then two rounds of the
32-bit mixer "lowbias32" (C. Wellons, hash-prospector) over the token id.
"""

import torch
from torch import Tensor

_MASK_64 = (1 << 64) - 1
_MASK_32 = (1 << 32) - 1
SPAN = 26.5  # no two draws of `gumbel` lie further apart: its 32-bit uniforms end at 2^-33 from 0 and from 1


def _splitmix(z: int) -> int:
    z = (z + 0x9E3779B97F4A7C15) & _MASK_64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK_64
    return z ^ (z >> 31)


def key(seed: int, position: int) -> tuple[int, int]:
    """Two 32-bit words for one place of one answer. Any integer is a seed; those equal modulo 2^64 are the same."""
    word = _splitmix(_splitmix(seed & _MASK_64) ^ (position & _MASK_64))
    return word & _MASK_32, word >> 32


def _mix(x: Tensor) -> Tensor:
    """lowbias32 on the low 32 bits of int64 (the products wrap modulo 2^64, which leaves the low 32 bits right)."""
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & _MASK_32
    x = x ^ (x >> 15)
    x = (x * 0x846CA68B) & _MASK_32
    return x ^ (x >> 16)


def gumbel(keys: list[tuple[int, int]], ids: Tensor) -> Tensor:
    """Gumbel noise [rows, ids] float32 for one key a row; `ids` is int64, [n] or [rows, n].

    The logarithms are taken in float64 and rounded once, so that vector and scalar code give the same float32.
    """
    words = torch.tensor(keys, dtype=torch.int64, device=ids.device)
    x = _mix(ids ^ words[:, :1])
    x = _mix(x ^ words[:, 1:])
    uniform = x.double().add_(0.5).mul_(2.0**-32)
    return uniform.log_().neg_().log_().neg_().float()
