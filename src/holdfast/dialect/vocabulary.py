"""A folder's tokenizer.json, seen two ways: text to ids that can never be markers, and ids to their own bytes.

Only byte-level vocabularies are read (every DeepSeek generation and its distills have one): there a token is a piece of
UTF-8, so decoding is joining bytes.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from holdfast.dialect.pieces import Pieces, is_digits_and_words

SHORT_CHARS_MAX = 4096


class ForeignVocabulary(ValueError):
    """A tokenizer that this gateway can't take apart: the sentence says why."""


def _byte_of_char() -> dict[str, int]:
    """GPT-2's way of writing each byte as a visible character (Radford et al. 2019, `bytes_to_unicode`)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in plain}
    others = [byte for byte in range(256) if byte not in plain]
    return table | {chr(256 + i): byte for i, byte in enumerate(others)}


class Vocabulary:
    """`markers` maps written forms of added tokens to ids; `hidden` are those that are never shown as text."""

    def __init__(self, folder: Path) -> None:
        """Read folder/tokenizer.json.

        Raises:
            ForeignVocabulary: it is not a byte-level tokenizer.
            OSError: there is none.
        """
        spec: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text("utf-8"))
        added = spec.get("added_tokens") or []
        self.markers: dict[str, int] = {token["content"]: token["id"] for token in added}
        self.marker_ids = frozenset(self.markers.values())
        self.hidden = frozenset(token["id"] for token in added if token["special"])
        self.greedy = {token["content"]: (token["lstrip"], token["rstrip"]) for token in added}
        words: dict[str, int] = spec["model"]["vocab"]
        if spec["model"].get("type") != "BPE" or "ByteLevel" not in json.dumps(spec.get("decoder")):
            raise ForeignVocabulary(f"{folder / 'tokenizer.json'} is not a byte-level BPE tokenizer")
        self._bytes = self._table(words)
        self.texts = [None if i in self.marker_ids else _whole(raw) for i, raw in enumerate(self._bytes)]
        self.token_bytes_max = max(map(len, self._bytes))
        plain = spec | {"added_tokens": [], "post_processor": None, "truncation": None, "padding": None}
        self._plain = Tokenizer.from_str(json.dumps(plain))
        self._pieces = Pieces(self._slow) if is_digits_and_words(spec) else None

    def __len__(self) -> int:
        return len(self._bytes)

    def encode(self, text: str) -> list[int]:
        """Ids of a stretch of text; markers written in it stay text."""
        if not text:
            return []
        if self._pieces is not None:
            return self._pieces.encode(text)
        return self._slow(text)

    def bytes_of(self, token: int) -> bytes:
        """A token's bytes; empty for an id outside the vocabulary."""
        return self._bytes[token] if 0 <= token < len(self._bytes) else b""

    def _slow(self, text: str) -> list[int]:
        """The tokenizer itself. Its batch call lets go of the interpreter's lock, the plain one does not."""
        ids: list[int]
        if len(text) <= SHORT_CHARS_MAX:
            ids = self._plain.encode(text, add_special_tokens=False).ids
        else:
            ids = self._plain.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return ids

    def _table(self, words: dict[str, int]) -> list[bytes]:
        alphabet = _byte_of_char()
        table = [b""] * (max([*words.values(), *self.markers.values()]) + 1)
        for word, token in words.items():
            spelt = [alphabet.get(char) for char in word]
            table[token] = word.encode() if None in spelt else bytes(byte for byte in spelt if byte is not None)
        for marker, token in self.markers.items():
            table[token] = marker.encode()
        return table


def _whole(raw: bytes) -> str | None:
    """The text of a token that holds whole characters only."""
    try:
        return raw.decode() if raw else None
    except UnicodeDecodeError:
        return None
