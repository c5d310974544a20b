"""Whether a token quota holds while many streams run at once: real gateways, counted from outside.

    python bench/quota.py [--streams 64] [--quota 60000] [--burst 20000] [--max-tokens 256] [--answer 100] [--seconds 15]

So many clients of one tenant ask for streams, again and again, as fast as they are let; the answers end by themselves long
before `max_tokens`. `quota` is in tokens a minute, `burst` may be used at once. Each stream's whole use, as the answer's own
`usage` tells it, is counted from the moment when its first byte came, which is earlier than it was used:

    overshoot = max over time of (use of all streams begun by then - burst - quota * time)

Below 0 means that the quota held at every moment. A limiter that charges when a stream has ended can't know of the streams that
run: it lets so many more tokens by as `at_end` says (streams * (max_tokens + prompt), computed, not measured). `used_percent`
is how much of the quota could be used, though all of it was reserved by upper bounds. With one worker and with two.
"""

import argparse
import asyncio
import contextlib
import json
import re
import time
from typing import Any

import uvloop
from machines import machine, scratch, scripted

USAGE = re.compile(rb'"usage": ?\{"prompt_tokens": ?(\d+), ?"completion_tokens": ?(\d+)')
REST_S = 0.1


class Crowd:
    """What its clients saw: streams as (first byte after so many seconds, tokens used), refusals by their limit."""

    def __init__(self, port: int, options: argparse.Namespace) -> None:
        body = {
            "model": "pearl",
            "messages": [{"role": "user", "content": "Tell a story of a lighthouse keeper and her cat."}],
            "max_tokens": options.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        raw = json.dumps(body).encode()
        self.port = port
        self.request = (
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            b"authorization: Bearer acme-key\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%b" % (len(raw), raw)
        )
        self.streams: list[tuple[float, int]] = []
        self.prompt = 0
        self.refused: dict[str, int] = {}
        self.broken = self.running = self.running_most = 0
        self.began = time.perf_counter()

    async def client(self, until: float) -> None:
        """Ask until the time is up; a refused one rests a little and asks again."""
        while time.perf_counter() < until:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(self.request)
                await self._read(reader)
            finally:
                writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        first = time.perf_counter() - self.began
        if not head.startswith(b"HTTP/1.1 200"):
            said = json.loads(await reader.read())
            name = said["error"].get("limit", {}).get("name", said["error"].get("code", "?"))
            self.refused[name] = self.refused.get(name, 0) + 1
            await asyncio.sleep(REST_S)
            return
        self.running += 1
        self.running_most = max(self.running_most, self.running)
        found = USAGE.findall(await reader.read())
        self.running -= 1
        if not found:
            self.broken += 1
            return
        self.prompt = int(found[-1][0])
        self.streams.append((first, int(found[-1][0]) + int(found[-1][1])))

    def overshoot(self, per_s: float, burst: float) -> float:
        """The most that was used beyond what had flowed in."""
        used, most = 0, -burst
        for first, tokens in sorted(self.streams):
            used += tokens
            most = max(most, used - burst - per_s * first)
        return most


async def crowd(port: int, options: argparse.Namespace) -> Crowd:
    """All clients, all at once."""
    found = Crowd(port, options)
    until = found.began + options.seconds
    await asyncio.gather(*(found.client(until) for _ in range(options.streams)))
    return found


def play(workers: int, options: argparse.Namespace) -> dict[str, Any]:
    """One case, from nothing to nothing."""
    toml = (
        f'[tenants.acme]\nkeys = ["acme-key"]\ntokens_per_min = {options.quota}\ntokens_burst = {options.burst}\n'
        "[degradation]\non = false\n"
    )
    words = f"--slots=1024 --token-ms=10 --answer-tokens={options.answer} --context=2048".split()
    with scratch() as root, contextlib.ExitStack() as stack:
        place = stack.enter_context(scripted(root, *words))
        port = stack.enter_context(machine(root / "m", place, workers, toml))
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(crowd(port, options))
    per_s, used = options.quota / 60, sum(tokens for _, tokens in found.streams)
    last = max(first for first, _ in found.streams)
    return {
        "workers": workers,
        "overshoot_tokens": round(found.overshoot(per_s, options.burst), 1),
        "at_end_tokens": options.streams * (options.max_tokens + found.prompt),
        "used_percent": round(100 * used / (options.burst + per_s * last), 1),
        "streams": len(found.streams),
        "at_once": found.running_most,
        "tokens_each": round(used / len(found.streams), 1),
        "reserved_each": options.max_tokens + found.prompt,
        "refused": found.refused,
        "broken": found.broken,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--quota", type=float, default=60_000.0)
    parser.add_argument("--burst", type=float, default=20_000.0)
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--answer", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=15.0)
    options = parser.parse_args()
    rows = []
    print(f"{'workers':>7} {'overshoot':>9} {'at end':>7} {'used %':>7} {'streams':>8} {'at once':>8}  refused")
    for workers in (1, 2):
        row = play(workers, options)
        rows.append(row)
        print(
            f"{workers:7} {row['overshoot_tokens']:9} {row['at_end_tokens']:7} {row['used_percent']:7} {row['streams']:8} "
            f"{row['at_once']:8}  {row['refused']} {row['broken'] or ''}",
            flush=True,
        )
    print(json.dumps({"bench": "quota", "options": vars(options), "rows": rows}))


if __name__ == "__main__":
    main()
