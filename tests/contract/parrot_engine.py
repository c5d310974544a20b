"""An engine that nobody ships, with a dialect of its own: what the contract suite itself is tested on, and the example of
docs/adapters.md is written for.

One connection a question; question and answers are lines of JSON. `{"do": "answer", "ids": [...], "max": n, "stop": [...],
"seed": n, "greedy": bool, "held": "start: <[7]> <[8]>"}` is answered by
`{"id": n, "logprob": x, "cached": n}` a token, the stop id among them, then `{"end": "stop" | "length" | "abort"}` and
`{"done": true}`; or by `{"refused": why}`, `{"wrong": why}`, `{"error": why}`.
`{"do": "look"}` tells its counters, `{"do": "who"}` what it is. Hanging up aborts.
"""

import asyncio
import re
import socket
import struct
from collections import deque
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import msgspec

from holdfast.domain.ports import Clock
from holdfast.host.clock import MonotonicClock
from holdfast.testing.engine_contract import Mishap

SLOTS, QUEUE, CONTEXT, VOCAB = 3, 1, 256, 512
TOKEN_S = 0.0005
ON_ARRIVAL: dict[Mishap | None, dict[str, str]] = {
    Mishap.REFUSED: {"refused": "the weights are being loaded"},
    Mishap.CROWDED: {"refused": "too many wait"},
    Mishap.REJECTED: {"wrong": "this model can't do that"},
}


def next_id(ids: list[int], noise: str) -> int:
    """The token after these ids: as with a model, all of them decide, and the noise. 200 to 455."""
    return 200 + blake2b(f"{noise} {ids}".encode(), digest_size=1).digest()[0]


@dataclass
class ParrotEngine:
    """Serves on a port of its own while `async with` lasts."""

    clock: Clock = field(default_factory=MonotonicClock)
    steps: int = 0
    running: int = 0
    queued: int = 0
    port: int = 0

    def __post_init__(self) -> None:
        self._befalling: deque[tuple[Mishap, int]] = deque()
        self._slots = asyncio.Semaphore(SLOTS)
        self._awake, self._moving, self._patient = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._visits: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._seen: set[tuple[int, ...]] = set()
        self.relent()

    async def __aenter__(self) -> "ParrotEngine":
        self._server = await asyncio.start_server(self._visited, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.relent()
        self.vanish()
        await asyncio.gather(*self._visits, return_exceptions=True)

    def befall(self, mishap: Mishap, after_tokens: int) -> None:
        if mishap is Mishap.GONE:
            self.vanish()
        elif mishap is Mishap.FROZEN:
            self._moving.clear()
        elif mishap is Mishap.SILENT:
            self._awake.clear()
        else:
            self._patient.clear()
            self._befalling.append((mishap, after_tokens))

    def relent(self) -> None:
        for gate in (self._awake, self._moving, self._patient):
            gate.set()

    def vanish(self) -> None:
        """As a process that was killed: nobody listens, and every connection is closed."""
        self._server.close()
        for writer in self._visits.values():
            writer.transport.abort()

    async def _visited(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._visits[task] = writer
        try:
            await self._awake.wait()
            line = await reader.readline()
            if line:
                await self._answer(msgspec.json.decode(line), reader, writer)
        except ConnectionError:
            pass  # it hung up, or was reset by a mishap
        finally:
            del self._visits[task]
            writer.close()

    async def _answer(self, asked: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if asked["do"] == "look":
            say(writer, steps=self.steps, running=self.running, queued=self.queued, slots=SLOTS, health="green")
            return
        if asked["do"] == "who":
            say(writer, model="polly", version="3.1", context=CONTEXT, vocabulary=VOCAB)
            return
        mishap, after = self._befalling.popleft() if self._befalling else (None, 0)
        full = self.running + self.queued >= SLOTS + QUEUE
        ids, most = asked["ids"], asked["max"]
        wrong = not ids or max(ids) >= VOCAB or most < 1 or len(ids) + most > CONTEXT
        if full or wrong or mishap in ON_ARRIVAL:
            told = {"refused": "all slots are taken"} if full else {"error": "list index out of range"}
            say(writer, **ON_ARRIVAL.get(mishap, told))
            return
        speaking = asyncio.ensure_future(self._speak(asked, writer, mishap, after))
        hanging_up = asyncio.ensure_future(reader.read())
        await asyncio.wait({speaking, hanging_up}, return_when=asyncio.FIRST_COMPLETED)
        for task in (speaking, hanging_up):
            task.cancel()
        await asyncio.gather(speaking, hanging_up, return_exceptions=True)

    async def _speak(self, asked: Any, writer: asyncio.StreamWriter, mishap: Mishap | None, after: int) -> None:
        self.queued += 1
        try:
            await self._slots.acquire()
        finally:
            self.queued -= 1
        self.running += 1
        try:
            await self._say_tokens(asked, writer, mishap, after)
        finally:
            self.running -= 1
            self._slots.release()

    async def _say_tokens(self, asked: Any, writer: asyncio.StreamWriter, mishap: Mishap | None, after: int) -> None:
        ids, noise = list(asked["ids"]), "greedy" if asked["greedy"] else f"{asked['seed']}"
        held = [int(id) for id in re.findall(r"<\[(\d+)\]>", asked["held"])]  # the only grammars that it knows
        cached = len(ids) - 1 if tuple(ids) in self._seen else 0
        self._seen.add(tuple(ids))
        for made in range(asked["max"] + 1):
            await self.clock.sleep(TOKEN_S)
            await self._moving.wait()
            await self._awake.wait()
            if mishap is Mishap.STALLED and made == after:
                await self._patient.wait()
            elif mishap is not None and made == after:
                strike(writer, mishap)
                return
            if made == asked["max"]:
                say(writer, end="length")
                break
            self.steps += 1
            free = next_id(ids, noise if asked["greedy"] else f"{noise} {made}")
            ids.append(held[made] if made < len(held) else free)
            say(writer, id=ids[-1], logprob=-0.25, cached=cached)
            if ids[-1] in asked["stop"]:
                say(writer, end="stop")
                break
        say(writer, done=True)


def say(writer: asyncio.StreamWriter, **words: object) -> None:
    writer.write(msgspec.json.encode(words) + b"\n")


def strike(writer: asyncio.StreamWriter, mishap: Mishap) -> None:
    """What an answer meets midway."""
    if mishap is Mishap.FAULT:
        say(writer, error="CUDA error: an illegal memory access was encountered")
        say(writer, done=True)
    elif mishap is Mishap.ABORTED:
        say(writer, end="abort")
        say(writer, done=True)
    elif mishap is Mishap.UNFINISHED:
        say(writer, done=True)
    elif mishap is Mishap.GARBAGE:
        writer.write(b"\x00\xff<html>502 Bad Gateway\n")
    elif mishap is Mishap.RESET:
        held = writer.get_extra_info("socket")
        held.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
