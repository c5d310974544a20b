"""What engines have in shared memory outlives a SIGKILL: it is removed with them, and nobody else's is."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_programs import HEAD, WAIT, Keeper, all_gone, kept, pidfds
from msgspec import structs

from holdfast.host import sessions
from holdfast.host.clock import MonotonicClock
from holdfast.host.engine_sweep import make_way, sweep

MEMORY = Path("/dev/shm")
# As vLLM has them: Python's shared memory, a semaphore for processes that are spawned, and the process that would remove both.
TRACKED = (
    HEAD
    + """
from multiprocessing import get_context, resource_tracker, shared_memory
one, lock = shared_memory.SharedMemory(create=True, size=4096), get_context('spawn').Lock()
say('shared', one.name.lstrip('/'), 'sem.' + lock._semlock.name.lstrip('/'), resource_tracker._resource_tracker._pid)
"""
    + WAIT
)


def mapping(*names: str) -> str:
    """A program that has these files mapped, and nobody who would remove them."""
    opened = "maps = [mmap.mmap(os.open(f'/dev/shm/{name}', os.O_RDWR), 4096) for name in names]"
    return HEAD + f"import mmap\nnames = {names!r}\n{opened}\nsay('family', os.getpid())" + WAIT


class Files:
    """Files in shared memory with names that nobody else has."""

    def __init__(self) -> None:
        self._made: list[Path] = []

    def make(self, head: str) -> str:
        path = MEMORY / f"{head}{os.urandom(6).hex()}"
        path.write_bytes(bytes(4096))
        self._made.append(path)
        return path.name

    def remove(self) -> None:
        for path in self._made:
            path.unlink(missing_ok=True)


@pytest.fixture
def files() -> Iterator[Files]:
    made = Files()
    yield made
    made.remove()


def there(name: str) -> bool:
    return (MEMORY / name).exists()


@pytest.mark.parametrize("tracker", [True, False], ids=["tracker lives", "tracker killed too"])
def test_an_engine_that_is_killed_leaves_nothing_in_shared_memory(tmp_path, tracker):
    async def story():
        async with kept(tmp_path, TRACKED) as one:
            _, memory, semaphore, tidy = await one.said("shared")
            if not tracker:
                one.process.note_members()
                fds = pidfds(int(tidy))
                os.kill(int(tidy), signal.SIGKILL)
                assert all_gone(fds)
            assert there(memory)
            assert there(semaphore)
            os.kill(one.process.pid, signal.SIGKILL)
            await asyncio.wait_for(one.process.ended.wait(), 60)
            assert not there(memory)
            assert not there(semaphore)

    asyncio.run(story())


def test_a_frozen_tracker_is_thawed(tmp_path):
    async def story():
        async with kept(tmp_path, TRACKED) as one:
            _, memory, semaphore, tidy = await one.said("shared")
            assert there(memory)
            assert there(semaphore)
            os.kill(int(tidy), signal.SIGSTOP)
            one.process.kill()
            await asyncio.wait_for(one.process.ended.wait(), 60)
            assert not there(memory)
            assert not there(semaphore)

    asyncio.run(story())


def test_what_is_not_its_own_stays(tmp_path, files):
    own, held, model, strange = (files.make(head) for head in ("psm_", "psm_", "model_", "psm_"))

    async def story():
        async with kept(tmp_path, mapping(own, held, model)) as one:
            await one.family()
            one.process.note_members()
            assert {name for _, name in one.records.read().shared} == {own, held}
            await one.process.leave(0)
        assert (there(own), there(held), there(model), there(strange)) == (False, True, True, True)

    words = [sys.executable, "-S", "-c", mapping(held)]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        try:
            asyncio.run(story())
        finally:
            other.kill()


def test_a_name_that_means_another_file_by_now_is_spared(files):
    name = files.make("psm_")
    seen = sessions.SharedFile((MEMORY / name).stat().st_ino, name)
    (MEMORY / name).rename(MEMORY / files.make("psm_"))
    (MEMORY / name).write_bytes(b"somebody else's")
    assert sessions.free_shared([seen]) == []
    assert sessions.free_shared([sessions.SharedFile((MEMORY / name).stat().st_ino, name)]) == [name]


def test_the_guard_frees_what_it_sees_or_was_told_when_the_replica_is_killed(tmp_path, files):
    name = files.make("psm_")
    with Keeper(tmp_path, mapping(name)) as keeper:
        guard = pidfds(keeper.guard())
        keeper.kill()
        assert all_gone(keeper.fds, close=False)
        assert all_gone(guard)
        assert not there(name)


def test_the_guard_frees_what_it_was_told_when_all_were_killed_at_once(tmp_path, files):
    name = files.make("psm_")
    with Keeper(tmp_path, mapping(name)) as keeper:
        guard = keeper.guard()
        fds = pidfds(guard)
        os.kill(guard, signal.SIGSTOP)
        keeper.kill()
        signal.pidfd_send_signal(keeper.fds[0], signal.SIGKILL)
        assert all_gone(keeper.fds, close=False)
        assert there(name)
        os.kill(guard, signal.SIGCONT)
        assert all_gone(fds)
        assert not there(name)


def test_a_supervisor_frees_it_where_no_next_life_begins(tmp_path, files):
    name = files.make("psm_")
    with Keeper(tmp_path, mapping(name)) as keeper:
        keeper.kill_guard()
        keeper.kill()
        record = keeper.records.read()
        assert sweep(record) == keeper.pids
        assert all_gone(keeper.fds, close=False)
        assert sweep(structs.replace(record, machine="another boot")) == []
        assert there(name)
        assert sweep(record) == []
        assert not there(name)


@pytest.mark.parametrize("dead", [False, True], ids=["engine lives", "engine killed too"])
def test_the_next_life_frees_what_the_guard_could_not(tmp_path, files, dead):
    name = files.make("psm_")
    with Keeper(tmp_path, mapping(name)) as keeper:
        record = keeper.records.read()
        keeper.kill_guard()
        keeper.kill()
        if dead:
            signal.pidfd_send_signal(keeper.fds[0], signal.SIGKILL)
            assert all_gone(keeper.fds, close=False)
            asyncio.run(make_way(structs.replace(record, machine="another boot"), MonotonicClock()))
        assert there(name)
        asyncio.run(make_way(structs.replace(record, shared=record.shared if dead else ()), MonotonicClock()))
        assert all_gone(keeper.fds, 0, close=False)
        assert not there(name)
