"""Plans: versions, and what is bounded by the model."""

from holdfast.policy.launch_plan import version_of
from plans import planned


def test_versions_are_read():
    told = [version_of(text) for text in ("0.32.0", "0.33.0+cu130", "v0.5.23.post1", "b1234", "dev", "")]
    assert told == [(0, 32, 0), (0, 33, 0), (0, 5, 23), (1234,), (), ()]
    assert planned(version=(0, 31, 2)).older_than(0, 32)
    assert not planned(version=()).older_than(0, 32)
