"""Measures, when a core opens, whether this machine computes an answer the same way whatever surrounds it.

Exact continuation needs that a token's latents and logits are bitwise the same alone, in a batch, read whole or in pieces.
That is a property of the kernels that torch picks here, so it is measured here, on the model's own shapes, and not promised
from elsewhere. It also warms the kernels.
"""

import torch
from torch import Tensor

from holdfast.domain.release import Exactness
from holdfast.pearl.batch import Brain
from holdfast.pearl.layout import runs
from holdfast.pearl.options import CoreOptions
from holdfast.pearl.sheet import Sheet

_LENGTHS = (37, 9, 13, 21, 5)


def exactness_of(model: Brain, options: CoreOptions) -> Exactness:
    """EXACT where the measurement holds. Else GREEDY in float32, whose differences (1e-6 of a logit's size) only flip
    what is as good as tied, and FAIR in bf16. Clears the slots that it used."""
    steady = is_steady(model, options)
    for slot in range(min(options.slots, len(_LENGTHS))):
        model.cache.clear(slot)
    if steady:
        return Exactness.EXACT
    return Exactness.GREEDY if options.dtype == "fp32" else Exactness.FAIR


def is_steady(model: Brain, options: CoreOptions) -> bool:
    """Whether logits after every prefix of some fixed texts agree to the bit along every way there."""
    longest = min(model.places, options.prefill_chunk_tokens)
    texts = [_text(n, min(length, longest), model.vocab_size) for n, length in enumerate(_LENGTHS)]
    texts = texts[: options.slots]
    wanted = [_read(model, 0, text, [len(text)]) for text in texts]
    ways = [_read(model, 0, texts[0], pieces) for pieces in ([7], [32], [len(texts[0]) - 8, 1])]
    if options.slots > 1:
        ways += _read_together(model, texts[0][: max(1, longest // 2)])
    together = _talk_together(model, texts)
    return all(torch.equal(way, wanted[0][: len(way)]) for way in ways) and all(
        torch.equal(one, other) for one, other in zip(together, wanted, strict=True)
    )


def _text(seed: int, tokens: int, vocab: int) -> list[int]:
    return [(n * n * 31 + n * 17 + seed * 101 + 5) % vocab for n in range(tokens)]


def _read(model: Brain, slot: int, text: list[int], pieces: list[int]) -> Tensor:
    """Logits after every token [tokens, vocab], the text read in pieces of these sizes; the last size repeats."""
    found: list[Tensor] = []
    start = 0
    while start < len(text):
        sheet = Sheet()
        part = text[start : start + max(1, pieces[min(len(found), len(pieces) - 1)])]
        sheet.many(model.cache, slot, part, start)
        sheet.picks = list(range(len(part)))
        found.append(model.forward(sheet))
        start += len(part)
    return torch.cat(found)


def _read_together(model: Brain, text: list[int]) -> list[Tensor]:
    """The same text read in two neighbouring slots at once."""
    sheet = Sheet()
    for slot in (0, 1):
        sheet.many(model.cache, slot, text, 0)
    sheet.picks = list(range(2 * len(text)))
    return list(model.forward(sheet).chunk(2))


def _talk_together(model: Brain, texts: list[list[int]]) -> list[Tensor]:
    """The same, one token a step, side by side in slots of one batch; shorter texts drop out as they end."""
    found: list[list[Tensor]] = [[] for _ in texts]
    for position in range(max(len(text) for text in texts)):
        sheet = Sheet()
        slots = [n for n, text in enumerate(texts) if position < len(text)]
        lengths = [model.cache.length_for(position + 1)] * len(slots)
        for first, last in runs(slots, lengths, model.cache.near_places):
            row = len(sheet.ids)
            for slot in range(first, last + 1):
                if position < len(texts[slot]):
                    sheet.one(model.cache, slot, texts[slot][position], position)
                else:
                    sheet.spare(model.cache)
            sheet.parts.append((row, len(sheet.ids), first, last - first + 1))
        for slot, row_logits in zip(slots, model.forward(sheet).unbind(0), strict=True):
            found[slot].append(row_logits)
    return [torch.stack(rows) for rows in found]
