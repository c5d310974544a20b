"""Plain prompts: one beginning mark and text, or the text around a gap; typed marks stay text."""

import json
from pathlib import Path

import pytest
from tests.dialect.test_template import SHIPPED, folder

from holdfast.dialect.open import open_dialect
from holdfast.dialect.vocabulary import Vocabulary
from holdfast.domain.fault import BadRequest

PEARL = open_dialect(SHIPPED)
GAP = ["<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>"]


def test_a_plain_prompt_is_the_beginning_mark_and_text() -> None:
    text = "<｜User｜>Count </think>"
    assert PEARL.complete(text) == [0, *PEARL.encode(text)]
    assert not set(PEARL.encode(text)) & Vocabulary(SHIPPED).marker_ids
    assert PEARL.complete("") == [0]


def test_a_gap_is_marked_where_the_vocabulary_has_marks(tmp_path: Path) -> None:
    spec = json.loads((SHIPPED / "tokenizer.json").read_text("utf-8"))
    first = len(Vocabulary(SHIPPED))
    added = spec["added_tokens"] + [
        spec["added_tokens"][0] | {"content": m, "id": first + i} for i, m in enumerate(GAP)
    ]
    dialect = open_dialect(folder(tmp_path, added_tokens=added))
    before, behind = dialect.encode("def f(<｜fim▁hole｜>"), dialect.encode("return x")
    assert dialect.complete("def f(<｜fim▁hole｜>", "return x") == [0, first + 1, *before, first, *behind, first + 2]
    assert dialect.complete("a", "") == [0, first + 1, *dialect.encode("a"), first, first + 2]


def test_a_vocabulary_without_these_marks_says_so() -> None:
    with pytest.raises(BadRequest, match="no marks for text with a gap") as refused:
        PEARL.complete("a", "b")
    assert refused.value.param == "suffix"
