"""The bucket never lets more pass than burst + rate * time, and never less than that when asked often enough."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.token_bucket import TokenBucket


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
