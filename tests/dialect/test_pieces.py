"""The cached tokenising equals the tokenizer's own, for every text."""

from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from holdfast.dialect import pieces
from holdfast.dialect.vocabulary import Vocabulary

FOLDER = Path(__file__).parents[2] / "src/holdfast/shipped/pearl"
VOCABULARY = Vocabulary(FOLDER)
PLAIN = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
PLAIN.encode_special_tokens = True
TRICKY = st.text(st.sampled_from("ab Z09'sltrevmd \t\n\r\x0b\x0c\x1c\x1f\x85\xa0\u2003\u3000.,-_<>|é日½²"), max_size=40)


def own(text: str) -> list[int]:
    ids: list[int] = PLAIN.encode(text, add_special_tokens=False).ids
    return ids


@settings(max_examples=1500, deadline=None)
@given(TRICKY | st.text(max_size=60) | st.text(st.characters(max_codepoint=127), max_size=80))
@example("it's 12  o'clock, isn't\t 'twas  7\n\n 'd\n")
@example("<｜User｜> <think> <｜end▁of▁sentence｜>")
@example("  9  ")
def test_every_text_has_the_ids_that_the_tokenizer_gives(text: str) -> None:
    assert VOCABULARY.encode(text) == own(text)
    assert VOCABULARY.encode(text) == own(text)  # once more, from the cache
    assert b"".join(map(VOCABULARY.bytes_of, VOCABULARY.encode(text))) == text.encode()


def test_long_texts_too() -> None:
    for text in ("naïve words, 12 of them. " * 400, "日本語 " * 3000, "  x\n" * 3000):
        assert VOCABULARY.encode(text) == own(text)


def test_every_pair_of_ascii_characters() -> None:
    for first in range(128):
        text = "".join(f"{chr(first)}{chr(second)}" for second in range(128))
        assert VOCABULARY.encode(text) == own(text)


def test_a_full_cache_starts_afresh_and_stays_right() -> None:
    cache = pieces.Pieces(own, words_max=50)
    for start in range(0, 500, 10):
        text = " ".join(f"w{_letters(n)}" for n in range(start, start + 10))
        assert cache.encode(text) == own(text)
        assert 0 < cache.size <= 2 * 50


def _letters(n: int) -> str:
    return "".join(chr(97 + (n // 26**k) % 26) for k in range(2))


def test_what_is_handed_out_is_never_the_cache_itself() -> None:
    for text in ("hello", "héllo"):
        VOCABULARY.encode(text).append(-1)
        assert VOCABULARY.encode(text) == own(text)
