import random

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.policy.throttle import KEYS_MAX, REFUSED_MAX, Throttle


def run(throttle: Throttle, per_s: float, let_in: float, seconds: float, start_s: float = 0.0) -> tuple[int, int]:
    """A client that sends `per_s`, of whose passing requests `let_in` a second at most are accepted: (sent, passed)."""
    chance, passed, credit = random.Random(5), 0, 0.0
    sent = int(per_s * seconds)
    for number in range(sent):
        now = start_s + number / per_s
        credit = min(5.0, credit + let_in / per_s)
        if throttle.asked("key", now, chance.random()) is None:
            passed += 1
            if credit >= 1.0:
                credit -= 1.0
                throttle.accepted("key", now)
    return sent, passed


def test_a_client_that_hammers_is_brought_down_to_a_multiple_of_what_it_gets():
    throttle = Throttle(factor=2.0, window_s=120.0)
    throttle.pressed(True, 0.0)
    run(throttle, per_s=100, let_in=10, seconds=120)
    sent, passed = run(throttle, per_s=100, let_in=10, seconds=60, start_s=120.0)
    assert 0.18 * sent < passed < 0.24 * sent


def test_a_client_most_of_whose_requests_are_let_in_never_notices():
    throttle = Throttle(factor=2.0, window_s=120.0)
    throttle.pressed(True, 0.0)
    sent, passed = run(throttle, per_s=50, let_in=30, seconds=200)
    assert passed == sent


def test_a_small_client_is_never_throttled_even_if_nothing_is_let_in():
    throttle = Throttle(factor=2.0, window_s=120.0)
    throttle.pressed(True, 0.0)
    sent, passed = run(throttle, per_s=0.95, let_in=0.0, seconds=3000)
    assert passed == sent


def test_some_always_pass_so_that_better_times_are_noticed():
    throttle = Throttle(factor=2.0, window_s=120.0)
    throttle.pressed(True, 0.0)
    sent, passed = run(throttle, per_s=200, let_in=0.0, seconds=100)
    assert passed > (1 - REFUSED_MAX) * sent * 0.8
    assert passed < 0.1 * sent


def test_the_sentence_says_what_was_counted():
    throttle = Throttle(factor=2.0, window_s=20.0)
    throttle.pressed(True, 0.0)
    verdicts = [throttle.asked("key", 0.0, 0.0) for _ in range(40)]
    assert verdicts[:10] == [None] * 10
    last = verdicts[-1]
    assert last is not None
    assert last.why == (
        "this client sent 40 requests lately and 0 were let in: 95% of its requests are refused until it sends fewer "
        "than 2 times that"
    )
    assert (last.requests, last.accepts, last.share) == (40.0, 0.0, REFUSED_MAX)


def test_while_nobody_waits_it_is_forgiven_within_seconds():
    throttle = Throttle(factor=2.0, window_s=120.0)
    throttle.pressed(True, 0.0)
    run(throttle, per_s=100, let_in=10, seconds=60)
    throttle.pressed(False, 60.0)
    throttle.pressed(True, 66.0)
    assert throttle.asked("key", 66.0, 0.0) is None


def test_until_it_is_told_that_somebody_waits_it_refuses_nobody_for_long():
    throttle = Throttle(factor=2.0, window_s=120.0)
    sent, passed = run(throttle, per_s=30, let_in=0.0, seconds=300)
    assert passed == sent


def test_clients_do_not_hurt_each_other():
    throttle = Throttle(factor=2.0, window_s=120.0)
    throttle.pressed(True, 0.0)
    run(throttle, per_s=100, let_in=0.0, seconds=60)
    assert throttle.asked("another", 60.0, 0.0) is None


def test_keys_do_not_fill_the_memory_and_the_longest_silent_is_forgotten():
    throttle = Throttle(factor=2.0, window_s=10.0)
    throttle.pressed(True, 0.0)
    for _ in range(50):
        throttle.asked("hammer", 0.0, 0.999)
    for number in range(KEYS_MAX + 10):
        throttle.asked(f"k{number}", 1.0, 0.5)
        throttle.asked("hammer", 1.0, 0.999)
    assert throttle.keys == KEYS_MAX
    assert throttle.asked("hammer", 1.0, 0.0) is not None
    throttle.accepted("k0", 1.0)  # forgotten: nothing to count
    assert throttle.keys == KEYS_MAX


@settings(max_examples=50)
@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 0.999)), max_size=120))
def test_nobody_is_refused_of_whose_requests_two_in_three_are_let_in(asked):
    throttle, now = Throttle(factor=2.0, window_s=6.0), 0.0
    throttle.pressed(True, now)
    for number, (step_s, draw) in enumerate(asked):
        now += step_s
        assert throttle.asked("key", now, draw) is None
        if number % 3 != 2:
            throttle.accepted("key", now)


def test_one_refusal_after_faded_welcomes_says_nothing():
    throttle, now = Throttle(factor=2.0, window_s=6.0), 0.0
    throttle.pressed(True, now)
    for let_in in (True, True, False, True, True, False):
        throttle.asked("key", now, 0.0)
        if let_in:
            throttle.accepted("key", now)
    throttle.asked("key", 4.0, 0.0)
    assert throttle.asked("key", 4.0, 0.0) is None
