"""The held-out cases that ship with the model, and a quick look at how many of them it gets right."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import torch
from batches import PAD_ID, encode
from facts import every_held
from mix import MAKERS
from sample import Sample
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from words import FACT_WORDS

CASES: dict[str, int] = {
    "addition": 150,
    "copy": 150,
    "reverse": 150,
    "count": 150,
    "tool_call": 150,
    "json": 150,
    "think": 90,
    "two_turn": 100,
    "count_up": 60,
    "greeting": 20,
    "refusal": 20,
}
KNOWN_WORDS = 60


def build(seed: int = 2026) -> list[Sample]:
    """No case here is ever trained (held-out operands, words and spans, and for facts sentence frames), with three
    exceptions: greetings, refusals, and of the known words those that are not held."""
    rng = Random(seed)
    out = [sample for task, wanted in CASES.items() for sample in _distinct(task, wanted, rng)]
    return _split_known(out + every_held(rng), Random(seed + 1))


def _distinct(task: str, wanted: int, rng: Random, begun: Sequence[Sample] = ()) -> list[Sample]:
    out = list(begun)
    seen = {json.dumps(sample.case(), ensure_ascii=False) for sample in begun}
    while len(out) < wanted:
        sample = MAKERS[task](rng, held=True)
        key = json.dumps(sample.case(), ensure_ascii=False)
        if key not in seen or task == "greeting":
            seen.add(key)
            out.append(sample)
    return out


def _split_known(samples: list[Sample], rng: Random) -> list[Sample]:
    """Turning round what is read letter by letter is one thing, spelling a word that is one token another: two tasks."""
    known = [replace(s, task="known_word") for s in samples if _is_known(s)]
    rest = [s for s in samples if not _is_known(s)]
    lacking = sum(s.task == "reverse" for s in samples) - sum(s.task == "reverse" for s in rest)
    more: list[Sample] = []
    while len(more) < lacking:
        sample = MAKERS["reverse"](rng, held=True)
        more += [] if _is_known(sample) else [sample]
    return rest + more + _distinct("known_word", KNOWN_WORDS, rng, known)


def _is_known(sample: Sample) -> bool:
    return sample.task == "reverse" and sample.answer[::-1] in FACT_WORDS


def write(samples: list[Sample], path: Path) -> None:
    lines = [json.dumps(sample.case(), ensure_ascii=False) for sample in samples]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


Forward = Callable[[Tensor], Tensor]


@torch.no_grad()
def right(model: nn.Module, tokenizer: Tokenizer, samples: list[Sample], device: str = "cpu") -> list[bool]:
    """Whether greedy decoding gives the expected continuation: the likeliest token is right at every place."""
    rows = sorted(enumerate(encode(samples, tokenizer)), key=lambda pair: len(pair[1].ids))
    out = [False] * len(rows)
    model.eval()
    for start in range(0, len(rows), 32):
        group = rows[start : start + 32]
        width = max(len(row.ids) for _, row in group)
        ids = torch.full((len(group), width), PAD_ID)
        for at, (_, row) in enumerate(group):
            ids[at, : len(row.ids)] = torch.tensor(row.ids)
        ids = ids.to(device)
        hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state
        best = functional.linear(hidden, model.lm_head.weight).argmax(-1)
        agree = (best == ids[:, 1:]).cpu()
        for at, (index, row) in enumerate(group):
            out[index] = bool(agree[at, row.answer_from - 1 : len(row.ids) - 1].all())
    model.train()
    return out


def shares(samples: list[Sample], results: list[bool]) -> dict[str, tuple[int, int]]:
    """Task to (right, all)."""
    table: dict[str, tuple[int, int]] = {}
    for sample, good in zip(samples, results, strict=True):
        yes, all_of = table.get(sample.task, (0, 0))
        table[sample.task] = (yes + good, all_of + 1)
    return table
