"""A simulator has to be seen to find something: each planted bug breaks the invariant that it should break."""

import re
import subprocess
import sys

import pytest

from holdfast.drill.planted import PLANTS

# plant -> the seeds among which it is found, and the invariant that it breaks
FOUND = {
    "seam": ("0..1", "I1: .* differs from the truth"),
    "fence": ("0..1", "I1: .* differs from the truth"),
    "record": ("0..1", "I1: .* before it is in the journal"),
    "claim": ("20..39", "I4: .* under one Idempotency-Key"),
    "place": ("0..1", "I6: .* still holds places"),
    "permit": ("0..1", "I6: .* still holds permits"),
    "leniency": ("0..9", "I3: .* have cost"),
    "restart": ("0..2", "I7: after the healing"),
    "epoch": ("0..2", "I4: roster"),
    "truncation": ("0..9", "I2: .* ended with stop"),
    "kind": ("0..4", "I1: .* differs from the truth"),
}


def test_every_plant_is_looked_for():
    assert FOUND.keys() == PLANTS.keys()
    assert len(PLANTS) >= 10


@pytest.mark.parametrize("plant", PLANTS)
def test_a_planted_bug_is_found_and_told_how_to_replay(plant):
    seeds, what = FOUND[plant]
    words = [sys.executable, "-m", "holdfast", "sim", "--seeds", seeds, "--plant", plant]
    played = subprocess.run(words, capture_output=True, text=True, check=False)
    assert played.returncode == 1, played.stdout + played.stderr
    assert re.search(what, played.stdout), played.stdout
    assert re.search(rf"replay: holdfast sim --seeds \d+ --plant {plant} --log", played.stdout)
