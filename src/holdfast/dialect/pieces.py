"""Exact tokenising from a cache, where the tokenizer's own splitting can be repeated here.

A byte-level BPE never merges across the pieces that its pre-tokenizer cuts, so the ids of a text are the joined ids of its
pieces, and most pieces come again and again. Two sizes are kept: words with what sticks to them (a piece may begin with a
space but none goes on after a single one, so a text may be cut before every single space), and pieces proper, for words
that are new. Stretches of white space that end in a space can't be cut so: no word before one is ever kept, so that they
are met as unknown words, and cost the others nothing.

Pieces are cut from ASCII text only, because `re` and the tokenizer's own engine disagree about some of Unicode's letters
and numbers.
"""

import re
from collections.abc import Callable
from operator import length_hint
from typing import Any

# Digits(individual_digits) and then GPT-2's splitting; a digit ends a stretch of white space as the end of text does.
# White space is written out: `\s` would take in four separators (0x1c to 0x1f) that the tokenizer does not.
_CUT = re.compile(r" ?[A-Za-z]+|[0-9]|'(?:s|t|re|ve|m|ll|d)| ?[^\t-\r 0-9A-Za-z]+|[\t-\r ]+(?![^\t-\r 0-9])|[\t-\r ]+")
WORD_CHARS_MAX = 48


def is_digits_and_words(spec: dict[str, Any]) -> bool:
    """Whether a tokenizer.json splits the way this module repeats, and does nothing else to text."""
    cut = spec.get("pre_tokenizer") or {}
    steps = cut.get("pretokenizers") or []
    return (
        cut.get("type") == "Sequence"
        and [step.get("type") for step in steps] == ["Digits", "ByteLevel"]
        and bool(steps[0].get("individual_digits"))
        and bool(steps[1].get("use_regex", True))
        and not steps[1].get("add_prefix_space")
        and not spec.get("normalizer")
        and not spec["model"].get("dropout")
    )


class Pieces:
    """`slow` is the tokenizer itself. Bounded: a cache that holds `words_max` starts afresh."""

    def __init__(self, slow: Callable[[str], list[int]], words_max: int = 1 << 16) -> None:
        self._slow = slow
        self._words_max = words_max
        self._pieces: dict[str, list[int]] = {}
        self._words: dict[str, list[int]] = {}  # without the space that each stands behind

    @property
    def size(self) -> int:
        """How many pieces and words are kept."""
        return len(self._pieces) + len(self._words)

    def encode(self, text: str) -> list[int]:
        """The same ids as `slow(text)`."""
        known, ahead = self._words, iter(text.split(" "))
        word = next(ahead)
        if word[-1:].isspace() and length_hint(ahead):
            return self._cut(text)
        ids = self._cut(word)
        while True:
            word = ""
            try:
                for word in ahead:
                    ids += known[word]
                return ids
            except KeyError:
                if word and not word[-1].isspace():
                    ids += self._learn(word)
                elif length_hint(ahead) == 0:
                    ids += self._cut(" " + word)
                else:
                    return self._cut(text)

    def _learn(self, word: str) -> list[int]:
        ids = self._cut(" " + word)
        if len(word) <= WORD_CHARS_MAX:
            if len(self._words) >= self._words_max:
                self._words = {}
            self._words[word] = ids
        return ids

    def _cut(self, text: str) -> list[int]:
        if not text.isascii():
            return self._slow(text)
        ids: list[int] = []
        for piece in _CUT.findall(text):
            found = self._pieces.get(piece)
            if found is None:
                found = self._slow(piece)
                if len(piece) <= WORD_CHARS_MAX:
                    if len(self._pieces) >= self._words_max:
                        self._pieces = {}
                    self._pieces[piece] = found
            ids += found
        return ids
