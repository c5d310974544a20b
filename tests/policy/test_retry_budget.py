from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.retry_budget import RetryBudget


def test_one_move_may_always_be_paid():
    budget = RetryBudget(share=0.2, floor_tokens=100)
    assert budget.take(5000, 0.0) == 0.0
    assert budget.take(1, 0.1) > 0


def test_the_floor_is_there_without_any_traffic():
    budget = RetryBudget(share=0.2, floor_tokens=100)
    assert [budget.take(50, 1.0) for _ in range(2)] == [0.0, 0.0]
    assert budget.take(50, 1.0) == 10.0  # the ten seconds in which they count begin with the slice


def test_a_share_of_what_was_admitted_comes_on_top():
    budget = RetryBudget(share=0.2, floor_tokens=100)
    budget.admit(1000, 0.0)
    assert budget.take(300, 0.0) == 0.0
    assert budget.take(1, 0.0) > 0


def test_after_the_window_it_is_full_again():
    budget = RetryBudget(share=0.2, floor_tokens=100)
    assert budget.take(100, 0.0) == 0.0
    wait_s = budget.take(100, 3.0)
    assert budget.take(100, 3.0 + wait_s - 0.01) > 0
    assert budget.take(100, 3.0 + wait_s) == 0.0


def test_what_was_admitted_long_ago_counts_no_more():
    budget = RetryBudget(share=1.0, floor_tokens=10)
    budget.admit(1000, 0.0)
    assert budget.take(10, 50.0) == 0.0
    assert budget.take(500, 50.0) > 0


@given(st.lists(st.tuples(st.floats(0, 2), st.integers(1, 200), st.booleans()), max_size=80))
def test_no_window_spends_more_than_floor_and_share_unless_it_is_one_move(moves):
    budget, now, spent, admitted = RetryBudget(share=0.5, floor_tokens=300), 0.0, [], []
    for step_s, tokens, is_move in moves:
        now += step_s
        if not is_move:
            budget.admit(tokens, now)
            admitted.append((now, tokens))
        elif budget.take(tokens, now) == 0.0:
            spent.append((now, tokens))
            inside = [paid for at, paid in spent if now - at < 9.5]
            let_in = sum(one for at, one in admitted if now - at <= 10.0)
            assert sum(inside) <= 300 + 0.5 * let_in or len(inside) == 1
