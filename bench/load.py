"""A bounded load generator: raw keep-alive connections on uvloop, as little work a byte as a true count allows.

    python bench/load.py --port 8000 --kind whole|stream|steady|paced --seconds 3 [--connections 32]

Prints one JSON line. `whole` and `stream` keep every connection busy; `steady` reads streams that make a token each 2 ms;
`paced` sends at a fixed rate and times each answer.
"""

import argparse
import asyncio
import json
import time
from collections import deque
from typing import cast

import uvloop

ASK = (
    "Read this and answer with one word. It is a note about a lighthouse keeper who counts ships at night, writes each name "
    "into a book, and sends the book to the harbour when the month is over; the harbour master reads it aloud, and nobody "
    "listens but the cat. Tomorrow is the last day of the month, the wind is high, and the book is missing again, as it "
    "was in the spring of the year before, when it lay under the stairs. Where should the keeper look? "
)
STEADY_MS = 2
DONE = b"data: [DONE]"
EVENT_END = b"\n\n"


class Asker(asyncio.Protocol):
    """One connection: sends, counts, sends again. Every request differs from every other, so that nothing can be remembered."""

    def __init__(self, crowd: "Crowd", number: int) -> None:
        self._crowd = crowd
        self._number = number
        self._sent = 0
        self._sent_at = 0.0
        self._need = -1  # bytes of a whole answer that are still to come
        self._tail = b""
        self.idle = True
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._crowd.over:
            self._crowd.failed += 1

    def ask(self) -> None:
        crowd = self._crowd
        self._sent += 1
        self.idle = False
        self._need, self._tail = -1, b""
        self._sent_at = time.perf_counter()
        assert self._transport is not None
        self._transport.write(crowd.request % (self._number * 1_000_000 + self._sent))

    def data_received(self, data: bytes) -> None:
        if self._crowd.stream:
            self._event_data(data)
        else:
            self._whole_data(data)

    def _whole_data(self, data: bytes) -> None:
        if self._need < 0:
            data = self._tail + data
            head = data.find(b"\r\n\r\n")
            if head < 0:
                self._tail = data
                return
            if not data.startswith(b"HTTP/1.1 200"):
                self._crowd.failed += 1
            at = data.lower().find(b"content-length: ", 0, head)
            self._need = int(data[at + 16 : data.index(b"\r", at)]) + head + 4
        self._need -= len(data)
        if self._need <= 0:
            self._ended()

    def _event_data(self, data: bytes) -> None:
        crowd = self._crowd
        events = data.count(b"data: {")
        crowd.events += events
        crowd.events_ever += events
        tail = self._tail + data
        if tail.endswith(b"0\r\n\r\n") and DONE in tail:
            if not crowd.over:
                crowd.tokens += crowd.tokens_each
            self._ended()
        else:
            self._tail = tail[-64:]

    def _ended(self) -> None:
        crowd = self._crowd
        crowd.answers += 1
        crowd.answers_ever += 1
        crowd.took.append(time.perf_counter() - self._sent_at)
        self.idle = True
        if crowd.over:
            return
        if crowd.rate:
            crowd.free.append(self)
        else:
            self.ask()


class Crowd:
    """All connections and what they counted."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.stream = args.kind in ("stream", "steady")
        self.rate = args.rate if args.kind == "paced" else 0.0
        self.tokens_each = args.tokens
        body = {
            "model": "pearl",
            "messages": [{"role": "user", "content": ASK + "Number NUMBER."}],
            "max_tokens": args.tokens if self.stream else 1,
            "stream": self.stream,
            "ignore_eos": True,
            "seed": STEADY_MS if args.kind == "steady" else 0,
        }
        raw = json.dumps(body).encode().replace(b"%", b"%%").replace(b"NUMBER", b"%09d")
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{args.port}\r\naccept: application/json\r\n"
            f"content-type: application/json\r\nuser-agent: bench\r\ncontent-length: {len(raw % 0)}\r\n\r\n"
        )
        self.request = head.encode() + raw
        self.answers = self.events = self.tokens = self.failed = self.answers_ever = self.events_ever = 0
        self.took: list[float] = []
        self.free: deque[Asker] = deque()
        self.over = False
        self.late = 0

    def reset(self) -> None:
        """Forget the warm-up."""
        self.answers = self.events = self.tokens = 0
        self.took = []


async def run(args: argparse.Namespace) -> dict[str, float]:
    """Warm up for a fifth of the time, then measure."""
    loop = asyncio.get_running_loop()
    crowd = Crowd(args)
    askers = []
    for number in range(args.connections):
        _, asker = await loop.create_connection(lambda number=number: Asker(crowd, number), "127.0.0.1", args.port)
        askers.append(asker)
    if crowd.rate:
        crowd.free.extend(askers)
        pacing = loop.create_task(_pace(crowd))
    else:
        for asker in askers:
            asker.ask()
    await asyncio.sleep(args.seconds / 5)
    crowd.reset()
    began = time.perf_counter()
    await asyncio.sleep(args.seconds)
    seconds = time.perf_counter() - began
    answers, events, tokens, took = crowd.answers, crowd.events, crowd.tokens, sorted(crowd.took)
    crowd.over = True
    if crowd.rate:
        pacing.cancel()

    def at(share: float) -> float:
        return round(took[min(len(took) - 1, int(len(took) * share))] * 1000, 4) if took else 0.0

    return {
        "answers_s": answers / seconds,
        "answers_ever": crowd.answers_ever,
        "events_ever": crowd.events_ever,
        "events_s": events / seconds,
        "tokens_s": tokens / seconds,
        "ms_p50": at(0.5),
        "ms_p99": at(0.99),
        "failed": crowd.failed,
        "late": crowd.late,
    }


async def _pace(crowd: Crowd) -> None:
    """Send at the rate, from whichever connection is free; count what found none."""
    due = time.perf_counter()
    while True:
        due += 1 / crowd.rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if crowd.free:
            crowd.free.popleft().ask()
        else:
            crowd.late += 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="load generator")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--kind", choices=("whole", "stream", "steady", "paced"), required=True)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--rate", type=float, default=200.0)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(run(parser.parse_args()))))
