from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.policy.error_rate import Errors
from holdfast.policy.ladder import FORGIVEN, RELAPSES, RUNGS, Ladder, Rules, Stay, Step, hot, uneasy
from holdfast.policy.pressure import Pressure

LOOK_S = 0.25
NOBODY_RESERVED = frozenset({4, 5})


def errors(share, answers=100, now_share=None):
    now = share if now_share is None else now_share
    return Pressure(
        errors=Errors(answers, round(share * answers)), errors_now=Errors(100, round(now * 100)), slots=10, use=0.3
    )


CALM = errors(0.0)
FAILING = errors(0.06)
WAITING = Pressure(wait_s=1.5, slots=10, use=1.0)
REFUSING = Pressure(refused_high=1.0, refused_low=1.0, slots=10, use=1.0)


def walk(ladder, pressure, seconds, start=0.0, without=NOBODY_RESERVED):
    """Look four times a second. Returns the steps as (second, before, after)."""
    steps = []
    for look in range(round(seconds / LOOK_S)):
        now = start + look * LOOK_S
        verdict = ladder.look(pressure(now) if callable(pressure) else pressure, now, without)
        if isinstance(verdict, Step):
            steps.append((now, verdict.before, verdict.after))
    return steps


@pytest.mark.parametrize(
    ("pressure", "why"),
    [
        (FAILING, "6.00% of the last 100 answers ended in an error of ours, the limit is 5.0%"),
        (WAITING, "requests wait 1.50 s for a place, the limit is 1.00 s"),
        (REFUSING, "100% of those who ask have more than 5% of their requests refused for want of room"),
        (Pressure(owed=3, slots=0, use=1.0), "no replica may serve and answers are owed: 3"),
        (CALM, ""),
        (errors(0.5, answers=19), ""),  # too few to prove anything
        (errors(0.2, now_share=0.0), ""),  # it is over already
        (Pressure(refused_high=0.5, refused_low=0.5, slots=10, use=1.0), ""),  # half of those who ask are greedy
        (Pressure(refused_high=1.0, slots=10, use=0.5), ""),  # there is room: their deadlines are too short
        (Pressure(reserved_refused=1.0), ""),
    ],
)
def test_what_is_hot(pressure, why):
    assert hot(pressure, Rules()) == why


@pytest.mark.parametrize(
    ("pressure", "why"),
    [
        (errors(0.03), "3.00% of the last 100 answers ended in an error of ours, calm is 2.5%"),
        (errors(0.02), ""),
        (Pressure(wait_s=0.6, slots=10), "requests wait 0.60 s for a place, calm is 0.50 s"),
        (
            Pressure(refused_low=0.6, slots=10, use=0.9),
            "60% of those who ask have more than 1% of their requests refused for want of room",
        ),
        (Pressure(refused_low=0.6, slots=10, use=0.5), ""),
        (Pressure(use=0.99, slots=10), ""),
    ],
)
def test_what_is_not_calm_yet(pressure, why):
    assert uneasy(pressure, Rules()) == why


def test_errors_take_the_first_rung_at_once_and_the_others_one_by_one():
    ladder = Ladder(Rules())
    assert walk(ladder, FAILING, 10) == [(0.0, 0, 1), (2.0, 1, 2), (4.0, 2, 3)]
    assert ladder.why == (
        "requests of a priority below 0 are refused: "
        "6.00% of the last 100 answers ended in an error of ours, the limit is 5.0%"
    )


def test_too_much_work_takes_the_first_rung_only_when_it_lasts():
    ladder = Ladder(Rules())
    assert walk(ladder, WAITING, 1.9) == []
    assert walk(ladder, CALM, 0.25, start=1.75) == []
    assert walk(ladder, WAITING, 5, start=2.0) == [(4.0, 0, 1), (6.0, 1, 2)]


def test_it_is_given_back_rung_by_rung_when_it_stays_calm():
    ladder = Ladder(Rules())
    walk(ladder, FAILING, 5)
    assert walk(ladder, errors(0.03), 60, start=5.0) == []  # neither hot nor calm
    assert walk(ladder, CALM, 20, start=65.0) == [(70.0, 3, 2), (75.0, 2, 1), (80.0, 1, 0)]
    assert ladder.why == "nothing is given up: calm for 5.0 s, 0.0% of 100 answers failed, waits 0.00 s, 30% in use"


def test_after_overload_it_waits_for_room_to_spare_and_after_errors_it_does_not():
    busy = Pressure(use=0.9, slots=10, errors=Errors(100, 0))
    ladder = Ladder(Rules())
    walk(ladder, REFUSING, 3)
    assert walk(ladder, busy, 60, start=3.0) == []
    assert walk(ladder, CALM, 6, start=63.0) == [(68.0, 1, 0)]
    ladder = Ladder(Rules())
    walk(ladder, FAILING, 1)
    assert walk(ladder, busy, 60, start=1.0) == [(6.0, 1, 0)]


def test_rungs_that_win_nothing_are_left_out():
    ladder = Ladder(Rules())
    assert [after for _, _, after in walk(ladder, WAITING, 60, without=frozenset())] == [1, 2, 3, 4]
    ladder = Ladder(Rules())
    assert [after for _, _, after in walk(ladder, WAITING, 60, without=frozenset({2, 4}))] == [1, 3]
    assert [after for _, _, after in walk(ladder, CALM, 60, start=60.0, without=frozenset({2, 4}))] == [1, 0]


