"""No word of a prompt is kept: bench/markers.py, with few markers. The full run is in the bench."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_nothing_that_a_site_leaves_holds_a_marker() -> None:
    if not (ROOT / "src/holdfast/shipped/pearl/model.safetensors").is_file():
        pytest.skip("the shipped model's weights are not in this checkout")
    command = [sys.executable, str(ROOT / "bench/markers.py"), "--markers", "40", "--seed", "11"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["hits"] == {}
    assert report["found_while_running"] > 0
    assert report["files_searched"] > 20
