"""Stop strings, wherever the tokens cut them."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.gateway.stops import Stops

LETTERS = st.text(st.sampled_from("ab\n"), max_size=20)


def cut_at(text: str, strings: tuple[str, ...]) -> tuple[str, bool]:
    """What a stop string leaves, told in the plainest way: the first place where any has come to its end."""
    for end in range(1, len(text) + 1):
        ended = [string for string in strings if text[:end].endswith(string)]
        if ended:
            return text[: end - max(map(len, ended))], True
    return text, False


@given(
    st.lists(LETTERS, max_size=8),
    st.lists(st.text(st.sampled_from("ab\n"), min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_however_it_is_cut_the_text_stops_at_the_first(parts: list[str], strings: list[str]) -> None:
    stops = Stops(tuple(strings))
    shown = "".join(stops.feed(part) for part in parts) + stops.end()
    assert (shown, stops.hit) == cut_at("".join(parts), tuple(strings))


@given(LETTERS, st.text(st.sampled_from("ab\n"), min_size=1, max_size=4))
def test_no_more_is_held_back_than_could_begin_one(text: str, string: str) -> None:
    stops = Stops((string,))
    shown = stops.feed(text)
    if not stops.hit:
        held = text[len(shown) :]
        assert text.startswith(shown) and len(held) < len(string) and string.startswith(held)
