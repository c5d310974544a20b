"""Twenty thousand connections within a second, on top of a site that is at work: who notices?

    python bench/burst.py [--connections 20000] [--processes 2]

Some streams run all the time: 0.3 of the site's capacity, a tenant of their own with a pool of open connections. Then so many
clients connect at once, each with one request of its own, from addresses of their own so that ports do not run out; a connect
that the kernel's queue has no room for is repeated by the kernel after a second, as ever. Every client must get an answer or a
typed refusal: whole HTTP with an error object that names the limit. The streams' times are compared with those of the same
streams without the burst. The clients share the machine's cores with the site: their part of the processor time is told.

Connections that nobody has accepted yet wait in the kernel, as many as net.core.somaxconn says (4096 unless told otherwise). On
two busy cores that is too few for such a burst, and the kernel drops what is beyond it, which some clients see as a reset. So
everything here runs in a network namespace of its own (needs root) with --somaxconn 65535, as docs/load.md advises for sites
that expect this; --somaxconn 0 leaves the machine's. The last line is JSON.
"""

import argparse
import asyncio
import ctypes
import errno
import fcntl
import os
import resource
import select
import socket
import struct
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from contenders import Capacity, Rig, ours
from loads import at, load, play
from msgspec import Struct
from rich.console import Console
from rigs import cpu_s, rss_mb

from holdfast.host import proc

CLONE_NEWNET, SIOCSIFFLAGS = 0x40000000, 0x8914  # linux/sched.h, linux/sockios.h
PATIENCE_S = 30.0
BEFORE_S, AFTER_S = 4.0, 8.0
HARM_FACTOR_MAX, HARM_MS_FREE = 1.5, 50.0  # p99 of the streams' first tokens; differences below the second are noise
Numbers = dict[str, Any]


class Call(Struct):
    """One client."""

    began: float
    connected: float = 0.0
    ended: float = 0.0
    answer: bytes = b""
    word: str = ""


def judge(answer: bytes) -> str:
    """What a client got, in a word or two: `answered`, `refused 503 queue_wait`, or what is wrong with it."""
    head, _, body = answer.partition(b"\r\n\r\n")
    if not answer:
        return "lost: nothing came"
    status = int(head[9:12]) if head.startswith(b"HTTP/1.1 ") else 0
    if status == 200:
        return "answered" if b'"finish_reason":"' in body else "lost: half an answer"
    try:
        error = msgspec.json.decode(body)["error"]
        return f"refused {status} {(error.get('limit') or {}).get('name') or error['code']}"
    except (msgspec.MsgspecError, LookupError, TypeError, AttributeError):
        return f"lost: {status} without an error object"


class Crowd:
    """One process's clients, over one epoll: as little processor time as a connection can cost here."""

    def __init__(self, port: int, count: int, source: str, over_s: float) -> None:
        body = msgspec.json.encode(
            {"model": "pearl", "messages": [{"role": "user", "content": "Count from 1."}], "max_tokens": 25}
            | {"ignore_eos": True, "stream": False}
        )
        self._request = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
            f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        ).encode() + body
        self._port, self._count, self._source, self._over_s = port, count, source, over_s
        self._epoll = select.epoll()
        self._open: dict[int, tuple[socket.socket, Call]] = {}
        self.calls: list[Call] = []

    def run(self, begin_at: float) -> None:
        """Connect all, evenly over the time given, and see each through."""
        while time.monotonic() < begin_at:
            time.sleep(0.001)
        made = 0
        while made < self._count or self._open:
            now = time.monotonic()
            due = min(self._count, int((now - begin_at) / self._over_s * self._count) + 1)
            while made < due:
                self._connect()
                made += 1
            for number, event in self._epoll.poll(0.001 if made < self._count else 0.02, 512):
                self._turn(number, event)
            if now > begin_at + self._over_s + PATIENCE_S:
                for number in list(self._open):
                    self._end(number, "lost: not over in time")

    def _connect(self) -> None:
        one = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        call = Call(time.monotonic())
        self.calls.append(call)
        one.bind((self._source, 0))
        code = one.connect_ex(("127.0.0.1", self._port))
        if code not in (0, errno.EINPROGRESS):
            one.close()
            call.ended, call.word = time.monotonic(), f"lost: {errno.errorcode[code]}"
            return
        self._open[one.fileno()] = (one, call)
        self._epoll.register(one.fileno(), select.EPOLLOUT)

    def _turn(self, number: int, event: int) -> None:
        one, call = self._open[number]
        try:
            if event & select.EPOLLOUT:
                code = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    self._end(number, f"lost: {errno.errorcode[code]} while connecting")
                    return
                call.connected = time.monotonic()
                one.send(self._request)
                self._epoll.modify(number, select.EPOLLIN)
            elif data := one.recv(65536):
                call.answer += data
            else:
                self._end(number, judge(call.answer))
        except OSError as error:
            self._end(number, f"lost: {errno.errorcode.get(error.errno or 0, '?')} after {len(call.answer)} bytes")

    def _end(self, number: int, word: str) -> None:
        one, call = self._open.pop(number)
        call.ended, call.word = time.monotonic(), word
        self._epoll.unregister(number)
        one.close()


def child(args: argparse.Namespace) -> None:
    """One process of clients; prints what they saw."""
    crowd = Crowd(args.port, args.connections, args.source, args.over)
    crowd.run(args.begin_at)
    used = resource.getrusage(resource.RUSAGE_SELF)
    rows = [(one.word, one.began, one.connected, one.ended) for one in crowd.calls]
    print(msgspec.json.encode({"rows": rows, "cpu_s": used.ru_utime + used.ru_stime}).decode())


