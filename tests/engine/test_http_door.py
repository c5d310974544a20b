"""The door to engines, against servers on real sockets that answer well, badly, slowly and not at all."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused, Fault
from holdfast.engine.exchange import HEAD_BYTES_MAX, HELD_BYTES_MAX
from holdfast.engine.http import IDLE_CONNECTIONS_MAX, HttpDoor, fault_of
from holdfast.engine.sse import EVENT_BYTES_MAX
from holdfast.host.clock import MonotonicClock

CLOCK = MonotonicClock()
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Story = Callable[[HttpDoor], Awaitable[None]]


def chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece)


def whole(status: bytes, body: bytes, *headers: bytes) -> bytes:
    lines = (b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *headers)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def request_of(reader: asyncio.StreamReader) -> bytes:
    """One request, head and body; raises IncompleteReadError at the connection's end."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
    return head + await reader.readexactly(int(length or b"0"))


def saying(*data: bytes) -> Serve:
    """Read one request, write the pieces, close."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        for piece in data:
            writer.write(piece)
            await writer.drain()
        writer.close()

    return serve


def played(serve: Serve, story: Story, key: str = "") -> None:
    async def run() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            door = HttpDoor(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", CLOCK, key)
            try:
                await story(door)
            finally:
                await door.close()

    asyncio.run(run())


async def events_of(door: HttpDoor) -> list[bytes]:
    async with aclosing(door.events("/x", b"{}")) as events:
        return [event async for event in events]


def lost(serve: Serve, kind: type[Fault] = EngineLost) -> str:
    """The sentence with which a stream fails."""
    told: list[str] = []

    async def story(door: HttpDoor) -> None:
        with pytest.raises(kind) as caught:
            await events_of(door)
        told.append(caught.value.why)

    played(serve, story)
    return told[0]


def test_events_come_as_they_were_written() -> None:
    async def story(door: HttpDoor) -> None:
        assert await events_of(door) == [b'{"a":1}', b"two\nlines", b"[DONE]"]

    stream = b': comment\n\ndata: {"a":1}\n\nid: 7\nevent: x\r\ndata:two\r\ndata: lines\r\n\r\ndata: [DONE]\n\n'
    played(saying(STREAM, chunk(stream), END), story)
    played(saying(STREAM, *(chunk(stream[at : at + 1]) for at in range(len(stream))), END), story)


def test_the_request_carries_key_path_and_body() -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await request_of(reader))
        writer.write(whole(b"200 OK", b"well"))

    async def story(door: HttpDoor) -> None:
        answer = await door.ask("POST", "/v1/x", b'{"a":1}', 5.0)
        assert (answer.status, answer.body, answer.headers["content-length"]) == (200, b"well", "4")

    played(serve, story, key="k-1")
    assert seen[0].startswith(b"POST /v1/x HTTP/1.1\r\nhost: 127.0.0.1:")
    assert b"\r\nauthorization: Bearer k-1\r\n" in seen[0]
    assert seen[0].endswith(b'\r\n\r\n{"a":1}')


def test_a_unix_socket_is_a_door_too(tmp_path: Path) -> None:
    async def run() -> None:
        path = str(tmp_path / "e.sock")
        async with await asyncio.start_unix_server(saying(whole(b"200 OK", b"here")), path):
            door = HttpDoor(f"unix:{path}", CLOCK)
            assert (await door.ask("GET", "/health", None, 5.0)).body == b"here"
            await door.close()

    asyncio.run(run())


def test_connections_are_kept_and_bounded() -> None:
    connections: list[int] = []
    many = IDLE_CONNECTIONS_MAX + 8
    gathered = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        if len(connections) == many:
            gathered.set()
        try:
            while True:
                await request_of(reader)
                await gathered.wait()
                writer.write(whole(b"200 OK", b""))
        except asyncio.IncompleteReadError:
            writer.close()

    async def story(door: HttpDoor) -> None:
        await asyncio.gather(*(door.ask("GET", "/", None, 5.0) for _ in range(many)))
        await asyncio.gather(*(door.ask("GET", "/", None, 5.0) for _ in range(many)))
        assert len(connections) == many + 8  # the eight that were not kept were dialled anew
        await door.ask("GET", "/", None, 5.0)
        assert len(connections) == many + 8

    played(serve, story)


def test_a_kept_connection_that_turns_out_closed_is_asked_once_anew() -> None:
    requests: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        requests.append(len(requests))
        writer.write(whole(b"200 OK", b"%d" % len(requests)))
        await reader.read(1)  # the next request comes, and goes unanswered
        writer.transport.abort()

    async def story(door: HttpDoor) -> None:
        assert (await door.ask("GET", "/", None, 5.0)).body == b"1"
        assert (await door.ask("GET", "/", None, 5.0)).body == b"2"
        assert len(requests) == 2

    played(serve, story)


def test_a_fresh_connection_that_ends_unanswered_is_a_loss() -> None:
    assert lost(saying()).endswith("cut the connection, before it answered POST /x")


def test_nobody_there_is_a_refusal() -> None:
    async def run() -> None:
        server = await asyncio.start_server(saying(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        with pytest.raises(EngineRefused, match="nobody answers at http"):
            await HttpDoor(f"http://127.0.0.1:{port}", CLOCK).ask("GET", "/", None, 5.0)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ((b"\x00\x01garbage\xff\r\n\r\n",), "sent garbage, which is not HTTP"),
        ((STREAM, chunk(b"data: 1\n\n"), b"zz\r\n"), "sent garbage, which is not HTTP"),
        ((STREAM, chunk(b"data: 1\n\n"), b"40\r\ndata: 2"), "cut the connection"),
        ((STREAM, chunk(b"data: 1\n\n")), "cut the connection"),
        ((STREAM, chunk(b"data: 1\n\ndata: 2"), END), "in the middle of an event"),
        ((STREAM, chunk(b"data: 1\n\n\x00\xfe\xffrubbish\n")), "not an event stream: '\\x00\\\\xfe\\\\xffrubbish'"),
        ((STREAM, chunk(b'{"error": "loading"}\n')), """not an event stream: '{"error": "loading"}'"""),
        ((b"HTTP/1.1 200 OK\r\nx: " + b"a" * (HEAD_BYTES_MAX + 1),), f"headers of more than {HEAD_BYTES_MAX} bytes"),
        (
            (STREAM, *(chunk(b"data: " + b"x" * 65530) for _ in range(EVENT_BYTES_MAX // 65536 + 1))),
            f"an event of more than {EVENT_BYTES_MAX} bytes",
        ),
        ((whole(b"500 Oh", b'{"error":{"message":"dead","code":500}}'),), "answered 500: dead"),
    ],
)
def test_a_stream_that_goes_wrong_is_lost_with_a_sentence(data: tuple[bytes, ...], told: str) -> None:
    assert told in lost(saying(*data))


@pytest.mark.parametrize(
    ("status", "body", "kind", "told"),
    [
        (400, b'{"error":{"message":"too long","param":"prompt"}}', BadRequest, "e answered 400: too long"),
        (422, b'{"error":"no such field"}', BadRequest, "e answered 422: no such field"),
        (503, b'{"message":"queue full"}', EngineRefused, "e answered 503: queue full"),
        (429, b"", EngineRefused, "e answered 429"),
        (404, b"<html>", EngineRefused, "e answered 404: <html>"),
        (302, b"[1]", EngineLost, "e answered 302: [1]"),
    ],
)
def test_a_status_says_whose_fault_it_is(status: int, body: bytes, kind: type[Fault], told: str) -> None:
    fault = fault_of("e", status, body)
    assert (type(fault), fault.why) == (kind, told)
    if status == 400 and isinstance(fault, BadRequest):
        assert fault.param == "prompt"


def test_a_body_without_a_length_ends_with_its_connection() -> None:
    async def story(door: HttpDoor) -> None:
        assert await events_of(door) == [b"1"]

    played(saying(b"HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n"), story)


def test_a_second_answer_to_one_request_is_not_taken_for_the_first() -> None:
    async def story(door: HttpDoor) -> None:
        assert (await door.ask("GET", "/", None, 5.0)).body == b"one"
        assert (await door.ask("GET", "/", None, 5.0)).body == b"one"

    played(saying(whole(b"200 OK", b"one") + whole(b"200 OK", b"two")), story)


def test_hanging_up_reaches_the_engine() -> None:
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(STREAM + chunk(b"data: 1\n\n"))
        assert await reader.read(1) == b""
        over.set()

    async def story(door: HttpDoor) -> None:
        async with aclosing(door.events("/x", b"{}")) as events:
            assert await anext(events) == b"1"
        await asyncio.wait_for(over.wait(), 10)

    played(serve, story)


@pytest.mark.parametrize("answered", [b"", b"HTTP/1.1 200 OK\r\nx: y\r\n", STREAM, STREAM + chunk(b"data: 1")])
def test_whoever_gives_up_leaves_no_connection_behind(answered: bytes) -> None:
    """Before the head, in the midst of it, and before the first event."""
    over, reached = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(answered)
        await writer.drain()
        reached.set()
        assert await reader.read(1) == b""
        over.set()

    async def story(door: HttpDoor) -> None:
        reading = asyncio.ensure_future(events_of(door))
        await reached.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.wait_for(over.wait(), 10)
        assert not door._open

    played(serve, story)


def test_closing_the_door_ends_what_is_under_way() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(STREAM + chunk(b"data: 1\n\n"))
        await reader.read(1)

    async def story(door: HttpDoor) -> None:
        async with aclosing(door.events("/x", b"{}")) as events:
            assert await anext(events) == b"1"
            await door.close()
            with pytest.raises(EngineLost, match="was closed"):
                await anext(events)
        with pytest.raises(EngineRefused, match="was closed"):
            await door.ask("GET", "/", None, 5.0)

    played(serve, story)


def test_a_slow_first_byte_is_waited_for_and_a_question_has_its_time() -> None:
    go = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        await go.wait()
        writer.write(STREAM + chunk(b"data: 1\n\n") + END)

    async def story(door: HttpDoor) -> None:
        with pytest.raises(EngineLost, match=r"did not answer GET /health in 0.05 s"):
            await door.ask("GET", "/health", None, 0.05)
        waiting = asyncio.ensure_future(events_of(door))
        with pytest.raises(EngineLost):
            await door.ask("GET", "/health", None, 0.05)
        assert not waiting.done()
        go.set()
        assert await waiting == [b"1"]

    played(serve, story)


def test_a_slow_reader_holds_the_engine_back() -> None:
    event = chunk(b"data: " + b"x" * 1016 + b"\n\n")
    many = 32 * 1024  # 32 MiB: more than both sockets hold
    written: list[int] = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(STREAM)
        for _ in range(many):
            writer.write(event)
            await writer.drain()
            written[0] += 1
        writer.write(END)

    async def story(door: HttpDoor) -> None:
        async with aclosing(door.events("/x", b"{}")) as events:
            await anext(events)
            before = -1
            while written[0] != before:  # until it writes no more
                before = written[0]
                for _ in range(200):
                    await asyncio.sleep(0)
            assert before < many // 2
            (exchange,) = door._open
            assert exchange._held <= 2 * HELD_BYTES_MAX
            assert 1 + len([event async for event in events]) == many

    played(serve, story)


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://a", "http://", "http://u:p@h", "unix:", "http://a:99999"])
def test_an_address_that_is_none_is_said_to_be(url: str) -> None:
    with pytest.raises(ValueError):
        HttpDoor(url, CLOCK)


def test_a_key_cannot_write_headers() -> None:
    with pytest.raises(ValueError, match="key"):
        HttpDoor("http://a", CLOCK, "k\r\nx: y")
