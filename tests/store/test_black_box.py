"""Black boxes: a process that dies of its own fault says how, one that is ended from outside says nothing."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.store.black_box import black_box

LIFE = """
import os, sys
from pathlib import Path
from holdfast.sim.scripted import Poison
from holdfast.store.black_box import LastWords
with LastWords(Path(sys.argv[1]), "boot-1"):
    Poison(66, sys.argv[2]).take_effect()
"""


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("raise", 1, "Poisoned in take_effect (scripted.py:68)"),
        ("abort", -signal.SIGABRT, "Fatal Python error: Aborted"),
        ("segv", -signal.SIGSEGV, "Fatal Python error: Segmentation fault"),
        ("silent", -signal.SIGKILL, ""),
    ],
)
def test_the_box_says_how_a_process_died(tmp_path: Path, kind: str, code: int, words: str) -> None:
    box = tmp_path / "replica-0.box"
    done = subprocess.run([sys.executable, "-c", LIFE, str(box), kind], capture_output=True, check=False)
    assert done.returncode == code
    assert black_box(str(box), "boot-1") == words
    assert black_box(str(box), "boot-2") == ""  # of another life


def test_no_box_says_nothing(tmp_path: Path) -> None:
    assert black_box("", "boot") == black_box(str(tmp_path / "none"), "boot") == ""
