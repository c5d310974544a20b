"""Chooses the next token of each row: penalties and bias, then greedy, or temperature, filters and keyed noise.

Order: penalties, bias, the grammar's mask, [logprobs are read here], temperature, min_p, top_k, top_p, draw. Ties go to the
lowest id. What a row gets depends on its own logits, settings, seed and position, never on its neighbours. Under a grammar
logprobs are those of the masked distribution, the one that is drawn from: tokens that may not come have none.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from holdfast.domain.request import Sampling, TokenLogprob
from holdfast.pearl.constraint import Constraint
from holdfast.pearl.noise import SPAN, gumbel, key

_DENSE_MAX = 1 << 18  # numbers; above it noise is drawn only for tokens that could still win


class Taste:
    """How one answer's tokens are chosen, and what it has said so far."""

    __slots__ = ("_bias", "_counts", "constraint", "plain", "sampling", "seed")

    def __init__(self, sampling: Sampling, seed: int, answer: list[int], like: Tensor) -> None:
        """`answer` holds the tokens already given; `like` is any [.., vocab] tensor on the device of the logits."""
        self.sampling = sampling
        self.seed = seed
        self.constraint: Constraint | None = None  # set once its grammar is compiled
        self._counts: Tensor | None = None
        self._bias: Tensor | None = None
        vocab = like.shape[-1]
        if sampling.presence_penalty or sampling.frequency_penalty:
            told = torch.tensor(answer, dtype=torch.int64, device=like.device)
            self._counts = torch.bincount(told, minlength=vocab).float()
        if sampling.logit_bias:
            self._bias = torch.zeros(vocab, device=like.device)
            for token, bias in sampling.logit_bias:
                self._bias[token] += bias
        self.plain = sampling.temperature == 0 and self._counts is None and self._bias is None and sampling.logprobs < 0

    @property
    def steered(self) -> bool:
        """Whether the logits change before anything is chosen."""
        return self._counts is not None or self._bias is not None or self.constraint is not None

    def steer(self, row: Tensor) -> None:
        """Apply penalties over the answer so far, bias and the grammar's mask to logits [vocab] in place."""
        if self._counts is not None:
            row -= self.sampling.frequency_penalty * self._counts
            row -= self.sampling.presence_penalty * (self._counts > 0)
        if self._bias is not None:
            row += self._bias
        if self.constraint is not None:
            self.constraint.apply(row)

    def said(self, token: int) -> None:
        """Count a token that was given."""
        if self._counts is not None:
            self._counts[token] += 1
        if self.constraint is not None:
            self.constraint.said(token)


@dataclass(slots=True)
class Choice:
    """One row's token; `sound` is false where the logits held NaN or no finite maximum."""

    token: int
    sound: bool = True
    logprob: TokenLogprob | None = None


def choose(logits: Tensor, tastes: list[Taste], positions: list[int]) -> list[Choice]:
    """Choose for every row. `logits` [rows, vocab] float32 may be overwritten; `positions` are absolute, prompt included."""
    for row, taste in enumerate(tastes):
        if taste.steered:
            taste.steer(logits[row])
    best, greedy = logits.max(-1)
    choices = [
        Choice(token, -math.inf < value < math.inf) for token, value in zip(greedy.tolist(), best.tolist(), strict=True)
    ]
    if all(taste.plain for taste in tastes):
        return choices
    drawn = [n for n, taste in enumerate(tastes) if taste.sampling.temperature > 0 and choices[n].sound]
    if drawn:
        part = logits if len(drawn) == len(tastes) else logits[drawn]
        chosen = [tastes[n] for n in drawn]
        keys = [key(tastes[n].seed, positions[n]) for n in drawn]
        for n, token in zip(drawn, _draw(part, [taste.sampling for taste in chosen], keys), strict=True):
            choices[n].token = token
    for n, taste in enumerate(tastes):
        if taste.sampling.logprobs >= 0 and choices[n].sound:
            choices[n].logprob = _logprob(logits[n], choices[n].token, taste.sampling.logprobs)
    return choices


def _draw(logits: Tensor, samplings: list[Sampling], keys: list[tuple[int, int]]) -> list[int]:
    """One sampled token a row."""
    temperatures = torch.tensor([s.temperature for s in samplings], device=logits.device)
    scaled = logits / temperatures[:, None]
    for row, sampling in enumerate(samplings):
        if sampling.top_p < 1 or sampling.top_k > 0 or sampling.min_p > 0:
            scaled[row] = _filtered(scaled[row], sampling)
    if scaled.numel() <= _DENSE_MAX:
        ids = torch.arange(scaled.shape[-1], device=scaled.device)
        tokens: list[int] = scaled.add_(gumbel(keys, ids)).argmax(-1).tolist()
        return tokens
    return [_draw_sparse(row, k) for row, k in zip(scaled.unbind(0), keys, strict=True)]


def _draw_sparse(scaled: Tensor, k: tuple[int, int]) -> int:
    """The same token as over the whole row: noise spans less than SPAN, so what lies further below can't win."""
    ids = (scaled > scaled.max() - SPAN).nonzero()[:, 0]
    return int(ids[(scaled[ids] + gumbel([k], ids)[0]).argmax()])


def _filtered(scaled: Tensor, sampling: Sampling) -> Tensor:
    """Minus infinity for tokens [vocab] that min_p, top_k and top_p (in this order) shut out; the likeliest always stays."""
    if sampling.min_p > 0:
        scaled = scaled.masked_fill(scaled < scaled.max() + math.log(sampling.min_p), -math.inf)
    ordered, order = scaled.sort(descending=True, stable=True)
    if sampling.top_k > 0:
        ordered[sampling.top_k :] = -math.inf
    if sampling.top_p < 1:
        shares = ordered.softmax(-1)
        shut = shares.cumsum(-1) - shares >= sampling.top_p
        shut[0] = False
        ordered.masked_fill_(shut, -math.inf)
    return torch.empty_like(scaled).scatter_(0, order, ordered)


def _logprob(row: Tensor, token: int, count: int) -> TokenLogprob:
    logprobs = row.log_softmax(-1)
    top: tuple[tuple[int, float], ...] = ()
    if count > 0:
        values, ids = logprobs.sort(descending=True, stable=True)
        count = min(count, int(values.isfinite().sum()))
        top = tuple(zip(ids[:count].tolist(), values[:count].tolist(), strict=True))
    return TokenLogprob(token, float(logprobs[token]), top)
