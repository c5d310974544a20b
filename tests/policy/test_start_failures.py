"""The table of failures: each line says what to do, and no two are told alike."""

from holdfast.domain.replica import StartFault
from holdfast.policy.start_failures import FAULTS


def test_each_failure_is_told_in_words_of_its_own_and_with_a_fix():
    whats = [one.what for one in FAULTS]
    assert len(set(whats)) == len(whats)
    assert {one.code for one in FAULTS} == set(StartFault)
    for one in FAULTS:
        assert one.what[0].islower() or one.what.startswith("GPU")
        assert one.fix[0].isupper()
        assert not one.fix.endswith(".")
        assert not one.said.search("")
