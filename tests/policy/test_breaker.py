"""The breaker's regimes."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.request import Outcome
from holdfast.policy.breaker import Breaker

OK, DROP, IGNORE = Outcome.OK, Outcome.DROP, Outcome.IGNORE


def _opened(now=0.0):
    breaker = Breaker(failures_max=3, open_s=1, open_max_s=3)
    assert [breaker.record(DROP, now - ago) for ago in (0.2, 0.1, 0)] == [False, False, True]
    return breaker


def test_it_opens_after_so_many_failures_in_a_row_and_not_before():
    breaker = Breaker(failures_max=3)
    for moment, outcome in enumerate((DROP, DROP, OK, DROP, DROP)):
        breaker.record(outcome, moment)
    assert not breaker.is_open(5)
    assert breaker.record(DROP, 5)
    assert breaker.is_open(5.5)


def test_what_fails_in_one_moment_is_one_failure():
    breaker = Breaker(failures_max=3)
    assert not any(breaker.record(DROP, 1.0) for _ in range(30))
    assert breaker.failures == 1
    assert not breaker.is_open(1.0)


def test_hang_ups_count_neither_way():
    breaker = Breaker(failures_max=2)
    breaker.record(DROP, 0)
    breaker.record(IGNORE, 0)
    assert breaker.failures == 1


def test_one_probe_at_a_time_after_the_wait():
    breaker = _opened()
    assert not breaker.is_open(1.0)
    breaker.began(1.0)
    assert breaker.is_open(1.1)  # the probe is out: nobody else


def test_a_good_probe_closes_it():
    breaker = _opened()
    breaker.began(1.0)
    breaker.record(OK, 1.2)
    assert not breaker.is_open(1.2)
    assert breaker.failures == 0


def test_a_bad_probe_doubles_the_wait_up_to_the_cap():
    breaker, now = _opened(), 0.0
    for wait_s in (1, 2, 3, 3):
        assert breaker.is_open(now + wait_s - 0.01)
        now += wait_s
        assert not breaker.is_open(now)
        breaker.began(now)
        assert breaker.record(DROP, now)


def test_a_probe_whose_client_hung_up_frees_the_place_for_another():
    breaker = _opened()
    breaker.began(1.0)
    breaker.record(IGNORE, 1.1)
    assert not breaker.is_open(1.1)


@given(st.lists(st.tuples(st.sampled_from([OK, DROP, IGNORE]), st.floats(0, 5))))
def test_it_is_never_open_for_longer_than_the_cap_without_a_probe_out(history):
    breaker, now = Breaker(failures_max=2, open_s=1, open_max_s=4), 0.0
    for outcome, gap in history:
        now += gap
        breaker.began(now)
        breaker.record(outcome, now)
    assert not breaker.is_open(now + 4)
