"""Pulses: read through /proc by whoever knows the path, also after the reader was replaced, and gone with their giver."""

import subprocess
import sys

from holdfast.store.pulse import Pulse, Pulses

GIVER = (
    "from holdfast.store.pulse import Pulse\n"
    "pulse = Pulse(); pulse.beat(41.5); print(pulse.path, flush=True); input(); pulse.beat(43.5); print('.', flush=True)\n"
    "input()"
)


def test_a_pulse_is_read_by_another_process_until_its_giver_is_gone():
    with subprocess.Popen(
        [sys.executable, "-c", GIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as giver:
        path = giver.stdout.readline().strip()
        reader = Pulses()
        assert reader.read(path) == 41.5
        giver.stdin.write("\n")
        giver.stdin.flush()
        assert giver.stdout.readline() == ".\n"
        assert reader.read(path) == 43.5
        assert Pulses().read(path) == 43.5
        giver.kill()
        giver.wait()
    assert Pulses().read(path) is None
    reader.keep(set())
    assert reader.read(path) is None


def test_there_is_no_pulse_before_the_first_beat_or_without_a_path():
    pulse = Pulse()
    assert Pulses().read(pulse.path) is None
    assert Pulses().read("") is None
    assert Pulses().read("/proc/self/fd/987654") is None
    pulse.beat(1.25)
    assert Pulses().read(pulse.path) == 1.25
