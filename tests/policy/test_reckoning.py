"""Every answer is counted under one word, and a silence is charged to the blow that caused it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.havoc import Blow, Strike
from holdfast.policy.reckoning import (
    Answer,
    Pause,
    Reckoning,
    drift_percent,
    pauses,
    percentile,
    reckon,
    silence_s_max,
)

TEXT = "seven eight nine ten"


def answer(**changes: object) -> Answer:
    """An answer of four tokens at 1.0, 1.1, 1.2 and 1.3 s, ended well."""
    fields: dict[str, object] = {
        "case": 0,
        "opened_at": 0.9,
        "arrivals": [1.0, 1.1, 1.2, 1.3],
        "content": TEXT,
        "tokens": TEXT.split(),
        "completion_tokens": 4,
        "finish": "stop",
        "end": "ended",
    }
    return Answer(**{**fields, **changes})


def strike(at: float, blow: Blow = Blow.KILL) -> Strike:
    return Strike("replica-0", "boot", blow, at, "a test")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "exact"),
        ({"content": "seven nine ten", "tokens": ["seven", "nine", "ten"]}, "wrong"),
        ({"tokens": ["seven", "eight nine", "ten"]}, "wrong"),
        ({"completion_tokens": 5}, "wrong"),
        ({"finish": "length"}, "wrong"),
        ({"reasoning": "hm"}, "wrong"),
        ({"end": "truncated"}, "truncated"),
        ({"end": "errored"}, "errored"),
        ({"end": "refused"}, "refused"),
        ({"end": "hung"}, "hung"),
        ({"end": ""}, "hung"),
    ],
)
def test_every_answer_is_under_one_word(changes: dict[str, object], word: str) -> None:
    total = reckon([answer(**changes)], {0: answer()}, [])
    counts = {name: getattr(total, name) for name in ("exact", "wrong", "truncated", "errored", "refused", "hung")}
    assert counts == {**dict.fromkeys(counts, 0), word: 1}
    assert total.ok == (word == "exact")


def test_nothing_asked_proves_nothing() -> None:
    assert not reckon([], {}, []).ok


def test_lost_and_doubled_tokens_are_told_apart() -> None:
    lost = answer(content="seven ten", tokens=["seven", "ten"])
    doubled = answer(content="", tokens=["seven", "eight", "eight", "nine", "ten"])
    total = reckon([lost, doubled], {0: answer()}, [])
    assert (total.lost_tokens, total.doubled_tokens) == (2, 1)


def test_a_silence_is_charged_to_the_blow_it_spans() -> None:
    moved = answer(arrivals=[1.0, 1.1, 1.6, 1.7, 3.9], moves=2)
    told = pauses(moved, [strike(1.15), strike(1.75, Blow.FREEZE)])
    assert told == [Pause(Blow.FREEZE, pytest.approx(2.2)), Pause(Blow.KILL, pytest.approx(0.5))]


def test_tokens_in_flight_may_arrive_after_the_blow() -> None:
    moved = answer(arrivals=[1.0, 1.1, 1.2, 2.0], moves=1)
    assert pauses(moved, [strike(1.05)]) == [Pause(Blow.KILL, pytest.approx(0.8))]


def test_an_answer_that_stayed_has_no_pause() -> None:
    assert pauses(answer(arrivals=[1.0, 2.0]), [strike(1.5)]) == []


def test_a_blow_after_the_last_token_is_nobodys_pause() -> None:
    assert pauses(answer(moves=1), [strike(9.0)]) == []


def test_a_move_without_a_blow_is_a_false_one() -> None:
    blows = [strike(1.05), strike(50.0)]
    total = reckon([answer(moves=2), answer(moves=1), answer()], {0: answer()}, blows)
    assert (total.affected, total.saved, total.false_moves) == (2, 2, 1)


def test_the_verdict_can_be_read_aloud() -> None:
    slow = [Pause(Blow.KILL, 0.041), Pause(Blow.KILL, 0.041), Pause(Blow.KILL, 0.18), Pause(Blow.FREEZE, 0.52)]
    total = Reckoning(strikes=12, answers=240, exact=240, pauses=slow)
    assert total.verdict() == (
        "12 replicas lost, 240 answers, 240 exact, 0 broken; "
        "pause after a kill p50 41 ms, p99 180 ms; after a freeze p50 520 ms, p99 520 ms"
    )
    assert Reckoning(answers=3, exact=2).verdict() == "0 replicas lost, 3 answers, 2 exact, 1 broken"


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.001, 1.0))
def test_a_percentile_is_a_value_that_enough_others_do_not_exceed(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in ordered
    assert sum(value <= found for value in ordered) >= share * len(ordered)
    assert sum(value < found for value in ordered) < share * len(ordered)


def test_the_longest_silence_counts_the_wait_for_the_first_token_and_needs_no_move() -> None:
    assert silence_s_max(answer(arrivals=[1.5, 1.6, 1.9])) == pytest.approx(0.6)
    assert silence_s_max(answer(arrivals=[1.0, 1.1, 1.9])) == pytest.approx(0.8)
    assert silence_s_max(answer(arrivals=[])) == 0.0


def test_what_was_said_of_a_broken_answer_is_kept() -> None:
    assert reckon([answer(), answer(end="refused", why="503: full")], {0: answer()}, []).whys == ["refused: 503: full"]


def test_drift_compares_the_first_settled_third_with_the_last() -> None:
    grown = drift_percent([999.0, 100.0, 100.0, 5000.0, 50.0, 102.0, 104.0], 0.15)
    assert (grown.first, grown.last, grown.percent) == (100.0, 103.0, pytest.approx(3.0))
    assert drift_percent([7.0] * 10, 0.2).percent == 0.0
    assert drift_percent([0.0] * 10, 0.2).percent == 0.0
