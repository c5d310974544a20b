"""The demo and the benches as anybody would run them: real processes, real signals, and nothing left behind."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from holdfast.domain.fault import NoReplica
from holdfast.drill.arena import Arena, Plan
from holdfast.host.clock import MonotonicClock
from holdfast.policy.havoc import Blow

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder with a short name (unix sockets lie in it) for everything that the run keeps."""
    with tempfile.TemporaryDirectory(prefix="hf-") as folder:
        yield Path(folder)


def environment(scratch: Path) -> dict[str, str]:
    return {**os.environ, "TMPDIR": str(scratch), "OMP_NUM_THREADS": "1"}


def finished(words: list[str], scratch: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=ROOT, env=environment(scratch), capture_output=True, text=True, check=False)


def left_running(scratch: Path) -> list[str]:
    """Command lines of all processes that were started on this folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if str(scratch) in words:
                found.append(words)
    return found


def test_every_answer_of_the_demo_is_exact(scratch: Path) -> None:
    words = ["-m", "holdfast", "demo", "--seconds", "8", "--streams", "8", "--seed", "3", "--json"]
    outcome = finished(words, scratch)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    told = json.loads(outcome.stdout)
    assert told["ok"] is True
    assert told["strikes"] >= 1
    assert told["answers"] == told["exact"] >= 8
    assert told["affected"] == told["saved"]
    assert told["verdict"].startswith(
        f"{told['strikes']} replicas lost, {told['answers']} answers, {told['answers']} exact"
    )
    assert left_running(scratch) == []
    assert list(scratch.iterdir()) == []


def test_an_interrupted_demo_leaves_nothing_running(scratch: Path) -> None:
    command = [sys.executable, "-m", "holdfast", "demo", "--seconds", "600", "--streams", "4"]
    with subprocess.Popen(command, cwd=ROOT, env=environment(scratch), stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        said = [demo.stdout.readline()]
        while said[-1] and not said[-1].startswith("now 4 streams"):
            said.append(demo.stdout.readline())
        assert said[-1], said
        assert left_running(scratch)
        demo.send_signal(signal.SIGINT)
        demo.send_signal(signal.SIGINT)  # people press it twice
        demo.stdout.read()
        assert demo.wait() == 130
    assert left_running(scratch) == []


def test_the_failover_bench_loses_nothing(scratch: Path) -> None:
    words = ["bench/failover.py", "--streams", "12", "--tokens", "120", "--token-ms", "20", "--background", "20"]
    outcome = finished(words, scratch)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    rows = {row["fault"]: row for row in json.loads(outcome.stdout.splitlines()[-1])["rows"]}
    assert set(rows) == {"SIGKILL", "SIGSTOP"}
    for row in rows.values():
        assert row["affected"] == row["saved"] >= 1
        assert row["truncated"] == row["errored"] == row["hung"] == row["wrong"] == 0
        assert row["new_requests_failed"] == 0
    assert left_running(scratch) == []


def test_the_matrix_heals_and_counts_what_it_breaks(scratch: Path) -> None:
    words = ["bench/failover.py", "--faults", "2", "--kinds", "SIGKILL,reset,wrong", "--streams", "12"]
    outcome = finished(words, scratch)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    rows = {row["kind"]: row for row in json.loads(outcome.stdout.splitlines()[-1])["rows"]}
    assert set(rows) == {"SIGKILL", "reset", "wrong"}
    for row in rows.values():
        assert row["faults"] == 2
        assert row["found_s_p99"] >= 0
        assert row["answers"] > row["affected"] > 0
    assert (rows["SIGKILL"]["wrong"], rows["reset"]["wrong"]) == (0, 0)
    assert rows["wrong"]["wrong"] > 0, "wrong tokens went out, and the bench did not see them"
    assert left_running(scratch) == []


def test_nobody_notices_a_supervisor_or_control_plane_killed_or_state_files_removed(scratch: Path) -> None:
    outcome = finished(["bench/supervisor.py", "--streams", "6", "--headless-s", "1"], scratch)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    told = json.loads(outcome.stdout.splitlines()[-1])
    assert [(row["processes"], row["kept"]) for row in told["rows"]] == [(4, 4), (5, 5), (5, 5), (5, 5)]
    assert told["answers"] == told["exact"] >= 6
    assert told["new_requests_failed"] == 0 < told["new_requests"]
    assert left_running(scratch) == []


def test_an_arena_that_can_not_come_up_says_why_and_leaves_nothing(scratch: Path) -> None:
    async def enter() -> None:
        plan = Plan(engine="scripted", more={"model": {"path": str(scratch)}})
        async with Arena(plan, MonotonicClock()):
            pass

    with pytest.raises(NoReplica, match=r"the drill's own site has ended(.|\n)*tokenizer\.json"):
        asyncio.run(enter())
    assert left_running(scratch) == []


def test_a_process_that_is_not_the_arenas_is_never_hurt() -> None:
    async def strike() -> tuple[bool, bool]:
        async with Arena(Plan(replicas=1, engine="scripted"), MonotonicClock()) as arena:
            listed = arena.roster().places[0]
            ourselves = structs.replace(listed, pid=os.getpid())
            return arena.strike(ourselves, Blow.KILL), arena.strike(listed, Blow.KILL)

    assert asyncio.run(strike()) == (False, True)


@pytest.mark.parametrize(
    ("words", "sentence"), [(["--replicas", "1"], "nowhere to go"), (["--streams", "0"], "above 0")]
)
def test_a_wish_that_makes_no_sense_is_refused(words: list[str], sentence: str, scratch: Path) -> None:
    outcome = finished(["-m", "holdfast", "demo", *words], scratch)
    assert outcome.returncode == 2
    assert sentence in outcome.stderr
