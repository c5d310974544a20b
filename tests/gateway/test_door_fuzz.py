"""Whatever bytes come, in whatever pieces: answers or a closed connection, never a mistake of ours, never unbounded memory."""

import asyncio
from itertools import pairwise
from random import Random
from typing import Any

import msgspec
from doorway import CARD, PEARL, HandClock, Says, chat_body, request
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import Mutants
from prometheus_client import CollectorRegistry

from holdfast.gateway.completion_wire import CompletionBody
from holdfast.gateway.http import Door
from holdfast.gateway.needs import Limits, Needs
from holdfast.gateway.openai_wire import Ask
from holdfast.gateway.tokens import DetokenizeBody, TokenizeBody
from holdfast.policy.continuation import promise

GOOD = request(chat_body("Hi"))
PARTS = st.sampled_from(
    [
        GOOD,
        request(chat_body(stream=True, stop="x", n=2)),
        request({"model": "pearl", "prompt": ["a", "b"]}, "/v1/completions"),
        request({"tokens": [5, 6]}, "/v1/detokenize"),
        request(None, "/health/live"),
        b"\r\n",
        b"GET / HTTP/1.1\r\n",
        b"transfer-encoding: chunked\r\n",
        b"content-length: 5\r\n",
        b"upgrade: h2c\r\nconnection: upgrade\r\n",
        b"expect: 100-continue\r\n",
        b"5\r\nhello\r\n",
        b"0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n",
    ]
)


class Wire:
    """A transport that keeps what was written."""

    def __init__(self) -> None:
        self.sent = b""
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def get_extra_info(self, name: str) -> object:
        return None

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.closed = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int) -> None:
        self.high = high


@st.composite
def torn(draw: st.DrawFn) -> list[bytes]:
    """Requests and pieces of them, a few bytes changed, cut anywhere."""
    data = bytearray(b"".join(draw(st.lists(PARTS | st.binary(max_size=12), max_size=6))))
    for at, byte in draw(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=4)):
        if at < len(data):
            data[at] = byte
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=5)))
    return [bytes(data[a:b]) for a, b in pairwise([0, *cuts, len(data)])]


async def _feed(pieces: list[bytes]) -> tuple[Wire, Door, list[dict[str, Any]]]:
    needs = Needs(
        service=Says("ok"),
        dialect=PEARL,
        card=lambda: CARD,
        contract=promise,
        ready=lambda: (True, ""),
        clock=HandClock(),
        unix_s=lambda: 0.0,
        bits=Random(1).getrandbits,
        emit=lambda event: None,
        limits=Limits(head_bytes_max=2000, body_bytes_max=2000, pipelined_max=4),
        registry=CollectorRegistry(),
    )
    door, wire, failed = Door(needs), Wire(), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: failed.append(context))
    connection = door.accept()
    connection.connection_made(wire)
    for piece in pieces:
        connection.data_received(piece)
        await asyncio.sleep(0)
    for _ in range(60):
        await asyncio.sleep(0)
    connection.connection_lost(None)
    await asyncio.sleep(0)
    return wire, door, failed


@settings(max_examples=200, deadline=None)
@given(torn())
def test_nothing_that_comes_makes_us_fail(pieces: list[bytes]) -> None:
    wire, door, failed = asyncio.run(_feed(pieces))
    assert failed == [] and door.tally.mistakes == 0
    assert door.connections == door.tally.in_flight == 0
    assert wire.sent == b"" or wire.sent.startswith(b"HTTP/1.1 ")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 3 * len(GOOD)), max_size=8))
def test_three_requests_cut_anywhere_get_three_answers(cuts: list[int]) -> None:
    data = GOOD * 3
    edges = [0, *sorted(cuts), len(data)]
    wire, door, _ = asyncio.run(_feed([data[a:b] for a, b in pairwise(edges)]))
    assert wire.sent.count(b"HTTP/1.1 200 OK") == 3 and door.tally.by_status == {200: 3}


