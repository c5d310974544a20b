"""The half rule: what suspicion may cost at most."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.ejection import Allowed, Held, may_eject


@pytest.mark.parametrize(("replicas", "most"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (8, 4)])
def test_at_most_half_leave_on_suspicion(replicas, most):
    out = 0
    while isinstance(may_eject(out, replicas), Allowed):
        out += 1
    assert out == most


def test_the_verdicts_say_why():
    assert may_eject(0, 3, 2) == Allowed("1 of 3 under suspicion, 2 could go on")
    assert may_eject(1, 3, 1) == Held("2 of 3 replicas are under suspicion at once: at most half may be taken out")
    assert may_eject(0, 4, 0) == Held("it is the last one that serves, of 4: suspicion is not enough")


@given(st.integers(0, 70), st.integers(0, 64), st.integers(0, 64))
def test_half_of_them_always_stay_and_so_does_the_last(suspected, replicas, others):
    if isinstance(may_eject(suspected, replicas, others), Allowed):
        assert replicas - (suspected + 1) >= replicas / 2
        assert others >= 1
