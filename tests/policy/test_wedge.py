"""Wedged: work, and no step. A slow step, a long prompt and a first step are not."""

from hypothesis import given
from hypothesis import strategies as some

from holdfast.policy.wedge import CERTAIN, MOVING, Limits, Signs, Wedged, limit_s, of_replica

LIMITS = Limits(wedged_s=5.0, cap_s=60.0, prefill_s_per_token=0.001)
QUICK = Signs(slowest_s=0.02)


def still(seconds: float, **signs: object) -> Signs:
    return Signs(**{"slowest_s": 0.02, "still_s": seconds, **signs})


def test_it_stands_still_with_work() -> None:
    verdict = of_replica(still(5.5), LIMITS)
    assert verdict == Wedged(
        "it answers pings, but has made no step for 5.5 s while it had work; the limit is 5.0 s", certain=False
    )
    assert of_replica(still(5.0), LIMITS) == MOVING
    assert of_replica(QUICK, LIMITS) == MOVING


def test_slow_steps_widen_the_limit_up_to_the_cap() -> None:
    assert limit_s(Signs(slowest_s=3.0), LIMITS) == 15.0
    assert limit_s(Signs(slowest_s=30.0), LIMITS) == 60.0


def test_the_first_step_of_a_boot_gets_the_cap() -> None:
    assert of_replica(Signs(still_s=59.0), LIMITS) == MOVING
    assert isinstance(of_replica(Signs(still_s=61.0), LIMITS), Wedged)


def test_a_long_prompt_is_not_a_wedge() -> None:
    assert limit_s(Signs(slowest_s=0.02, prefill_tokens=30_000), LIMITS) == 65.0
    assert of_replica(still(60.0, prefill_tokens=30_000), LIMITS) == MOVING


def test_an_observer_that_was_late_doubles_its_patience() -> None:
    assert of_replica(still(9.0, doubtful=True), LIMITS) == MOVING
    assert isinstance(of_replica(still(10.5, doubtful=True), LIMITS), Wedged)


def test_one_unanswered_canary_proves_nothing_two_do() -> None:
    assert of_replica(Signs(slowest_s=0.02, unanswered=1), LIMITS) == MOVING
    assert of_replica(Signs(slowest_s=0.02, unanswered=2), LIMITS) == Wedged(
        "it answers pings, but 2 canaries in a row got no token and no step was made", certain=False
    )


def test_after_long_enough_it_is_no_suspicion_any_more() -> None:
    verdict = of_replica(still(CERTAIN * 5.0 + 0.1), LIMITS)
    assert isinstance(verdict, Wedged)
    assert verdict.certain


@given(
    slowest=some.none() | some.floats(0, 1000),
    prefill=some.integers(0, 200_000),
    doubtful=some.booleans(),
    less=some.floats(0, 1),
)
def test_within_its_limit_nobody_is_wedged_and_the_limit_is_never_below_the_setting(
    slowest: float | None, prefill: int, doubtful: bool, less: float
) -> None:
    signs = Signs(slowest_s=slowest, prefill_tokens=prefill, doubtful=doubtful)
    limit = limit_s(signs, LIMITS)
    assert limit >= LIMITS.wedged_s
    within = Signs(still_s=less * limit, slowest_s=slowest, prefill_tokens=prefill, doubtful=doubtful)
    assert of_replica(within, LIMITS) == MOVING
