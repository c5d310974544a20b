"""Restart intensity: how fast, how often, and when it is enough."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.settings import Restart
from holdfast.policy.restart_intensity import TIRELESS_S, Again, Death, GiveUp, Later, ask, counted

RULES = Restart()
PATIENT = Restart(deaths_max=1000)


def deaths(*ats: float, served_s: float = 0.0, jitter: float = 0.0) -> tuple[Death, ...]:
    return tuple(Death(at=at, served_s=served_s, why="it crashed", jitter=jitter) for at in ats)


def test_what_never_died_starts_at_once():
    assert ask((), RULES, 0, 5) == Again("it is wanted and does not run")


def test_the_first_restart_is_free():
    assert ask(deaths(100), RULES, 0, 100.5) == Again("restart 1 of 1 that are free of delay")
    assert ask(deaths(100), RULES, 0, 100, tireless=True) == Again("restart 1 of 1 that are free of delay")


def test_a_restart_leaves_the_answers_of_the_dead_their_half_second():
    verdict = ask(deaths(100), RULES, 0, 100.1)
    assert verdict == Later(100.5, "death 1: the answers that it left go first, for 0.4 s")


def test_the_second_waits_ten_seconds():
    assert ask(deaths(100, 200), RULES, 0, 200) == Later(210, "death 2: next start in 10.0 s")
    assert ask(deaths(100, 200), RULES, 0, 210) == Again("10.0 s have passed since death 2")


def test_the_third_within_ten_minutes_is_enough():
    verdict = ask(deaths(100, 200, 300), RULES, 0, 300)
    assert verdict == GiveUp("it died 3 times within 600 s, the limit is 3; the last time: it crashed")


def test_three_deaths_spread_over_more_than_the_window_are_not_enough():
    assert ask(deaths(0, 400, 800), RULES, 0, 800) == Later(820, "death 3: next start in 20.0 s")


def test_a_slow_loader_gets_a_longer_window():
    assert isinstance(ask(deaths(0, 400, 800), RULES, 300, 800), GiveUp)


def test_ten_minutes_of_service_forgive_what_was_before():
    before = deaths(0, 1, 2)
    last = Death(at=700, served_s=600, why="it crashed")
    assert counted((*before, last), 600) == (last,)
    assert ask((*before, last), RULES, 0, 700.5) == Again("restart 1 of 1 that are free of delay")


def test_a_gateway_is_never_given_up_and_never_waits_long():
    many = deaths(*range(40))
    assert ask(many, RULES, 0, 39, tireless=True) == Later(39 + TIRELESS_S, "death 40: next start in 5.0 s")


@given(
    gaps=st.lists(st.floats(0, 1000), min_size=1, max_size=16),
    jitter=st.floats(0, 1, exclude_max=True),
    waited_s=st.floats(0, 2000),
)
def test_delays_grow_stay_under_the_cap_and_always_end(gaps, jitter, waited_s):
    ats = [sum(gaps[: index + 1]) for index in range(len(gaps))]
    dead = deaths(*ats, jitter=jitter)
    verdict = ask(dead, PATIENT, 0, ats[-1] + waited_s)
    full_s = 0.5 / 0.75 if len(dead) == 1 else min(300, 10 * 2 ** (len(dead) - 2))
    if isinstance(verdict, Later):
        delay_s = verdict.at - ats[-1]
        assert waited_s < delay_s + 1e-6
        assert 0.75 * full_s - 1e-6 <= delay_s <= full_s + 1e-6
    else:
        assert isinstance(verdict, Again)
        assert waited_s >= 0.75 * full_s - 1e-6


@given(
    gaps=st.lists(st.floats(0, 2000), min_size=1, max_size=40),
    load_s=st.floats(0, 600),
    jitters=st.lists(st.floats(0, 1, exclude_max=True), min_size=40, max_size=40),
)
def test_a_crash_loop_starts_at_most_three_times_in_any_window(gaps, load_s, jitters):
    """Obey the verdicts to the letter, die `gap` after each start: starts that end in death within a window are bounded."""
    now, dead, starts = 0.0, (), []
    for gap, jitter in zip(gaps, jitters, strict=False):
        verdict = ask(dead, RULES, load_s, now)
        if isinstance(verdict, Later):
            now = verdict.at
            verdict = ask(dead, RULES, load_s, now)
        if isinstance(verdict, GiveUp):
            break
        assert isinstance(verdict, Again)
        starts.append(now)
        now += gap
        dead = (*dead, Death(at=now, served_s=gap, why="it crashed", jitter=jitter))
    window_s = max(600, 3 * load_s)
    for death in dead:
        within = [
            other
            for other in counted(tuple(d for d in dead if d.at <= death.at), RULES.healthy_reset_s)
            if death.at - other.at <= window_s
        ]
        assert len(within) <= RULES.deaths_max


@given(st.permutations(range(4)))
def test_the_same_deaths_always_give_the_same_moment(order):
    dead = deaths(1, 2, jitter=0.5)
    moments = {ask(dead, RULES, 0, 2 + step / 10).at for step in order}
    assert moments == {2 + 10 * (1 - 0.5 / 4)}
