"""When the batch window helps: the embedded engine with windows of several lengths, at several arrival rates.

    python bench/batching.py [--windows 0,5,15,50] [--rates 2,10,40,80] [--seconds 6] [--burst 8] [--tokens 16] [--prompt 64]

One replica process per window, asked over its own wire with answers that nobody streams. `poisson`: requests come one by one, at
a rate, whenever they like. `bursts`: so many at once, spread evenly over 10 ms, and then silence until all are answered: the
case of a batch job, an evaluation, or a page that asks several questions. For each: answers and tokens a second, latency
percentiles, steps of the engine for one answer, and processor seconds of the replica for one answer. At the end one JSON line.

The seed is fixed, so every window sees the same arrivals.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import holdfast as package
from holdfast.domain.request import Generation, Sampling
from holdfast.engine.embedded import EmbeddedEngine, dial
from holdfast.host.clock import MonotonicClock

PEARL = Path(package.__file__).parent / "shipped" / "pearl"
CLOCK = MonotonicClock()
SPREAD_S = 0.01
SLOTS = 32


@contextmanager
def replica(window_ms: float) -> Iterator[tuple[str, int]]:
    """A replica process with this window. Yields (address, pid)."""
    with tempfile.TemporaryDirectory(prefix="hf") as folder:
        address = f"unix:{folder}/r.sock"
        argv = [sys.executable, "-P", "-m", "holdfast", "replica", f"--listen={address}", f"--model={PEARL}"]
        argv += [f"--slots={SLOTS}", f"--batch-window-ms={window_ms}"]
        env = os.environ | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env, text=True) as child:
            try:
                if child.stdout is None or "ready" not in child.stdout.readline():
                    raise RuntimeError("the replica did not start")
                yield address, child.pid
            finally:
                child.terminate()
                child.wait(20)


def cpu_s(pid: int) -> float:
    """Processor seconds so far: fields 14 and 15 of /proc/PID/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Asker:
    """Asks one replica for answers of a fixed length, and keeps how long each took."""

    def __init__(self, line: EmbeddedEngine, options: argparse.Namespace) -> None:
        self.line, self.options = line, options
        self.rng = Random(options.seed)
        self.asked = 0
        self.latency_s: list[float] = []

    async def ask(self, at: float) -> None:
        """One answer, counted from the moment when it was due."""
        self.asked += 1
        prompt = [self.rng.randrange(8, 500) for _ in range(self.options.prompt)]
        generation = Generation(
            id=str(self.asked),
            prompt_ids=prompt,
            sampling=Sampling(temperature=0, ignore_eos=True),
            max_tokens=self.options.tokens,
            whole=True,
        )
        async with aclosing(self.line.generate(generation)) as chunks:
            async for _ in chunks:
                pass
        self.latency_s.append(time.monotonic() - at)

    async def poisson(self, rate: float) -> None:
        """Independent arrivals for the options' seconds."""
        gaps, at, tasks = Random(self.options.seed), time.monotonic(), []
        until = at + self.options.seconds
        while (at := at + gaps.expovariate(rate)) < until:
            await asyncio.sleep(max(at - time.monotonic(), 0))
            tasks.append(asyncio.ensure_future(self.ask(at)))
        await asyncio.gather(*tasks)

    async def bursts(self, size: int) -> None:
        """Burst after burst for the options' seconds, with a pause in which the engine is idle."""
        until = time.monotonic() + self.options.seconds
        while (began := time.monotonic()) < until:
            tasks = []
            for number in range(size):
                at = began + number * SPREAD_S / size
                await asyncio.sleep(max(at - time.monotonic(), 0))
                tasks.append(asyncio.ensure_future(self.ask(at)))
            await asyncio.gather(*tasks)


async def measure(address: str, pid: int, options: argparse.Namespace, rate: float) -> dict[str, Any]:
    """One row; rate 0 means bursts."""
    line = await dial(address, CLOCK, 5.0)
    warm = Asker(line, options)
    await asyncio.gather(*(warm.ask(time.monotonic()) for _ in range(4)))
    asker, steps, used, began = Asker(line, options), (await line.probe()).load.step, cpu_s(pid), time.monotonic()
    await (asker.poisson(rate) if rate else asker.bursts(options.burst))
    seconds, found = time.monotonic() - began, sorted(asker.latency_s)
    steps, used = (await line.probe()).load.step - steps, cpu_s(pid) - used
    await line.close()
    return {
        "arrivals": f"poisson {rate:g}/s" if rate else f"bursts of {options.burst}",
        "answers_per_s": round(len(found) / seconds, 1),
        "tokens_per_s": round(len(found) * options.tokens / seconds),
        "p50_ms": round(found[len(found) // 2] * 1000, 1),
        "p99_ms": round(found[int(len(found) * 0.99)] * 1000, 1),
        "steps_per_answer": round(steps / len(found), 2),
        "cpu_ms_per_answer": round(used / len(found) * 1000, 1),
        "answers": len(found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", default="0,5,15,50")
    parser.add_argument("--rates", default="2,10,40,80")
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--burst", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--prompt", type=int, default=64)
    parser.add_argument("--seed", type=int, default=5)
    options = parser.parse_args()
    rows = []
    print(f"{'window':>7} {'arrivals':>16} {'answers/s':>9} {'p50 ms':>7} {'p99 ms':>7} {'steps/a':>8} {'cpu ms/a':>9}")
    for window_ms in (float(word) for word in options.windows.split(",")):
        with replica(window_ms) as (address, pid):
            for rate in (*(float(word) for word in options.rates.split(",") if word), 0.0):
                row = {"window_ms": window_ms} | asyncio.run(measure(address, pid, options, rate))
                rows.append(row)
                print(
                    f"{window_ms:7g} {row['arrivals']:>16} {row['answers_per_s']:9} {row['p50_ms']:7} {row['p99_ms']:7} "
                    f"{row['steps_per_answer']:8} {row['cpu_ms_per_answer']:9}",
                    flush=True,
                )
    print(json.dumps({"bench": "batching", "options": vars(options), "rows": rows}))


if __name__ == "__main__":
    main()
