"""Picking: the order of preferences, and its properties over any fleet."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from holdfast.policy.balance import Ask, Candidate, Crowded, NonePicked, Picked, choose, pick, share_of


def _one(name, work=0, slots=4, **more):
    return Candidate(name, f"{name}/1", more.pop("running", 0), slots, work=work, **more)


class Fleet:
    """A field of candidates in a list."""

    def __init__(self, candidates):
        self.all = list(candidates)
        self.looked = 0

    def _room(self):
        return [one for one in self.all if not one.full and not one.suspect]

    def count(self):
        return len(self._room()), len(self.all)

    def at(self, number):
        self.looked += 1
        return self._room()[number]

    def named(self, boot):
        return next((one for one in self.all if one.boot == boot), None)

    def everybody(self):
        self.looked += len(self.all)
        return self.all

    def load(self):
        return sum(one.running for one in self.all), sum(one.slots for one in self.all)


def _replica(verdict):
    assert isinstance(verdict, Picked), verdict
    return verdict.replica


def test_the_least_work_for_its_slots_wins():
    assert pick([_one("a", 20), _one("b", 10), _one("c", 30, slots=16)], frozenset()) == Picked(
        "c", "c/1", "least work"
    )


def test_ties_go_to_the_fewest_answers_and_then_round():
    assert _replica(pick([_one("a", running=2), _one("b", running=1)], frozenset())) == "b"
    assert _replica(pick([_one("a", picked_at=5), _one("b", picked_at=4)], frozenset())) == "b"


def test_a_replica_that_the_answer_left_is_the_last_choice():
    assert _replica(pick([_one("a"), _one("b", 3)], frozenset({"a/1"}))) == "b"
    assert _replica(pick([_one("a"), _one("b", suspect=True)], frozenset({"a/1"}))) == "a"


def test_an_open_breaker_is_avoided_but_never_the_last_replica():
    assert _replica(pick([_one("a", open=True), _one("b", 3)], frozenset())) == "b"
    assert _replica(pick([_one("a", open=True)], frozenset())) == "a"


def test_nobody_says_why():
    assert pick([], frozenset()) == NonePicked("no replica is connected")
    verdict = pick([_one("a", suspect=True), _one("b", weight=0)], frozenset())
    assert verdict == NonePicked("none of 2 replicas may take traffic: 2 silent or draining")


def test_one_of_another_release_is_never_picked_and_the_rule_says_why():
    barred = _one("a", barred="it was begun elsewhere")
    assert _replica(pick([barred, _one("b", 99)], frozenset())) == "b"
    assert pick([barred], frozenset()) == NonePicked("none of 1 replicas may go on with it: it was begun elsewhere")
    both = pick([barred, _one("b", suspect=True)], frozenset())
    assert both == NonePicked("none of 2 replicas may go on with it: it was begun elsewhere")
    assert pick([barred, _one("b", full="no")], frozenset()) == Crowded("b: no")


def test_one_without_room_is_never_picked_and_the_answer_waits():
    full = _one("a", full="all its 4 slots are taken")
    assert pick([full], frozenset()) == Crowded("a: all its 4 slots are taken")
    assert _replica(pick([full, _one("b", 99)], frozenset())) == "b"
    assert _replica(pick([full, _one("b", crowded="its lane is full")], frozenset())) == "b"


def test_new_work_avoids_a_crowded_replica_and_takes_it_when_there_is_no_other():
    crowded, free = _one("a", crowded="its lane is full"), _one("b", 5)
    assert _replica(pick([crowded, free], frozenset())) == "b"
    assert _replica(pick([crowded], frozenset())) == "a"


def test_the_patient_wait_for_a_crowded_replica_rather_than_go_back_where_they_came_from():
    crowded, left = _one("a", crowded="its lane is full"), _one("b")
    assert pick([crowded, left], frozenset({"b/1"}), patient=True) == Crowded("its lane is full")
    assert _replica(pick([crowded, _one("c", 7)], frozenset(), patient=True)) == "c"


def test_a_doubted_replica_is_chosen_only_where_there_is_no_other():
    doubted, busy = _one("a", doubtful=True), _one("b", 7)
    assert _replica(pick([doubted, busy], frozenset())) == "b"
    assert _replica(pick([doubted], frozenset())) == "a"


def test_a_fresh_replica_gets_a_tenth_at_first_and_its_share_grows():
    assert [share_of(age_s, 10) for age_s in (0, 1, 2.5, 10, 11)] == [0.1, 0.1, 0.25, 1.0, 1.0]
    assert share_of(0, 0) == 1.0
    fresh, old = _one("a", 11, share=0.1), _one("b", 100)
    assert _replica(choose(Fleet([fresh, old]), Ask(), Random(1).random)) == "b"


def test_a_fresh_replica_takes_all_that_the_others_have_no_room_for():
    fresh, old = _one("a", 99, share=0.1), _one("b", 1, full="all its 4 slots are taken")
    assert _replica(choose(Fleet([fresh, old]), Ask(), Random(1).random)) == "a"


def test_who_has_the_beginning_goes_first_up_to_the_bound():
    near = Ask(near=(("a/1",),), bound=1.25)
    others = [_one("b", running=2), _one("c", running=1)]
    assert choose(Fleet([_one("a", 50, running=3), *others]), near, Random(1).random) == Picked(
        "a", "a/1", "it has the prompt's beginning"
    )
    assert _replica(choose(Fleet([_one("a", 50, running=4), *others]), near, Random(1).random)) == "c"


def test_of_several_that_have_the_beginning_the_least_loaded_goes_first():
    field = Fleet([_one("a", running=2), _one("b", running=1), _one("c")])
    assert _replica(choose(field, Ask(near=(("a/1", "b/1"), ("c/1",))), Random(1).random)) == "b"


@pytest.mark.parametrize(
    "against",
    [
        {"suspect": True},
        {"open": True},
        {"doubtful": True},
        {"full": "no"},
        {"crowded": "no"},
        {"weight": 0.0},
        {"barred": "no"},
    ],
)
def test_having_the_beginning_excuses_nothing(against):
    field = Fleet([_one("a", **against), _one("b", 9)])
    assert _replica(choose(field, Ask(near=(("a/1",),)), Random(1).random)) == "b"
    assert _replica(
        choose(Fleet([_one("a"), _one("b", 9)]), Ask(frozenset({"a/1"}), near=(("a/1",),)), Random(1).random)
    )


def test_a_hot_prefix_does_not_sink_its_replica():
    """Every request has the same beginning: its home gets a quarter more than the average, and one."""
    names, running = "abcde", Counter()
    for _ in range(200):
        field = Fleet([_one(name, running[name] * 10, slots=100, running=running[name]) for name in names])
        running[_replica(choose(field, Ask(near=(("a/1",),)), Random(1).random))] += 1
    assert max(running.values()) <= 1.25 * 200 / 5 + 1
    assert running["a"] == max(running.values())


def test_among_many_few_are_looked_at_and_the_work_is_nearly_even():
    draw, work = Random(5).random, Counter()
    for _ in range(20_000):
        field = _Even(work)
        work[_replica(choose(field, Ask(), draw))] += 1
        assert field.looked <= 2
    assert max(work.values()) - 100 <= 6  # log log n, against some 30 where one is drawn alone


class _Even:
    """200 replicas, each made when it is looked at."""

    def __init__(self, work):
        self.work, self.looked = work, 0

    def count(self):
        return 200, 200

    def at(self, number):
        self.looked += 1
        return _one(f"r{number}", self.work[f"r{number}"], slots=1000)

    def named(self, boot):
        raise AssertionError("nobody is near")

    def everybody(self):
        raise AssertionError("two are enough")

    def load(self):
        return sum(self.work.values()), 200_000


def test_among_many_without_any_room_it_waits_without_looking_at_them():
    field = Fleet(_one(f"r{n}", full="all its slots are taken") for n in range(20))
    assert choose(field, Ask(), Random(1).random) == Crowded("all 80 slots of the replicas are taken")
    assert field.looked == 0


CANDIDATES = st.lists(
    st.builds(
        Candidate,
        replica=st.sampled_from("abcdefghijklm"),
        boot=st.sampled_from(["1", "2", "3"]),
        running=st.integers(0, 40),
        slots=st.integers(1, 32),
        suspect=st.booleans(),
        open=st.booleans(),
        picked_at=st.integers(0, 100),
        weight=st.sampled_from([0.0, 0.5, 1.0]),
        crowded=st.sampled_from(["", "its lane is full"]),
        full=st.sampled_from(["", "", "all its slots are taken"]),
        work=st.integers(0, 1000),
        share=st.sampled_from([0.1, 0.5, 1.0]),
        barred=st.sampled_from(["", "", "it was begun elsewhere"]),
    ).map(lambda one: structs.replace(one, boot=one.replica + one.boot)),
    unique_by=lambda one: one.replica,
    max_size=13,
)


@settings(max_examples=400)
@given(CANDIDATES, st.frozensets(st.sampled_from(["a1", "b1", "c1", "c2"])), st.booleans(), st.integers(0, 99))
def test_never_a_suspect_never_a_full_one_and_somebody_if_there_is_one(candidates, tried, patient, seed):
    near = tuple((one.boot,) for one in candidates[:2])
    fit = [one for one in candidates if not one.suspect and one.weight > 0 and not one.barred]
    for verdict in (
        pick(candidates, tried, patient),
        choose(Fleet(candidates), Ask(tried, patient, near), Random(seed).random),
    ):
        if isinstance(verdict, Picked):
            chosen = next(one for one in fit if one.replica == verdict.replica)
            assert chosen.boot == verdict.boot
            assert not chosen.full
            plain = [one for one in fit if one.plain and one.boot not in tried]
            assert chosen in plain or not plain
        elif isinstance(verdict, Crowded):
            assert not any(one.plain and one.boot not in tried for one in fit)
            assert any(one.full or one.crowded for one in fit) or not fit
        else:
            assert not fit
