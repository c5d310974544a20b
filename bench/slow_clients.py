"""2,000 clients that are slow on purpose: do honest ones wait longer, does memory grow, and are the slow ones gone in time?

    python bench/slow_clients.py                 three rounds of calm and siege
    python bench/slow_clients.py --clients 600 --rounds 1

A site of its own with two scripted replicas. Honest clients ask for short streams at a steady rate, all the time. In each round
they are first alone, for --calm seconds; then the slow ones come, 400 a second, a third of each kind, and stay until the door is
rid of them: `head` sends a header line a second, `body` a few bytes of a large body a second, `reading` asks (one in eight for a
long stream, the others for thirty pages at once) and reads sixteen bytes a second of what it gets. First-token times are
compared within the run, since machines differ from one minute to the next. The last line is one JSON object.
"""

import argparse
import asyncio
import contextlib
import json
import resource
import socket
import sys
import time
from pathlib import Path

import msgspec
import uvloop

from holdfast.domain.site import Role
from holdfast.drill.arena import Arena, Plan, Sections
from holdfast.drill.client import Client
from holdfast.drill.crowd import Drizzle
from holdfast.drill.questions import question
from holdfast.host.clock import MonotonicClock
from holdfast.policy.reckoning import percentile

KINDS = ("head", "body", "reading")
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\n"
DEADLINES: Sections = {
    "gateway": {"header_s": 10.0, "body_s": 20.0, "unread_s": 15.0, "idle_s": 20.0, "connections_per_address_max": 0},
    "replica": {"slots": 1024, "token_ms": 40.0, "queue_max": 4096},
}
SIEGE_S_MAX = 90.0
PER_S = 400.0  # so many slow ones come in a second
HONEST_MAX = 60  # connections of theirs at once, at most
RATIO_MAX, GROWN_MB_MAX = 1.2, 200.0


class Slow:
    """One slow client, from its first byte until the door is done with it."""

    def __init__(self, number: int, port: int, began: float) -> None:
        self.kind = KINDS[number % 3]
        self.gone_s = 0.0  # how long it took
        self._number, self._port, self._began = number, port, began
        self._plug = socket.socket()
        self._plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        self._plug.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536
        )  # as over a real network: on loopback megabytes fit
        self._plug.setblocking(False)

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError, asyncio.CancelledError), self._plug:
            await asyncio.sleep(self._number / PER_S)
            await loop.sock_connect(self._plug, ("127.0.0.1", self._port))
            await loop.sock_sendall(self._plug, self._first())
            while True:
                await asyncio.sleep(1)
                if self.kind != "reading":
                    await loop.sock_sendall(self._plug, b"x-a: b\r\n" if self.kind == "head" else b"x" * 16)
                with contextlib.suppress(BlockingIOError):
                    if not self._plug.recv(16):
                        break
        self.gone_s = time.monotonic() - self._began

    def _first(self) -> bytes:
        if self.kind == "head":
            return HEAD
        if self.kind == "body":
            return HEAD + b"content-length: 3000000\r\n\r\n"
        if self._number // 3 % 8:
            return b"GET /metrics HTTP/1.1\r\nhost: a\r\n\r\n" * 30
        text = "Tell me everything, at length, and leave nothing out."
        body = question(self._number, "pearl", text, max_tokens=800, logprobs=True, ignore_eos=True).body
        return HEAD + b"content-length: %d\r\n\r\n%b" % (len(body), body)


