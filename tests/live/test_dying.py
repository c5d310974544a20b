"""A dying process is known by its memory: before its sockets close, and without being taken for dead while it lives."""

import asyncio
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from replica_process import ReplicaProcess

from holdfast.domain.fault import EngineLost
from holdfast.domain.request import Generation
from holdfast.engine.embedded import dial
from holdfast.gateway.lines import Known, Lines
from holdfast.gateway.vigil import Vigil
from holdfast.host.clock import MonotonicClock
from holdfast.host.vitals import Vitals
from holdfast.policy.breaker import Breaker


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        yield child
        child.kill()


def test_a_living_process_is_not_dying_and_a_killed_one_is(sleeper):
    vitals = Vitals(sleeper.pid)
    assert not vitals.dying()
    sleeper.kill()
    sleeper.wait()
    assert vitals.dying()
    vitals.close()


def test_nobody_is_watched_under_a_pid_that_nobody_has(sleeper):
    sleeper.kill()
    sleeper.wait()
    with pytest.raises(OSError):
        Vitals(sleeper.pid)


class Vital:
    """Vital signs that the test sets."""

    def __init__(self) -> None:
        self.gone = self.closed = False

    def dying(self) -> bool:
        return self.gone

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def replica() -> Iterator[str]:
    folder = Path(tempfile.mkdtemp(prefix="hf"))
    process = ReplicaProcess(folder, "--engine", "scripted", "--token-ms", "5", "--listen", f"unix:{folder}/r.sock")
    yield process.ready()["listen"]
    process.end()
    shutil.rmtree(folder)


def test_the_vigil_cuts_the_line_of_a_dying_replica_and_of_no_other(replica):
    async def story() -> None:
        clock = MonotonicClock()
        lines = Lines(lambda place: dial(replica, clock, 10.0), clock, lambda event: None, Breaker)
        vigil, line, vital = Vigil(lines, clock), await dial(replica, clock, 10.0), Vital()
        line.watch_over(vital)
        lines.known()["r"] = Known(None, line, Breaker())
        assert not vigil.look()  # idle: nobody owes anything
        tokens = 0
        with pytest.raises(EngineLost, match="is dying") as lost:
            async with aclosing(line.generate(Generation(id="g", prompt_ids=[20, 21], max_tokens=10_000))) as chunks:
                async for chunk in chunks:
                    tokens += len(chunk.ids)
                    assert vigil.look()
                    vital.gone = tokens >= 3
        assert lost.value.died
        assert line.gone
        assert vital.closed

    asyncio.run(story())


def test_a_broken_connection_to_a_living_replica_is_no_death(replica):
    async def story() -> None:
        line, vital = await dial(replica, MonotonicClock(), 10.0), Vital()
        line.watch_over(vital)
        with pytest.raises(EngineLost) as lost:
            async with aclosing(line.generate(Generation(id="g", prompt_ids=[20, 21], max_tokens=10_000))) as chunks:
                async for _ in chunks:
                    await line.close()
        assert not lost.value.died
        assert vital.closed

    asyncio.run(story())
