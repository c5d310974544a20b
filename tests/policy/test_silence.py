"""Silence: phi and its tail, the regimes of the limit, and its safeguards."""

from math import exp, log

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.silence import (
    QUIET,
    SUSPECT_PHI,
    Cadence,
    Cost,
    Doubtful,
    Evidence,
    Patience,
    Rhythm,
    Silent,
    Tail,
    Wedged,
    limit_s,
    of_replica,
    of_steps,
    of_stream,
)

PATIENCE = Patience()
STEADY = Tail(0.02, 0.007, 500)


def _evidence(**more):
    return Evidence(**{"last_frame_at": 10.0, "owed_since": 9.0, "tail": STEADY, "in_flight": 20} | more)


def _cadence(gaps):
    cadence = Cadence()
    for gap in gaps:
        cadence.add(gap)
    return cadence


def test_nothing_owed_is_never_silence():
    assert of_replica(_evidence(owed_since=None), PATIENCE, 1e6) == QUIET


def test_a_fast_cadence_leaves_the_floor():
    assert limit_s(_evidence(), PATIENCE) == PATIENCE.floor_s
    assert of_replica(_evidence(), PATIENCE, 10.21) == QUIET
    verdict = of_replica(_evidence(), PATIENCE, 10.4)
    assert isinstance(verdict, Silent)
    assert verdict.why == "silent for 400 ms; its cadence (q99 20 ms with 20 in flight) allows 350 ms"


def test_doubt_comes_before_suspicion_and_moves_nothing():
    verdict = of_replica(_evidence(), PATIENCE, 10.3)
    assert isinstance(verdict, Doubtful)
    assert verdict.why == "silent for 300 ms: phi 5 is at 219 ms"


def test_silence_is_counted_from_when_something_was_owed():
    assert of_replica(_evidence(last_frame_at=0.0, owed_since=10.0), PATIENCE, 10.2) == QUIET


def test_a_starved_machine_stretches_the_limit():
    assert limit_s(_evidence(tail=Tail(0.2, 0.2, 500)), PATIENCE) == pytest.approx(0.2 + 0.2 * 6 * log(10))


def test_a_fresh_replica_gets_the_patient_limit():
    evidence = _evidence(tail=Tail(0.0, 0.0, 0))
    assert limit_s(evidence, PATIENCE) == PATIENCE.unlearned_s
    assert of_replica(evidence, PATIENCE, 12.1).why == "silent for 2100 ms; its cadence (not known yet) allows 2000 ms"


def test_a_prompt_that_is_being_read_gets_an_allowance():
    evidence = _evidence(reading_tokens=4096, reading_s_per_token=0.001)
    assert limit_s(evidence, PATIENCE) == pytest.approx(0.35 + 2 * 4.096)


def test_no_limit_is_over_the_cap():
    assert limit_s(_evidence(tail=Tail(9.0, 9.0, 500)), PATIENCE) == PATIENCE.cap_s


def test_where_nobody_could_take_over_only_the_cap_counts():
    evidence = _evidence(others=0)
    assert limit_s(evidence, PATIENCE) == PATIENCE.cap_s
    verdict = of_replica(evidence, PATIENCE, 30.1)
    assert isinstance(verdict, Silent)
    assert verdict.capped


def test_who_doubts_himself_waits_twice_as_long():
    assert isinstance(of_replica(_evidence(doubt=2.0), PATIENCE, 10.6), Doubtful)
    assert of_replica(_evidence(doubt=2.0), PATIENCE, 10.71).why.endswith("allows 700 ms")


def test_pongs_without_steps_are_a_wedge():
    evidence = _evidence(last_frame_at=20.0, stepped_at=17.9)
    assert of_replica(evidence, PATIENCE, 19.6) == QUIET
    verdict = of_replica(evidence, PATIENCE, 20.0)
    assert isinstance(verdict, Wedged)
    assert verdict.why == ("it answers pings but made no step for 2.1 s with 20 in flight; the limit is 1.8 s")


def test_reading_a_prompt_is_no_wedge_and_slow_steps_are_none():
    reading = _evidence(stepped_at=10.0, reading_tokens=4096, reading_s_per_token=0.001)
    assert of_steps(reading, PATIENCE, 19.9) == QUIET
    assert isinstance(of_steps(reading, PATIENCE, 20.1), Wedged)
    assert of_steps(_evidence(stepped_at=10.0, strides=Tail(0.6, 0.6, 100)), PATIENCE, 18.0) == QUIET
    assert of_steps(_evidence(stepped_at=None), PATIENCE, 1e9) == QUIET


def test_a_stream_is_judged_against_its_own_floor():
    evidence = _evidence()
    assert of_stream(1.9, evidence, PATIENCE, begun=True) == QUIET
    assert isinstance(of_stream(2.1, evidence, PATIENCE, begun=True), Silent)
    assert of_stream(9.0, evidence, PATIENCE, begun=False) == QUIET
    assert isinstance(of_stream(10.1, evidence, PATIENCE, begun=False), Silent)


