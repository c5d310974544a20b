"""The Host over real processes: they outlive us, are adopted, are never confused with strangers, and end when told."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from site_up import alive, wait_for

from holdfast.domain.ports import Child, Sighting
from holdfast.host import ports, proc
from holdfast.host.clock import MonotonicClock
from holdfast.host.processes import Processes
from holdfast.store.births import Births

WAITING = "import signal; print('up', flush=True); signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()"
)


class Bench:
    """A host on a folder of births, and the deaths it has told of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.deaths: asyncio.Queue[str] = asyncio.Queue()
        self.host = self.fresh()

    def fresh(self) -> Processes:
        return Processes(Births(self.folder), MonotonicClock(), self.deaths.put_nowait)

    async def start(self, name: str, code: str) -> Sighting:
        log = self.folder / f"{name}.log"
        log.unlink(missing_ok=True)
        sighting = await self.host.start(Child(name=name, argv=(sys.executable, "-c", code), log_path=str(log)))
        wait_for(f"{name} up", lambda: log.exists() and log.read_text().startswith("up"))
        return sighting

    async def death(self) -> str:
        return await asyncio.wait_for(self.deaths.get(), 60)

    async def look(self, name: str) -> Sighting:
        return {one.name: one for one in await self.host.look()}[name]


@asynccontextmanager
async def bench(folder: Path) -> AsyncIterator[Bench]:
    one = Bench(folder)
    try:
        yield one
    finally:
        for sighting in await one.host.look():
            await one.host.stop(sighting.name, 0)
        for sighting in await one.host.look():
            wait_for("its end", lambda pid=sighting.pid: not alive(pid))
        one.host.close()


def test_a_child_lives_in_a_session_of_its_own_and_its_end_is_told_with_its_code(tmp_path):
    async def story():
        async with bench(tmp_path) as one:
            first = await one.start("a", WAITING)
            assert os.getsid(first.pid) == first.pid
            assert first.start_ticks == proc.start_ticks(first.pid)
            assert proc.token(first.pid) == first.token
            assert (await one.look("a")).alive
            os.kill(first.pid, signal.SIGKILL)
            assert await one.death() == "a"
            assert ((await one.look("a")).alive, (await one.look("a")).exit_code) == (False, -9)
            await one.start("b", "print('up', flush=True); raise SystemExit(3)")
            assert await one.death() == "b"
            assert (await one.look("b")).exit_code == 3

    asyncio.run(story())


def test_a_start_that_was_done_already_is_not_done_twice(tmp_path):
    async def story():
        async with bench(tmp_path) as one:
            first = await one.start("a", WAITING)
            again = await one.host.start(Child(name="a", argv=("nothing",)))
            assert again.pid == first.pid

    asyncio.run(story())


def test_a_program_that_is_not_there_is_an_oserror_and_leaves_no_record(tmp_path):
    async def story():
        async with bench(tmp_path) as one:
            with pytest.raises(FileNotFoundError):
                await one.host.start(Child(name="a", argv=("/nowhere/at/all",)))
            assert Births(tmp_path).read() == []

    asyncio.run(story())


def test_stop_asks_first_and_kills_after_the_grace(tmp_path):
    async def story():
        async with bench(tmp_path) as one:
            await one.start("polite", WAITING)
            await one.start("stubborn", STUBBORN)
            await one.host.stop("polite", 60)
            assert await one.death() == "polite"
            assert (await one.look("polite")).exit_code == -signal.SIGTERM
            await one.host.stop("stubborn", 0.2)
            assert await one.death() == "stubborn"
            assert (await one.look("stubborn")).exit_code == -signal.SIGKILL
            one.host.forget("stubborn")
            assert [sighting.name for sighting in await one.host.look()] == ["polite"]
            assert [birth.name for birth in Births(tmp_path).read()] == ["polite"]

    asyncio.run(story())


def test_the_next_host_adopts_what_runs_and_sees_it_die(tmp_path):
    async def story():
        async with bench(tmp_path) as one:
            first = await one.start("a", WAITING)
            await one.start("b", WAITING)
            one.host.close()
            one.host = one.fresh()
            adopted = {sighting.name: sighting for sighting in one.host.adopt()}
            assert sorted(adopted) == ["a", "b"]
            assert (adopted["a"].pid, adopted["a"].start_ticks) == (first.pid, first.start_ticks)
            assert all(sighting.alive for sighting in adopted.values())
            os.kill(first.pid, signal.SIGKILL)
            assert await one.death() == "a"
            assert not (await one.look("a")).alive

    asyncio.run(story())


def test_an_adopted_child_of_our_own_tells_how_it_ended_and_leaves_no_zombie(tmp_path):
    """After an upgrade the supervisor is another image of the same process: its adopted children are its own."""

    async def story():
        async with bench(tmp_path) as one:
            first = await one.start("a", WAITING)
            second = await one.start("b", WAITING)
            one.host.close()
            os.kill(second.pid, signal.SIGKILL)
            wait_for("its end", lambda: not alive(second.pid))
            one.host = one.fresh()
            assert [sighting.name for sighting in one.host.adopt()] == ["a"]
            assert not _unreaped(second.pid), "it stays a zombie"
            os.kill(first.pid, signal.SIGTERM)
            assert await one.death() == "a"
            assert (await one.look("a")).exit_code == -signal.SIGTERM
            assert not _unreaped(first.pid)

    asyncio.run(story())


def _unreaped(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_start_that_was_cut_before_its_record_is_found_by_its_token(tmp_path):
    async def story():
        async with bench(tmp_path) as one:
            first = await one.start("a", WAITING)
            one.host.close()
            Births(tmp_path).write(Sighting(name="a", pid=0, start_ticks=0, token=first.token, alive=False))
            one.host = one.fresh()
            (adopted,) = one.host.adopt()
            assert adopted.pid == first.pid
            (birth,) = Births(tmp_path).read()
            assert birth.pid == first.pid

    asyncio.run(story())


def test_a_stranger_who_got_the_pid_is_neither_adopted_nor_hurt(tmp_path):
    with subprocess.Popen([sys.executable, "-c", WAITING], stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout.readline() == b"up\n"

        async def story():
            async with bench(tmp_path) as one:
                ticks = proc.start_ticks(stranger.pid)
                births = Births(tmp_path)
                births.write(Sighting(name="a", pid=stranger.pid, start_ticks=ticks + 1, token="t", alive=True))
                births.write(Sighting(name="b", pid=stranger.pid, start_ticks=ticks, token="t", alive=True))
                births.write(Sighting(name="c", pid=2**22 - 1, start_ticks=5, token="t", alive=True))
                assert one.host.adopt() == ()
                await one.host.stop("a", 0)
                await one.host.stop("b", 0)
                assert births.read() == []

        asyncio.run(story())
        assert stranger.poll() is None
        stranger.kill()


def test_proc_knows_the_living_from_the_dead():
    assert proc.start_ticks(os.getpid()) > 0
    assert proc.age_s(proc.start_ticks(os.getpid())) >= 0
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    wait_for("a zombie", lambda: proc.start_ticks(child.pid) == 0)
    child.wait()
    assert proc.running_s(Sighting(name="a", pid=child.pid, start_ticks=1, token="", alive=True)) is None
    assert proc.token(child.pid) == ""
    assert proc.pid_with("no such token") == 0


def test_an_address_that_is_not_ours_is_told():
    assert ports.complaint("192.0.2.1", 80) == "can't be had: Cannot assign requested address"
