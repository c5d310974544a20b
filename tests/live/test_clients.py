"""The real clients over the whole surface, in short: everything once at rest, then some of it while replicas are killed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MOVES = 4


@pytest.mark.timeout(600)
def test_every_client_hears_the_same_when_its_replica_is_killed() -> None:
    words = [sys.executable, "bench/clients.py", "--runs", str(MOVES)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=580, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["violations"] == 0 and told["moves"] >= MOVES
    for name, row in told["table"].items():
        documented = (ROOT / "docs" / "clients.md").read_text("utf-8")
        assert name in documented
        assert all(said == "green" or said.startswith("no: ") for said in row.values()), row
