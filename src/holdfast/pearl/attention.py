"""Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1) with the key and value expansions absorbed.

The expansion of latents to keys is applied to the query, and the expansion to values to what the attention read, so the
cache is read as it is and never expanded. Norm weights, the softmax scale and the rotation are folded into the matrices:
rows that yield the quarter-turned vector stand beside those that yield the vector, and rotating is one multiply and one add.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from holdfast.pearl.cache import LatentCache
from holdfast.pearl.matrix import Matrix

_FEW_ROWS = 16


@dataclass(slots=True)
class AttentionWeights:
    """One layer. `down` yields query latents, cache latents, rope key and its quarter turn in one product; `up` yields plain
    queries of all heads, their rope parts and the quarter turns. With no query latents `down` yields what `up` would."""

    down: Matrix
    up: Matrix | None
    to_latent: Tensor  # [heads, nope, kv_lora_rank]
    from_latent: Tensor  # [heads, kv_lora_rank, v]
    out: Matrix
    query_floor: Tensor
    latent_floor: Tensor


class Desk:
    """Buffers for up to `rows` rows, shared by all layers, with their views kept for each number of rows."""

    def __init__(self, rows: int, dims: tuple[int, int, int, int, int], like: Tensor) -> None:
        """`dims` are heads, nope, rope, v and kv_lora_rank."""
        heads, _nope, rope, v, kv = dims
        self.dims = dims
        self._query = torch.zeros((rows, heads, kv + rope), dtype=like.dtype, device=like.device)
        self._latent = torch.zeros((rows, kv + rope), dtype=like.dtype, device=like.device)
        self._read = torch.zeros((rows, heads, kv), dtype=like.dtype, device=like.device)
        self._value = torch.zeros((rows, heads, v), dtype=like.dtype, device=like.device)
        self._spread: dict[int, Spread] = {}

    def spread(self, rows: int) -> "Spread":
        """Views on the first `rows` rows."""
        found = self._spread.get(rows)
        if found is None:
            kv = self.dims[4]
            query, latent = self._query[:rows], self._latent[:rows]
            read, value = self._read[:rows], self._value[:rows]
            found = Spread(
                query=query,
                query_latent=query[..., :kv].transpose(0, 1),
                query_rope=query[..., kv:],
                latent=latent,
                latent_plain=latent[:, :kv],
                latent_rope=latent[:, kv:],
                read=read,
                read_by_head=read.transpose(0, 1),
                value_by_head=value.transpose(0, 1),
                value=value.view(rows, -1),
            )
            self._spread[rows] = found
        return found


@dataclass(slots=True)
class Spread:
    """Views of one Desk."""

    query: Tensor
    query_latent: Tensor
    query_rope: Tensor
    latent: Tensor
    latent_plain: Tensor
    latent_rope: Tensor
    read: Tensor
    read_by_head: Tensor
    value_by_head: Tensor
    value: Tensor


def rms(x: Tensor, floor: Tensor) -> Tensor:
    """sqrt(sum of squares + floor) of each row, [rows, 1] float32. Only operations that IEEE 754 rounds exactly follow the
    sum, so that no row depends on whether it fell into a vector register or the loop's tail. `floor` is a float32 tensor
    without dimensions (a Python number would be turned into one at every call)."""
    norm = _norm(x)
    return norm.mul_(norm).add_(floor).sqrt_()


def _norm(x: Tensor) -> Tensor:
    if x.dtype == torch.float32:
        plain: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return plain
    wide: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    return wide


def over(x: Tensor, size: Tensor) -> Tensor:
    """x divided by its rows' sizes, in x's type."""
    scaled = x / size
    return scaled if scaled.dtype == x.dtype else scaled.to(x.dtype)


def unit(x: Tensor) -> Tensor:
    """The residual stream divided by its root mean square times sqrt(n): RMSNorm without its weight and that factor, which
    live in the next matrix. The epsilon is in x already, as the column that the embedding appends (see Builder)."""
    return over(x, _norm(x))


class Attention:
    """One layer's attention; adds to the residual stream."""

    def __init__(self, layer: int, weights: AttentionWeights, dims: tuple[int, int, int, int, int]) -> None:
        """`dims` as in Desk."""
        heads, nope, rope, _v, kv = dims
        self._layer = layer
        self._w = weights
        self._dims = dims
        self._query_parts = [heads * nope, heads * rope, heads * rope]
        self._latent_parts = [kv, rope, rope]

    def __call__(self, x: Tensor, step: "StepView", cache: LatentCache) -> Tensor:
        """x [rows, hidden] after this layer's attention. The step's latents are written before anything is read."""
        heads, nope, rope, _v, _kv = self._dims
        w, spread = self._w, step.spread
        down = w.down.rows(unit(x))
        if w.up is None:
            plain, turned, quarter, latent, key, key_quarter = down.split_with_sizes(
                [*self._query_parts, *self._latent_parts], -1
            )
        else:
            low = down.shape[-1] - sum(self._latent_parts)
            query_latent, latent, key, key_quarter = down.split_with_sizes([low, *self._latent_parts], -1)
            up = w.up.rows(over(query_latent, rms(query_latent, w.query_floor)))
            plain, turned, quarter = up.split_with_sizes(self._query_parts, -1)

        torch.div(latent, rms(latent, w.latent_floor), out=spread.latent_plain)
        torch.mul(key, step.cos, out=spread.latent_rope)
        spread.latent_rope.addcmul_(key_quarter, step.sin)
        cache.write(self._layer, step.places, spread.latent)

        _by_head(plain.view(-1, heads, nope).transpose(0, 1), w.to_latent, spread.query_latent)
        torch.mul(turned.view(-1, heads, rope), step.cos_by_head, out=spread.query_rope)
        spread.query_rope.addcmul_(quarter.view(-1, heads, rope), step.sin_by_head)

        for reach in step.reaches:
            keys, values = reach.views[self._layer]
            scores = torch.bmm(reach.query, keys)
            scores.view(reach.mask_shape).add_(reach.mask)
            torch.bmm(torch.softmax(scores, -1), values, out=reach.read)
        _by_head(spread.read_by_head, w.from_latent, spread.value_by_head)
        return w.out.onto(x, spread.value)


def _by_head(x: Tensor, weights: Tensor, out: Tensor) -> None:
    """One product a head into `out` [heads, rows, width], which is strided: torch then runs head by head, and for few rows a
    copy costs less than that. Both ways give the same bits."""
    if x.shape[1] <= _FEW_ROWS:
        out.copy_(torch.bmm(x, weights))
    else:
        torch.bmm(x, weights, out=out)


@dataclass(slots=True)
class Reach:
    """One attention product of a step, the same in every layer but for the cache's views: as many rows for each of its slots."""

    query: Tensor  # [slots, rows of a slot * heads, latent_dim]
    read: Tensor  # [slots, rows of a slot * heads, kv_lora_rank], where the result goes
    mask: Tensor  # [rows, 1, length]: 0, or minus infinity where the place is not before the row
    mask_shape: tuple[int, int, int]  # of the scores, for the mask
    views: list[tuple[Tensor, Tensor]]  # by layer: keys and values


@dataclass(slots=True)
class StepView:
    """What all layers share in one forward pass. Cosines and sines are [rows, rope], by head [rows, 1, rope]."""

    spread: Spread
    cos: Tensor
    sin: Tensor
    cos_by_head: Tensor
    sin_by_head: Tensor
    places: Tensor
    reaches: list[Reach]
