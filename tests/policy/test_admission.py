"""Admission's verdicts, their sentences, and what must hold whatever the circumstances."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.limits import BY_NAME
from holdfast.policy.admission import (
    ADMIT,
    FEW,
    FEW_SHARE,
    RETRY_MAX_S,
    Admission,
    Asked,
    Queue,
    Shed,
    Standing,
    degraded,
    hammering,
    jittered,
    short_of,
)
from holdfast.policy.memory_shares import KEPT, OWN_CONCURRENCY, OWN_MEMORY
from holdfast.policy.quota import Short
from holdfast.policy.throttle import Throttled

FULL = "all 4 slots of 1 replicas are taken"


def _asked(**more):
    return Asked(**{"now": 0.0, "deadline": 600.0, "draw": 0.5, "tenant": "acme", "work": 100, **more})


def _standing(**more):
    return Standing(**{"slots": 4, "room": FULL, "limit_s": 1.0, **more})


def _shed(rules: Admission, asked: Asked, standing: Standing) -> Shed:
    verdict = rules.ask(asked, standing)
    assert isinstance(verdict, Shed), verdict
    return verdict


def test_room_and_nobody_waiting_admits_without_another_question():
    assert Admission().ask(_asked(deadline=0.1, service_s=9.0), _standing(room="")) is ADMIT


def test_full_slots_queue_with_a_guess():
    standing = _standing(requests=1, tokens=100, ahead_work=100.0, work_per_s=1000.0, answers_per_s=10.0)
    verdict = Admission().ask(_asked(), standing)
    assert isinstance(verdict, Queue)
    assert verdict.why == f"{FULL}; 1 requests are ahead, about 0.2 s"


def test_nobody_overtakes_those_who_wait():
    assert isinstance(Admission().ask(_asked(), _standing(room="", requests=1, tokens=100)), Queue)


@pytest.mark.parametrize(
    ("bounds", "standing", "name", "sentence"),
    [
        ({"queue_max": 2}, {"requests": 2}, "queue_requests", "2 requests wait, the queue's limit is 2"),
        ({"tokens_max": 250}, {"tokens": 200}, "queue_tokens", "200 tokens wait, the queue's limit is 250"),
        ({"bytes_max": 999}, {"bytes": 900}, "queue_bytes", "900 bytes wait, the queue's limit is 999"),
        ({"queue_max": 0}, {}, "queue_requests", "0 requests wait, the queue's limit is 0"),
    ],
)
def test_a_full_queue_sheds_with_503_and_says_which_of_its_bounds(bounds, standing, name, sentence):
    standing = _standing(**standing, own_requests=standing.get("requests", 0))
    shed = _shed(Admission(**bounds), _asked(bytes=100), standing)
    assert (shed.status, shed.limit.name) == (503, name)
    assert shed.why == f"{FULL} and {sentence}"


def test_a_queue_that_one_tenant_has_filled_still_takes_the_others():
    rules = Admission(queue_max=100)
    full = _standing(slots=400, requests=100, own_requests=2, active=4, work_per_s=9e9, answers_per_s=1e6)
    assert isinstance(rules.ask(_asked(), full), Queue)
    full.own_requests = 25
    assert _shed(rules, _asked(), full).limit.name == "queue_requests"
    full.own_requests, full.requests = 0, 200  # but not without end
    assert _shed(rules, _asked(), full).limit.name == "queue_requests"


def test_a_single_request_may_be_larger_than_the_queue():
    assert isinstance(Admission(tokens_max=10).ask(_asked(work=1000), _standing()), Queue)


def test_a_wait_that_is_predicted_to_be_too_long_is_refused_at_arrival():
    standing = _standing(requests=30, tokens=3000, ahead_work=3000.0, work_per_s=1000.0, answers_per_s=10.0)
    shed = _shed(Admission(), _asked(), standing)
    assert (shed.status, shed.limit.name, shed.limit.unit) == (503, "queue_wait", "seconds")
    assert shed.limit.used == pytest.approx(3.1)
    assert shed.limit.size == 1.0
    assert shed.limit.frees_s == pytest.approx(2.1)
    assert shed.why == f"{FULL} and it would wait about 3.10 s; at present a wait of 1.00 s is allowed"


def test_a_standing_queue_still_keeps_a_batch_for_the_slots_that_free():
    """CoDel's short limit would leave slots empty between two arrivals, or when all of them free together."""
    standing = dict(limit_s=0.05, work_per_s=1000.0, answers_per_s=10.0, slots=40)
    short = _standing(requests=39, tokens=450, ahead_work=450.0, **standing)
    assert isinstance(Admission().ask(_asked(), short), Queue)
    full = _standing(requests=40, tokens=450, ahead_work=450.0, **standing)
    assert _shed(Admission(), _asked(), full).limit.name == "queue_wait"


