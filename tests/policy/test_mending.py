"""Who is mended in place, and who ends."""

from holdfast.policy.mending import AGAIN_S, End, Mend, Mending
from holdfast.policy.poison import Death


def test_the_first_death_is_mended_and_the_next_ends_the_replica_as_a_crash():
    mending = Mending("triton")
    assert mending.judge(True, 100.0) == Mend("the model's process has died: the model is loaded anew")
    verdict = mending.judge(True, 160.0)
    assert verdict == End(
        "the model's process has died again, 60 s after it was made anew",
        "engine triton: the model's process died twice",
    )
    assert Death(boot="b", crash=verdict.crash).loud, "so those in flight are suspects"


def test_deaths_far_apart_are_mended_each():
    mending = Mending("triton")
    assert all(isinstance(mending.judge(True, n * (AGAIN_S + 1)), Mend) for n in range(4))


def test_a_freeze_is_mended_whenever_it_comes():
    mending = Mending("triton")
    assert all(isinstance(mending.judge(False, float(n)), Mend) for n in range(4))
    assert isinstance(mending.judge(True, 5.0), Mend)
