"""Scaling: between its bounds, not to and fro under a load that stays, and each change with its sentence."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from holdfast.domain.settings_overload import Scaling
from holdfast.policy.scaling import GAP_S, Demand, Scaler, Wanted

SLOTS = 10
RULES = Scaling(on=True, min=2, max=10, out_after_s=5.0, in_after_s=60.0)


def demand(serving: int, load: float, **more: float) -> Demand:
    """So many replicas serve a load that keeps `load` replicas busy."""
    slots = serving * SLOTS
    answers = round(load * SLOTS)
    fields = {"running": min(answers, slots), "waiting": max(0, answers - slots), **more}
    return Demand(serving=serving, slots=slots, **fields)


def watched(scaler: Scaler, one: Demand, since: float, seconds: float, count: int) -> Wanted:
    """The verdict after looks at the same demand, one a second."""
    for second in range(int(seconds) + 1):
        scaler.look(one, since + second)
    return scaler.wanted(count, since + int(seconds))


def test_nothing_changes_while_use_is_between_the_two_marks():
    assert watched(Scaler(RULES), demand(4, 2.6), 0.0, 300, 4) == Wanted(4)


def test_more_run_once_use_has_stayed_high_for_long_enough():
    scaler, busy = Scaler(RULES), demand(2, 1.9)
    assert watched(scaler, busy, 0.0, 4, 2) == Wanted(2)
    assert watched(scaler, busy, 5.0, 0, 2) == Wanted(
        3, "3 replicas instead of 2: for 5 s at least 95% of 2 replicas asked for, above 80%"
    )


def test_one_moment_of_calm_begins_the_count_anew():
    scaler = Scaler(RULES)
    watched(scaler, demand(2, 1.9), 0.0, 4, 2)
    scaler.look(demand(2, 1.2), 5.0)
    assert watched(scaler, demand(2, 1.9), 6.0, 4, 2) == Wanted(2)
    assert watched(scaler, demand(2, 1.9), 11.0, 0, 2).count == 3


def test_what_waits_asks_for_as_many_as_it_needs_and_at_most_twice_as_many_as_serve():
    assert watched(Scaler(RULES), demand(3, 4.0), 0.0, 5, 3) == Wanted(
        5, "5 replicas instead of 3: for 5 s at least 133% of 3 replicas asked for, 10 waiting, above 80%"
    )
    assert watched(Scaler(RULES), demand(3, 40.0), 0.0, 5, 3).count == 6


def test_it_does_not_ask_again_for_what_is_on_its_way():
    scaler = Scaler(RULES)
    assert watched(scaler, demand(2, 3.1), 0.0, 5, 2).count == 4
    assert watched(scaler, demand(2, 3.1), 6.0, 60, 4) == Wanted(4)


def test_refusals_for_want_of_room_count_as_load():
    told = watched(Scaler(RULES), demand(4, 4.0, refused_share=0.5), 0.0, 5, 4)
    assert told.count == 8
    assert "200% of 4 replicas asked for, 50% of the requests refused" in told.why


def test_a_wait_asks_for_one_more_unless_half_the_replicas_are_idle():
    told = watched(Scaler(RULES), demand(4, 2.8, wait_s=0.9, waiting=1), 0.0, 5, 4)
    assert told == Wanted(5, "5 replicas instead of 4: for 5 s at least answers wait 0.9 s for a replica, above 0.5 s")
    assert watched(Scaler(RULES), demand(4, 1.2, wait_s=0.9, waiting=1), 0.0, 5, 4) == Wanted(4)
    assert watched(Scaler(RULES), demand(4, 2.8, wait_s=0.9), 0.0, 5, 4) == Wanted(4), "nobody waits for room"


def test_the_cache_counts_like_the_slots():
    told = watched(Scaler(RULES), demand(2, 0.2, cache_share=0.9), 0.0, 5, 2)
    assert told.count == 3


def test_fewer_run_one_at_a_time_after_a_long_calm():
    scaler = Scaler(RULES)
    assert watched(scaler, demand(6, 1.2), 0.0, 59, 6) == Wanted(6)
    assert watched(scaler, demand(6, 1.2), 60.0, 0, 6) == Wanted(
        5, "5 replicas instead of 6: for 60 s they would have been used 24% at most, under 50%"
    )
    assert watched(scaler, demand(5, 1.2), 61.0, 0, 5).count == 4
    assert watched(scaler, demand(3, 1.2), 62.0, 0, 3) == Wanted(3), "2 of them would be used 60 %"


def test_a_burst_within_the_long_window_keeps_them():
    scaler = Scaler(RULES)
    watched(scaler, demand(6, 1.2), 0.0, 40, 6)
    scaler.look(demand(6, 2.9), 41.0)
    assert watched(scaler, demand(6, 1.2), 42.0, 58, 6) == Wanted(6)
    assert watched(scaler, demand(6, 1.2), 101.0, 2, 6).count == 5


def test_tokens_a_second_keep_replicas_whose_slots_look_free():
    scaler = Scaler(RULES)
    watched(scaler, demand(4, 4.0, tokens_per_s=4000.0), 0.0, 3, 4)
    assert watched(scaler, demand(4, 1.0, tokens_per_s=3000.0), 10.0, 61, 4) == Wanted(4)
    assert watched(scaler, demand(4, 1.0, tokens_per_s=1000.0), 72.0, 61, 4) == Wanted(4), "the rate is smoothed"
    assert watched(scaler, demand(4, 1.0, tokens_per_s=1000.0), 134.0, 20, 4).count == 3


def test_nothing_is_known_while_nobody_serves_or_nobody_looks():
    scaler = Scaler(RULES)
    watched(scaler, demand(2, 1.9), 0.0, 5, 2)
    scaler.look(Demand(serving=0, slots=0), 6.0)
    assert scaler.wanted(2, 6.0) == Wanted(2)
    watched(scaler, demand(2, 1.9), 7.0, 5, 2)
    assert scaler.wanted(2, 12.0 + GAP_S + 1) == Wanted(2), "a verdict on what was long ago"
    scaler.look(demand(2, 1.9), 12.0 + GAP_S + 1)
    assert scaler.wanted(2, 12.0 + GAP_S + 1) == Wanted(2), "one look after a gap is not five seconds"


def test_the_bounds_hold_at_once_whatever_was_seen():
    assert Scaler(RULES).wanted(1, 0.0) == Wanted(2, "2 replicas instead of 1: [scaling] allows 2 to 10")
    assert Scaler(RULES).wanted(12, 0.0).count == 10
    assert Scaler(structs.replace(RULES, min=5, max=3)).wanted(4, 0.0).count == 3


RULE_SETS = st.builds(
    lambda low, high, least, more: Scaling(
        on=True, min=least, max=least + more, use_low=low, use_high=high, out_after_s=3.0, in_after_s=6.0
    ),
    low=st.floats(0.05, 0.9),
    high=st.floats(0.05, 1.0),
    least=st.integers(1, 5),
    more=st.integers(0, 20),
)


def settle(scaler: Scaler, load: float, count: int, since: float, seconds: int) -> list[int]:
    """The counts over time, when every wish is fulfilled at once and the load does not change."""
    counts = [count]
    for second in range(seconds):
        scaler.look(Demand(serving=count, slots=count * 1000, running=round(load * 1000)), since + second)
        count = scaler.wanted(count, since + second).count
        counts.append(count)
    return counts


@settings(max_examples=300, deadline=None)
@given(rules=RULE_SETS, load=st.floats(0.0, 30.0), count=st.integers(1, 25))
def test_under_a_steady_load_the_number_settles_without_turning_back(rules, load, count):
    counts = settle(Scaler(rules), load, count, 0.0, 120)
    inside = counts[1:]
    assert all(rules.min <= one <= rules.max for one in inside)
    steps = [after - before for before, after in itertools.pairwise(inside) if after != before]
    assert all(step > 0 for step in steps) or all(step < 0 for step in steps), f"to and fro: {counts}"
    assert len(set(counts[-60:])) == 1, f"not settled: {counts}"


@settings(max_examples=200, deadline=None)
@given(
    rules=RULE_SETS,
    loads=st.lists(st.tuples(st.floats(0.0, 30.0), st.floats(0.0, 5.0), st.floats(0.0, 1.0)), max_size=60),
    count=st.integers(1, 25),
)
def test_the_bounds_hold_whatever_the_load_does(rules, loads, count):
    scaler = Scaler(rules)
    for second, (load, wait_s, refused) in enumerate(loads):
        one = Demand(
            serving=count, slots=count * 10, running=round(load * 10), waiting=1, wait_s=wait_s, refused_share=refused
        )
        scaler.look(one, float(second))
        before, wanted = count, scaler.wanted(count, float(second))
        count = wanted.count
        assert rules.min <= count <= rules.max
        assert (count == before) == (not wanted.why)


@settings(max_examples=100, deadline=None)
@given(load=st.floats(0.5, 8.0), noise=st.lists(st.floats(-0.1, 0.1), min_size=200, max_size=200))
def test_noise_of_a_tenth_does_not_make_it_swing(load, noise):
    """use_low is five eighths of use_high: a band that a tenth of noise can't cross."""
    scaler, count, turns, way = Scaler(RULES), 2, 0, 0
    for second, error in enumerate(noise):
        seen = load * (1 + error)
        scaler.look(Demand(serving=count, slots=count * 1000, running=round(seen * 1000)), float(second))
        after = scaler.wanted(count, float(second)).count
        if after != count:
            turns += way != 0 and (after > count) != (way > 0)
            way, count = after - count, after
    assert turns == 0
