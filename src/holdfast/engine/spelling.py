"""How a model folder's tokens are spelt: ids to bytes, and bytes or text back to ids, for engines that leave ids out.

Only byte-level vocabularies can be read so; every DeepSeek generation has one.
"""

import json
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

CHARACTER_BYTES_MAX = 4  # of UTF-8
PIECE_BYTES_MAX = 64  # of text whose ids are to be found by their number


class NoSpelling(ValueError):
    """A folder whose tokenizer can't be read so; the sentence says why."""


def byte_of_char() -> dict[str, int]:
    """GPT-2's way of writing each byte as a visible character (Radford et al. 2019)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + n): byte for n, byte in enumerate(others)}


class Spelling:
    """One tokenizer.json. `markers` are the added tokens: written in a text, they are their ids."""

    def __init__(self, folder: Path) -> None:
        """Raises NoSpelling: no tokenizer.json there, or not a byte-level one."""
        path = folder / "tokenizer.json"
        try:
            spec: dict[str, Any] = json.loads(path.read_text("utf-8"))
            words: dict[str, int] = spec["model"]["vocab"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise NoSpelling(f"{path} can't be read: {error}") from error
        if spec["model"].get("type") != "BPE" or "ByteLevel" not in json.dumps(spec.get("decoder")):
            raise NoSpelling(f"{path} is not a byte-level BPE tokenizer")
        self._tokenizer = Tokenizer.from_str(json.dumps(spec | {"post_processor": None}))
        self.markers = {token["content"]: int(token["id"]) for token in spec.get("added_tokens") or ()}
        self.bos = self.markers.get(_bos(folder))
        written = byte_of_char()
        self._bytes: dict[int, bytes] = {}
        for word, id in words.items():
            if id not in self.markers.values() and all(char in written for char in word):
                self._bytes[id] = bytes(written[char] for char in word)
        self._ids: dict[bytes, int] = {spelt: id for id, spelt in self._bytes.items()}
        self._bytes |= {id: content.encode() for content, id in self.markers.items()}

    def __len__(self) -> int:
        return max(self._bytes) + 1

    def bytes_of(self, id: int) -> bytes:
        """Of a marker: as it is written. Empty for an id that does not exist."""
        return self._bytes.get(id, b"")

    def text_of(self, ids: list[int]) -> str:
        """What the ids say, markers written out. Bytes that are no UTF-8 become U+FFFD: nobody can send those as text."""
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", "replace")

    def encode(self, text: str) -> list[int]:
        """The ids of a text; markers written in it are markers."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def whole(self, ids: list[int]) -> tuple[list[int], bytes]:
        """As many of the ids as end between two characters, and the bytes of the others."""
        kept, rest = list(ids), b""
        for _ in range(CHARACTER_BYTES_MAX):
            if not kept or not _open_ended(b"".join(map(self.bytes_of, kept[-CHARACTER_BYTES_MAX:]))):
                return kept, rest
            rest = self.bytes_of(kept.pop()) + rest
        return list(ids), b""  # bytes that never were a character

    def spell(self, raw: bytes) -> list[int]:
        """Ids of bytes that may begin inside a character."""
        inside = next((place for place, byte in enumerate(raw) if not 0x80 <= byte < 0xC0), len(raw))
        begun = [self._ids[raw[place : place + 1]] for place in range(inside)]
        return begun + (self.encode(raw[inside:].decode("utf-8", "replace")) if raw[inside:] else [])

    def the_only(self, spelt: bytes, count: int) -> list[int] | None:
        """The `count` ids, no markers, that spell these bytes, if there is one such row of ids and no other."""
        if len(spelt) > PIECE_BYTES_MAX:
            return None
        rows: dict[int, list[list[int]]] = {
            0: [[]]
        }  # by bytes spelt so far; two rows are enough to know that there are several
        for _ in range(count):
            longer: dict[int, list[list[int]]] = {}
            for begun, known in rows.items():
                for end in range(begun + 1, len(spelt) + 1):
                    id = self._ids.get(spelt[begun:end])
                    if id is not None:
                        longer.setdefault(end, []).extend([*row, id] for row in known[:2])
            rows = longer
        found = rows.get(len(spelt), [])
        return found[0] if len(found) == 1 else None


def _open_ended(raw: bytes) -> bool:
    """Whether the bytes end inside a character."""
    for back in range(1, min(CHARACTER_BYTES_MAX, len(raw) + 1)):
        byte = raw[-back]
        if byte >= 0xC0:
            return back < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4)
        if byte < 0x80:
            return False
    return False


def _bos(folder: Path) -> str:
    """How the beginning of a sentence is marked, as tokenizer_config.json has it; empty where it does not say."""
    try:
        told = json.loads((folder / "tokenizer_config.json").read_text("utf-8")).get("bos_token")
    except (OSError, ValueError, AttributeError):
        return ""
    return str(told.get("content")) if isinstance(told, dict) else str(told or "")
