"""The audit log as files: several writers, torn writes, and heads that were lost."""

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from holdfast.policy.audit import Broken, Sound
from holdfast.store.audit import AuditLog, entries, head_of, judged


def log(path: Path, who: str = "uid 7 (eve)") -> AuditLog:
    return AuditLog(path, lambda: 1000.0, who)


def many(path: Path, who: str) -> None:
    for number in range(50):
        log(path, who).append("drain", {"number": str(number)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def test_two_processes_at_once_make_one_chain(path: Path) -> None:
    with ProcessPoolExecutor(2) as pool:
        list(pool.map(many, [path, path], ["uid 1", "uid 2"]))
    verdict = judged(path)
    assert isinstance(verdict, Sound), verdict
    assert verdict.head.number == len(entries(path)) == 100
    for who in ("uid 1", "uid 2"):
        assert [one.what["number"] for one in entries(path) if one.who == who] == [str(n) for n in range(50)]


def test_a_write_that_a_power_cut_tore_is_taken_back(path: Path) -> None:
    log(path).append("up")
    with path.open("ab") as file:
        file.write(b'{"number":2,"at":')
    assert isinstance(judged(path), Broken)
    log(path).append("down")
    assert [one.act for one in entries(path)] == ["up", "down"]
    assert isinstance(judged(path), Sound)


def test_a_head_that_fell_behind_catches_up(path: Path) -> None:
    log(path).append("up")
    before = head_of(path).read_bytes()
    log(path).append("drain")
    head_of(path).write_bytes(before)
    assert isinstance(judged(path), Sound)
    log(path).append("down")
    verdict = judged(path)
    assert isinstance(verdict, Sound), verdict
    assert verdict.head.number == 3


def test_writing_on_does_not_hide_what_was_done_to_the_log(path: Path) -> None:
    for act in ("up", "drain", "undrain", "down"):
        log(path).append(act)
    whole = path.read_bytes().splitlines(keepends=True)
    head = head_of(path).read_bytes()
    for damage in (whole[:3], whole[1:], [*whole[:1], *whole[2:]]):
        path.write_bytes(b"".join(damage))
        head_of(path).write_bytes(head)
        log(path).append("up")
        assert isinstance(judged(path), Broken)
    path.write_bytes(b"".join(whole))
    head_of(path).unlink()
    log(path).append("up")
    assert isinstance(judged(path), Broken)


def test_every_flipped_byte_of_log_or_head_is_found(path: Path) -> None:
    for act in ("up", "drain", "down"):
        log(path).append(act, {"why": "an operator asked for it"})
    for file in (path, head_of(path)):
        data = file.read_bytes()
        for at in range(len(data)):
            changed = bytearray(data)
            changed[at] ^= 0x01
            file.write_bytes(changed)
            assert isinstance(judged(path), Broken), (file.name, at)
        file.write_bytes(data)
    assert isinstance(judged(path), Sound)


def test_only_the_owner_may_read_it(path: Path) -> None:
    log(path).append("up")
    assert {one.stat().st_mode & 0o777 for one in path.parent.iterdir()} == {0o600}
