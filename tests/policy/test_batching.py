"""The batch window holds an idle engine for answers that nobody streams, and for no other."""

from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.batching import Window

WINDOW_S = 1 / 64  # exact in binary


def test_an_idle_engine_waits_out_the_window_from_the_first_on():
    window = Window(WINDOW_S)
    held = window.ask(10.0, running=0, whole=1, streams=0, slots=8)
    assert held.why == "1 of 8 slots would be taken; more may come within 16 ms"
    assert abs(window.ask(10 + WINDOW_S * 2 / 3, 0, 3, 0, 8).wait_s - WINDOW_S / 3) < 1e-9
    over = window.ask(10 + WINDOW_S, 0, 3, 0, 8)
    assert (over.wait_s, over.why) == (0.0, "the window is over")
    assert window.ask(11.0, 0, 1, 0, 8).wait_s == WINDOW_S


def test_what_ends_the_wait_at_once():
    asked = [
        ((1, 2, 0), "the engine runs: whoever comes joins at its next step"),
        ((0, 2, 1), "somebody reads an answer as it comes"),
        ((0, 8, 0), "every slot has its answer"),
        ((0, 0, 0), "nothing waits"),
    ]
    for (running, whole, streams), why in asked:
        window = Window(WINDOW_S)
        window.ask(0.0, 0, 1, 0, 8)
        verdict = window.ask(0.001, running, whole, streams, 8)
        assert (verdict.wait_s, verdict.why) == (0.0, why)
        assert window.ask(5.0, 0, 1, 0, 8).wait_s == WINDOW_S, "the next wait has a window of its own"


def test_no_window_no_wait():
    assert Window(0.0).ask(0.0, 0, 1, 0, 8).why == "there is no window"


@given(st.lists(st.tuples(st.floats(0, 0.02), st.integers(0, 3), st.integers(0, 9), st.integers(0, 2)), max_size=80))
def test_nobody_is_held_longer_than_the_window(looks):
    window, now, held_since = Window(WINDOW_S), 0.0, None
    for gap, running, whole, streams in looks:
        now += gap
        hold = window.ask(now, running, whole, streams, 8)
        if hold.wait_s == 0:
            held_since = None
            continue
        assert not running and not streams and 0 < whole < 8
        held_since = now if held_since is None else held_since
        assert now + hold.wait_s <= held_since + WINDOW_S + 1e-9
