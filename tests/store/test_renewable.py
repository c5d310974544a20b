"""What a supervisor carries through its own exec: the lock stays held, by the same process, without a gap."""

import subprocess
import sys

from holdfast.store.lock import SiteLock, holder

CODE = """
import os, sys
from pathlib import Path
from holdfast.store.lock import SiteLock
lock = SiteLock(Path(sys.argv[1]))
lock.take(os.environ.pop("HANDED_ON", ""))
if len(sys.argv) == 3:
    os.environ["HANDED_ON"] = lock.hand_on()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:-1]])
print(os.getpid(), flush=True)
sys.stdin.read()
"""


def test_the_lock_lives_through_an_exec(tmp_path):
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", CODE, str(path), "first"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert int(other.stdout.readline()) == other.pid
        assert holder(path) == other.pid
        other.kill()
        other.wait()
    assert holder(path) == 0


def test_a_number_that_means_another_file_is_not_taken_for_the_lock(tmp_path):
    path = tmp_path / "lock"
    lock = SiteLock(path)
    lock.take("0")
    assert holder(path) > 0
    lock.release()
    assert holder(path) == 0
