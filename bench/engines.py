"""An instant engine that speaks OpenAI's wire: what an HTTP gateway is measured against. uvloop and httptools.

    python bench/engines.py --port 9101

A whole answer is one fixed body. A stream has as many one-token events as `max_tokens` says; all open streams advance by one
event in turn, as in a batch engine, and a stream whose client does not read is left out until it does.
"""

import argparse
import asyncio
import re
from typing import cast

import httptools
import uvloop

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
MAX_TOKENS = re.compile(rb'"max_tokens": ?(\d+)')


class Batch:
    """The open streams; a turn writes one event to each."""

    def __init__(self) -> None:
        self.left: dict[Engine, int] = {}
        self._turning = False

    def add(self, engine: "Engine", tokens: int) -> None:
        self.left[engine] = tokens
        self.wake()

    def wake(self) -> None:
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)

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
            found = MAX_TOKENS.search(self._body)
            self.write(HEAD % b"text/event-stream" + b"transfer-encoding: chunked\r\n\r\n")
            self._batch.add(self, int(found[1]) if found else 100)
        else:
            self._whole(WHOLE)

    def _whole(self, body: bytes) -> None:
        self.write(HEAD % b"application/json" + b"content-length: %d\r\n\r\n" % len(body) + body)

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)


async def serve(port: int) -> None:
    batch = Batch()
    server = await asyncio.get_running_loop().create_server(lambda: Engine(batch), "127.0.0.1", port)
    print(f"ready 127.0.0.1:{port}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="instant OpenAI-wire engine")
    parser.add_argument("--port", type=int, required=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(parser.parse_args().port))
