"""A full or read-only disk: what describes running processes is written into memory instead, and read from there."""

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from full_disk import SmallDisk

from holdfast.domain.event import ReplicaJoined
from holdfast.domain.ports import Sighting
from holdfast.domain.roster import Place, Roster
from holdfast.store import snapshot
from holdfast.store.births import Births
from holdfast.store.black_box import begin
from holdfast.store.events import EventLog, recent

OLD = Roster(epoch=1)
NEW = Roster(epoch=2, places=(Place(replica="replica-0", address="unix:/x", boot="b"),))


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    try:
        one = SmallDisk()
    except (PermissionError, FileNotFoundError):
        pytest.skip("needs the right to mount a tmpfs")
    yield one
    spares = snapshot.spares_of(one.folder)
    one.close()
    for path in spares.glob("*"):
        path.unlink()
    if spares.exists():
        spares.rmdir()


def test_a_full_disk_takes_nothing_and_loses_nothing(disk: SmallDisk) -> None:
    path = disk.folder / "roster.json"
    snapshot.put(path, OLD)
    disk.fill()
    snapshot.put(path, NEW)
    assert path.stat().st_size < 100, "the file on the disk is the old one"
    assert snapshot.take(path, Roster) == NEW
    disk.empty()
    snapshot.put(path, NEW)
    assert list(snapshot.spares_of(disk.folder).glob("*")) == []
    assert snapshot.take(path, Roster) == NEW


def test_a_read_only_disk_likewise(disk: SmallDisk) -> None:
    path = disk.folder / "roster.json"
    snapshot.put(path, OLD)
    assert disk.read_only(True)
    snapshot.put(path, NEW)
    assert snapshot.take(path, Roster) == NEW
    snapshot.remove(path)
    assert snapshot.take(path, Roster) is None
    assert path.exists()
    assert disk.read_only(False)
    snapshot.put(path, OLD)
    assert snapshot.take(path, Roster) == OLD
    snapshot.remove(path)
    assert snapshot.take(path, Roster) is None


def test_births_on_a_full_disk_are_found_again(disk: SmallDisk) -> None:
    births = Births(disk.folder)
    disk.fill()
    birth = Sighting(name="replica-0", pid=7, start_ticks=8, token="t", alive=False)
    births.write(birth)
    assert list(disk.folder.glob("*.json")) == []
    assert Births(disk.folder).read() == [birth]
    births.remove("replica-0")
    assert births.read() == []


def test_events_are_lost_without_a_word(disk: SmallDisk) -> None:
    log = EventLog(disk.folder / "events.jsonl", lambda: 1.0)
    disk.fill()
    assert log.append(ReplicaJoined(replica="replica-0", why="it is ready")).at == 1.0
    disk.empty()
    log.append(ReplicaJoined(replica="replica-1", why="it is ready"))
    assert [event["replica"] for event in recent(disk.folder / "events.jsonl", 9)] == ["replica-1"]


def test_a_black_box_that_can_not_be_opened_stays_shut(disk: SmallDisk) -> None:
    disk.fill()
    path = disk.folder / "replica-0.box"
    with os.fdopen(begin(path, "boot"), "wb") as box:
        box.write(b"last words")
    assert not path.exists() or path.read_bytes() == b""


def test_a_folder_that_is_not_there_is_still_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        snapshot.put(tmp_path / "nowhere" / "roster.json", OLD)


@pytest.mark.parametrize("planted", ["open", "link"])
def test_a_spare_that_somebody_else_could_have_written_is_not_believed(tmp_path: Path, planted: str) -> None:
    folder = tmp_path / "state"
    folder.mkdir()
    path, spares = folder / "roster.json", snapshot.spares_of(folder)
    snapshot.put(path, OLD)
    spares.parent.mkdir(mode=0o700, exist_ok=True)
    place = spares if planted == "open" else tmp_path / "elsewhere"
    place.mkdir(mode=0o700)
    if planted == "link":
        spares.symlink_to(place)
    (place / path.name).write_bytes(msgspec.json.encode(NEW))
    try:
        place.chmod(0o777 if planted == "open" else 0o700)
        assert snapshot.take(path, Roster) == OLD
        if planted == "open":
            place.chmod(0o700)
            assert snapshot.take(path, Roster) == NEW
    finally:
        (place / path.name).unlink()
        if planted == "link":
            spares.unlink()
        place.rmdir()
