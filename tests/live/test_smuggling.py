"""Nobody can hide a request from us that nginx would see, nor from nginx one that we would see: nginx itself is the judge."""

import asyncio
import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import uvloop
from nginx_process import FOUND, Nginx, Origin
from smuggling_cases import CASES, PLAIN

from holdfast.gateway.connection import Connection, Exchange, Hall
from holdfast.gateway.incoming import Tick
from holdfast.gateway.metrics import Tally
from holdfast.gateway.needs import Limits
from holdfast.host.clock import MonotonicClock

PATIENCE_S = 1  # of both, with what does not come to its end
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
STATUS = re.compile(rb"HTTP/1\.1 ([0-9]{3})")
Seen = list[tuple[bytes, bytes, bytes]]


class Reading(NamedTuple):
    """How one server took one case: the requests that it saw, and the statuses that it answered."""

    seen: Seen
    statuses: list[int]

    @property
    def refused(self) -> bool:
        return any(status >= 400 for status in self.statuses)


class Watched(Connection):
    """A connection of ours whose requests are taken down."""

    def __init__(self, limits: Limits, tick: Tick, by_port: dict[int, Seen]) -> None:
        super().__init__(Hall(limits=limits, tally=Tally(), handle=self._handle, tick=tick))
        self._seen: Seen = []
        self._by_port = by_port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._by_port[transport.get_extra_info("peername")[1]] = self._seen
        super().connection_made(transport)

    def _handle(self, exchange: Exchange) -> None:
        request = exchange.request
        self._seen.append((request.method, request.path, request.body))
        exchange.send(200, b"", b"ok")


class OurDoor:
    """Our connections on a real socket; the deadlines are kept as the door keeps them."""

    def __init__(self) -> None:
        self.seen: dict[int, Seen] = {}
        self._limits = Limits(head_s=PATIENCE_S, body_s=PATIENCE_S)
        self._clock = MonotonicClock()
        self._tick = Tick(self._clock.now())
        self._connections: list[Watched] = []

    def _accept(self) -> Watched:
        self._connections.append(Watched(self._limits, self._tick, self.seen))
        return self._connections[-1]

    async def start(self) -> int:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._accept, "127.0.0.1", 0)
        self._turning = loop.create_task(self._turn())
        port: int = server.sockets[0].getsockname()[1]
        return port

    async def _turn(self) -> None:
        while True:
            await self._clock.sleep(0.1)
            self._tick.now_s = self._clock.now()
            for connection in self._connections:
                connection.sweep()


async def show(port: int, data: bytes) -> tuple[int, list[int]]:
    """Send it all, and read until the server closes. Returns our own port, and the statuses that came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    mine: int = writer.get_extra_info("sockname")[1]
    with contextlib.suppress(ConnectionError):
        writer.write(data)
        await writer.drain()
    got = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65536):
            got += piece
    writer.close()
    return mine, [int(word) for word in STATUS.findall(got) if word != b"100"]


async def compare(folder: Path, cases: dict[str, bytes]) -> dict[str, tuple[Reading, Reading]]:
    """(ours, nginx's) reading of each case."""
    origin, ours = Origin(), OurDoor()
    await origin.start()
    port = await ours.start()
    nginx = await asyncio.to_thread(Nginx, folder, origin.port, PATIENCE_S)
    try:
        shown = [show(at, data + LAST) for data in cases.values() for at in (port, nginx.port)]
        told = await asyncio.gather(*shown)
    finally:
        nginx.close()
        origin.close()
    found = {}
    for name, (mine, my_statuses), (theirs, their_statuses) in zip(cases, told[::2], told[1::2], strict=True):
        found[name] = (
            Reading(ours.seen.get(mine, []), my_statuses),
            Reading(origin.seen.get(theirs, []), their_statuses),
        )
    return found


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, tuple[Reading, Reading]]]:
    if FOUND is None:
        pytest.skip("nginx is not installed: nobody can judge (apt install nginx-light)")
    folder = tmp_path_factory.mktemp("nginx")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner.run(asyncio.wait_for(compare(folder, CASES), 60))


@pytest.mark.parametrize("case", CASES)
def test_we_take_nothing_that_nginx_refuses_and_split_nothing_otherwise(
    case: str, readings: dict[str, tuple[Reading, Reading]]
) -> None:
    ours, judge = readings[case]
    assert ours.seen == judge.seen[: len(ours.seen)], f"{ours} is not how nginx reads it: {judge}"
    if judge.refused or len(ours.seen) < len(judge.seen):
        assert ours.refused, f"nginx said {judge}, and we neither refused nor saw the same: {ours}"


def test_what_is_plain_is_read_alike_to_its_end(readings: dict[str, tuple[Reading, Reading]]) -> None:
    for case in PLAIN:
        ours, judge = readings[case]
        if case != "six empty lines before":
            assert ours == judge and not ours.refused, case


def test_the_corpus_is_large_enough() -> None:
    assert len(CASES) >= 60
