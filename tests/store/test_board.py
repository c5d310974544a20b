"""The board between real processes: what one puts the others see at once, whole, until its writer is dead."""

import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from holdfast.domain.board import ReplicaView, TenantView, WorkerView
from holdfast.sim.shelf import SimShelves
from holdfast.store.board import (
    BOOTS_MAX,
    SHEET_BYTES,
    STALE_S,
    STREAMS_MAX,
    TOKENS_MAX,
    VIEW_BYTES_MAX,
    FileBoard,
    board_folder,
    fitting,
    views,
)
from holdfast.store.shelf import FileShelf, shelf_folder

PATIENCE_LOOKS = 5000  # of a few milliseconds each
WRITER = """
import sys
from pathlib import Path
from holdfast.domain.board import TenantView, WorkerView
from holdfast.store.board import FileBoard
from holdfast.store.shelf import FileShelf

board = FileBoard(FileShelf(Path(sys.argv[1])), "gateway-1.aa")
board.put("boot-a", 3, 700)
board.tell(WorkerView(worker="gateway-1", at=10.0, running=3))
print("there", flush=True)
n = 0
for line in sys.stdin:
    if line == "write\\n":
        print("writing", flush=True)
        while True:
            n += 1
            board.put("boot-a", n % 1000, n % 1000 * 7)
            tenants = tuple(TenantView(tenant=f"t{i}", waiting=n, running=n) for i in range(1 + n % 300))
            board.tell(WorkerView(worker="gateway-1", at=10.0, running=n, waiting=n, tenants=tenants))
    print(*board.others("boot-b"), len(board.told()), flush=True)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "board"


@contextmanager
def another(folder: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another worker's process, which has put and told already."""
    argv = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "there\n"
        try:
            yield child
        finally:
            child.kill()


def asked(child: "subprocess.Popen[str]", word: str) -> str:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(f"{word}\n")
    child.stdin.flush()
    return child.stdout.readline().strip()


def until(find: Callable[[], bool]) -> None:
    for _ in range(PATIENCE_LOOKS):
        if find():
            return
        select.select([], [], [], 0.002)
    raise AssertionError("it did not come")


def test_two_processes_see_one_another(folder: Path) -> None:
    board = FileBoard(FileShelf(folder), "gateway-0.bb")
    with another(folder) as child:
        assert board.others("boot-a") == (0, 0)  # it came after our last look round
        board.tell(WorkerView(worker="gateway-0", at=10.1, waiting=4))
        assert [(one.worker, one.running, one.waiting) for one in board.told()] == [
            ("gateway-0", 0, 4),
            ("gateway-1", 3, 0),
        ]
        assert board.others("boot-a") == (3, 700)
        assert board.others("boot-b") == (0, 0)
        board.put("boot-b", 5, 123)
        assert asked(child, "look") == "5 123 2"
        board.put("boot-b", 0, 0)
        assert asked(child, "look") == "0 0 2"
        assert [one.worker for one in views(folder)] == ["gateway-0", "gateway-1"]
    board.close()


def test_a_frozen_one_keeps_what_it_holds_and_is_not_asked_for_its_view(folder: Path) -> None:
    board = FileBoard(FileShelf(folder), "gateway-0.bb")
    with another(folder) as child:
        child.send_signal(signal.SIGSTOP)
        board.tell(WorkerView(worker="gateway-0", at=10.0 + STALE_S))
        assert len(board.told()) == 2  # that may have been a pause
        board.tell(WorkerView(worker="gateway-0", at=10.1 + STALE_S))
        assert [one.worker for one in board.told()] == ["gateway-0"]
        assert board.others("boot-a") == (3, 700)  # the replica has its answers still
        assert [one.at for one in views(folder)] == [10.1 + STALE_S, 10.0]  # who looks sees how old it is
        child.send_signal(signal.SIGCONT)
    board.close()