async def burst(rig: Rig, args: argparse.Namespace, begin_at: float) -> list[Numbers]:
    """All processes of clients."""
    each = args.connections // args.processes

    async def one(number: int) -> Numbers:
        words = ["--child", "--port", rig.port, "--connections", each, "--source", f"127.0.1.{number + 1}"]
        words += ["--begin-at", begin_at, "--over", args.over]
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, *map(str, words), stdout=asyncio.subprocess.PIPE
        )
        said, _ = await process.communicate()
        found: Numbers = msgspec.json.decode(said)
        return found

    return list(await asyncio.gather(*(one(number) for number in range(args.processes))))


def own_network(somaxconn: int) -> str:
    """Move this process, and all that it starts, to a network of its own. Returns what is in force, in words."""
    if somaxconn:
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            return f"the machine's own: {os.strerror(ctypes.get_errno())}"
        with socket.socket() as one:  # interface flags: up
            fcntl.ioctl(one, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", 1))
        for name in ("core/somaxconn", "ipv4/tcp_max_syn_backlog"):
            Path("/proc/sys/net", name).write_text(str(somaxconn))
    return f"net.core.somaxconn {Path('/proc/sys/net/core/somaxconn').read_text().strip()}"


def share(values: list[float], part: float) -> float:
    """A percentile in milliseconds."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1000, 1) if ordered else 0.0


async def run(args: argparse.Namespace) -> int:
    console, capacity = Console(width=130, markup=False), Capacity(slots=32)
    steady: dict[str, object] = {"rate": round(capacity.per_s * 0.3), "duration": BEFORE_S + AFTER_S}
    steady |= {"output_tokens": capacity.tokens, "model": "pearl", "tenants": "steady:key-steady", "pool": 200}
    tenants = {"tenants.steady": {"keys": ["key-steady"]}}
    async with ours(capacity, tenants if args.tenants else None) as rig:
        alone = await load(rig.url, **steady)
        before = [cpu_s(pid) for pid in rig.pids]
        begin_at = time.monotonic() + BEFORE_S
        beside, crowds = await asyncio.gather(load(rig.url, **steady), burst(rig, args, begin_at))
        living = [pid for pid in rig.pids if proc.token(pid)]
        memory = sum(rss_mb(pid) for pid in living)
        used = sum(cpu_s(pid) for pid in living) - sum(before)
    rows = [row for crowd in crowds for row in crowd["rows"]]
    words = Counter(row[0] for row in rows)
    told = {
        "bench": "burst",
        "kernel": args.kernel,
        "connections": len(rows),
        "connecting_took_s": round(max(row[1] for row in rows) - min(row[1] for row in rows), 2),
        "over_after_s": round(max(row[3] for row in rows) - begin_at, 2),
        "words": dict(words.most_common()),
        "connected_ms_p50_p99": [share([row[2] - row[1] for row in rows if row[2]], part) for part in (0.5, 0.99)],
        "refused_ms_p50_p99": [share(refused(rows), part) for part in (0.5, 0.99)],
        "streams_alone": streams(alone),
        "streams_beside": streams(beside),
        "gateway_died": len(living) < len(rig.pids),
        "gateway_rss_mb": round(memory, 1),
        "gateway_cpu_s": round(used, 2),
        "clients_cpu_s": round(sum(crowd["cpu_s"] for crowd in crowds), 2),
    }
    for name, value in told.items():
        console.print(f"{name}: {value}")
    missed = verdicts(told)
    for line in missed:
        console.print(f"misses: {line}")
    print(msgspec.json.encode({**told, "missed": missed}).decode())
    return 1 if missed else 0


def refused(rows: list[Any]) -> list[float]:
    """From the connection to the refusal: what the gateway took, and not the kernel's queue."""
    return [row[3] - row[2] for row in rows if row[0].startswith("refused")]


def streams(report: Numbers) -> Numbers:
    """The background, in short."""
    told = {word: report["counts"][word] for word in ("offered", "good", "refused", "errored", "gave_up")}
    for name in ("ttft", "gap", "latency"):
        told[f"{name}_ms_p50"], told[f"{name}_ms_p99"] = round(at(report, name, "p50"), 1), round(at(report, name), 1)
    return {**told, "refusals": report["refusals"], "gap_ms_max": round(at(report, "gap", "max"), 1)}


def verdicts(told: Numbers) -> list[str]:
    """What misses the bar, in words."""
    missed = [f"{count} clients {word}" for word, count in told["words"].items() if word.startswith("lost")]
    if told["gateway_died"]:
        missed.append("a gateway worker died")
    alone, beside = told["streams_alone"], told["streams_beside"]
    if beside["good"] < beside["offered"]:
        missed.append(f"{beside['offered'] - beside['good']} of {beside['offered']} background requests got no answer")
    for name in ("ttft_ms_p99", "gap_ms_p99"):
        if beside[name] > alone[name] * HARM_FACTOR_MAX and beside[name] > alone[name] + HARM_MS_FREE:
            missed.append(f"{name} of the background streams went from {alone[name]} to {beside[name]}")
    return missed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=20_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--somaxconn", type=int, default=65_535)
    parser.add_argument("--over", type=float, default=1.0, help="seconds in which they come")
    parser.add_argument(
        "--tenants", action=argparse.BooleanOptionalAction, default=True, help="the streams' own tenant"
    )
    for name, kind in (("--child", None), ("--port", int), ("--source", str), ("--begin-at", float)):
        if kind is None:
            parser.add_argument(name, action="store_true", help=argparse.SUPPRESS)
        else:
            parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args)
        return 0
    args.kernel = own_network(args.somaxconn)
    return play(run(args))


if __name__ == "__main__":
    sys.exit(main())
