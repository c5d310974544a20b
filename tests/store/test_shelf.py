"""The shelf on real files, and a real process that is killed while it writes."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.domain import journal
from holdfast.gateway.archive import Archive
from holdfast.host.clock import MonotonicClock
from holdfast.store.shelf import FileShelf, shelf_folder

WRITER = """
import asyncio, sys
from pathlib import Path
from holdfast.domain.request import Chunk, Generation
from holdfast.gateway.archive import Archive
from holdfast.gateway.journal import Journal
from holdfast.host.clock import MonotonicClock
from holdfast.store.shelf import FileShelf

async def main():
    clock, shelf = MonotonicClock(), FileShelf(Path(sys.argv[1]))
    journal = Journal(shelf, Archive(shelf, clock), "gateway-0.aa", clock, print)
    live = journal.begin(Generation(id="ab" * 12, prompt_ids=[1, 2], max_tokens=1 << 30, key="secret"))
    assert shelf.claim("mine")
    n = 0
    while True:
        journal.write(live, Chunk([n % 50000]))
        n += 1
        if n == 5000:
            print("writing", flush=True)

asyncio.run(main())
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def test_a_killed_worker_leaves_a_journal_that_can_be_read(folder: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"writing\n"
        shelf, clock = FileShelf(folder), MonotonicClock()
        archive = Archive(shelf, clock)
        assert all(sheet.held() for name in shelf.names() if (sheet := shelf.open(name)) is not None)
        assert not shelf.claim("mine")
        child.send_signal(signal.SIGKILL)
        child.wait()
        kept = archive.find("ab" * 12)
        assert kept is not None
        assert not kept.alive
        assert len(kept.ids) >= 5000
        assert kept.ids == [n % 50000 for n in range(len(kept.ids))]
        assert shelf.claim("mine")  # a dead holder's claim is nobody's
        assert b"secret" not in b"".join((folder / name).read_bytes() for name in shelf.names())
        shelf.remove("mine")
        archive.close()
        assert shelf.dissolve()
        assert not folder.exists()


def test_sheets_are_zeros_at_first_and_seen_by_others_at_once(folder: Path) -> None:
    one, other = FileShelf(folder), FileShelf(folder)
    sheet = one.create("w.1", 4096)
    assert bytes(sheet.buffer) == bytes(4096)
    seen = other.open("w.1")
    assert seen is not None
    sheet.buffer[10:13] = b"abc"
    assert bytes(seen.buffer[9:14]) == b"\0abc\0"
    with pytest.raises(TypeError):
        seen.buffer[0:1] = b"x"
    assert seen.held() and sheet.held()
    assert other.names() == ["w.1"]
    sheet.close()
    sheet.close()
    assert not seen.held()
    one.remove("w.1")
    assert other.open("w.1") is None
    assert bytes(seen.buffer[10:13]) == b"abc"  # who has it open keeps it
    seen.close()
    assert (folder.stat().st_mode & 0o777) == 0o700


def test_a_taken_name_and_a_full_disk_show_at_creation(folder: Path) -> None:
    shelf = FileShelf(folder)
    first = shelf.create("w.1", 4096)
    with pytest.raises(FileExistsError):
        shelf.create("w.1", 4096)
    with pytest.raises(OSError) as full:
        shelf.create("w.2", 1 << 50)
    assert full.value.errno in (errno.ENOSPC, errno.EFBIG)
    assert shelf.names() == ["w.1"]
    assert [path.name for path in folder.iterdir() if path.name.startswith(".new")] == []
    first.close()


def test_a_folder_that_others_may_write_to_is_refused(folder: Path) -> None:
    folder.mkdir(mode=0o777)
    folder.chmod(0o777)
    with pytest.raises(PermissionError, match="is not a folder of ours alone"):
        FileShelf(folder).create("w.1", 4096)
    with pytest.raises(PermissionError, match="is not a folder of ours alone"):
        FileShelf(folder).claim("c")


def test_a_claim_is_given_once_until_it_is_let_go(folder: Path) -> None:
    one, other = FileShelf(folder), FileShelf(folder)
    assert one.claim("id.1")
    assert not one.claim("id.1")
    assert not other.claim("id.1")
    other.remove("id.1")  # not theirs: nothing happens
    assert not other.claim("id.1")
    one.remove("id.1")
    assert other.claim("id.1")
    assert not one.claim("id.1")
    assert one.names() == []


def test_what_a_dead_worker_claimed_is_swept_by_the_next(folder: Path) -> None:
    FileShelf(folder).claim("other")
    (folder / ".claims" / "stale").touch()
    FileShelf(folder).claim("new")
    assert sorted(path.name for path in (folder / ".claims").iterdir()) == ["new", "other"]


def test_the_folder_stays_while_somebody_holds_a_sheet(folder: Path) -> None:
    shelf = FileShelf(folder)
    sheet = shelf.create("w.1", 4096)
    assert not FileShelf(folder).dissolve()
    sheet.close()
    assert FileShelf(folder).dissolve()
    assert FileShelf(folder).names() == []
    assert not FileShelf(folder).open("w.1")


def test_what_a_site_left_goes_once_its_state_folder_is_gone(tmp_path: Path) -> None:
    there, gone = tmp_path / "there", tmp_path / "gone"
    there.mkdir()
    left = [FileShelf(tmp_path / f"holdfast-0-{name}", site) for name, site in (("a", there), ("b", gone), ("c", gone))]
    sheets = [shelf.create("w.1", 4096) for shelf in left]
    for sheet in sheets[:2]:
        sheet.close()
    FileShelf(tmp_path / "holdfast-0-d", there).create("w.1", 4096).close()
    kept = sorted(path.name for path in tmp_path.glob("holdfast-*"))
    assert kept == ["holdfast-0-a", "holdfast-0-c", "holdfast-0-d"]  # c is held by a living worker
    sheets[2].close()


def test_strangers_sheets_are_not_read(folder: Path) -> None:
    shelf = FileShelf(folder)
    sheet = shelf.create("w.1", 4096)
    sheet.buffer[:8] = b"HFJRNL99"
    archive = Archive(shelf, MonotonicClock())
    assert archive.find("x") is None
    journal.stamp(sheet.buffer, 0.0)
    assert journal.stamped(sheet.buffer)
    sheet.close()


def test_every_site_has_a_folder_of_its_own_in_memory() -> None:
    one, other = shelf_folder("", Path("/a")), shelf_folder("", Path("/b"))
    assert one != other
    assert one.parent == Path("/dev/shm")
    assert str(os.getuid()) in one.name
    assert shelf_folder("/x/y", Path("/a")) == Path("/x/y")
