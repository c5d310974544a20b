"""Five hundred seeded sites full of faults. A failure prints its replay: holdfast sim --seeds N --log."""

import pytest

from holdfast.drill.simulation import HOUR, play

SEEDS = 500
PER_TEST = 25


@pytest.mark.parametrize("first", range(0, SEEDS, PER_TEST))
def test_no_seed_breaks_an_invariant(first):
    for seed in range(first, first + PER_TEST):
        report = play(seed)
        assert not report.violation, f"{report.violation}\nreplay: holdfast sim --seeds {seed} --log"


def test_an_hour_with_its_quiet_breaks_none_either():
    report = play(0, HOUR)
    assert not report.violation, f"{report.violation}\nreplay: holdfast sim --seeds 0 --hour --log"
    assert report.simulated_s > 2000


def test_one_seed_tells_one_story():
    assert play(11) == play(11)


def test_seeds_differ_and_faults_happen():
    reports = [play(seed) for seed in range(8)]
    assert len({tuple(one.log) for one in reports}) == len(reports)
    assert sum(one.answers for one in reports) > 50
    assert sum(one.moves + one.resumed for one in reports) > 10