def test_even_those_do_not_wait_longer_than_half_of_what_a_first_token_may_take():
    standing = _standing(limit_s=0.05, work_per_s=10.0, answers_per_s=0.5)
    assert _shed(Admission(first_token_s=2.0), _asked(), standing).limit.name == "queue_wait"
    assert isinstance(Admission(first_token_s=9.0).ask(_asked(), standing), Queue)


def test_a_deadline_that_cannot_be_met_is_refused_before_it_costs_anything():
    standing = _standing(requests=1, tokens=100, ahead_work=100.0, work_per_s=200.0, answers_per_s=4.0)
    shed = _shed(Admission(), _asked(deadline=2.0, service_s=1.5), standing)
    assert (shed.status, shed.limit.name) == (503, "deadline")
    assert shed.why == f"its deadline is in 2.00 s, but {FULL}: it would wait about 0.75 s and take about 1.50 s"
    assert isinstance(Admission().ask(_asked(deadline=4.0, service_s=1.5), standing), Queue)


def test_slots_that_were_filled_together_free_together_so_one_answer_more_must_fit_before_the_deadline():
    standing = _standing(requests=4, tokens=400, ahead_work=400.0, work_per_s=1000.0, answers_per_s=10.0)
    assert _shed(Admission(), _asked(deadline=1.9, service_s=0.8), standing).limit.name == "queue_wait"
    assert isinstance(Admission().ask(_asked(deadline=2.2, service_s=0.8), standing), Queue)


def test_while_nobody_knows_the_pace_a_batch_may_wait_and_of_those_in_a_hurry_a_few():
    patient, hurried = _asked(), _asked(deadline=2.0)
    assert isinstance(Admission().ask(patient, _standing(slots=16, requests=15)), Queue)
    assert (
        "behind 16 others for nobody knows how long"
        in _shed(Admission(), patient, _standing(slots=16, requests=16)).why
    )
    assert isinstance(Admission().ask(hurried, _standing(slots=16, requests=3)), Queue)
    assert _shed(Admission(), hurried, _standing(slots=16, requests=4)).limit.name == "queue_wait"


def test_before_the_first_queue_the_pace_is_guessed_from_the_slots():
    assert Admission().wait_s(_asked(service_s=2.0), _standing(requests=3)) == pytest.approx(4 / (4 / 2.0))


def test_without_any_replica_everybody_waits_for_one():
    verdict = Admission().ask(_asked(), _standing(slots=0, room="no replica may take work", requests=50))
    assert isinstance(verdict, Queue)
    assert verdict.why == "no replica may take traffic; 50 requests are ahead"


@pytest.mark.parametrize(("room", "name"), [(OWN_CONCURRENCY, "tenant_concurrency"), (OWN_MEMORY, "tenant_memory")])
def test_who_is_held_up_by_its_own_limit_is_told_so_with_429(room, name):
    standing = _standing(room=room, own_running=2, own_requests=1, work_per_s=9e9, answers_per_s=1e6)
    assert isinstance(Admission().ask(_asked(service_s=0.5), standing), Queue)
    standing.own_requests = 5
    shed = _shed(Admission(), _asked(service_s=0.5), standing)
    assert (shed.status, shed.limit.name) == (429, name)
    assert shed.why.startswith(f"tenant acme: {room.removeprefix('own: ')}; 5 of its requests wait")


def test_memory_that_is_kept_for_others_is_our_shortage_not_the_callers():
    standing = _standing(room=KEPT, requests=50, tokens=5000, ahead_work=5000.0, work_per_s=100.0, answers_per_s=1.0)
    assert _shed(Admission(), _asked(), standing).status == 503


def test_retry_after_grows_with_those_that_were_turned_away():
    rules = Admission()
    standing = _standing(requests=20, tokens=2000, ahead_work=2000.0, work_per_s=1000.0, answers_per_s=10.0)
    few = _shed(rules, _asked(), standing).retry_after_s
    standing.turned_away = 100.0
    assert _shed(rules, _asked(), standing).retry_after_s == pytest.approx(few + 10.0)


def test_patience_that_is_over_says_how_long_it_was():
    shed = Admission().outwaited(5.04, _standing(), 0.5)
    assert (shed.limit.name, shed.why) == ("queue_wait", f"no slot came free in 5.0 s of waiting: {FULL}")
    assert Admission().outwaited(5.0, _standing(slots=0), 0.5).limit.name == "no_replica"


def test_one_whose_time_ran_out_in_the_queue_never_costs_a_slot():
    shed = Admission().too_late(10.0, 10.4, 0.8, 0.5)
    assert (shed.status, shed.limit.name) == (503, "deadline")
    assert shed.why == "its deadline is in 0.40 s and an answer like it takes about 0.80 s"


