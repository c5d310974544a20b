"""A real door on a real socket, with a service that does what the test says and a clock that the test turns."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import msgspec
import uvloop
from prometheus_client import CollectorRegistry

from holdfast.dialect.open import open_dialect
from holdfast.dialect.vocabulary import Vocabulary
from holdfast.domain.event import Event
from holdfast.domain.release import Exactness, Release
from holdfast.domain.request import Chunk, Finish, Generation
from holdfast.gateway.http import Door
from holdfast.gateway.needs import Limits, ModelCard, Needs
from holdfast.policy.continuation import promise

T = TypeVar("T")
FOLDER = Path(__file__).parents[2] / "src/holdfast/shipped/pearl"
PEARL = open_dialect(FOLDER)
VOCABULARY = Vocabulary(FOLDER)
RELEASE = Release(model="pearl", engine="embedded", digest="ab" * 32, exactness=Exactness.EXACT)
CARD = ModelCard(name="pearl", digest="ab" * 32, kinds=(RELEASE,), context_tokens_max=1000, created_unix_s=7)
LIMITS = Limits()
NOW_UNIX_S = 1_700_000_000.0


class HandClock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self._now = 0.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._now + seconds, woken))
        await woken

    async def pass_s(self, seconds: float) -> None:
        """Let time pass, a quarter of a second at a time, waking all who are due."""
        for _ in range(round(seconds * 4)):
            self._now += 0.25
            due = [woken for at, woken in self._sleepers if at <= self._now + 1e-9]
            self._sleepers = [(at, woken) for at, woken in self._sleepers if at > self._now + 1e-9]
            for woken in due:
                if not woken.done():
                    woken.set_result(None)
            for _ in range(3):
                await asyncio.sleep(0)


def ids_of(text: str) -> list[int]:
    """Pearl's ids of a text, markers included where they are written."""
    vocabulary = VOCABULARY
    ids: list[int] = []
    rest = text
    while rest:
        at, marker = min(
            ((rest.find(marker), marker) for marker in vocabulary.markers if marker in rest), default=(len(rest), "")
        )
        ids += vocabulary.encode(rest[:at])
        if marker:
            ids.append(vocabulary.markers[marker])
        rest = rest[at + len(marker) :]
    return ids


@dataclass
class Says:
    """A service that says a text, one token a chunk. `hold` stops it after the first token until `go` is set."""

    text: str = "Hello there."
    finish: Finish = Finish.STOP
    before: Sequence[Chunk] = ()
    fault: BaseException | None = None
    fault_after: int = 0
    hold: bool = False
    asked: list[Generation] = field(default_factory=list)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    said: int = 0

    async def __call__(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        self.asked.append(generation)
        try:
            for chunk in self.before:
                yield chunk
            ids = ids_of(self.text)
            for i, token in enumerate(ids):
                if self.fault is not None and i == self.fault_after:
                    raise self.fault
                self.said += 1
                yield Chunk([token], cached_tokens=3 if i == 0 else 0)
                self.begun.set()
                if self.hold:
                    await self.go.wait()
            if self.fault is not None:
                raise self.fault
            yield Chunk([], finish=self.finish)
        finally:
            self.closed.set()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json["error"]
        return found

    def events(self) -> list[Any]:
        """The data of each event, [DONE] as a string; comments as ('comment', text)."""
        found: list[Any] = []
        for line in self.body.decode().split("\n"):
            if line.startswith("data: "):
                data = line[6:]
                found.append(data if data == "[DONE]" else msgspec.json.decode(data))
            elif line.startswith(":"):
                found.append(("comment", line[1:].strip()))
        return found


class Client:
    """One connection, raw."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def answer(self) -> Answer:
        """The next whole answer."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split()[1])
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        if headers.get("transfer-encoding") == "chunked":
            parts = []
            while size := int((await self.reader.readuntil(b"\n")), 16):
                parts.append(await self.reader.readexactly(size))
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
            return Answer(status, headers, b"".join(parts))
        if "content-length" in headers:
            return Answer(status, headers, await self.reader.readexactly(int(headers["content-length"])))
        return Answer(status, headers, b"" if status < 200 else await self.reader.read())

    async def ask(
        self, body: Any = None, path: str = "/v1/chat/completions", method: str = "", **headers: str
    ) -> Answer:
        self.write(request(body, path, method, **headers))
        return await self.answer()

    async def chat(self, text: str = "Hi", **fields: Any) -> Answer:
        return await self.ask(chat_body(text, **fields))

    async def ended(self) -> bool:
        """Whether the door has closed the connection."""
        return await self.reader.read() == b""


def chat_body(text: str = "Hi", **fields: Any) -> dict[str, Any]:
    return {"model": "pearl", "messages": [{"role": "user", "content": text}], **fields}


def request(body: Any = None, path: str = "/v1/chat/completions", method: str = "", **headers: str) -> bytes:
    raw = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
    method = method or ("GET" if body is None else "POST")
    lines = [f"{method} {path} HTTP/1.1", "host: test"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if raw or method == "POST":
        lines.append(f"content-length: {len(raw)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + raw


def run(
    story: Coroutine[Any, Any, T], loop_factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
) -> T:
    """Run a story on the loop that serves in earnest."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(asyncio.wait_for(story, 20))


@dataclass
class Place:
    door: Door
    clock: HandClock
    port: int
    events: list[Event]
    registry: CollectorRegistry

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()

    async def chat(self, text: str = "Hi", **fields: Any) -> Answer:
        async with self.client() as client:
            return await client.chat(text, **fields)

    async def get(self, path: str, method: str = "GET") -> Answer:
        async with self.client() as client:
            return await client.ask(None, path, method)

    async def nobody(self) -> None:
        """Wait until no client is connected."""
        for _ in range(100_000):
            if not self.door.connections:
                return
            await asyncio.sleep(0)
        raise AssertionError(f"{self.door.connections} clients are still connected")


@asynccontextmanager
async def doorway(
    service: Callable[[Generation], AsyncGenerator[Chunk, None]], limits: Limits = LIMITS, **needs: Any
) -> AsyncIterator[Place]:
    """A door with everything around it; closed at the end, whatever happened."""
    clock, events, registry = needs.get("clock") or HandClock(), list[Event](), CollectorRegistry()
    wanted: dict[str, Any] = {
        "service": service,
        "dialect": PEARL,
        "card": lambda: CARD,
        "contract": promise,
        "ready": lambda: (True, "2 replicas serve"),
        "clock": clock,
        "unix_s": lambda: NOW_UNIX_S,
        "bits": Random(1).getrandbits,
        "emit": events.append,
        "limits": limits,
        "registry": registry,
    }
    door = Door(Needs(**(wanted | needs)))
    _, port = await door.serve(("127.0.0.1", 0))
    try:
        yield Place(door, clock, port, events, registry)
    finally:
        await door.drain(0)
