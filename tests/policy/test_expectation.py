from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.expectation import KNOWN_MIN, LAST, TENANTS_MAX, Expectation


def test_the_first_answers_are_expected_as_set_and_never_longer_than_asked_for():
    expected = Expectation(256)
    assert expected.of("a", 4096) == 256
    assert expected.of("a", 100) == 100
    assert expected.of("a", 0) == 1
    for _ in range(KNOWN_MIN - 1):
        expected.learn("a", 10)
    assert expected.of("a", 4096) == 256


def test_then_by_what_nine_in_ten_did_not_exceed():
    expected = Expectation(256)
    for tokens in range(1, 51):
        expected.learn("a", tokens * 10)
    assert expected.of("a", 4096) == 460
    assert expected.of("a", 300) == 300
    assert expected.of("b", 4096) == 256


def test_a_change_of_habit_is_learnt():
    expected = Expectation(256)
    for _ in range(LAST):
        expected.learn("a", 10)
    assert expected.of("a", 4096) == 10
    for _ in range(7):
        expected.learn("a", 2000)
    assert expected.of("a", 4096) == 2000
    for _ in range(LAST):
        expected.learn("a", 20)
    assert expected.of("a", 4096) == 20


def test_empty_answers_still_cost_a_token():
    expected = Expectation(256)
    for _ in range(KNOWN_MIN):
        expected.learn("a", 0)
    assert expected.of("a", 4096) == 1


def test_tenants_do_not_fill_the_memory_and_the_quietest_is_forgotten():
    expected = Expectation(256)
    for _ in range(KNOWN_MIN):
        expected.learn("early", 7)
    for number in range(TENANTS_MAX - 1):
        expected.learn(f"t{number}", 1)
    expected.learn("early", 7)
    expected.learn("one more", 1)
    assert expected.of("early", 4096) == 7
    assert len(expected._tenants) == TENANTS_MAX


@given(st.lists(st.integers(0, 10_000), min_size=KNOWN_MIN, max_size=200), st.integers(1, 5000))
def test_it_is_one_of_the_last_answers_with_at_most_a_tenth_above(lengths, max_tokens):
    expected = Expectation(256)
    for tokens in lengths:
        expected.learn("a", tokens)
    last = lengths[-LAST:]
    whole = expected.of("a", 1 << 40)
    assert whole in last or whole == 1
    assert sum(tokens > whole for tokens in last) <= 0.1 * len(last)
    assert expected.of("a", max_tokens) == min(max_tokens, whole)
