"""The key files: whole or absent, seen by all, and a revoked key never comes back."""

from pathlib import Path

import pytest

from holdfast.domain.key import KeyRing, spell_key
from holdfast.policy import key_ring
from holdfast.policy.key_ring import Changed, Wanted
from holdfast.store.keys import KeyFiles

KEY = spell_key(7, 7**80)


def made(files: KeyFiles, name: str = "alice", key: str = KEY) -> KeyRing:
    def revise(ring: KeyRing) -> KeyRing:
        verdict = key_ring.create(ring, Wanted(name=name, tenant="acme"), key, 1000.0)
        assert isinstance(verdict, Changed)
        return verdict.ring

    return files.change(revise)


def revoke(files: KeyFiles, which: str = "alice") -> None:
    def revise(ring: KeyRing) -> KeyRing:
        verdict = key_ring.revoke(ring, which, 1001.0)
        assert isinstance(verdict, Changed)
        return verdict.ring

    files.change(revise)


def live(files: KeyFiles) -> list[str]:
    ring = files.look().ring
    return [] if ring is None else [one.name for one in ring.keys if one.live(1002.0)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


def test_what_one_writes_another_sees_and_only_the_owner_may_read_it(path: Path) -> None:
    reader = KeyFiles(path)
    assert (reader.look().ring, reader.look().why) == (None, "")
    made(KeyFiles(path))
    assert live(reader) == ["alice"]
    made(KeyFiles(path), "bob", spell_key(8, 8))
    assert live(reader) == ["alice", "bob"]
    assert {one.stat().st_mode & 0o777 for one in path.parent.iterdir()} == {0o600}


def test_no_secret_is_at_rest(path: Path) -> None:
    made(KeyFiles(path))
    assert all(KEY[16:59].encode() not in one.read_bytes() for one in path.parent.iterdir())


@pytest.mark.parametrize("which", ["keys.json", "keys.json.last", "both"])
def test_a_revoked_key_does_not_come_back_with_an_old_copy(path: Path, which: str) -> None:
    files = KeyFiles(path)
    made(files)
    old = {one: one.read_bytes() for one in (path, files.last)}
    revoke(files)
    for one, data in old.items():
        if which in (one.name, "both"):
            one.write_bytes(data)
    assert live(KeyFiles(path)) == live(files) == []
    made(KeyFiles(path), "bob", spell_key(8, 8))
    assert live(KeyFiles(path)) == ["bob"]


@pytest.mark.parametrize("damage", [b"", b"{", b'{"salt":"AA==","version":1,"keys":[{}]}'])
def test_a_damaged_file_is_told_and_its_copy_taken(path: Path, damage: bytes) -> None:
    files = KeyFiles(path)
    made(files)
    path.write_bytes(damage)
    looked = files.look()
    assert looked.why == f"the key file {path} is damaged; its copy is used"
    assert live(files) == live(KeyFiles(path)) == ["alice"]


def test_a_file_that_is_gone_is_told_and_all_gone_is_not_the_same_as_none(path: Path) -> None:
    files = KeyFiles(path)
    made(files)
    revoke(files)
    path.unlink()
    assert files.look().why == f"the key file {path} is gone; its copy is used"
    files.last.unlink()
    assert (files.look().ring, files.look().why) == (None, f"the key file {path} is gone")
    with pytest.raises(OSError, match="Bring back a copy of it"):
        made(files)


def test_whoever_fails_midway_leaves_everything_as_it_was(path: Path) -> None:
    files = KeyFiles(path)
    made(files)
    before = path.read_bytes()

    def fails(ring: KeyRing) -> KeyRing:
        raise KeyError("midway")

    with pytest.raises(KeyError):
        files.change(fails)
    assert path.read_bytes() == before
    assert sorted(one.name for one in path.parent.iterdir()) == ["keys.json", "keys.json.last", "keys.json.lock"]


def test_cut_between_the_writes_a_revoked_key_is_dead_already(path: Path) -> None:
    """The list of the revoked is written first."""
    files = KeyFiles(path)
    made(files)
    files.revoked.write_text(f"\n{KEY[5:15]}\n")
    assert live(files) == []
    files.revoked.write_text(f"\nhalf\n\n{KEY[5:15]}")
    assert live(files) == []
