"""The reading half alone: what it takes, llhttp takes too and reads the same; and nothing makes it slow."""

import time
from itertools import pairwise
from random import Random

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.gateway.incoming import Hearing, Incoming, Request, Tick
from holdfast.gateway.needs import Limits
from holdfast.gateway.refusals import Refusal
from holdfast.gateway.request_head import BadHead, read_head

PIECES = st.sampled_from(
    [
        *(
            b"POST /a HTTP/1.1\r\n",
            b"GET /b HTTP/1.1\r\n",
            b"GET /c HTTP/1.0\r\n",
            b"host: a\r\n",
            b"\r\n",
            b"\n",
            b"\r",
        ),
        *(
            b"content-length: 5\r\n",
            b"content-length:5 \r\n",
            b"transfer-encoding: chunked\r\n",
            b"hello",
            b"5\r\nhello\r\n",
        ),
        *(
            b"0\r\n\r\n",
            b"0\r\nx: y\r\n\r\n",
            b"connection: close\r\n",
            b"connection: keep-alive\r\n",
            b"x: y\r\n",
            b" ",
            b"\t",
        ),
        *(
            b"5;x=y\r\nhello\r\n",
            b":",
            b"GET http://a/d HTTP/1.1\r\n",
            b"expect: 100-continue\r\n",
            b"upgrade: h2c\r\n",
        ),
    ]
)
WHOLE = st.sampled_from(
    [
        b"GET /b HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello",
        b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ]
)


