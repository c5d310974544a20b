"""Whether a rate is kept: real gateways under a constant overload, counted from outside.

    python bench/rate.py [--rate 2000] [--burst 200] [--seconds 30] [--over 1.5] [--cases 1,2,shared,both,killed,frozen]

Cases: one worker; two workers of one machine on one port; two machines that share through a Redis; the same with two workers
each; one worker each again, with the Redis killed midway, and with it stopped midway (it neither answers nor hangs up). A case's
machines are gateways with a state folder and a port each. Every request asks an instant engine for one token, so nothing but the
rate refuses. `over` is the offered load by the rate. Counted: answers with status 200 a second, after two seconds in which the
burst runs off; what may be at once is small in this bench, or it would be most of what passes. `ideal` is what one token bucket
would have let by of the very requests that were sent, replayed afterwards: where the machine is too busy to send steadily,
compare with that. One row a case, and at the end one JSON line.
"""

import argparse
import asyncio
import contextlib
import json
import signal
import time
from collections import Counter, deque
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import uvloop
from machines import instant, machine, redis, scratch
from msgspec import Struct
from rigs import Missing

from holdfast.policy.token_bucket import TokenBucket

WARM_S = 2.0
CONNECTIONS = 64  # to one port
MIDWAY = {"killed": signal.SIGKILL, "frozen": signal.SIGSTOP}
CASES = ("1", "2", "shared", "both", "killed", "frozen")
BODY = b'{"model":"pearl","messages":[{"role":"user","content":"Say a word."}],"max_tokens":1,"seed":0}'
ASK = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    b"content-length: %d\r\n\r\n%b" % (len(BODY), BODY)
)


class Asker(asyncio.Protocol):
    """One connection: a request at a time, its status counted when the answer is whole."""

    def __init__(self, crowd: "Crowd") -> None:
        self._crowd = crowd
        self._got = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._crowd.free.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.count["lost"] += not self._crowd.over
        with contextlib.suppress(ValueError):
            self._crowd.free.remove(self)

    def ask(self) -> None:
        assert self._transport is not None
        self._transport.write(ASK)

    def data_received(self, data: bytes) -> None:
        got = self._got + data
        head = got.find(b"\r\n\r\n")
        at = got.lower().find(b"content-length: ", 0, head) if head > 0 else -1
        if at < 0 or len(got) < head + 4 + int(got[at + 16 : got.index(b"\r", at)]):
            self._got = got
            return
        self._got = b""
        self._crowd.count[got[9:12].decode()] += 1
        self._crowd.free.append(self)


class Crowd:
    """All connections to one port."""

    def __init__(self) -> None:
        self.free: deque[Asker] = deque()
        self.count: Counter[str] = Counter()
        self.sent: list[float] = []  # when each request was
        self.over = False

    async def send(self, port: int, per_s: float) -> None:
        """Offer that much until cancelled, whatever comes back; what finds no free connection is not offered."""
        loop = asyncio.get_running_loop()
        for _ in range(CONNECTIONS):
            await loop.create_connection(lambda: Asker(self), "127.0.0.1", port)
        began, sent = time.perf_counter(), 0
        while True:
            due = int((time.perf_counter() - began) * per_s)
            for _ in range(due - sent):
                if self.free:
                    self.free.popleft().ask()
                    self.sent.append(time.perf_counter())
            sent = due
            await asyncio.sleep(0.001)


class Count(Struct):
    """What was counted at each port, in how many seconds; and what one ideal bucket would have let by of the same requests."""

    ports: list[Counter[str]]
    seconds: float
    offered: int
    ideal: int


def ideal(sent: list[float], began: float, ended: float, options: argparse.Namespace) -> int:
    """How many of these requests one token bucket lets by between two moments."""
    bucket = TokenBucket(options.rate, options.burst)
    passed = [at for at in sorted(sent) if bucket.take(at) == 0]
    return sum(began <= at < ended for at in passed)


async def count(ports: list[int], options: argparse.Namespace, midway: Callable[[], None] | None) -> Count:
    """Offer load to all ports evenly for the options' seconds. `midway` is called in their middle."""
    crowds = [Crowd() for _ in ports]
    each = options.rate * options.over / len(ports)
    sending = [asyncio.ensure_future(one.send(port, each)) for one, port in zip(crowds, ports, strict=True)]
    await asyncio.sleep(WARM_S)
    began = time.perf_counter()
    for one in crowds:
        one.count.clear()
    await asyncio.sleep(options.seconds / 2)
    if midway is not None:
        midway()
    await asyncio.sleep(began + options.seconds - time.perf_counter())
    found = [Counter(one.count) for one in crowds]
    ended = time.perf_counter()
    for one, task in zip(crowds, sending, strict=True):
        one.over = True
        task.cancel()
    await asyncio.gather(*sending, return_exceptions=True)
    sent = [at for one in crowds for at in one.sent]
    offered = sum(began <= at < ended for at in sent)
    return Count(found, ended - began, offered, ideal(sent, began, ended, options))


def play(case: str, options: argparse.Namespace) -> dict[str, Any]:
    """One case, from nothing to nothing. Raises Missing."""
    with scratch() as root, contextlib.ExitStack() as stack:
        url, midway = "", None
        place = stack.enter_context(instant(root))
        if case not in ("1", "2"):
            url, child = stack.enter_context(redis(root))
            if case in MIDWAY:
                midway = partial(child.send_signal, MIDWAY[case])
        toml = (
            f"[admission]\nrequests_per_s = {options.rate}\nburst = {options.burst}\n"
            f'shared_url = "{url}"\n[degradation]\non = false\n'
        )
        workers, machines = 2 if case in ("2", "both") else 1, 2 if url else 1
        ports = [stack.enter_context(machine(root / f"m{n}", place, workers, toml)) for n in range(machines)]
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(count(ports, options, midway))
    seconds = found.seconds
    passed = sum(one["200"] for one in found.ports)
    other = {word: n for one in found.ports for word, n in one.items() if word not in ("200", "429")}
    return {
        "case": case,
        "per_s": round(passed / seconds, 1),
        "error_percent": round((passed / seconds / options.rate - 1) * 100, 2),
        "ideal_per_s": round(found.ideal / seconds, 1),
        "against_ideal_percent": round((passed / found.ideal - 1) * 100, 2),
        "offered_per_s": round(found.offered / seconds),
        "refused_per_s": round(sum(one["429"] for one in found.ports) / seconds),
        "of_each": [round(one["200"] / seconds, 1) for one in found.ports],
        "other": other,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=2000.0)
    parser.add_argument("--burst", type=float, default=200.0)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--over", type=float, default=1.5)
    parser.add_argument("--cases", default=",".join(CASES))
    options = parser.parse_args()
    rows = []
    print(
        f"{'case':>7} {'passed/s':>9} {'error %':>8} {'ideal/s':>8} {'diff %':>7} {'offered/s':>10} {'429/s':>7}  of each"
    )
    for case in options.cases.split(","):
        try:
            row = play(case, options)
        except (Missing, FileNotFoundError) as error:
            print(f"{case:>7} left out: {error}")
            continue
        rows.append(row)
        print(
            f"{case:>7} {row['per_s']:9} {row['error_percent']:8} {row['ideal_per_s']:8} {row['against_ideal_percent']:7} "
            f"{row['offered_per_s']:10} {row['refused_per_s']:7}  "
            f"{row['of_each']} {row['other'] or ''}",
            flush=True,
        )
    print(json.dumps({"bench": "rate", "options": vars(options), "rows": rows}))


if __name__ == "__main__":
    main()
