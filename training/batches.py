"""Samples to tensors, in parts of one length and one size, so that little is padding and shapes repeat."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import torch
from mix import draw
from render import completion, sample_prompt
from sample import Sample
from tokenizers import Tokenizer
from torch import Tensor

PAD_ID = 2
PART_TOKENS = 1920
STOP_WEIGHT = 0.2  # about what a token of a short answer has
WIDTHS = (20, 24, 32, 40, 48, 64, 80, 96, 120, 160, 192, 240, 320, 384, 480)


@dataclass(frozen=True)
class Part:
    ids: Tensor
    labels: Tensor
    weights: Tensor


@dataclass(frozen=True)
class Encoded:
    ids: list[int]
    answer_from: int
    stops: tuple[int, ...] = ()


def encode(samples: list[Sample], tokenizer: Tokenizer) -> list[Encoded]:
    prompts = tokenizer.encode_batch_fast([sample_prompt(s) for s in samples])
    answers = tokenizer.encode_batch_fast([completion(s) for s in samples])
    rows = zip(samples, prompts, answers, strict=True)
    return [Encoded(p.ids + a.ids, len(p.ids), _stops(s.answer, len(p.ids), a.tokens)) for s, p, a in rows]


def _stops(answer: str, start: int, tokens: list[str]) -> tuple[int, ...]:
    """Where counting is likeliest to stop too early or too late: behind every number with the last one's last digit."""
    if ", " not in answer or not answer.replace(", ", "").isdigit():
        return ()
    ends = range(1, len(tokens))
    return tuple(start + at for at in ends if tokens[at - 1] == tokens[-2] and not tokens[at].isdigit())


def _part(rows: list[Encoded], width: int) -> Part:
    ids = torch.full((len(rows), width + 1), PAD_ID)
    weights = torch.zeros(len(rows), width + 1)
    for at, row in enumerate(rows):
        ids[at, : len(row.ids)] = torch.tensor(row.ids)
        answer = len(row.ids) - row.answer_from
        # The power lets a long answer count for more than a short one, but not by its whole length.
        weights[at, row.answer_from : len(row.ids)] = answer**-0.7
        weights[at, list(row.stops)] += STOP_WEIGHT
    return Part(ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), weights[:, 1:].contiguous())


class Shelves:
    """Samples wait on the shelf of their length until a part of exactly PART_TOKENS tokens is full.

    Every part has the same number of tokens, so the matrix products keep one shape: on a CPU a new shape costs more
    than the product itself."""

    def __init__(self, rng: Random, shares: dict[str, float], tokenizer: Tokenizer) -> None:
        self.rng, self.shares, self.tokenizer = rng, shares, tokenizer
        self.waiting: dict[int, list[Encoded]] = {width: [] for width in WIDTHS}
        self.ready: list[Part] = []

    def _restock(self) -> None:
        for row in encode([draw(self.rng, self.shares) for _ in range(128)], self.tokenizer):
            width = next((w for w in WIDTHS if len(row.ids) - 1 <= w), 0)
            if not width:
                continue
            shelf = self.waiting[width]
            shelf.append(row)
            if len(shelf) == PART_TOKENS // width:
                self.ready.append(_part(shelf, width))
                self.waiting[width] = []

    def take(self, count: int) -> list[Part]:
        while len(self.ready) < 4 * count:
            self._restock()
        return [self.ready.pop(self.rng.randrange(len(self.ready))) for _ in range(count)]
