"""Picking: the order of preferences, and its properties over any fleet."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.balance import Candidate, Crowded, NonePicked, Picked, pick


def _one(name, in_flight=0, slots=4, **more):
    return Candidate(name, f"{name}/1", in_flight, slots, **more)


def test_the_least_loaded_share_wins():
    verdict = pick([_one("a", 2), _one("b", 1), _one("c", 3, slots=16)], frozenset())
    assert verdict == Picked("c", "least loaded: 3 of 16 slots")


def test_ties_go_round():
    assert pick([_one("a", picked_at=5), _one("b", picked_at=4)], frozenset()).replica == "b"


def test_a_replica_that_the_answer_left_is_the_last_choice():
    assert pick([_one("a"), _one("b", 3)], frozenset({"a/1"})).replica == "b"
    assert pick([_one("a"), _one("b", suspect=True)], frozenset({"a/1"})).replica == "a"


def test_an_open_breaker_is_avoided_but_never_the_last_replica():
    assert pick([_one("a", open=True), _one("b", 3)], frozenset()).replica == "b"
    assert pick([_one("a", open=True)], frozenset()).replica == "a"


def test_nobody_says_why():
    assert pick([], frozenset()) == NonePicked("no replica is connected")
    verdict = pick([_one("a", suspect=True), _one("b", weight=0)], frozenset())
    assert verdict == NonePicked("none of 2 replicas may take traffic: 2 silent or draining")


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        replica=st.sampled_from("abcdef"),
        boot=st.sampled_from(["1", "2", "3"]),
        in_flight=st.integers(0, 40),
        slots=st.integers(1, 32),
        suspect=st.booleans(),
        open=st.booleans(),
        picked_at=st.integers(0, 100),
        weight=st.sampled_from([0.0, 0.5, 1.0]),
    ),
    unique_by=lambda one: one.replica,
)


@given(CANDIDATES, st.frozensets(st.sampled_from(["1", "2", "3"])))
def test_never_a_suspect_and_always_somebody_if_there_is_one(candidates, tried):
    verdict = pick(candidates, tried)
    fit = {one.replica for one in candidates if not one.suspect and one.weight > 0}
    if isinstance(verdict, Picked):
        assert verdict.replica in fit
    else:
        assert not fit


def test_new_work_avoids_a_crowded_replica_and_takes_it_when_there_is_no_other():
    crowded = Candidate("a", "a0", 0, 8, crowded="its lane is full")
    free = Candidate("b", "b0", 5, 8)
    assert pick([crowded, free], frozenset()) == Picked("b", "least loaded: 5 of 8 slots")
    assert pick([crowded], frozenset()) == Picked("a", "least loaded: 0 of 8 slots")


def test_the_patient_wait_for_a_crowded_replica_rather_than_go_back_where_they_came_from():
    crowded = Candidate("a", "a0", 0, 8, crowded="its lane is full")
    left = Candidate("b", "b0", 0, 8)
    assert pick([crowded, left], frozenset({"b0"}), patient=True) == Crowded("its lane is full")
    assert pick([crowded, Candidate("c", "c0", 7, 8)], frozenset(), patient=True) == Picked(
        "c", "least loaded: 7 of 8 slots"
    )


def test_a_doubted_replica_is_chosen_only_where_there_is_no_other():
    doubted, full = Candidate("a", "a/0", 0, 8, doubtful=True), Candidate("b", "b/0", 7, 8)
    assert pick([doubted, full], frozenset()) == Picked("b", "least loaded: 7 of 8 slots")
    assert pick([doubted], frozenset()) == Picked("a", "least loaded: 0 of 8 slots")
