import random

import pytest

from holdfast.policy.pace import GAP_S, Pace


def saturate(pace: Pace, per_s: float, seconds: float, start_s: float = 0.0, work: float = 10.0) -> float:
    """Answers end at an even pace while there is always somebody who waits. Returns the end's time."""
    pace.busy(True, start_s)
    count = round(per_s * seconds)
    for number in range(1, count + 1):
        pace.done(work, 1, start_s + number / per_s)
    return start_s + seconds


def test_nothing_is_known_at_first():
    pace = Pace()
    assert (pace.work_per_s(0.0), pace.answers_per_s(0.0), pace.service_s(100, 0.0)) == (0.0, 0.0, 0.0)


def test_with_a_queue_the_pace_is_what_ends():
    pace = Pace()
    now = saturate(pace, per_s=20, seconds=10)
    assert pace.answers_per_s(now) == pytest.approx(20, rel=0.02)
    assert pace.work_per_s(now) == pytest.approx(200, rel=0.02)


def test_what_ends_without_a_queue_counts_for_nothing():
    pace = Pace()
    now = saturate(pace, per_s=20, seconds=10)
    pace.busy(False, now)
    for number in range(100):
        pace.done(10.0, 1, now + 1.0 + number)
    pace.busy(True, now + 101.0)
    assert pace.answers_per_s(now + 101.0) == pytest.approx(20, rel=0.02)


def test_a_queue_that_is_empty_for_moments_does_not_make_the_pace_look_higher():
    """Somebody comes in the middle of each tenth of a second, and goes at its end, when one answer ends."""
    pace = Pace()
    for tenth in range(100):
        pace.busy(True, tenth / 10 + 0.05)
        pace.done(10.0, 1, tenth / 10 + 0.1)
        pace.busy(False, tenth / 10 + 0.1)
    assert pace.answers_per_s(10.0) == pytest.approx(10, rel=0.05)


def test_a_longer_gap_does_not_count_as_time_with_a_queue():
    pace, now = Pace(), 0.0
    for _ in range(20):
        saturate(pace, per_s=20, seconds=1, start_s=now)
        pace.busy(False, now + 1.0)
        now += 1.0 + 4 * GAP_S
    assert pace.answers_per_s(now) == pytest.approx(20, rel=0.05)


def test_a_slower_pace_is_learnt_in_seconds():
    pace = Pace()
    now = saturate(pace, per_s=30, seconds=20)
    now = saturate(pace, per_s=10, seconds=10, start_s=now)
    assert pace.answers_per_s(now) == pytest.approx(10, rel=0.3)
    now = saturate(pace, per_s=10, seconds=15, start_s=now)
    assert pace.answers_per_s(now) == pytest.approx(10, rel=0.05)


def test_lost_slots_slow_it_at_once():
    pace = Pace()
    pace.sized(30)
    now = saturate(pace, per_s=30, seconds=10)
    pace.sized(20)
    assert pace.answers_per_s(now) == pytest.approx(20, rel=0.02)
    assert pace.work_per_s(now) == pytest.approx(200, rel=0.02)
    pace.sized(0)  # nobody is connected: the pace of before is what comes back
    pace.sized(20)
    assert pace.answers_per_s(now) == pytest.approx(20, rel=0.02)


def test_while_nothing_ends_the_pace_falls():
    pace = Pace()
    now = saturate(pace, per_s=20, seconds=10)
    assert pace.answers_per_s(now + 5.0) < 14


def test_before_any_queue_it_is_guessed_from_slots_and_the_time_of_an_answer():
    pace = Pace()
    pace.sized(8)
    for number in range(10):
        pace.ended(100, 2.0)
        pace.done(300.0, 1, number * 10.0)
    assert pace.answers_per_s(100.0) == pytest.approx(4.0)
    assert pace.work_per_s(100.0) == pytest.approx(1200.0)


def test_long_answers_take_longer_along_a_line():
    pace = Pace()
    for number in range(200):
        tokens = 50 + (number * 37) % 400
        pace.ended(tokens, 0.5 + tokens * 0.01)
    assert pace.service_s(100, 0.0) == pytest.approx(1.5, rel=0.15)
    assert pace.service_s(400, 0.0) == pytest.approx(4.5, rel=0.15)


def test_lengths_that_never_vary_are_taken_in_proportion():
    pace = Pace()
    for _ in range(50):
        pace.ended(100, 1.0)
    assert pace.service_s(100, 0.0) == pytest.approx(1.0, rel=0.01)
    assert pace.service_s(200, 0.0) == pytest.approx(2.0, rel=0.01)


def test_the_usual_deviation_is_on_top():
    pace, chance = Pace(), random.Random(3)
    took = [chance.uniform(0.5, 1.5) for _ in range(400)]
    for seconds in took:
        pace.ended(100, seconds)
    assert 1.1 < pace.service_s(100, 0.0) < 1.5
