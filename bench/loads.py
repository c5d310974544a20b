"""`holdfast load`, run as a process of its own, for the benches; and how a bench that starts sites is run."""

import asyncio
import signal
import sys
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import msgspec
import uvloop

Numbers = dict[str, Any]


async def load(url: str, *words: str, **options: object) -> Numbers:
    """Run it and return its report. `options` are its options: rate=100, output_tokens="16-64", no_stream=True, ...

    Raises:
        RuntimeError: it could not be played; with what it said.
    """
    argv = [sys.executable, "-P", "-m", "holdfast", "load", url, *words]
    for name, value in options.items():
        option = "--" + name.replace("_", "-")
        argv += [option] if value is True else [option, str(value)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "report.json"
        child = await asyncio.create_subprocess_exec(
            *argv, "--json", str(file), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            said, _ = await child.communicate()
        finally:
            if child.returncode is None:
                child.terminate()
                await child.wait()
        if not file.exists():
            raise RuntimeError(f"holdfast load ended with {child.returncode}: {said.decode()[-2000:]}")
        found: Numbers = msgspec.json.decode(file.read_bytes())
        return found


def play(bench: Coroutine[None, None, int]) -> int:
    """Run a bench to its exit code. SIGINT and SIGTERM end it in order: else the sites that it started would stay."""

    async def until_told() -> int:
        task = asyncio.ensure_future(bench)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await task

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            return runner.run(until_told())
        except asyncio.CancelledError:
            return 143


def at(report: Numbers, name: str, key: str = "p99") -> float:
    """A percentile in milliseconds; 0 where nothing was counted."""
    return float(report["times_ms"].get(name, {}).get(key, 0.0))