class Heard:
    """What one Incoming made of some bytes."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.requests: list[Request] = []
        self.refusals: list[Refusal] = []
        self.incoming = Incoming(
            limits or Limits(), Hearing(self.requests.append, self.refusals.append, lambda: None, Tick())
        )

    @property
    def rows(self) -> list[tuple[bytes, bytes, bytes]]:
        return [(one.method, one.path, one.body) for one in self.requests]


class Llhttp:
    """The same bytes by the parser that half of the web uses."""

    def __init__(self, data: bytes) -> None:
        self.rows: list[tuple[bytes, bytes, bytes]] = []
        self._url = self._body = b""
        self.parser = httptools.HttpRequestParser(self)
        self.wrong = False
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.wrong = True

    def on_message_begin(self) -> None:
        self._url = self._body = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        self.rows.append((self.parser.get_method(), self._url.removeprefix(b"http://a"), self._body))


@settings(max_examples=600, deadline=None)
@given(st.lists(PIECES | WHOLE, max_size=14).map(b"".join))
def test_whatever_is_taken_llhttp_reads_the_same(data: bytes) -> None:
    heard, other = Heard(), Llhttp(data)
    heard.incoming.feed(data)
    upgraded = b"upgrade: h2c" in data  # it then stops reading HTTP/1.1
    closed = next((i for i, one in enumerate(heard.requests) if not one.keep_alive), len(heard.requests))
    if not upgraded:
        assert heard.rows[: closed + 1] == other.rows[: closed + 1][: len(heard.rows)]


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES | WHOLE, max_size=10).map(b"".join), st.lists(st.integers(0, 300), max_size=8))
def test_where_it_is_cut_makes_no_difference(data: bytes, cuts: list[int]) -> None:
    whole, torn = Heard(), Heard()
    whole.incoming.feed(data)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for a, b in pairwise(edges):
        torn.incoming.feed(data[a:b])
    assert torn.rows == whole.rows
    assert [one.status for one in torn.refusals] == [one.status for one in whole.refusals] or not whole.refusals


SLOW = {
    "spaces before a value": b"x:" + b" " * 60_000 + b"\x00",
    "spaces behind a value": b"x: y" + b" " * 60_000 + b"\x00",
    "one long name": b"x" * 60_000,
    "many short lines": b"x:y\r\n" * 12_000 + b"\x00",
    "colons": b":" * 60_000,
    "one long target": b"",
}


@pytest.mark.parametrize("kind", SLOW)
def test_no_head_takes_long(kind: str) -> None:
    line = (
        b"GET /" + b"a" * 60_000 + b"\x00"
        if kind == "one long target"
        else b"GET /a HTTP/1.1\r\nhost: a\r\n" + SLOW[kind]
    )
    began = time.process_time()
    for _ in range(20):
        heard = Heard()
        heard.incoming.feed(line + b"\r\n\r\n")
        assert heard.refusals[0].status in (400, 431)
    assert (time.process_time() - began) / 20 < 0.02


@pytest.mark.parametrize("start", [b"\x16\x03\x01\x02\x00", b"SSH-2.0-x\r\n", b"get /", b"GET /\r\n", b"\x00", b"{}"])
def test_what_can_become_no_request_is_not_waited_for(start: bytes) -> None:
    heard = Heard()
    heard.incoming.feed(start)
    assert [one.status for one in heard.refusals] in ([400], [505])


@pytest.mark.parametrize(
    "start", [b"\r", b"G", b"GET", b"GET ", b"GET /a HTTP/1.", b"GET /a HTTP/1.1\r", b"GET /a HTTP/1.1\r\nx"]
)
def test_what_may_still_become_one_is(start: bytes) -> None:
    heard = Heard()
    heard.incoming.feed(start)
    assert heard.refusals == []


def test_values_keep_what_is_theirs_and_names_are_lower_case() -> None:
    data = b"GET /a?b HTTP/1.1\r\nHost: a:80\r\nX-One:  two  three \r\nX_One: four\r\nEmpty:\r\n"
    data += b"Connection: Upgrade\r\nConnection: close\r\n\r\n"
    head = read_head(data, 0, data.index(b"\r\n\r\n"), 100)
    assert head.headers == {b"host": b"a:80", b"x-one": b"two  three", b"empty": b"", b"connection": b"Upgrade, close"}
    assert (head.method, head.target, head.keep_alive, head.new, head.length) == (b"GET", b"/a?b", False, True, 0)


@pytest.mark.parametrize("name", ["content_length", "Transfer_Encoding", "authorization", "X-Holdfast-Deadline-S"])
def test_what_we_go_by_comes_once_and_under_its_name(name: str) -> None:
    data = f"GET /a HTTP/1.1\r\nhost: a\r\n{name}: 1\r\n{name}: 1\r\n\r\n".encode()
    with pytest.raises(BadHead, match=r"once only|not '_'"):
        read_head(data, 0, len(data) - 4, 100)


def test_chunks_are_bounded_in_what_is_no_body() -> None:
    heard = Heard()
    heard.incoming.feed(b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
    for _ in range(10_000):
        heard.incoming.feed(b"1;" + b"x" * 200 + b"\r\ny\r\n")
        if heard.refusals:
            break
    assert "chunks are too small" in heard.refusals[0].why and heard.incoming.body_bytes == 0


def test_many_chunks_of_one_byte_are_a_body() -> None:
    heard, random = Heard(), Random(1)
    text = bytes(random.getrandbits(8) for _ in range(3000))
    heard.incoming.feed(b"POST /a HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
    for at in range(0, len(text), 7):
        piece = text[at : at + 7]
        heard.incoming.feed(b"%X\r\n%b\r\n" % (len(piece), piece))
    heard.incoming.feed(b"0\r\n\r\n")
    assert heard.rows == [(b"POST", b"/a", text)]


LENGTHS = st.sampled_from(
    [b"5", b"0", b"12", b"05", b"+5", b" 5", b"5 ", b"5x", b"", b"99999999999999999999", b"5\r\nx: y", b"5, 5"]
)


@settings(max_examples=300, deadline=None)
@given(LENGTHS, st.binary(max_size=14))
def test_a_head_that_comes_again_is_read_as_if_it_came_for_the_first_time(length: bytes, body: bytes) -> None:
    """Connections remember their last head: no length slips in by that which would be refused alone."""
    again, alone = Heard(), Heard()
    again.incoming.feed(b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nx: y\r\n\r\nhello")
    data = b"POST /a HTTP/1.1\r\nhost: a\r\ncontent-length: " + length + b"\r\nx: y\r\n\r\n" + body
    again.incoming.feed(data)
    alone.incoming.feed(data)
    assert again.requests[1:] == alone.requests and again.refusals == alone.refusals