def test_a_dead_one_counts_nothing_and_is_swept(folder: Path) -> None:
    board = FileBoard(FileShelf(folder), "gateway-0.bb")
    with another(folder) as child:
        board.told()
        assert board.others("boot-a") == (3, 700)
        child.kill()
        child.wait()
        assert views(folder) == []
        assert board.told() == []
        assert board.others("boot-a") == (0, 0)
        assert FileShelf(folder).names() == ["gateway-0.bb"]
    board.close()
    assert FileShelf(folder).names() == []


def test_nobody_reads_half_of_anything_also_when_the_writer_is_killed_midway(folder: Path) -> None:
    board = FileBoard(FileShelf(folder), "gateway-0.bb")
    with another(folder) as child:
        assert asked(child, "write") == "writing"
        board.told()
        seen: set[int] = set()

        def one_more() -> bool:
            streams, tokens = board.others("boot-a")
            assert tokens == streams * 7 or (streams, tokens) == (3, 700)
            for view in board.told():
                wrong = [one for one in view.tenants if one.waiting != view.running or one.running != view.running]
                assert not wrong
                assert len(view.tenants) == (1 + view.running % 300 if view.waiting else 0)
                seen.add(view.running)
            return len(seen) > 200

        until(one_more)
        child.kill()
        child.wait()
    left = FileShelf(folder).open("gateway-1.aa")
    assert left is not None  # what it left can be read, whatever it was doing
    left.close()
    assert board.told() == []
    board.close()


def test_a_writer_that_stops_in_the_middle_of_a_view_leaves_the_one_before(folder: Path) -> None:
    board, other = FileBoard(FileShelf(folder), "gateway-0.bb"), FileBoard(FileShelf(folder), "gateway-1.aa")
    for running in (1, 2):
        board.tell(WorkerView(worker="gateway-0", at=1.0, running=running))
    path = folder / "gateway-0.bb"
    where = path.read_bytes().rindex(b"gateway-0")  # odd views lie in the second place, where the third would go
    with path.open("r+b") as file:
        file.seek(where)
        file.write(b"???")
    assert [one.running for one in views(folder)] == [2]
    assert [one.running for one in other.told()] == [2]
    board.tell(WorkerView(worker="gateway-0", at=1.0, running=3))
    assert [one.running for one in other.told()] == [3]
    other.close()
    board.close()


def test_a_view_that_was_damaged_is_not_believed(folder: Path) -> None:
    board, other = FileBoard(FileShelf(folder), "gateway-0.bb"), FileBoard(FileShelf(folder), "gateway-1.aa")
    board.tell(WorkerView(worker="gateway-0", at=1.0, running=1))
    assert [one.running for one in other.told()] == [1]
    board.tell(WorkerView(worker="gateway-0", at=1.0, running=2))
    path = folder / "gateway-0.bb"
    data = bytearray(path.read_bytes())
    for at in (data.index(b"gateway-0"), data.rindex(b"gateway-0")):
        data[at : at + 3] = b"???"
    with path.open("r+b") as file:
        file.write(data)
    assert views(folder) == []
    assert [one.running for one in other.told()] == [1]  # the last one that it could believe
    board.close()
    other.close()


def test_files_that_are_no_sheets_of_ours_are_left_alone(folder: Path) -> None:
    board = FileBoard(FileShelf(folder), "gateway-0.bb")
    shelf = FileShelf(folder)
    short, strange = shelf.create("ledger", 4096), shelf.create("strange", SHEET_BYTES)
    strange.buffer[0:8] = b"whatever"
    board.tell(WorkerView(worker="gateway-0", at=1.0))
    assert [one.worker for one in board.told()] == ["gateway-0"]
    assert [one.worker for one in views(folder)] == ["gateway-0"]
    assert board.others("boot-a") == (0, 0)
    short.close()
    strange.close()
    board.told()
    assert sorted(FileShelf(folder).names()) == ["gateway-0.bb", "ledger", "strange"]
    board.close()


