"""Instant engines, as little work a token as can be: what gateways are measured against.

    python bench/engines.py --port 9101            OpenAI's wire, for a gateway that speaks HTTP to its engines
    python bench/engines.py --unix /tmp/e.sock     Holdfast's wire between gateway and replica (holdfast.domain.wire)

A whole answer is one fixed body. A stream has as many one-token events as `max_tokens` says; all open streams advance by one
event in turn, as in a batch engine, and a stream whose client does not read is left out until it does. The request's `seed`
is the pace: milliseconds from token to token, 0 for as fast as it goes.
"""

import argparse
import asyncio
import os
import re
from typing import cast

import httptools
import msgspec
import uvloop
from msgspec import Struct

from holdfast.domain import wire
from holdfast.domain.release import Exactness, Release
from holdfast.domain.replica import Load
from holdfast.domain.request import Finish

BOOT = "instant"
WORD_ID = 300  # a word of Pearl's vocabulary; any will do
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n"
WHOLE = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"pearl","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"ok"},"finish_reason":"length"}],'
    b'"usage":{"prompt_tokens":100,"completion_tokens":1,"total_tokens":101}}'
)
EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"pearl","choices":[{"index":0,'
    b'"delta":{"content":" word"},"finish_reason":null}]}\n\n'
)
CHUNK = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)
DONE = b"data: [DONE]\n\n"
LAST = b"%x\r\n%b\r\n0\r\n\r\n" % (len(DONE), DONE)
SEED = re.compile(rb'"seed": ?(\d+)')
MAX_TOKENS = re.compile(rb'"max_tokens": ?(\d+)')


class Batch:
    """The open streams; a turn writes one event to each."""

    def __init__(self) -> None:
        self.left: dict[Engine, int] = {}
        self._turning = False
        self._pace_s = 0.0

    def add(self, engine: "Engine", tokens: int, pace_ms: int) -> None:
        self.left[engine] = tokens
        self._pace_s = pace_ms / 1000
        self.wake()

    def wake(self) -> None:
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_later(self._pace_s, self._turn)

    def _turn(self) -> None:
        self._turning = False
        moved = False
        for engine, tokens in list(self.left.items()):
            if not engine.paused:
                moved = True
                engine.write(CHUNK)
                self.left[engine] = tokens - 1
                if tokens == 1:
                    del self.left[engine]
                    engine.write(LAST)
        if moved and self.left:
            self.wake()


class Engine(asyncio.Protocol):
    """One connection."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._parser = httptools.HttpRequestParser(self)
        self._body = b""
        self._url = b""
        self._transport: asyncio.Transport | None = None
        self.paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._batch.left.pop(self, None)

    def pause_writing(self) -> None:
        self.paused = True

    def resume_writing(self) -> None:
        self.paused = False
        self._batch.wake()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = self._url = b""

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if b"completions" not in self._url:
            body = b'{"object":"list","data":[{"id":"pearl","object":"model"}],"model_path":"pearl"}'
            self._whole(body)
        elif b'"stream":true' in self._body.replace(b" ", b""):
            found, pace = MAX_TOKENS.search(self._body), SEED.search(self._body)
            self.write(HEAD % b"text/event-stream" + b"transfer-encoding: chunked\r\n\r\n")
            self._batch.add(self, int(found[1]) if found else 100, int(pace[1]) if pace else 0)
        else:
            self._whole(WHOLE)

    def _whole(self, body: bytes) -> None:
        self.write(HEAD % b"application/json" + b"content-length: %d\r\n\r\n" % len(body) + body)

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)


class Asked(Struct, array_like=True, tag=1):
    """wire.Submit, read only as far as this engine cares."""

    stream: int
    prompt_ids: msgspec.Raw
    delivered_ids: list[int]
    sampling: msgspec.Raw
    max_tokens: int
    seed: int


class WireEngine(asyncio.Protocol):
    """One connection from a gateway worker. A turn sends one token to each of its streams, all in one frame."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._cutter = wire.Cutter()
        self._frames = msgspec.msgpack.Decoder(wire.Hello | Asked | wire.Abort | wire.Ping)
        self._left: dict[int, int] = {}
        self._steps = 0
        self._pace_s = 0.0
        self._turning = self._paused = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._left.clear()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self._wake()

    def data_received(self, data: bytes) -> None:
        for body in self._cutter.feed(data):
            frame = self._frames.decode(body)
            if type(frame) is Asked:
                self._left[frame.stream] = frame.max_tokens - len(frame.delivered_ids)
                self._pace_s = frame.seed / 1000
            elif isinstance(frame, wire.Abort):
                self._left.pop(frame.stream, None)
            elif isinstance(frame, wire.Ping):
                self._send(wire.Pong(frame.nonce, self._load()))
            else:
                release = Release(model="pearl", engine="instant", digest="0" * 64, exactness=Exactness.EXACT)
                self._send(wire.Welcome(wire.VERSION, BOOT, os.getpid(), release, self._load(), 4096))
        if self._left:
            self._wake()

    def _load(self) -> Load:
        return Load(step=self._steps, running=len(self._left), slots=64)

    def _wake(self) -> None:
        if not self._turning and not self._paused:
            self._turning = True
            self._loop.call_later(self._pace_s, self._turn)

    def _turn(self) -> None:
        self._turning = False
        self._steps += 1
        items = []
        for stream, tokens in list(self._left.items()):
            items.append(wire.Item(stream, [WORD_ID], Finish.LENGTH if tokens <= 1 else None))
            if tokens <= 1:
                del self._left[stream]
            else:
                self._left[stream] = tokens - 1
        if items:
            self._send(wire.Tokens(self._steps, items))
            self._wake()

    def _send(self, frame: wire.Downward) -> None:
        assert self._transport is not None
        self._transport.write(wire.encode(frame))


async def serve(args: argparse.Namespace) -> None:
    """Until killed."""
    loop, batch = asyncio.get_running_loop(), Batch()
    if args.unix:
        server = await loop.create_unix_server(WireEngine, args.unix)
    else:
        server = await loop.create_server(lambda: Engine(batch), "127.0.0.1", args.port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    way = parser.add_mutually_exclusive_group(required=True)
    way.add_argument("--port", type=int)
    way.add_argument("--unix", metavar="PATH")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(parser.parse_args()))
