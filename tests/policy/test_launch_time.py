"""How long a start may take."""

from holdfast.policy.launch_time import start_s


def test_a_start_has_time_by_the_size_of_its_weights():
    assert [start_s(size, gpus) for size, gpus in ((0, False), (10**10, True), (10**13, True))] == [180, 620, 3600]