def test_counts_of_replicas_that_come_and_go_find_room_again(folder: Path) -> None:
    board, other = FileBoard(FileShelf(folder), "gateway-0.bb"), FileBoard(FileShelf(folder), "gateway-1.aa")
    other.told()
    for number in range(3 * BOOTS_MAX):
        board.put(f"boot-{number}", 2, number)
        assert other.others(f"boot-{number}") == (2, number)
        board.put(f"boot-{number}", 0, 0)
        assert other.others(f"boot-{number}") == (0, 0)
    for number in range(BOOTS_MAX + 1):
        board.put(f"more-{number}", 1, 10 + number)
    assert [other.others(f"more-{number}") for number in (0, BOOTS_MAX - 1, BOOTS_MAX)] == [
        (1, 10),
        (1, 9 + BOOTS_MAX),
        (0, 0),  # more than there is room for: not shared
    ]
    board.put("more-0", 0, 0)
    board.put(f"more-{BOOTS_MAX}", 4, 5)
    assert other.others(f"more-{BOOTS_MAX}") == (4, 5)
    assert other.others("more-0") == (0, 0)
    board.close()
    other.close()


def test_counts_stay_within_their_word(folder: Path) -> None:
    board, other = FileBoard(FileShelf(folder), "gateway-0.bb"), FileBoard(FileShelf(folder), "gateway-1.aa")
    other.told()
    board.put("a", STREAMS_MAX + 5, TOKENS_MAX + 5)
    assert other.others("a") == (STREAMS_MAX, TOKENS_MAX)
    board.put("a", -1, -1)
    assert other.others("a") == (0, 0)
    board.close()
    other.close()


def test_a_view_that_is_too_long_loses_those_who_do_least() -> None:
    tenants = tuple(TenantView(tenant=f"tenant-{n:04}", waiting=n, admitted=n) for n in range(3000))
    replicas = tuple(ReplicaView(replica=f"replica-{n:04}", boot=f"{n:04}", running=n) for n in range(2000))
    view, said = fitting(WorkerView(worker="gateway-0", at=1.0, running=7, tenants=tenants, replicas=replicas))
    assert len(said) <= VIEW_BYTES_MAX
    assert len(said) > VIEW_BYTES_MAX // 3
    assert view.running == 7
    kept = {one.waiting for one in view.tenants}
    assert kept == set(range(3000 - len(kept), 3000))
    assert {one.running for one in view.replicas} == set(range(2000 - len(view.replicas), 2000))


def test_after_closing_words_go_nowhere(folder: Path) -> None:
    board = FileBoard(FileShelf(folder), "gateway-0.bb")
    board.put("a", 1, 1)
    board.close()
    board.close()
    board.put("a", 2, 2)
    board.tell(WorkerView(worker="gateway-0", at=1.0))
    assert board.others("a") == (0, 0)
    assert views(folder) == []


def test_it_works_on_the_simulators_shelf_too() -> None:
    shelves = SimShelves()
    first, second = shelves.shelf(), shelves.shelf()
    one, other = FileBoard(first, "gateway-0.aa"), FileBoard(second, "gateway-1.bb")
    one.told()
    other.put("a", 2, 20)
    assert one.others("a") == (2, 20)
    shelves.die(second)
    one.told()
    assert one.others("a") == (0, 0)
    one.close()


def test_the_boards_folder_lies_in_memory_beside_the_journals_and_not_in_it(tmp_path: Path) -> None:
    found = board_folder(tmp_path)
    assert found.parent == Path("/dev/shm")
    assert found != shelf_folder("", tmp_path)
    assert found.name.rpartition("-")[0] == shelf_folder("", tmp_path).name.rpartition("-")[0]  # swept with it


class Newer(WorkerView, frozen=True, kw_only=True):
    """What a later release may tell."""

    later: int = 1


def test_a_view_of_a_newer_release_is_read_as_far_as_its_fields_are_known(folder: Path) -> None:
    board = FileBoard(FileShelf(folder), "gateway-0.bb")
    board.tell(Newer(worker="gateway-0", at=1.0, refused={"tenant_rate": 3}))
    assert views(folder) == [WorkerView(worker="gateway-0", at=1.0, refused={"tenant_rate": 3})]
    board.close()