def test_the_last_rung_is_for_those_with_a_reservation_and_for_nothing_else():
    ladder = Ladder(Rules())
    walk(ladder, WAITING, 60, without=frozenset())
    assert ladder.rung == 4
    suffering = Pressure(wait_s=1.5, slots=10, use=1.0, reserved_refused=0.2)
    assert walk(ladder, suffering, 3, start=60.0, without=frozenset()) == [(62.0, 4, 5)]
    assert ladder.why == (
        "only tenants with a reservation are served: "
        "20.0% of the requests of tenants with a reservation are refused for want of room"
    )
    assert walk(ladder, CALM, 5.5, start=63.0, without=frozenset()) == [(68.0, 5, 4)]


def test_each_relapse_doubles_the_calm_that_is_asked_for():
    """The pressure ends as soon as a rung is taken and comes back as soon as it is given back."""
    ladder = Ladder(Rules())
    steps = walk(ladder, lambda now: CALM if ladder.rung else WAITING, 300)
    kept = [down - up for (up, _, _), (down, _, _) in zip(steps[::2], steps[1::2], strict=False)]
    assert kept[:6] == [5.25, 10.25, 20.25, 40.25, 40.25, 40.25]  # each with the look that finds it calm


def test_long_peace_makes_it_trust_again():
    ladder, rules = Ladder(Rules()), Rules()
    walk(ladder, lambda now: CALM if ladder.rung else WAITING, 100)
    peace = FORGIVEN * rules.calm_s
    walk(ladder, CALM, peace + 60, start=100.0)
    assert ladder.rung == 0
    start = 100 + peace + 60
    steps = walk(ladder, lambda now: WAITING if now < start + 3 else CALM, 20, start=start)
    assert [after for _, _, after in steps] == [1, 0]
    assert steps[1][0] - (start + 3) == 5.0


def test_a_follower_stands_where_it_is_told_to():
    ladder = Ladder(Rules())
    ladder.follow(3, "because")
    assert ladder.look(FAILING, 0.0, NOBODY_RESERVED) == Stay(3, "because")
    assert walk(ladder, CALM, 5.25, start=1.0) == [(6.0, 3, 2)]


PRESSURES = (
    CALM,
    FAILING,
    WAITING,
    REFUSING,
    errors(0.03),
    Pressure(use=0.9, slots=10),
    Pressure(wait_s=2.0, reserved_refused=1.0, slots=10, use=1.0),
)


def upward_turns(rungs):
    """How often it went up after it had gone down."""
    turns, falling = 0, False
    for before, after in pairwise(rungs):
        if after < before:
            falling = True
        elif after > before and falling:
            turns, falling = turns + 1, False
    return turns


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(PRESSURES) - 1), st.integers(1, 120)), min_size=1, max_size=120),
    st.booleans(),
)
def test_no_noise_makes_it_flap(noise, spiteful):
    """Whatever comes in whatever rhythm: upward turns stay below the bound that the head of the module promises.

    A spiteful world is one that knows the ladder: it is calm exactly while a rung is taken.
    """
    ladder, rules, now, rungs = Ladder(Rules()), Rules(), 0.0, [0]
    for number, looks in noise:
        for _ in range(looks):
            pressure = PRESSURES[number]
            if spiteful:
                pressure = CALM if ladder.rung else WAITING
            before = ladder.rung
            verdict = ladder.look(pressure, now, frozenset())
            assert abs(ladder.rung - before) <= 1
            assert isinstance(verdict, Step) == (ladder.rung != before)
            rungs.append(ladder.rung)
            now += LOOK_S
    assert upward_turns(rungs) <= 4 + now / (RELAPSES * rules.calm_s)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.03, 0.04, 0.05, 0.06, 0.08]), st.sampled_from([20, 100, 1000]))
def test_a_steady_error_rate_with_the_noise_of_counting_settles(seed, rate, answers):
    """Ten minutes at one true rate near the limit, counted over windows that slide: two turns at most."""
    draw, ladder, rungs = Random(seed), Ladder(Rules()), [0]
    per_look = max(1, answers // 40)
    looks = [sum(draw.random() < rate for _ in range(per_look)) for _ in range(2400)]
    for number in range(40, 2400):
        window, now = looks[number - 40 : number], looks[number - 10 : number]
        pressure = Pressure(
            errors=Errors(40 * per_look, sum(window)), errors_now=Errors(10 * per_look, sum(now)), slots=10, use=0.5
        )
        ladder.look(pressure, number * LOOK_S, NOBODY_RESERVED)
        rungs.append(ladder.rung)
    assert upward_turns(rungs) <= 4 + 600 / 40
    if answers == 1000 and rate >= 0.05:
        assert upward_turns(rungs) <= 2


def test_the_table_names_every_rung_once():
    assert [rung.name for rung in RUNGS] == [
        "full service",
        "shorter answers",
        "less thinking",
        "sheddable refused",
        "smaller model",
        "reserved only",
    ]
    assert len({rung.gives_up for rung in RUNGS}) == len(RUNGS)