async def besiege(port: int, count: int) -> dict[str, float]:
    """All of them, until standard input ends. The longest stay of each kind, in seconds, by their own account."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count + 500)), hard))
    began = time.monotonic()
    crew = [Slow(number, port, began) for number in range(count)]
    running = asyncio.gather(*(one.run() for one in crew))
    await asyncio.to_thread(sys.stdin.read)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return {kind: round(max(one.gone_s for one in crew if one.kind == kind), 1) for kind in KINDS}


class Worker:
    """The gateway's process, as /proc tells of it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def plugs(self) -> int:
        """Its open descriptors."""
        return sum(1 for _ in Path(f"/proc/{self._pid}/fd").iterdir())

    def rss_mb(self) -> float:
        return int(Path(f"/proc/{self._pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


class Watch:
    """Looks at the worker while a siege lasts: memory, descriptors, and when it is rid of the slow ones."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.rss_mb = self._before_mb = worker.rss_mb()
        self.plugs = self._before = worker.plugs()
        self.gone_s = 0.0

    @property
    def grown_mb(self) -> float:
        return self.rss_mb - self._before_mb

    @property
    def left(self) -> int:
        """Connections that are still open, beyond those of honest clients."""
        return max(0, self._worker.plugs() - self._before - HONEST_MAX)

    async def run(self, least: int) -> None:
        """Until so many came and all but the honest ones went again, or that takes too long."""
        began = time.monotonic()
        while (self.plugs < least or self.left) and time.monotonic() - began < SIEGE_S_MAX:
            await asyncio.sleep(0.2)
            self.rss_mb = max(self.rss_mb, self._worker.rss_mb())
            self.plugs = max(self.plugs, self._worker.plugs())
        self.gone_s = time.monotonic() - began


async def rounds(args: argparse.Namespace) -> dict[str, object]:
    clock = MonotonicClock()
    calm: list[float] = []
    siege: list[float] = []
    stays: dict[str, float] = {}
    grown, most, left, bad = 0.0, 0, 0, 0
    plan = Plan(replicas=2, engine="scripted", more=DEADLINES)
    async with Arena(plan, clock) as arena:
        view = arena.site()
        worker = Worker(next(one.pid for one in view.processes if one.role == Role.GATEWAY))
        client = Client("127.0.0.1", arena.port, clock, 30.0)
        asked = question(1, arena.model, "What is Holdfast?", max_tokens=16)
        await listen(client, clock, asked, args.rate, 3.0)
        for number in range(args.rounds):
            answers = await listen(client, clock, asked, args.rate, args.calm)
            calm += firsts(answers)
            bad += sum(one.end != "ended" for one in answers)
            watch, drizzle = Watch(worker), Drizzle(client, clock, asked, args.rate)
            asking = asyncio.create_task(drizzle.run())
            argv = [sys.executable, __file__, f"--crew={arena.port}", f"--clients={args.clients}"]
            pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
            crew = await asyncio.create_subprocess_exec(*argv, **pipes)
            await watch.run(args.clients)
            told, _ = await crew.communicate(b"")  # which ends its input
            drizzle.closing = True
            await asking
            stay = msgspec.json.decode(told) | {"all": round(watch.gone_s, 1)}
            stays = {kind: max(stays.get(kind, 0.0), seconds) for kind, seconds in stay.items()}
            siege += firsts(drizzle.answers)
            bad += sum(one.end != "ended" for one in drizzle.answers)
            grown, most, left = max(grown, watch.grown_mb), max(most, watch.plugs), max(left, watch.left)
            print(f"round {number + 1}: {stay}, memory +{watch.grown_mb:.0f} MB, left {watch.left}", file=sys.stderr)
    found = {
        name: round(percentile(sorted(times), 0.99) * 1000, 1) for name, times in (("calm", calm), ("siege", siege))
    }
    half = {name: round(percentile(sorted(times), 0.5) * 1000, 1) for name, times in (("calm", calm), ("siege", siege))}
    return {
        "bench": "slow_clients",
        "clients": args.clients,
        "rounds": args.rounds,
        "ttft_ms_p50": half,
        "ttft_ms_p99": found,
        "ratio_p99": round(found["siege"] / found["calm"], 2),
        "honest_answers": len(calm) + len(siege),
        "honest_failed": bad,
        "memory_grown_mb": round(grown),
        "connections_most": most,
        "connections_left": left,
        "gone_after_s": stays,
    }


async def listen(client: Client, clock: MonotonicClock, asked: object, per_s: float, seconds: float) -> list[object]:
    """Honest clients alone."""
    drizzle = Drizzle(client, clock, asked, per_s)
    running = asyncio.create_task(drizzle.run())
    await clock.sleep(seconds)
    drizzle.closing = True
    await running
    return drizzle.answers


def firsts(answers: list[object]) -> list[float]:
    """First-token times, in seconds."""
    return [one.arrivals[0] - one.opened_at for one in answers if one.arrivals]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--calm", type=float, default=30.0, help="seconds without slow clients in each round")
    parser.add_argument("--rate", type=float, default=20.0, help="honest requests a second")
    parser.add_argument("--crew", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        if args.crew:
            print(json.dumps(runner.run(besiege(args.crew, args.clients))))
            return 0
        found = runner.run(rounds(args))
    print(msgspec.json.encode(found).decode())
    good = (
        found["ratio_p99"] <= RATIO_MAX and found["memory_grown_mb"] <= GROWN_MB_MAX and not found["connections_left"]
    )
    return 0 if good and not found["honest_failed"] else 1


if __name__ == "__main__":
    sys.exit(main())