ODD: list[Any] = [
    *(
        None,
        True,
        False,
        -1,
        0,
        1,
        7,
        2**31,
        2**63,
        2**70,
        0.5,
        -1e300,
        "",
        "x",
        "é\0\u2028",
        "x" * 900,
        [],
        [None],
        ["x"],
    ),
    *(
        [[]],
        {},
        {"type": "text"},
        {"type": "x"},
        {"type": None},
        {"x": {"x": []}},
        [{"type": "text", "text": "a"}],
        {"0": 0.5},
    ),
    *(
        [{"function": {"name": "f"}}],
        [{"function": {"name": "", "parameters": {"": []}}}],
        [{"function": {"name": "f", "arguments": {}}}],
        [
            {
                "function": {
                    "name": "f",
                    "strict": True,
                    "parameters": {"type": "object", "properties": {"a": {"not": 1}}},
                }
            }
        ],
    ),
    *(
        "required",
        "live",
        "json_object",
        "disabled",
        "max",
        {"type": "json_object"},
        {"type": "json_schema", "json_schema": {"schema": {"type": "object", "required": ["a"]}}},
        {"type": "json_schema", "json_schema": {"schema": {"$ref": "#/$defs/x"}}},
        {"type": "function", "function": {"name": "f"}},
        {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"function": {"name": "f"}}]}},
        [5, 6],
        [[5], [6, 7]],
        ["a", "b"],
        [5, "a", [5]],
        [-1],
    ),
]
TURN = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "function", "developer", "x"])},
    optional={name: st.sampled_from(ODD) for name in ("content", "tool_calls", "prefix", "tool_call_id")},
)
NAMES = [field.name for field in msgspec.structs.fields(Ask)]
CHANGES = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(ODD)), max_size=3).map(dict)
BODY = st.builds(
    lambda changes, turns: chat_body() | ({"messages": turns} if turns else {}) | changes,
    CHANGES,
    st.lists(TURN, max_size=3),
)


def changed(kind: Any, **good: Any) -> Any:
    """Bodies of this struct's fields, some of them odd."""
    names = [field.name for field in msgspec.structs.fields(kind)]
    changes = st.lists(st.tuples(st.sampled_from(names), st.sampled_from(ODD)), max_size=4).map(dict)
    return changes.map(lambda some: good | some)


OTHERS = st.one_of(
    st.tuples(st.just("/v1/completions"), changed(CompletionBody, model="pearl", prompt="Hi")),
    st.tuples(st.just("/v1/tokenize"), changed(TokenizeBody, prompt="Hi")),
    st.tuples(st.just("/v1/tokenize"), changed(TokenizeBody, messages=[{"role": "user", "content": "Hi"}])),
    st.tuples(st.just("/v1/detokenize"), changed(DetokenizeBody, tokens=[5])),
)


@settings(max_examples=400, deadline=None)
@given(BODY.map(lambda body: ("/v1/chat/completions", body)) | OTHERS)
def test_no_json_makes_us_fail(asked: tuple[str, dict[str, Any]]) -> None:
    path, body = asked
    wire, door, failed = asyncio.run(_feed([request(body, path)]))
    assert failed == [] and door.tally.mistakes == 0
    status = int(wire.sent.split()[1])
    assert status in (200, 400, 404, 413)
    if status != 200:
        assert msgspec.json.decode(wire.sent.partition(b"\r\n\r\n")[2])["error"]["message"]


def test_requests_that_went_wrong_make_nobody_fail() -> None:
    """A short look at what bench/fuzz.py does a million times, through the whole door."""
    mutants = Mutants(20)
    for _ in range(300):
        data = mutants.request()
        wire, door, failed = asyncio.run(_feed(mutants.pieces(data)))
        assert failed == [] and door.tally.mistakes == 0, data
        assert wire.sent == b"" or wire.sent.startswith(b"HTTP/1.1 "), data
        assert not {500, 503} & door.tally.by_status.keys(), data
