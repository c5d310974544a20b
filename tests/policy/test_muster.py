"""Muster: how many, by whose word, and under which names."""

from hypothesis import given
from hypothesis import strategies as st
from standings import changed, down, serving

from holdfast.domain.replica import ReplicaState
from holdfast.domain.settings_overload import Scaling
from holdfast.domain.wish import Wishes
from holdfast.policy.muster import Member, count, muster
from holdfast.policy.standing import Rules, Standing

POOL = [Member(f"replica-{number}", f"cuda:{number % 2}") for number in range(8)]
FIXED = Rules(count=3, warm=1)
BY_LOAD = Rules(count=2, warm=1, scaling=Scaling(on=True, min=2, max=5))


def up(*numbers: int, **more: object) -> dict[str, Standing]:
    return {f"replica-{number}": serving(f"replica-{number}", **more) for number in numbers}


def names(standings: dict[str, Standing], wishes: Wishes, rules: Rules) -> list[int]:
    return sorted(int(name.rpartition("-")[2]) for name in muster(POOL, standings, wishes, rules).names)


def test_an_operators_word_comes_first_then_the_loads_then_the_settings():
    assert count(Wishes(), FIXED) == (3, "[replica] count")
    assert count(Wishes(scaled=5), FIXED) == (3, "[replica] count"), "no load decides here"
    assert count(Wishes(), BY_LOAD) == (2, "the load, from 2 to 5")
    assert count(Wishes(scaled=4), BY_LOAD) == (4, "the load, from 2 to 5")
    assert count(Wishes(scaled=4, count=1), BY_LOAD) == (
        1,
        "an operator asked for 1; holdfast scale auto takes that back",
    )


@given(scaled=st.integers(0, 99), begun=st.integers(0, 64), low=st.integers(1, 64), high=st.integers(1, 64))
def test_what_the_load_asks_for_stays_within_the_bounds(scaled, begun, low, high):
    rules = Rules(count=begun, scaling=Scaling(on=True, min=low, max=high))
    found, _ = count(Wishes(scaled=scaled), rules)
    assert min(low, high) <= found <= high


def test_where_a_number_is_settled_the_first_names_run_and_one_that_is_out_is_missing():
    assert names({}, Wishes(), FIXED) == [0, 1, 2, 3]
    assert names(up(0, 1, 2, 3), Wishes(drained={"replica-1": "x"}), FIXED) == [0, 1, 2, 3]
    assert names(up(*range(8)), Wishes(count=2), BY_LOAD) == [0, 1, 2]


def test_where_the_load_decides_another_takes_its_place_and_it_stays_in_sight():
    out = {**up(0, 2), "replica-1": down("replica-1", state=ReplicaState.QUARANTINED)}
    assert names(out, Wishes(), BY_LOAD) == [0, 1, 2, 3]
    assert names(up(0, 1, 2), Wishes(condemned={"replica-0": "x"}), BY_LOAD) == [0, 1, 2, 3]


def test_one_that_comes_back_does_not_push_out_one_that_lives():
    assert names({**up(1, 2, 3), "replica-0": down("replica-0")}, Wishes(), BY_LOAD) == [1, 2, 3]


def test_one_that_is_leaving_is_not_kept_for_living():
    leaving = {**up(0, 1, 3), "replica-2": down("replica-2")}
    leaving["replica-3"] = changed(leaving["replica-3"], state=ReplicaState.DRAINING)
    assert names(leaving, Wishes(), BY_LOAD) == [0, 1, 2]


def test_the_last_names_leave_first():
    assert names(up(*range(6)), Wishes(scaled=3), BY_LOAD) == [0, 1, 2, 3]


def on_its_device(standings: dict[str, Standing]) -> dict[str, Standing]:
    return {one.name: changed(standings[one.name], device=one.device) for one in POOL if one.name in standings}


def test_a_device_whose_replicas_are_all_drained_gets_no_new_ones():
    drained = Wishes(drained={"replica-0": "a new card", "replica-2": "a new card"})
    assert names(on_its_device(up(0, 1, 2)), drained, BY_LOAD) == [0, 1, 2, 3, 5], "1, 3 and 5 are on the other one"
    one_left = Wishes(drained={"replica-0": "a test"})
    assert names(on_its_device(up(0, 1, 2)), one_left, BY_LOAD) == [0, 1, 2, 3]
    everything = Wishes(drained={"replica-0": "x", "replica-1": "x", "replica-2": "x"})
    assert names(on_its_device(up(0, 1, 2)), everything, BY_LOAD) == [0, 1, 2]


@given(
    live=st.sets(st.integers(0, 7)),
    drained=st.sets(st.integers(0, 7)),
    scaled=st.integers(0, 9),
    fixed=st.booleans(),
)
def test_never_more_than_are_wanted_and_the_same_question_gets_the_same_answer(live, drained, scaled, fixed):
    rules = FIXED if fixed else BY_LOAD
    wishes = Wishes(drained={f"replica-{number}": "x" for number in drained}, scaled=scaled)
    found = muster(POOL, on_its_device(up(*live)), wishes, rules)
    running = found.names - set(wishes.drained)
    assert len(running) <= found.serve + rules.warm
    kept = {name: one for name, one in on_its_device(up(*live)).items() if name in found.names}
    assert muster(POOL, kept, wishes, rules).names >= running & set(kept), "who was kept is kept again"
