"""Is a word of a prompt ever kept? Marker strings are planted in requests of all kinds, and all that a site leaves is searched.

    python bench/markers.py --markers 1000

A real site with the shipped model, two workers, a key, an access log, and core files allowed by the machine. The requests are
plain ones and streams, in messages, tools, schemas, stops and names; malformed, oversized, of wrong types, to wrong paths, with
wrong keys, hung up midway; meanwhile replicas and workers are crashed (SIGABRT, SIGSEGV) and killed while they hold prompts.

All markers begin alike, and that beginning is looked for: as text (plain, upper case, base64, hexadecimal, UTF-16), and as token
ids, as the journal keeps them. First the journal is searched while answers run, and a core file is made on purpose, to show that
the search finds what is there. When the answers' time of grace is over, searched are: state folder, journal, board, ledger and
spares in memory, the metrics of both addresses, the pages of the control plane, what `holdfast up` has printed, core files. Then
the site is stopped, and what remains is searched again. The last line is one JSON object; exit code 1 when a marker was found
where it must not be, or the search is blind.
"""

import argparse
import asyncio
import base64
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from itertools import takewhile
from pathlib import Path
from random import Random
from typing import Any

import httpx
import msgspec
import uvloop
from msgspec import Struct, field

from holdfast.dialect.vocabulary import Vocabulary
from holdfast.domain.settings import Settings
from holdfast.drill.arena import Arena, Plan
from holdfast.host.clock import MonotonicClock
from holdfast.store import snapshot
from holdfast.store.births import Births
from holdfast.store.board import board_folder
from holdfast.store.ledger import ledger_folder
from holdfast.store.shelf import shelf_folder

KEY = "sk-of-the-bench"
COMMON = "qzxjvkwq-wordofaprompt-"
IDS_MIN = 6
GRACE_S = 3.0
AT_ONCE = 8
SETTLE_S = 2.5 * GRACE_S + 2
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


class Report(Struct, kw_only=True):
    """What was asked, what became of it, and where markers were found."""

    seed: int
    markers: int
    statuses: dict[str, int] = field(default_factory=dict)
    crashes: dict[str, int] = field(default_factory=dict)
    found_while_running: int = 0
    found_in_core: int = 0  # of a process that was allowed to leave one; -1: this machine makes none here
    files_searched: int = 0
    bytes_searched: int = 0
    hits: dict[str, int] = field(default_factory=dict)


def forms_of(markers: list[str], vocabulary: Vocabulary) -> list[bytes]:
    """What all markers begin with, as it could lie somewhere. Of its ids only those count that all markers share."""
    plain = COMMON.encode()
    rows = [vocabulary.encode(one)[1:] for one in markers]
    ids = [column[0] for column in takewhile(lambda column: len(set(column)) == 1, zip(*rows, strict=False))]
    assert len(ids) >= IDS_MIN, "the vocabulary has a piece for the markers: choose another beginning"
    encoded = [base64.b64encode(bytes(shift) + plain)[4:-4] for shift in range(3)]
    packed = b"".join(msgspec.msgpack.encode(one) for one in ids)
    words = (plain, plain.upper(), COMMON.encode("utf-16-le"), plain.hex().encode())
    return [*words, *encoded, packed, struct.pack(f"<{len(ids)}I", *ids)]


class Search:
    """Counts markers in bytes, in any of their forms."""

    def __init__(self, markers: list[str], vocabulary: Vocabulary) -> None:
        self._forms = forms_of(markers, vocabulary)

    def count(self, data: bytes) -> int:
        return sum(data.count(form) for form in self._forms)


def message(marker: str, **more: Any) -> bytes:
    body = {"model": "pearl", "max_tokens": 24, "messages": [{"role": "user", "content": f"Repeat: {marker}"}], **more}
    return json.dumps(body).encode()


def schema(words: str) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "s", "schema": {"const": words}}}


def begun(words: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": "x"}, {"role": "assistant", "content": words, "prefix": True}]


def tool(name: str, words: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "description": words, "parameters": {"type": "object"}}}


# each makes a body, or what is no body, of a marker
BODIES: dict[str, Callable[[str], bytes]] = {
    "plain": message,
    "greedy": lambda m: message(m, temperature=0),
    "stop": lambda m: message(m, stop=[m]),
    "tool": lambda m: message(m, tools=[tool("look", m)]),
    "tool name": lambda m: message(
        "x", tools=[tool(m, "y")], tool_choice={"type": "function", "function": {"name": m}}
    ),
    "json": lambda m: message(m, response_format={"type": "json_object"}),
    "schema": lambda m: message("x", response_format=schema(m)),
    "user": lambda m: message("x", user=m),
    "unknown field": lambda m: message("x", **{m: m}),
    "wrong type": lambda m: message("x", temperature=m),
    "wrong role": lambda m: json.dumps({"model": "pearl", "messages": [{"role": m, "content": m}]}).encode(),
    "wrong model": lambda m: json.dumps({"model": m, "messages": [{"role": "user", "content": m}]}).encode(),
    "no json": lambda m: b'{"messages": "' + m.encode(),
    "no text": lambda m: b"\xff\xfe" + m.encode(),
    "too long": lambda m: message(m * 1000),
    "too deep": lambda m: b'{"messages":' + b"[" * 3000 + b'"' + m.encode(),
    "prefix": lambda m: message("x", messages=begun(m)),
    "tool result": lambda m: message("x", messages=[{"role": "tool", "tool_call_id": m, "content": m}]),
}


