"""Silence: the learnt limit, its regimes and its safeguards."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.silence import QUIET, Cadence, Evidence, Patience, Silent, limit_s, of_replica, of_stream

PATIENCE = Patience()


def _evidence(**more):
    return Evidence(**{"last_frame_at": 10.0, "owed_since": 9.0, "q99_s": 0.02, "gaps": 500} | more)


def test_nothing_owed_is_never_silence():
    assert of_replica(_evidence(owed_since=None), PATIENCE, 1e6) == QUIET


def test_a_fast_cadence_leaves_the_floor():
    assert limit_s(_evidence(), PATIENCE) == PATIENCE.floor_s
    assert of_replica(_evidence(), PATIENCE, 10.34) == QUIET
    verdict = of_replica(_evidence(), PATIENCE, 10.4)
    assert isinstance(verdict, Silent)
    assert verdict.why == "silent for 400 ms; its cadence (20 ms at q99) allows 350 ms"


def test_silence_is_counted_from_when_something_was_owed():
    assert of_replica(_evidence(last_frame_at=0.0, owed_since=10.0), PATIENCE, 10.2) == QUIET


def test_a_starved_machine_stretches_the_limit():
    assert limit_s(_evidence(q99_s=0.2), PATIENCE) == pytest.approx(1.2)


def test_a_fresh_replica_gets_the_patient_limit():
    assert limit_s(_evidence(gaps=3), PATIENCE) == PATIENCE.unlearned_s


def test_a_long_prompt_gets_an_allowance():
    assert limit_s(_evidence(prefill_tokens=4096), PATIENCE) == pytest.approx(0.35 + 2 * 4.096)


def test_where_nobody_could_take_over_only_the_cap_counts():
    assert limit_s(_evidence(others=0), PATIENCE) == PATIENCE.cap_s


def test_a_stream_is_judged_against_its_own_floor():
    evidence = _evidence()
    assert of_stream(1.9, evidence, PATIENCE, begun=True) == QUIET
    assert isinstance(of_stream(2.1, evidence, PATIENCE, begun=True), Silent)
    assert of_stream(9.0, evidence, PATIENCE, begun=False) == QUIET
    assert isinstance(of_stream(10.1, evidence, PATIENCE, begun=False), Silent)


@given(st.lists(st.floats(0.001, 60), min_size=1, max_size=400), st.floats(0.01, 1))
def test_a_quantile_is_never_under_the_true_one_and_at_most_a_bucket_over(gaps, share):
    cadence = Cadence()
    for gap in gaps:
        cadence.add(gap)
    # the decaying weights shift a rank by a few places at most; compare with the ranks around it
    ordered = sorted(gaps)
    low = ordered[max(0, int(len(gaps) * share * 0.85) - 1)]
    high = ordered[min(len(gaps) - 1, int(len(gaps) * min(1, share * 1.15)) + 1)]
    assert low * 0.999 / 1.25 <= cadence.quantile(share) <= high * 1.25 * 1.001


def test_old_gaps_are_forgotten():
    cadence = Cadence()
    for _ in range(2000):
        cadence.add(1.0)
    for _ in range(20_000):
        cadence.add(0.01)
    assert cadence.quantile(0.99) < 0.02


def test_an_empty_cadence_knows_nothing():
    assert Cadence().quantile(0.99) == 0.0
