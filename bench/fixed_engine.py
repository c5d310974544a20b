"""Engines of a fixed capacity that speak OpenAI's wire: what gateways under too much load are measured against.

    python bench/fixed_engine.py --ports 9101,9102,9103 --slots 8 --token-ms 15

Each port is one engine: `slots` answers at a time, one token each every `token-ms`; more wait inside it, first come first
served and as many as come, as vLLM's and SGLang's do. An answer has as many tokens as `max_tokens` says. Whoever hangs up leaves
his slot, or the queue.
"""

import argparse
import asyncio
import re
from collections import deque
from typing import cast

import httptools
import uvloop

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n"
EVENT = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"pearl","choices":[{"index":0,'
    b'"delta":{"content":" word"},"finish_reason":%b}]}\n\n'
)
WHOLE = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"pearl","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"%b"},"finish_reason":"length"}],'
    b'"usage":{"prompt_tokens":100,"completion_tokens":%d,"total_tokens":%d}}'
)
MODELS = b'{"object":"list","data":[{"id":"pearl","object":"model"}],"model_path":"pearl"}'
MAX_TOKENS = re.compile(rb'"max_(?:completion_)?tokens": ?(\d+)')  # sglang-router renames it
STREAM = re.compile(rb'"stream": ?true')


def chunk(data: bytes) -> bytes:
    """One piece of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


MORE, LAST = chunk(EVENT % b"null"), chunk(EVENT % b'"length"') + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


class Engine:
    """One engine's batch and queue."""

    def __init__(self, slots: int, token_s: float) -> None:
        self._slots, self._token_s = slots, token_s
        self._running: dict[Connection, int] = {}
        self._queue: deque[tuple[Connection, int]] = deque()
        self._turning = False

    def add(self, connection: "Connection", tokens: int) -> None:
        self._queue.append((connection, tokens))
        self._fill()

    def drop(self, connection: "Connection") -> None:
        if self._running.pop(connection, None) is None:
            self._queue = deque(pair for pair in self._queue if pair[0] is not connection)
        self._fill()

    def _fill(self) -> None:
        while self._queue and len(self._running) < self._slots:
            connection, tokens = self._queue.popleft()
            self._running[connection] = tokens
        if self._running and not self._turning:
            self._turning = True
            loop = asyncio.get_running_loop()
            loop.call_later(self._token_s, self._turn, loop.time() + self._token_s)

    def _turn(self, due: float) -> None:
        for connection, left in list(self._running.items()):
            self._running[connection] = left - 1
            if left == 1:
                del self._running[connection]
            connection.token(left == 1)
        self._turning = False
        while self._queue and len(self._running) < self._slots:
            connection, tokens = self._queue.popleft()
            self._running[connection] = tokens
        if self._running:
            self._turning = True
            loop = asyncio.get_running_loop()
            after = max(due + self._token_s, loop.time())
            loop.call_later(after - loop.time(), self._turn, after)


class Connection(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._parser = httptools.HttpRequestParser(self)
        self._body = self._url = b""
        self._stream = False
        self._tokens = 0
        self._busy = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._busy:
            self._engine.drop(self)

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
            self._whole(MODELS)
            return
        found = MAX_TOKENS.search(self._body)
        self._tokens = int(found[1]) if found else 100
        self._stream = STREAM.search(self._body) is not None
        self._busy = True
        if self._stream:
            self._write(HEAD % b"text/event-stream" + b"transfer-encoding: chunked\r\n\r\n")
        self._engine.add(self, self._tokens)

    def token(self, last: bool) -> None:
        """The batch has made one more."""
        if last:
            self._busy = False
        if self._stream:
            self._write(LAST if last else MORE)
        elif last:
            self._whole(WHOLE % (b" word" * self._tokens, self._tokens, self._tokens + 100))

    def _whole(self, body: bytes) -> None:
        self._write(HEAD % b"application/json" + b"content-length: %d\r\n\r\n" % len(body) + body)

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.write(data)


async def serve(args: argparse.Namespace) -> None:
    """Until killed."""
    loop = asyncio.get_running_loop()
    servers = []
    for port in args.ports.split(","):
        engine = Engine(args.slots, args.token_ms / 1000)
        servers.append(
            await loop.create_server(lambda one=engine: Connection(one), "127.0.0.1", int(port), backlog=4096)
        )
    print("ready", flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ports", required=True)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--token-ms", type=float, default=15.0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(parser.parse_args()))
