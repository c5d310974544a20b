"""A drill misses no event of its site, whatever becomes of the log's file."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.domain.event import ReplicaJoined
from holdfast.drill.tail import Tail
from holdfast.store.events import EventLog


def joined(log: EventLog, number: int) -> None:
    log.append(ReplicaJoined(replica=f"replica-{number}", why="a test"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.jsonl"


@pytest.fixture
def tail(path: Path) -> Iterator[Tail]:
    tail = Tail(path)
    yield tail
    tail.close()


def told(tail: Tail) -> list[str]:
    return [one["replica"] for one in tail.more()]


def test_only_what_is_new_is_told_and_only_once(path: Path) -> None:
    log = EventLog(path, lambda: 1.0)
    joined(log, 0)
    tail = Tail(path)
    assert told(tail) == []
    joined(log, 1)
    joined(log, 2)
    assert told(tail) == ["replica-1", "replica-2"]
    assert told(tail) == []
    tail.close()


def test_nothing_is_lost_when_the_log_is_put_aside(path: Path, tail: Tail) -> None:
    log = EventLog(path, lambda: 1.0, rotate_bytes=300)
    found = []
    for number in range(40):
        joined(log, number)
        if number % 2:
            found += told(tail)
    assert found == [f"replica-{number}" for number in range(40)]
    assert path.with_name("events.jsonl.1").exists()


def test_a_log_that_is_removed_begins_anew(path: Path, tail: Tail) -> None:
    log = EventLog(path, lambda: 1.0)
    joined(log, 0)
    assert told(tail) == ["replica-0"]
    path.unlink()
    assert told(tail) == []
    joined(log, 1)
    assert told(tail) == ["replica-1"]


def test_half_a_line_waits_for_its_end_and_nonsense_is_left_out(path: Path, tail: Tail) -> None:
    line = json.dumps({"event": "replica_joined", "replica": "replica-7"})
    path.write_text("nonsense\n" + line[:20])
    assert told(tail) == []
    with path.open("a") as file:
        file.write(line[20:] + "\n")
    assert told(tail) == ["replica-7"]
