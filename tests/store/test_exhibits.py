"""Exhibits, known answers, and how much memory a process holds."""

import os
from pathlib import Path

import msgspec

from holdfast.domain.ailment import Exhibit
from holdfast.host.memory import resident_mib
from holdfast.policy.canary import Known
from holdfast.store import answers, evidence


def exhibit(at: float) -> Exhibit:
    return Exhibit(
        replica="replica-0",
        boot="b",
        kind="wrong",
        why="the canary's answer differs",
        at=at,
        release="00",
        prompt_ids=(1,),
        expected=(2, 3),
        got=(2, 4),
    )


def test_an_exhibit_is_kept_whole(tmp_path: Path) -> None:
    path = evidence.keep(tmp_path / "evidence", exhibit(1700000000.5))
    assert path.name == "01700000000500-replica-0-wrong.json"
    assert msgspec.json.decode(path.read_bytes(), type=Exhibit) == exhibit(1700000000.5)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for at in range(evidence.KEPT + 5):
        evidence.keep(tmp_path, exhibit(float(at)))
    kept = sorted(tmp_path.glob("*.json"))
    assert len(kept) == evidence.KEPT
    assert kept[0].name == "00000000005000-replica-0-wrong.json"


def test_what_was_agreed_on_is_found_again_by_release(tmp_path: Path) -> None:
    known = Known(prompt_ids=(1, 2), ids=(3, 4), source="agreed")
    answers.keep_agreed(tmp_path / "answers", "00ff", known)
    assert answers.agreed(tmp_path / "answers", "00ff") == known
    assert answers.agreed(tmp_path / "answers", "00fe") is None


def test_memory_of_a_process() -> None:
    mine = resident_mib(os.getpid())
    assert mine is not None
    assert 5 < mine < 10_000
    hoard = bytearray(os.urandom(1)) * (64 * 1024 * 1024)
    grown = resident_mib(os.getpid())
    assert grown is not None
    assert grown > mine + 40
    del hoard
    assert resident_mib(2**22 + 1) is None
