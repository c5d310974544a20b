"""Five hundred seeded sites full of faults, as the command line plays them. A failure prints the line that replays it."""

import re
import subprocess
import sys

import pytest

SEEDS = 500
PER_TEST = 100


def sim(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "holdfast", "sim", *words], capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(300)  # a hundred seeds take some ten seconds of one core, and the core may be shared
@pytest.mark.parametrize("first", range(0, SEEDS, PER_TEST))
def test_no_seed_breaks_an_invariant(first):
    played = sim("--seeds", f"{first}..{first + PER_TEST - 1}", "--jobs", "2")
    assert played.returncode == 0, played.stdout + played.stderr
    assert "100 seeds" in played.stdout
    assert "0 violations" in played.stdout


@pytest.mark.timeout(300)
def test_no_seed_breaks_an_invariant_where_engines_of_two_kinds_serve():
    played = sim("--mixed", "--seeds", "0..99", "--jobs", "2")
    assert played.returncode == 0, played.stdout + played.stderr
    assert "0 violations" in played.stdout


def test_an_hour_with_its_quiet_breaks_none_either():
    played = sim("--hours", "4")
    assert played.returncode == 0, played.stdout + played.stderr
    hours = float(re.search(r"4 seeds, ([0-9.]+) simulated hours", played.stdout)[1])
    assert hours > 3.9


def test_the_same_seed_tells_the_same_story_in_another_process():
    first, second = (sim("--raw", "--seeds", "7..9").stdout for _ in range(2))
    alone = sim("--raw", "--seeds", "9").stdout
    assert first == second
    assert alone == first.splitlines(keepends=True)[-1]