# each makes what stands in a head, or around it, of a marker: method, path, headers
HEADS: dict[str, Callable[[str], tuple[str, str, dict[str, str]]]] = {
    "path": lambda m: ("GET", f"/{m}", {}),
    "query": lambda m: ("GET", f"/models?{m}={m}", {}),
    "model": lambda m: ("GET", f"/models/{m}", {}),
    "stream": lambda m: ("GET", f"/streams/{m}", {}),
    "mark": lambda m: ("GET", "/streams/x", {"last-event-id": m}),
    "method": lambda m: (m.upper().replace("-", ""), "/models", {}),
    "wrong key": lambda m: ("GET", "/models", {"authorization": f"Bearer {m}"}),
    "no body": lambda m: ("POST", "/chat/completions", {"x-holdfast-deadline-s": m}),
    "request id": lambda m: ("GET", "/models", {"x-request-id": m}),
    "agent": lambda m: ("GET", "/models", {"user-agent": m, "cookie": m, "referer": m}),
}


class Planter:
    """Sends requests with markers in them to one site."""

    def __init__(self, url: str, random: Random) -> None:
        self._url, self._random = url, random
        self.statuses: Counter[str] = Counter()
        self.client = httpx.AsyncClient(
            trust_env=False, timeout=60, headers={"authorization": f"Bearer {KEY}", "content-type": "application/json"}
        )

    async def plant(self, marker: str) -> None:
        """One request, in a way that chance chooses."""
        way, ask = self._random.choice(
            (
                ("body", self._body),
                ("body", self._body),
                ("stream", self._stream),
                ("hung up", self._hung_up),
                ("head", self._head),
            )
        )
        try:
            told = str(await ask(marker))
        except httpx.TransportError as error:
            told = type(error).__name__
        self.statuses[f"{way} {told}"] += 1

    async def _body(self, marker: str) -> int:
        body = self._random.choice(list(BODIES.values()))(marker)
        return (await self.client.post(f"{self._url}/chat/completions", content=body)).status_code

    async def _head(self, marker: str) -> int:
        method, path, headers = self._random.choice(list(HEADS.values()))(marker)
        return (await self.client.request(method, f"{self._url}{path}", headers=headers)).status_code

    async def _stream(self, marker: str, pieces: float = float("inf")) -> int:
        body = message(marker, stream=True, max_tokens=60, logprobs=True)
        head = {"x-holdfast-resume": "yes", "x-holdfast-session": marker, "idempotency-key": marker}
        async with self.client.stream("POST", f"{self._url}/chat/completions", content=body, headers=head) as answer:
            async for _ in answer.aiter_bytes():
                pieces -= 1
                if pieces < 0:
                    break
            return answer.status_code

    async def _hung_up(self, marker: str) -> int:
        return await self._stream(marker, self._random.randint(0, 3))


class Places:
    """Where a site may have left something."""

    def __init__(self, arena: Arena, root: Path) -> None:
        settings = snapshot.take(arena.folder.settings, Settings) or Settings()
        self.journal = shelf_folder(settings.journal.dir, arena.folder.root)
        state = arena.folder.root
        memory = (
            board_folder(state),
            ledger_folder(state),
            snapshot.spares_of(state),
            snapshot.spares_of(state / "run"),
        )
        self._folders = (state.parent, arena.folder.sockets, self.journal, *memory, root)

    def files(self) -> dict[str, bytes]:
        """All files there, whole."""
        found = {}
        for path in {path for folder in self._folders for path in folder.rglob("*")}:
            try:
                if path.is_file() and not path.is_symlink():
                    found[str(path)] = path.read_bytes()
            except OSError:
                continue  # gone meanwhile
        return found


def look(search: Search, data: dict[str, bytes], report: Report) -> None:
    """Search, and take down what was found."""
    report.files_searched += len(data)
    report.bytes_searched += sum(map(len, data.values()))
    for name, one in data.items():
        found = search.count(one)
        if found:
            report.hits[name] = found


