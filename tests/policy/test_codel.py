from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.codel import CoDel


def test_a_young_queue_may_be_long_and_an_old_one_must_be_short():
    codel = CoDel(2.0)
    assert codel.limit_s(0.0) == 1.0
    codel.waited(0.0, empty=False, now=10.0)
    assert codel.limit_s(10.9) == 1.0
    codel.waited(0.0, empty=False, now=10.5)
    assert codel.limit_s(11.0) == 0.05
    codel.waited(0.9, empty=False, now=11.2)
    assert codel.limit_s(11.2) == 0.05


def test_once_it_was_empty_patience_begins_anew():
    codel = CoDel(2.0)
    codel.waited(0.0, empty=False, now=10.0)
    codel.waited(0.01, empty=True, now=12.0)
    assert codel.limit_s(12.0) == 1.0
    codel.waited(0.0, empty=False, now=12.5)
    assert codel.limit_s(13.4) == 1.0
    assert codel.limit_s(13.5) == 0.05
    codel.waited(0.0, empty=True, now=13.6)
    assert codel.limit_s(99.0) == 1.0


def test_somebodys_long_wait_tells_that_there_was_a_queue():
    codel = CoDel(2.0)
    codel.waited(0.8, empty=False, now=5.0)
    assert codel.limit_s(5.1) == 1.0
    assert codel.limit_s(5.25) == 0.05


@given(st.lists(st.tuples(st.floats(0, 0.6), st.sampled_from(["join", "some", "none"])), max_size=60))
def test_the_short_limit_holds_exactly_while_the_queue_has_been_there_for_half_the_first_token(acts):
    codel, now, since = CoDel(2.0), 0.0, None
    for step_s, act in acts:
        now += step_s
        codel.waited(0.0, act == "none", now)
        since = None if act == "none" else (now if since is None else since)
        assert codel.limit_s(now) == (0.05 if since is not None and now - since >= 1.0 else 1.0)
