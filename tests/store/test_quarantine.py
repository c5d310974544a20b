"""The quarantine folder: shared by all workers of a machine, and of use without a disk too."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.cli.main import main
from holdfast.domain.settings_text import read
from holdfast.store.folder import folder_of
from holdfast.store.quarantine import QuarantineCells, QuarantineRegister, forget, sentences


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_what_one_worker_condemns_all_workers_refuse_until_its_time_is_over(tmp_path: Path) -> None:
    now, unix = Hands(), Hands()
    one, two = (QuarantineRegister(tmp_path / "q", now, unix) for _ in range(2))
    fingerprint = one.fingerprint([7, 8, 9])
    assert fingerprint == two.fingerprint([7, 8, 9]) != two.fingerprint([7, 8, 10])
    assert two.condemned() == {}
    one.condemn(fingerprint, 1100.0, "two engines died of it")
    assert one.condemned() == {fingerprint: 1100.0}
    assert two.condemned() == {}  # it looked a moment ago
    assert two.condemned(anew=True) == {fingerprint: 1100.0}
    now.now = unix.now = 1101.0
    assert one.condemned() == two.condemned() == {}
    assert not (tmp_path / "q" / fingerprint).exists()


def test_a_fingerprint_tells_nothing_without_the_machines_key(tmp_path: Path) -> None:
    one, other = (QuarantineRegister(tmp_path / name, Hands(), Hands()) for name in "ab")
    assert one.fingerprint([1, 2, 3]) != other.fingerprint([1, 2, 3])
    assert (tmp_path / "a" / "key").stat().st_mode & 0o077 == 0


def test_a_folder_that_cannot_be_written_does_not_keep_this_worker_from_refusing(tmp_path: Path) -> None:
    (tmp_path / "q").write_text("a file where a folder should be")
    register = QuarantineRegister(tmp_path / "q", Hands(), Hands())
    register.condemn(register.fingerprint([1]), 2000.0, "why")
    assert register.condemned() == {register.fingerprint([1]): 2000.0}
    cells = QuarantineCells(tmp_path / "q")
    assert cells.enter("boot", "g1")
    assert not cells.enter("boot", "g2")
    assert cells.inmate("boot") == "g1"


def test_a_cell_holds_one_of_the_whole_machine_and_says_who(tmp_path: Path) -> None:
    one, two = QuarantineCells(tmp_path), QuarantineCells(tmp_path)
    assert one.enter("replica-0/1", "g1")
    assert one.enter("replica-0/1", "g1")
    assert not two.enter("replica-0/1", "g2")
    assert two.enter("replica-1/1", "g2")
    assert (two.inmate("replica-0/1"), one.inmate("replica-1/1"), one.inmate("elsewhere")) == ("g1", "g2", "")
    one.leave("replica-0/1")
    assert two.inmate("replica-0/1") == ""
    assert two.enter("replica-0/1", "g3")
    two.leave("no such cell")


HOLDER = """
import sys
from pathlib import Path
from holdfast.store.quarantine import QuarantineCells
assert QuarantineCells(Path(sys.argv[1])).enter("boot", "theirs")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_cell_is_free_again_when_its_holders_process_is_killed(tmp_path: Path) -> None:
    cells = QuarantineCells(tmp_path)
    argv = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert not cells.enter("boot", "ours")
        assert cells.inmate("boot") == "theirs"
        holder.kill()
        holder.wait()
    assert cells.inmate("boot") == ""
    assert cells.enter("boot", "ours")


def test_the_names_of_the_dead_do_not_pile_up(tmp_path: Path) -> None:
    cells = QuarantineCells(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for number in range(100):
        assert cells.enter(f"boot-{number}", "g")
    assert len(list(Path("/proc/self/fd").iterdir())) - before <= 64
    assert len(list((tmp_path / "cells").iterdir())) <= 64


def test_the_list_is_shown_and_somebody_is_let_in_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text(f'[site]\nstate_dir = "{tmp_path}/state"\n')
    folder = folder_of(read(file.read_text())).quarantine
    assert main(["quarantine", f"--settings={file}"]) == 0
    assert capsys.readouterr().out == "nobody is in quarantine\n"
    register = QuarantineRegister(folder, Hands(), lambda: 4e9)
    register.condemn("ab" * 12, 4e9 + 60, "two engines died of it")
    assert main(["quarantine", "list", f"--settings={file}", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(one["fingerprint"], one["why"]) for one in told] == [("ab" * 12, "two engines died of it")]
    assert main(["quarantine", "forget", f"--settings={file}"]) == 2
    assert main(["quarantine", "forget", "cd" * 12, f"--settings={file}"]) == 1
    assert main(["quarantine", "forget", "ab" * 12, f"--settings={file}"]) == 0
    assert sentences(folder, 0.0) == []
    assert not forget(folder, "key")
    assert (folder / "key").exists()