def test_a_stream_waits_for_all_prompts_that_are_read_before_it():
    evidence = _evidence(unread_tokens=30_000, reading_s_per_token=0.001)
    assert of_stream(69.9, evidence, PATIENCE, begun=False) == QUIET
    assert isinstance(of_stream(70.1, evidence, PATIENCE, begun=False), Silent)


@given(st.lists(st.floats(0.001, 60), min_size=1, max_size=400), st.floats(0.01, 1))
def test_a_quantile_is_never_under_the_true_one_and_at_most_a_bucket_over(gaps, share):
    cadence = _cadence(gaps)
    # the decaying weights shift a rank by a few places at most; compare with the ranks around it
    ordered = sorted(gaps)
    low = ordered[max(0, int(len(gaps) * share * 0.85) - 1)]
    high = ordered[min(len(gaps) - 1, int(len(gaps) * min(1, share * 1.15)) + 1)]
    assert low * 0.999 / 1.25 <= cadence.quantile(share) <= high * 1.25 * 1.001


def test_old_gaps_are_forgotten():
    assert _cadence([1.0] * 2000 + [0.01] * 20_000).quantile(0.99) < 0.02


def test_an_empty_cadence_knows_nothing():
    assert Cadence().quantile(0.99) == 0.0
    assert Cadence().survival(5.0) == 1.0


def test_phi_is_the_count_up_to_q99_and_an_exponential_beyond():
    gaps = [-0.01 * log(1 - (index + 0.5) / 20_000) for index in range(20_000)]  # exponential, mean 10 ms
    gaps = [gaps[(index * 7919) % 20_000] for index in range(20_000)]
    cadence = _cadence(gaps)
    assert cadence.phi(0.0231, 6) == pytest.approx(1.0, abs=0.1)  # a tenth of them is longer than ln 10 times the mean
    for phi in (3, 5, 8):  # an exponential's own limit is phi ln 10 times its mean; buckets err towards patience
        limit = cadence.tail(6).limit_s(phi)
        assert 1.0 <= limit / (phi * log(10) * 0.01) < 1.5
        assert cadence.phi(limit, 6) == pytest.approx(phi)
        assert exp(-limit / 0.01) <= 10**-phi  # the true rate of gaps so long is no higher than phi says


def test_until_its_tail_is_known_phi_8_lies_at_factor_times_q99():
    cadence = _cadence([0.1] * 50)
    assert cadence.tail(6).limit_s(8) == pytest.approx(6 * cadence.quantile(0.99))
    assert cadence.tail(6).limit_s(SUSPECT_PHI) == pytest.approx(3.5 * cadence.quantile(0.99))


def test_a_heavy_tail_that_was_seen_makes_patient():
    light = _cadence([0.02] * 3000)
    heavy = _cadence(([0.02] * 99 + [0.5]) * 30)
    assert light.tail(6).limit_s(8) < 0.15
    assert heavy.tail(6).limit_s(8) > 3


def test_each_size_of_batch_has_a_cadence_of_its_own():
    rhythm = Rhythm()
    for _ in range(100):
        rhythm.add(0.02, 1)
        rhythm.add(0.2, 40)
    assert rhythm.tail(1, 6).q99_s < 0.03
    assert rhythm.tail(63, 6).q99_s > 0.19


def test_an_unknown_size_is_told_by_the_next_larger_or_by_a_smaller_in_proportion():
    rhythm = Rhythm()
    for _ in range(100):
        rhythm.add(0.1, 8)
    known = rhythm.tail(8, 6)
    assert rhythm.tail(2, 6) == known
    assert rhythm.tail(64, 6) == known.stretched(8)


def test_gaps_of_an_idle_replica_tell_nothing_of_steps():
    rhythm = Rhythm()
    for _ in range(1000):
        rhythm.add(0.001, 0)
    assert rhythm.knows_idle()
    assert rhythm.tail(1, 6).gaps == 0


def test_what_a_prompt_token_costs_is_measured_within_reason():
    cost = Cost()
    assert cost.s_per_token(0.001) == 0.001
    for _ in range(20):
        cost.add(0.6, 1000)
    assert cost.s_per_token(0.001) == pytest.approx(0.0009)
    for _ in range(2000):
        cost.add(0.001, 1000)  # all cached
    assert cost.s_per_token(0.001) == 0.00025
    cost.add(60, 1000)  # the machine stood still
    assert cost.s_per_token(0.001) == 0.004


def test_gaps_seen_while_prompts_were_read_count_while_they_are():
    evidence = _evidence(reads=Tail(0.4, 0.2, 100), reading_tokens=300, reading_s_per_token=0.0005)
    assert limit_s(evidence, PATIENCE) == pytest.approx(0.4 + 0.2 * 6 * log(10))
