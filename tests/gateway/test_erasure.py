"""Erasure in the journal: one tenant's records become zeros, and everything around them stays as it is."""

from pathlib import Path

from doorway import HandClock
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain import journal
from holdfast.domain.erasure import Erased, erase
from holdfast.domain.journal import Kind
from holdfast.domain.request import Chunk, Finish, Generation
from holdfast.gateway.archive import Archive
from holdfast.gateway.journal import Journal
from holdfast.store.erasure import erase_access, erase_journal, erase_sentences
from holdfast.store.quarantine import QuarantineRegister, sentences
from holdfast.store.shelf import FileShelf

SIZE = 8192
NOTE = b"a stop string of acme"


def begin(number: int, tenant: str, ids: list[int]) -> bytes:
    asked = Generation(id=f"g{number}", prompt_ids=ids, tenant=tenant, note=NOTE)
    return journal.begin_record(number, journal.begun_of(asked, b"k" * 16, "r1"))


def sheet(records: list[bytes]) -> memoryview:
    data = memoryview(bytearray(SIZE))
    journal.stamp(data, 1.5)
    at = journal.START
    for record in records:
        data[at : at + len(record)] = record
        at += len(record)
    return data


def believed(buffer: memoryview) -> list[tuple[int, int, bytes]]:
    return [(kind, number, bytes(buffer[at:end])) for kind, number, at, end in journal.records(buffer, journal.START)]


@st.composite
def written(draw: st.DrawFn) -> tuple[list[list[bytes]], list[list[tuple[int, str]]]]:
    """Two sheets of one worker, and for each record its stream and whose it is."""
    owners = draw(st.lists(st.sampled_from(["acme", "other"]), min_size=1, max_size=5))
    sheets: list[list[bytes]] = [[], []]
    marks: list[list[tuple[int, str]]] = [[], []]
    for number, tenant in enumerate(owners):
        first = draw(st.integers(0, 1))
        made = [(first, begin(number, tenant, [7, 8, 9]))]
        made += [(draw(st.integers(first, 1)), journal.ids_record(number, 0, Chunk([5]), True))]
        if draw(st.booleans()):
            made += [(1, journal.end_record(number, Finish.STOP))]
        for where, record in made:
            sheets[where].append(record)
            marks[where].append((number, tenant))
    return sheets, marks


@given(written(), st.booleans())
def test_what_is_anothers_stays_byte_for_byte_and_what_is_theirs_becomes_zeros(
    made: tuple[list[list[bytes]], list[list[tuple[int, str]]]], alive: bool
) -> None:
    sheets, marks = made
    buffers = [sheet(records) for records in sheets]
    before = [believed(buffer) for buffer in buffers]
    ended = {number for rows in before for kind, number, _ in rows if kind == Kind.END}
    said = erase(buffers, "acme", alive)
    theirs = {number for row in marks for number, tenant in row if tenant == "acme"}
    running = theirs - ended if alive else set()
    assert said == Erased(len(theirs - running), len(running))
    for buffer, rows in zip(buffers, before, strict=True):
        after = believed(buffer)
        assert len(after) == len(rows)
        for (kind, number, body), (kind_before, number_before, body_before) in zip(after, rows, strict=True):
            assert number == number_before
            if number in theirs - running:
                assert (kind, body) == (Kind.ERASED, bytes(len(body_before)))
            else:
                assert (kind, body) == (kind_before, body_before)


def test_what_has_no_beginning_any_more_goes_too() -> None:
    buffer = sheet([journal.ids_record(3, 9, Chunk([5, 6]), True), begin(4, "other", [1])])
    assert erase([buffer], "acme", True) == Erased(0, 0)
    assert [kind for kind, _, _ in believed(buffer)] == [Kind.ERASED, Kind.BEGIN]


def test_a_worker_writes_on_and_others_read_on_around_it(tmp_path: Path) -> None:
    folder, clock = tmp_path / "journal", HandClock()
    shelf = FileShelf(folder, tmp_path)
    archive = Archive(shelf, clock)
    mine = Journal(shelf, archive, "gateway-0.1", clock, lambda event: None)
    reader = Archive(FileShelf(folder, tmp_path), clock)
    ended, running, other = (
        mine.begin(Generation(id=name, prompt_ids=[70001, 70002, 70003], tenant=tenant, note=NOTE))
        for name, tenant in (("ended", "acme"), ("running", "acme"), ("other", "rest"))
    )
    for live in (ended, other):
        mine.write(live, Chunk([40001, 40002]))
    mine.write(ended, Chunk([40003], finish=Finish.STOP))
    assert reader.find("ended") is not None
    assert erase_journal(folder, "acme") == Erased(1, 1)
    for archive_ in (reader, Archive(FileShelf(folder, tmp_path), clock)):
        assert archive_.find("ended") is None
        assert (found := archive_.find("other")) is not None
        assert found.ids == [40001, 40002]
    for live in (running, other):
        mine.write(live, Chunk([40004], finish=Finish.STOP))
    assert (found := reader.find("other")) is not None
    assert found.ids == [40001, 40002, 40004]
    assert erase_journal(folder, "acme") == Erased(1, 0)
    assert reader.find("running") is None
    assert erase_journal(folder, "rest") == Erased(1, 0)
    data = b"".join(path.read_bytes() for path in folder.glob("gateway*"))
    assert NOTE not in data
    assert (40004).to_bytes(4, "little") not in data
    mine.close()


def test_access_lines_become_blanks_and_the_file_keeps_its_length(tmp_path: Path) -> None:
    path = tmp_path / "gateway-0.access.jsonl"
    mine, theirs = b'{"tenant":"rest","key":"k"}\n', b'{"tenant":"acme","key":"k"}\n'
    path.write_bytes(mine + theirs + mine)
    (tmp_path / "gateway-0.access.jsonl.1").write_bytes(theirs + b"not a line")
    assert erase_access(tmp_path, "acme") == 2
    assert path.read_bytes() == mine + b" " * (len(theirs) - 1) + b"\n" + mine
    assert b"acme" not in (tmp_path / "gateway-0.access.jsonl.1").read_bytes()


def test_a_tenants_entries_of_the_quarantine_go(tmp_path: Path) -> None:
    register = QuarantineRegister(tmp_path, lambda: 0.0, lambda: 1000.0)
    register.condemn("ab" * 12, 2000.0, "why", "acme")
    register.condemn("cd" * 12, 2000.0, "why", "rest")
    assert erase_sentences(tmp_path, "acme") == 1
    assert [one.tenant for one in sentences(tmp_path, 0.0)] == ["rest"]
