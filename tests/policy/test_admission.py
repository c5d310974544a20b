"""Admission's verdicts and their sentences."""

from holdfast.policy.admission import ADMIT, Admission, Queue, Shed
from holdfast.policy.token_bucket import TokenBucket


def _admission(rate=1000.0, burst=1000.0, queue_max=2):
    return Admission(TokenBucket(rate, burst), queue_max=queue_max, queue_wait_s=5)


def test_a_free_slot_admits():
    assert _admission().ask(0, running=3, waiting=0, slots=4) == ADMIT


def test_nobody_overtakes_those_who_wait():
    assert isinstance(_admission().ask(0, running=3, waiting=1, slots=4), Queue)


def test_full_slots_queue_with_the_position():
    verdict = _admission().ask(0, running=4, waiting=1, slots=4)
    assert verdict == Queue(1, "all 4 slots are taken; 1 requests are ahead")


def test_without_a_replica_the_sentence_says_so():
    assert _admission().ask(0, 0, 0, 0) == Queue(0, "no replica may take traffic; 0 requests are ahead")


def test_a_full_queue_sheds_with_503():
    verdict = _admission().ask(0, running=4, waiting=2, slots=4)
    assert isinstance(verdict, Shed)
    assert (verdict.status, verdict.why) == (503, "all 4 slots are taken and 2 requests wait, the queue's limit")


def test_over_the_rate_sheds_with_429_and_the_wait():
    admission = _admission(rate=10, burst=1)
    assert admission.ask(0, 0, 0, 4) == ADMIT
    verdict = admission.ask(0, 0, 0, 4)
    assert isinstance(verdict, Shed)
    assert verdict.status == 429
    assert verdict.why == "over the site's rate of 10 requests/s; the next one fits in 100 ms"


def test_patience_that_is_over_says_how_long_it_was():
    assert _admission().outwaited(5.04).why == "no slot came free in 5.0 s of waiting"
