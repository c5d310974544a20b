"""How rows are laid out: every slot once, in order, and no prompt starves."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.pearl.layout import runs, shares


@given(st.sets(st.integers(0, 63)), st.data())
def test_runs_cover_each_slot_once_in_order(slots: set[int], data: st.DataObject) -> None:
    ordered = sorted(slots)
    lengths = [32 * data.draw(st.integers(1, 64)) for _ in ordered]
    found = runs(ordered, lengths, data.draw(st.sampled_from([32, 512, 1 << 40])))
    covered = [slot for first, last in found for slot in range(first, last + 1)]
    assert covered == sorted(set(covered))
    assert slots <= set(covered)
    for first, last in found:
        assert {first, last} <= slots


def test_neighbours_share_a_product_and_long_answers_stand_alone() -> None:
    assert runs([0, 1, 2], [32, 32, 64], 512) == [(0, 2)]
    assert runs([0, 1, 2], [32, 2048, 32], 512) == [(0, 0), (1, 1), (2, 2)]
    assert runs([0, 2], [32, 32], 512) == [(0, 2)]
    assert runs([0, 9], [32, 32], 512) == [(0, 0), (9, 9)]
    assert runs([], [], 512) == []


def test_a_product_stays_small_enough_to_be_near() -> None:
    assert runs(list(range(8)), [128] * 8, 512) == [(0, 3), (4, 7)]


@given(st.lists(st.integers(1, 5000), min_size=1, max_size=40), st.integers(1, 1024))
def test_shares_spend_the_budget_and_the_oldest_moves(unread: list[int], budget: int) -> None:
    given_tokens = shares(unread, budget)
    assert sum(given_tokens) == min(budget, sum(unread))
    assert all(0 <= tokens <= most for tokens, most in zip(given_tokens, unread, strict=True))
    assert given_tokens[0] >= min(unread[0], max(1, budget // 4))


def test_a_long_prompt_lets_short_ones_pass() -> None:
    assert shares([30000, 40, 50], 256) == [166, 40, 50]
    assert shares([30000, 400, 50], 256) == [64, 142, 50]
    assert shares([], 256) == []
