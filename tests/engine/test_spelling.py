"""Ids as bytes, and bytes as ids, by a model folder's own tokenizer."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.engine.spelling import NoSpelling, Spelling

SPELLING = Spelling(Path(__file__).parents[2] / "src/holdfast/shipped/pearl")


@given(st.text(max_size=40))
@settings(max_examples=200)
def test_any_text_is_spelt_and_read_back(text: str) -> None:
    ids = SPELLING.encode(text)
    assert SPELLING.text_of(ids) == text
    assert SPELLING.spell(text.encode()) == ids


@given(st.text(min_size=1, max_size=12), st.data())
@settings(max_examples=200)
def test_a_cut_anywhere_leaves_whole_characters_and_the_rest_of_one(text: str, data: st.DataObject) -> None:
    ids = SPELLING.encode(text)
    cut = data.draw(st.integers(0, len(ids)))
    kept, again = SPELLING.whole(ids[:cut])
    assert kept == ids[: len(kept)]
    b"".join(map(SPELLING.bytes_of, kept)).decode()  # ends between two characters
    raw = text.encode()
    begun = len(b"".join(map(SPELLING.bytes_of, kept))) + len(again)
    assert raw[:begun].endswith(again)
    assert SPELLING.text_of([*ids[:cut], *SPELLING.spell(raw[begun:])]) == text


def test_bytes_are_read_as_so_many_ids_only_where_there_is_no_choice() -> None:
    euro = SPELLING.encode("€")
    assert SPELLING.the_only("€".encode()[:2], 2) == euro[:2]
    assert SPELLING.the_only("€".encode(), 2) is None
    word = next(id for id in range(300, 900) if len(SPELLING.bytes_of(id)) == 5)
    assert SPELLING.the_only(SPELLING.bytes_of(word), 1) == [word]
    assert SPELLING.the_only(b" the the", 2) is not None
    assert SPELLING.the_only(b" the the", 3) is None, "either of the two can be the one in two parts"
    assert SPELLING.the_only(b"a" * 65, 65) is None


def test_markers_are_written_out_and_read_as_markers() -> None:
    assert SPELLING.text_of([0, 3]) == "<｜begin▁of▁sentence｜><｜User｜>"
    assert SPELLING.encode("<｜User｜>") == [3]
    assert SPELLING.bos == 0


def test_a_folder_without_a_byte_level_tokenizer_is_refused_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(NoSpelling, match=r"tokenizer\.json can't be read"):
        Spelling(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "Unigram", "vocab": []}}))
    with pytest.raises(NoSpelling, match="is not a byte-level BPE tokenizer"):
        Spelling(tmp_path)
