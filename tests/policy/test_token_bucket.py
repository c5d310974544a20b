"""The bucket never lets more pass than burst + rate * time, and never less than that when asked often enough."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.board import Rate
from holdfast.policy.token_bucket import OwnLedger, TokenBucket


@given(st.lists(st.floats(0, 0.01), min_size=1, max_size=300), st.floats(10, 5000), st.integers(1, 50))
def test_never_more_than_burst_and_rate_allow(gaps, rate, burst):
    bucket, now, passed = TokenBucket(rate, burst), 0.0, 0
    for gap in gaps:
        now += gap
        passed += bucket.take(now) == 0
        assert passed <= burst + rate * now + 1e-6


@given(st.floats(1, 5000), st.integers(1, 20))
def test_the_told_wait_is_the_shortest_that_works(rate, burst):
    bucket = TokenBucket(rate, burst)
    for _ in range(burst):
        assert bucket.take(0.0) == 0
    wait_s = bucket.take(0.0)
    assert wait_s > 0
    assert bucket.take(wait_s * 0.99) > 0
    assert bucket.take(wait_s * 1.0001) == 0


def test_a_clock_that_steps_back_gives_nothing_away():
    bucket = TokenBucket(1, 1)
    assert bucket.take(10) == 0
    assert bucket.take(5) > 0


amounts = st.one_of(st.floats(0.5, 80), st.integers(1, 80).map(float))


@given(st.lists(st.tuples(st.floats(0, 0.5), amounts, st.floats(0, 1)), min_size=1, max_size=200))
def test_reserved_and_settled_use_stays_within_burst_and_rate(asked):
    """What was taken and not given back is at most burst + rate * time, plus one amount that was above the burst."""
    bucket, now, used, above = TokenBucket(10, 40), 0.0, 0.0, 0.0
    for gap, amount, share in asked:
        now += gap
        if bucket.take(now, amount) == 0:
            bucket.give(amount * (1 - share), now)
            used += amount * share
            above = max(above, amount - 40)
        assert used <= 40 + 10 * now + above + 1e-5
        assert bucket.level_at(now) <= 40


@given(st.floats(1, 5000), st.floats(1, 1000), st.floats(1, 4000))
def test_an_amount_above_the_burst_waits_for_a_full_bucket_and_is_owed(rate, burst, more):
    bucket = TokenBucket(rate, burst)
    assert bucket.take(0.0, 1.0) == 0
    assert bucket.take(0.0, burst + more) > 0
    assert bucket.take(1.0, burst + more) == 0
    assert bucket.level_at(1.0) <= -more + 1e-6
    wait_s = bucket.take(1.0, 1.0)
    assert abs(wait_s - (more + 1.0) / rate) < 1e-6 * max(1, more)


def test_a_negative_gift_is_taken_even_where_nothing_is():
    bucket = TokenBucket(10, 10)
    bucket.give(-25, 0.0)
    assert bucket.level_at(0.0) == -15
    assert bucket.take(1.5, 1.0) > 0
    assert bucket.take(1.6, 1.0) == 0


RULE = Rate(10.0, 20.0)


def test_accounts_know_nothing_of_one_another():
    ledger = OwnLedger()
    assert ledger.take("a", 20, RULE, 0.0) == 0
    assert ledger.take("a", 1, RULE, 0.0) == 0.1
    assert ledger.take("b", 20, RULE, 0.0) == 0
    ledger.give("a", 5, RULE, 0.0)
    assert (ledger.level("a", RULE, 0.0), ledger.level("b", RULE, 0.0)) == (5, 0)
    assert (ledger.level("c", RULE, 0.0), len(ledger)) == (20, 2)
    assert ledger.sharing.startswith("alone")


def test_a_changed_rule_keeps_what_is_owed():
    ledger = OwnLedger()
    assert ledger.take("a", 15, RULE, 0.0) == 0
    assert ledger.take("a", 90, Rate(10.0, 100.0), 0.0) > 0
    assert ledger.level("a", Rate(10.0, 100.0), 0.0) == 85


@given(st.lists(st.tuples(st.integers(0, 60), st.floats(0, 3), st.integers(1, 20)), max_size=300))
def test_the_number_of_accounts_is_bounded_and_those_that_owe_most_stay(asked):
    ledger, now = OwnLedger(accounts_max=16), 0.0
    for number, gap, amount in asked:
        now += gap
        ledger.take(f"t{number}", float(amount), RULE, now)
        assert len(ledger) <= 16
    ledger = OwnLedger(accounts_max=16)
    ledger.give("debtor", -1000, RULE, 0.0)
    for number in range(200):
        ledger.take(f"t{number}", 5.0, RULE, 0.0)
    assert ledger.level("debtor", RULE, 0.0) == -980
