"""What the dialects of all folders share: a vocabulary, marks, and how an answer ends."""

import json
from pathlib import Path

from holdfast.dialect.completion import plain_prompt
from holdfast.dialect.grammar import Grammars
from holdfast.dialect.parser import Markers, thinking_end
from holdfast.dialect.vocabulary import Vocabulary
from holdfast.domain.dialect import Form, ThinkingEnd

BOS, EOS = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"


class Speaker:
    """A dialect but for its render and its parser."""

    def __init__(self, vocabulary: Vocabulary, grammars: Grammars, stop_ids: tuple[int, ...], bos: str = BOS) -> None:
        self._vocabulary = vocabulary
        self._markers = Markers.of(vocabulary)
        self._grammars = grammars
        self._stop_ids = stop_ids
        self._bos = bos

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return self._stop_ids

    @property
    def vocab_size(self) -> int:
        return len(self._vocabulary)

    @property
    def token_bytes_max(self) -> int:
        return self._vocabulary.token_bytes_max

    def bytes_of(self, token: int) -> bytes:
        return self._vocabulary.bytes_of(token)

    def thinking_end(self, prompt_ids: list[int]) -> ThinkingEnd | None:
        return thinking_end(prompt_ids, self._markers, self._vocabulary)

    def grammar(self, prompt_ids: list[int], form: Form) -> str:
        return self._grammars.write(prompt_ids, form)

    def encode(self, text: str) -> list[int]:
        return self._vocabulary.encode(text)

    def complete(self, prompt: str, suffix: str | None = None) -> list[int]:
        return plain_prompt(self._vocabulary, self._bos, prompt, suffix)


def stop_ids_of(folder: Path, vocabulary: Vocabulary, eos: str = EOS) -> tuple[int, ...]:
    """eos of the tokenizer, and whatever generation_config.json or config.json names."""
    found: list[int] = [vocabulary.markers[eos]] if eos in vocabulary.markers else []
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        if path.is_file():
            said = json.loads(path.read_text("utf-8")).get("eos_token_id")
            found += said if isinstance(said, list) else [said] if isinstance(said, int) else []
    return tuple(dict.fromkeys(found))