async def crashes(arena: Arena, random: Random, report: Report, every_s: float) -> None:
    """Crash or kill somebody now and then, until cancelled. The last replica and the last worker are left alone."""
    clock = MonotonicClock()
    while True:
        await clock.sleep(every_s)
        births = [one for one in Births(arena.folder.births).read() if one.pid]
        role = random.choice(("replica", "gateway"))
        there = [one for one in births if one.name.startswith(role)]
        if len(there) < 2 or (role == "replica" and len(arena.roster().places) < 2):
            continue
        how = random.choice((signal.SIGABRT, signal.SIGSEGV, signal.SIGKILL))
        try:
            os.kill(random.choice(there).pid, how)
        except ProcessLookupError:
            continue
        name = f"{role} {how.name}"
        report.crashes[name] = report.crashes.get(name, 0) + 1


async def pages(arena: Arena, planter: Planter) -> dict[str, bytes]:
    """What the site tells of itself over HTTP; a process that was just killed may not be back yet."""
    found = {}
    api, control = f"http://127.0.0.1:{arena.port}", f"http://127.0.0.1:{arena.control_port}"
    for url in (
        f"{api}/metrics",
        *(f"{control}/{path}" for path in ("metrics", "v1/site", "v1/events?count=1000", "v1/load")),
    ):
        answer = await planter.client.get(url)
        assert answer.status_code == 200, (url, answer.status_code)
        found[url] = answer.content
    return found


async def one_site(
    arena: Arena, root: Path, markers: list[str], random: Random, report: Report
) -> tuple[Search, Places]:
    """Plant and search while the site is up."""
    planter, places, clock = Planter(f"http://127.0.0.1:{arena.port}/v1", random), Places(arena, root), MonotonicClock()
    settings = snapshot.take(arena.folder.settings, Settings) or Settings()
    search, waiting = Search(markers, Vocabulary(Path(settings.model.path))), list(reversed(markers))

    async def client() -> None:
        while waiting:
            await planter.plant(waiting.pop())

    report.found_in_core = await asyncio.to_thread(core_of_another, search, markers[0], root)
    crashing = asyncio.create_task(crashes(arena, random, report, 1.5))
    clients = [asyncio.create_task(client()) for _ in range(AT_ONCE)]
    while not all(one.done() for one in clients):
        await clock.sleep(0.5)
        files = await asyncio.to_thread(places.files)
        seen = sum(search.count(data) for name, data in files.items() if name.startswith(str(places.journal)))
        report.found_while_running = max(report.found_while_running, seen)
    crashing.cancel()
    await asyncio.gather(*clients)
    report.statuses = dict(sorted(planter.statuses.items()))
    await clock.sleep(SETTLE_S)
    look(search, {**await asyncio.to_thread(places.files), **await pages(arena, planter)}, report)
    await planter.client.aclose()
    return search, places


def core_of_another(search: Search, marker: str, root: Path) -> int:
    """What the search finds in the core file of a process that holds a marker and crashes; -1 when there is no core file."""
    program = f"import os; held = {marker[:20]!r} + {marker[20:]!r}; os.abort()"
    before, found = set(root.iterdir()), -1
    subprocess.run([sys.executable, "-c", program], cwd=root, check=False, stderr=subprocess.DEVNULL)
    for path in set(root.iterdir()) - before:
        if path.is_file():
            found = max(found, 0) + search.count(path.read_bytes())
            path.unlink()
    return found


async def run(args: argparse.Namespace, root: Path) -> Report:
    """One site, from its start to its end."""
    random = Random(args.seed)
    markers = [COMMON + "".join(random.choices(LETTERS, k=24)) for _ in range(args.markers)]
    report = Report(seed=args.seed, markers=len(markers))
    more: dict[str, dict[str, Any]] = {
        "replica": {"slots": 8},
        "gateway": {"workers": 2, "key": KEY, "access_log": True},
        "journal": {"grace_s": GRACE_S, "linger_s": 1.0},
        "probe": {"worker_silent_s": 2.0},
        "poison": {"keep_s": 1.0},
    }
    async with Arena(Plan(replicas=2, engine="embedded", more=more), MonotonicClock()) as arena:
        search, places = await one_site(arena, root, markers, random, report)
        supervisor, clock = arena.supervisor_pid, MonotonicClock()
        os.kill(supervisor, signal.SIGTERM)
        while arena.supervisor_pid:
            await clock.sleep(0.1)
        look(search, await asyncio.to_thread(places.files), report)
    return report


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markers", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))  # it is the site's own doing if there are no core files
    with tempfile.TemporaryDirectory(prefix="holdfast-markers-") as folder:
        os.chdir(folder)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                report = runner.run(run(args, Path(folder)))
        finally:
            os.chdir("/")
    print(msgspec.json.encode(report).decode())
    if not report.found_while_running or not report.found_in_core:
        print(
            "nothing was found in the journal while answers ran, or in a core file: the search is blind",
            file=sys.stderr,
        )
        return 1
    return 1 if report.hits else 0


if __name__ == "__main__":
    sys.exit(main())
