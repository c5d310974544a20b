"""The drill's client against a scripted server on a real socket: what it saw, and under which word it is counted."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from holdfast.drill.client import Client
from holdfast.drill.crowd import Crowd
from holdfast.drill.questions import mixed, question, turn
from holdfast.host.clock import MonotonicClock
from holdfast.policy.reckoning import Answer

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"completion_tokens":2,"holdfast":{"moves":1}}}\n\n'
DONE = b"data: [DONE]\n\n"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def said(text: str, **more: object) -> bytes:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None, **more}
    return b"data: " + msgspec.json.encode({"choices": [choice]}) + b"\n\n"


def chunked(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


async def answer_of(serve: Serve, patience_s: float = 30.0) -> Answer:
    """What the client makes of a server that serves so."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        client = Client("127.0.0.1", port, MonotonicClock(), patience_s)
        return await client.ask(question(3, "pearl", "hi"))


def script(*data: bytes) -> Serve:
    """Read the request, write the data one piece a time, close."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await reader.readexactly(length)
        for piece in data:
            writer.write(piece)
            await writer.drain()
        writer.close()

    return serve


def test_a_whole_answer_is_read() -> None:
    tokens = {"logprobs": {"content": [{"token": "seven", "logprob": -0.1, "bytes": [1]}]}}
    stream = chunked(
        said("se", **tokens), b": keep-alive\n\n", said("ven"), END, USAGE, b": holdfast moves=1\n\n", DONE
    )
    seen = asyncio.run(answer_of(script(HEAD, stream, b"0\r\n\r\n")))
    assert (seen.case, seen.end, seen.why) == (3, "ended", "")
    assert (seen.content, seen.tokens, seen.finish) == ("seven", ["seven"], "stop")
    assert (seen.completion_tokens, seen.moves, len(seen.arrivals)) == (2, 1, 2)
    assert seen.opened_at <= seen.arrivals[0] <= seen.arrivals[1]


def test_events_cut_at_any_byte_read_the_same() -> None:
    stream = HEAD + chunked(said("sie"), said("ben €"), END, USAGE, DONE) + b"0\r\n\r\n"
    whole = asyncio.run(answer_of(script(stream)))
    bytewise = asyncio.run(answer_of(script(*(stream[n : n + 1] for n in range(len(stream))))))
    assert whole.same_as(bytewise)
    assert (whole.content, whole.end, bytewise.end) == ("sieben €", "ended", "ended")


@pytest.mark.parametrize(
    ("data", "end", "why"),
    [
        ([HEAD, chunked(said("se"))], "truncated", "the connection closed before the end mark"),
        ([HEAD, chunked(said("se"), DONE)], "truncated", "an end mark without a finish"),
        ([HEAD, chunked(b'data: {"error":{"message":"lost it"}}\n\n')], "errored", "lost it"),
        ([HEAD, chunked(b"data: {\n\n")], "errored", "not an event"),
        ([b"SSH-2.0-x\r\n\r\n"], "errored", "not HTTP"),
        ([b"HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nfull"], "refused", "503: full"),
    ],
)
def test_a_bad_end_has_its_word(data: list[bytes], end: str, why: str) -> None:
    seen = asyncio.run(answer_of(script(*data)))
    assert seen.end == end
    assert why in seen.why


def test_a_server_that_says_nothing_counts_as_hung() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    assert asyncio.run(answer_of(serve, patience_s=0.02)).end == "hung"


def test_nobody_at_home_counts_as_refused() -> None:
    async def ask() -> Answer:
        server = await asyncio.start_server(script(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        return await Client("127.0.0.1", port, MonotonicClock(), 30.0).ask(question(0, "pearl", "hi"))

    assert asyncio.run(ask()).end == "refused"


def test_a_crowd_asks_in_turn_and_keeps_every_answer() -> None:
    asked = mixed("pearl")
    serve = script(HEAD, chunked(said("x"), END, DONE) + b"0\r\n\r\n")

    async def crowd() -> Crowd:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            clock = MonotonicClock()
            told = Crowd(Client("127.0.0.1", port, clock, 30.0), clock, lambda stream, n: turn(asked, stream, n))
            await told.run(4, until=clock.now() + 0.05)
        return told

    told = asyncio.run(crowd())
    assert len(told.answers) >= 4
    assert {answer.end for answer in told.answers} == {"ended"}
    assert told.open == {}
    assert told.tokens == len(told.answers)


def test_the_questions_are_all_asked_sooner_or_later() -> None:
    asked = mixed("pearl")
    assert [one.case for one in asked] == list(range(len(asked)))
    assert {turn(asked, stream, n).case for stream in range(20) for n in range(8)} == set(range(len(asked)))
