"""A process that goes wrong keeps prompts to itself: whatever raises, and however it dies."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from holdfast.domain.last_words import lines_of, told_of

MARKER = "MARKER-5c1e"
BEGIN = f"""
import asyncio, logging, os, resource, sys, threading
from holdfast.host.discretion import be_discreet, keep_quiet
be_discreet(core_dumps=len(sys.argv) > 1)
prompt = "{MARKER}"
def wrong():
    raise KeyError(prompt)
"""
WAYS = {
    "uncaught": "wrong()",
    "chained": "try:\n    wrong()\nexcept KeyError as error:\n    raise ValueError(prompt) from error",
    "group": "raise ExceptionGroup(prompt, [ValueError(prompt)])",
    "thread": "one = threading.Thread(target=wrong); one.start(); one.join()",
    "logged": "try:\n    wrong()\nexcept KeyError:\n    logging.getLogger('holdfast').exception('it failed')",
    "finaliser": "class A:\n    def __del__(self):\n        wrong()\nA()",
    "slow call in debug mode": """
async def serve():
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    loop.slow_callback_duration = 0.0
    keep_quiet(loop)
    loop.call_soon(os.fspath, prompt)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    wrong()
asyncio.run(serve())
""",
    "task": """
async def serve():
    keep_quiet(asyncio.get_running_loop())
    async def work():
        wrong()
    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    del task
    asyncio.get_running_loop().call_soon(wrong)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
asyncio.run(serve())
""",
}


def run(program: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    def generous() -> None:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))

    return subprocess.run(
        [sys.executable, "-c", program, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=generous,
    )


@pytest.mark.parametrize("way", WAYS)
def test_whatever_raises_is_told_by_kind_and_place_alone(way: str, tmp_path: Path) -> None:
    done = run(f"{BEGIN}\n{WAYS[way]}\n", tmp_path)
    assert MARKER not in done.stdout + done.stderr
    kind = "ExceptionGroup" if way == "group" else "KeyError"
    assert kind in done.stderr
    assert "wrong" in done.stderr or way == "group"


def cores(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()]


def test_a_crash_leaves_no_core_unless_it_is_wished(tmp_path: Path) -> None:
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if pattern.startswith(("|", "/")) or resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip(f"core files do not come to this folder here (core_pattern {pattern})")
    crash = f"{BEGIN}\nos.abort()\n"
    for folder, words in ((tmp_path / "quiet", ()), (tmp_path / "wished", ("core",))):
        folder.mkdir()
        assert run(crash, folder, *words).returncode < 0
    assert cores(tmp_path / "quiet") == []
    assert any(MARKER.encode() in path.read_bytes() for path in cores(tmp_path / "wished"))


def test_what_tells_of_a_device_is_let_through() -> None:
    assert told_of(RuntimeError("CUDA error: device-side assert triggered\nmore")) == (
        "RuntimeError: CUDA error: device-side assert triggered"
    )
    assert told_of(RuntimeError(f"{MARKER}: out of memory")) == "RuntimeError: out of memory"
    assert told_of(MemoryError(MARKER)) == "MemoryError: out of memory"
    assert told_of(FileNotFoundError(2, MARKER, MARKER)) == "FileNotFoundError: errno 2"
    assert MARKER not in lines_of(ValueError(MARKER))