def test_a_short_rate_or_quota_is_429_with_its_own_sentence():
    shed = short_of(Short("tenant_quota", 3.0, 90.0, 100.0, "tokens/min", "nearly used up"), 0.5)
    assert (shed.status, shed.why, shed.retry_after_s) == (429, "nearly used up", 3.0)
    assert (shed.limit.name, shed.limit.used, shed.limit.size, shed.limit.frees_s) == ("tenant_quota", 90.0, 100.0, 3.0)


def test_hammering_is_the_callers_and_degraded_is_ours():
    shed = hammering(Throttled("too many", 100.0, 10.0, 0.8), 0.5)
    assert (shed.status, shed.limit.name, shed.limit.used) == (429, "throttled", 100.0)
    assert (degraded("rung 3", 5.0, 0.5).status, degraded("rung 3", 5.0, 0.5).limit.name) == (503, "degraded")


@given(st.floats(0, 1e6), st.floats(0, 1))
def test_jitter_is_half_either_way_and_bounded(seconds, draw):
    assert 0 < jittered(seconds, draw) <= 1.5 * RETRY_MAX_S
    if 0.05 <= seconds <= RETRY_MAX_S:
        assert 0.5 * seconds <= jittered(seconds, draw) <= 1.5 * seconds


COUNTS = st.integers(0, 2000)
PACES = st.one_of(st.just(0.0), st.floats(0.01, 1e5))
STANDINGS = st.builds(
    Standing,
    slots=st.integers(0, 256),
    room=st.sampled_from(["", FULL, OWN_CONCURRENCY, OWN_MEMORY, KEPT]),
    limit_s=st.sampled_from([0.05, 1.0]),
    requests=COUNTS,
    tokens=st.integers(0, 5_000_000),
    bytes=st.integers(0, 100_000_000),
    ahead_work=st.floats(0, 5e6),
    own_requests=COUNTS,
    own_running=st.integers(0, 64),
    work_per_s=PACES,
    answers_per_s=PACES,
    turned_away=st.floats(0, 1e4),
)
ASKED = st.builds(
    Asked,
    now=st.just(100.0),
    deadline=st.floats(90.0, 800.0),
    draw=st.floats(0, 1),
    tenant=st.just("acme"),
    service_s=st.one_of(st.just(0.0), st.floats(0.001, 60.0)),
    work=st.integers(0, 100_000),
    bytes=st.integers(0, 4_000_000),
)


@given(ASKED, STANDINGS)
def test_whatever_comes_the_verdict_is_lawful(asked, standing):
    rules = Admission()
    verdict = rules.ask(asked, standing)
    if isinstance(verdict, Shed):
        assert BY_NAME[verdict.limit.name].status == verdict.status
        assert verdict.retry_after_s > 0 and verdict.limit.frees_s >= 0
        assert verdict.why
        assert standing.room or standing.requests  # nobody is refused while there is room and nobody waits
    elif isinstance(verdict, Queue):
        assert standing.requests < 2 * rules.queue_max
        assert verdict.wait_s + asked.service_s <= asked.deadline - asked.now  # nobody waits who would come too late
        assert verdict.wait_s <= rules.queue_wait_s
        if standing.slots:
            assert verdict.wait_s <= max(standing.limit_s, rules.first_token_s / 2)
    else:
        assert not standing.room and not standing.requests


@given(ASKED, STANDINGS, st.floats(1.0, 10.0))
def test_more_before_it_never_makes_it_more_welcome(asked, standing, factor):
    rules = Admission()
    if standing.room.startswith("own: its"):
        return
    before = rules.ask(asked, standing)
    standing.ahead_work *= factor
    after = rules.ask(asked, standing)
    assert not (isinstance(before, Shed) and not isinstance(after, Shed))


@given(ASKED, st.integers(1, 256), st.floats(1.0, 1e4))
def test_a_free_queue_always_takes_a_few_that_can_be_served_in_time(asked, slots, answers_per_s):
    """Slots never run dry for want of somebody who waits."""
    few = max(FEW, int(slots * FEW_SHARE))
    standing = _standing(slots=slots, requests=few - 1, tokens=few * 100, limit_s=0.05)
    standing.answers_per_s, standing.work_per_s = answers_per_s, answers_per_s * 100
    wait_s = (few - 1) / answers_per_s + 1 / answers_per_s
    standing.ahead_work = (few - 1) * 100.0
    verdict = Admission().ask(asked, standing)
    if wait_s * 1.001 < min(1.0, asked.deadline - asked.now - asked.service_s):
        assert isinstance(verdict, Queue)
