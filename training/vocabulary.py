"""The tokenizer: one token for each frequent whole word, letters for every other word, digits one by one.

A byte-level BPE without merges: `ignore_merges` takes a piece that is in the vocabulary as one token, any other piece falls into
its bytes. Merges inside words (BPE's own habit) were tried first and cost dearly: a word to be copied, turned round or
counted in came as two or three odd fragments, whose spelling a model of this size must first learn by heart. Words that
serve as such material are kept out of the vocabulary unless the facts need them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import render
import words
from mix import SHARES, draw
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

VOCAB_SIZE = 1280
FACTS_COUNT_MIN = 20  # so often must the facts use a word of the material for it to get a token
ASKED_ABOUT = {"letter", "letters"}  # the questions themselves need these
SPACE = "\u0120"  # how byte-level pieces write a space


def _texts(seed: int, count: int, shares: dict[str, float]) -> Iterator[str]:
    rng = Random(seed)
    for _ in range(count):
        sample = draw(rng, shares)
        text = render.sample_prompt(sample) + render.completion(sample)
        for special in render.SPECIALS:
            text = text.replace(special, "\n")
        yield text


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def _pieces(seed: int, count: int, shares: dict[str, float]) -> Counter[str]:
    cut = _pre_tokenizer()
    return Counter(piece for text in _texts(seed, count, shares) for piece, _ in cut.pre_tokenize_str(text))


def build(seed: int = 7, count: int = 12000) -> Tokenizer:
    facts = _pieces(seed, count // 2, {"facts": 1.0})
    material = {*words.COMMON, *(word[::-1] for word in words.COMMON)} - ASKED_ABOUT

    def wanted(piece: str) -> bool:
        bare = piece.removeprefix(SPACE).lower()
        return len(piece) > 1 and (bare not in material or facts[piece] >= FACTS_COUNT_MIN)

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    room = VOCAB_SIZE - len(render.SPECIALS) - len(alphabet)
    ranked = _pieces(seed, count, {**SHARES, "facts": 45.0}).most_common()
    whole = [piece for piece, _ in ranked if wanted(piece)][:room]
    names = [*render.SPECIALS, *alphabet, *whole]
    vocab = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(render.SPECIALS))
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path) -> None:
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": render.BOS,
        "eos_token": render.EOS,
        "pad_token": render.PAD,
        "add_bos_token": False,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 4096,
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings, ensure_ascii=False, indent=2) + "\n", encoding="utf-8"
    )
