"""The access log: who asked and what became of it, and no word that a client chose."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest
from doorway import HandClock

from holdfast.gateway.access import Access
from holdfast.gateway.asker import Asker
from holdfast.gateway.pages import MODEL, STREAM
from holdfast.store.access import AccessFile

CHOSEN = "word-of-a-client"


def told(path: str, who: Asker | None = None, status: int = 200, method: str = "GET") -> dict[str, object]:
    lines: list[bytes] = []
    clock = HandClock()
    access = Access(lines.append, clock.now, lambda: 7.0)
    exchange = SimpleNamespace(
        request=SimpleNamespace(method=method.encode(), path=path.encode()),
        who=who,
        generation="ab" * 12,
        answered=True,
        began_s=0.0,
        status=status,
        tokens_in=3,
        tokens_out=5,
    )

    async def story() -> None:
        access.begin(exchange)
        await asyncio.gather(clock.pass_s(1.5))
        access.end(exchange)

    asyncio.run(story())
    assert len(lines) == 1
    assert lines[0].endswith(b"}\n")
    return msgspec.json.decode(lines[0], type=dict[str, object])


def test_a_line_says_who_asked_and_what_it_took() -> None:
    who = Asker("the key itself", tenant="acme", key_id="4fQ2kX9bLm", session=CHOSEN)
    assert told("/v1/chat/completions", who, method="POST") == {
        "at": 7.0, "answer": "ab" * 12, "tenant": "acme", "key": "4fQ2kX9bLm", "method": "POST", "path": "/v1/chat/completions",
        "status": 200, "whole": True, "tokens_in": 3, "tokens_out": 5, "seconds": 1.5,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        (f"/v1/models/{CHOSEN}", 404, "/v1/models/*"),
        (f"/v1/streams/{CHOSEN}", 404, "/v1/streams/*"),
        *((f"{page.decode()}{CHOSEN}", 200, f"{page.decode()}*") for page in MODEL + STREAM),
        (f"/{CHOSEN}", 404, "?"),
        (f"/v1/models?{CHOSEN}", 200, "/v1/models"),
        (f"/{CHOSEN}", 400, "?"),
        (f"/beta/streams/{CHOSEN}", 405, "/beta/streams/*"),
    ],
)
def test_what_a_client_made_up_is_not_written_down(path: str, status: int, said: str) -> None:
    line = told(path, status=status)
    assert line["path"] == said
    assert CHOSEN not in str(line)


def test_the_file_is_bounded_and_keeps_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "gateway-0.access.jsonl"
    file = AccessFile(path, rotate_bytes=100)
    for number in range(10):
        file.write(b"%030d\n" % number)
    file.close()
    older = path.with_name(path.name + ".1")
    assert [int(line) for line in (older.read_text() + path.read_text()).split()] == [6, 7, 8, 9]
    assert {one.stat().st_mode & 0o777 for one in (path, older)} == {0o600}


def test_a_disk_that_takes_nothing_costs_lines_and_no_request(tmp_path: Path) -> None:
    file = AccessFile(tmp_path / "a.access.jsonl")
    file.close()
    file.write(b"one\n")
    assert file.lost == 1
