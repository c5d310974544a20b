"""Foreign engines as processes: what they are given, what is heard of them, and that nothing of them is left at the end."""

import asyncio
import os
import signal

import pytest
from engine_programs import FAMILY, HEAD, POLITE, STUBBORN, WAIT, Keeper, Kept, all_gone, kept, launch, pidfds
from msgspec import structs

from holdfast.domain.engine import Leave
from holdfast.domain.engine_record import EngineRecord
from holdfast.domain.replica import StartFault
from holdfast.host import sessions
from holdfast.host.clock import MonotonicClock
from holdfast.host.engine_log import LINE_CHARS_MAX, LINES_KEPT
from holdfast.host.engine_process import EngineNotStarted
from holdfast.host.engine_sweep import make_way, sweep


def freeze_now(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOWAIT)


def test_it_gets_exactly_its_environment_and_a_session_and_its_files(tmp_path):
    code = HEAD + "say('env', *sorted(os.environ)); say('in', repr(sys.stdin.read())); say('sid', os.getsid(0))\n"
    code += "say('file', open('conf/engine.json').read(), oct(os.stat('conf/engine.json').st_mode & 0o777))"

    async def story():
        env = (("API_KEY", "secret"), ("LC_ALL", "C"))
        async with kept(tmp_path, code, env=env, files=(("conf/engine.json", "{}"),)) as one:
            assert await one.said("env") == ["env", "API_KEY", sessions.TOKEN, "LC_ALL"]
            assert await one.said("in") == ["in", "''"]
            assert await one.said("sid") == ["sid", str(one.process.pid)]
            assert await one.said("file") == ["file", "{}", "0o600"]
            await one.process.ended.wait()
            assert one.process.exit.words() == "ended with code 0"
        assert one.records.read() is None

    asyncio.run(story())


def test_its_lines_are_kept_within_bounds_without_colours_and_progress_bars_count_as_lines(tmp_path, caplog):
    code = (
        HEAD
        + r"""
say('\x1b[32mINFO\x1b[0m loading'); sys.stdout.write('shards 1/2\rshards 2/2\r\n')
for number in range(300): say('line', number)
sys.stdout.write('x' * 1_000_000); say('')
say('ERROR 11-29 18:46:37 [core.py:1] no memory'); say('WARNING: slow'); sys.stderr.write('no end')
"""
    )

    async def story():
        async with kept(tmp_path, code) as one:
            await one.process.ended.wait()
            lines = one.process.lines()
            assert len(lines) == LINES_KEPT
            assert lines[-4:] == ["x" * LINE_CHARS_MAX + " ...", lines[-3], "WARNING: slow", "no end"]
            assert one.process.last_error() == "ERROR 11-29 18:46:37 [core.py:1] no memory"
            log = (tmp_path / "engine.log").read_text()
            assert log.startswith("INFO loading\nshards 1/2\nshards 2/2\nline 0\n")
            assert log.endswith("WARNING: slow\nno end\n")

    asyncio.run(story())
    assert [(one.levelname, one.message) for one in caplog.records if one.name == "holdfast.engine"] == [
        ("ERROR", "vllm: ERROR 11-29 18:46:37 [core.py:1] no memory"),
        ("WARNING", "vllm: WARNING: slow"),
    ]


def test_a_flood_of_errors_does_not_fill_our_own_log(tmp_path, caplog):
    code = HEAD + "for number in range(1000): say('ERROR', number)"

    async def story():
        async with kept(tmp_path, code) as one:
            await one.process.ended.wait()

    asyncio.run(story())
    assert 20 <= len([one for one in caplog.records if one.name == "holdfast.engine"]) <= 100


@pytest.mark.parametrize("whole", [False, True], ids=["discreet", "whole"])
def test_once_it_serves_its_logs_quote_nobody_unless_that_is_wanted(tmp_path, caplog, whole):
    code = (
        HEAD
        + """
# not say: a handler may run in the middle of what is being said
signal.signal(signal.SIGUSR1, lambda *_: os._exit(os.write(1, b'ERROR: ValueError: their secret\\ntheir secret\\n') and 1))
say('ERROR: no weights for me')
"""
    )

    async def story():
        async with kept(tmp_path, code + WAIT, whole=whole) as one:
            await one.said("ERROR")
            one.process.serves()
            os.kill(one.process.pid, signal.SIGUSR1)
            await one.process.ended.wait()
            assert one.process.lines()[-1] == "their secret"

    asyncio.run(story())
    log = (tmp_path / "engine.log").read_text()
    assert log.startswith("ERROR: no weights for me\nERROR: ValueError")
    assert ("secret" in log) is ("secret" in caplog.text) is whole
    assert "vllm: ERROR: ValueError" in caplog.text


def test_it_is_asked_to_leave_by_the_signal_of_its_own_way(tmp_path):
    code = HEAD + "signal.signal(signal.SIGINT, lambda *_: sys.exit(7)); say('up')" + WAIT

    async def story():
        async with kept(tmp_path, code, Leave(signal="SIGINT", grace_s=60)) as one:
            await one.said("up")
            await one.process.leave()
            assert one.process.exit.code == 7
            await one.process.leave()

    asyncio.run(story())


@pytest.mark.parametrize(("code", "freeze"), [(STUBBORN, False), (POLITE, True)], ids=["stubborn", "frozen"])
def test_one_that_does_not_leave_is_killed(tmp_path, code, freeze):
    async def story():
        async with kept(tmp_path, code, Leave(grace_s=600 if freeze else 0.2)) as one:
            await one.said("up")
            if freeze:
                freeze_now(one.process.pid)
            await asyncio.wait_for(one.process.leave(), 60)
            assert one.process.exit.words() == "was ended by SIGKILL"

    asyncio.run(story())


def test_all_that_it_has_started_leaves_with_it(tmp_path):
    async def story():
        async with kept(tmp_path, FAMILY) as one:
            fds = pidfds(*await one.family())
            await one.process.leave(60)
            assert one.process.exit.code == -signal.SIGTERM
            assert all_gone(fds, 0), "ended is told when all of them are gone"

    asyncio.run(story())


def test_while_it_starts_all_of_it_gives_way_to_those_that_serve(tmp_path):
    async def story():
        async with kept(tmp_path, FAMILY) as one:
            members = await one.family()
            way = [os.getpriority(os.PRIO_PROCESS, pid) for pid in members]
            if way[0] == os.getpriority(os.PRIO_PROCESS, 0):
                pytest.skip("who may not raise a priority again must not lower it: no CAP_SYS_NICE here")
            assert set(way) == {10}
            one.process.compete()
            assert {os.getpriority(os.PRIO_PROCESS, pid) for pid in members} == {0}

    asyncio.run(story())


def test_when_its_first_process_is_killed_the_others_do_not_stay(tmp_path):
    async def story():
        async with kept(tmp_path, FAMILY) as one:
            main, *others = await one.family()
            one.process.note_members()
            fds = pidfds(main, *others)
            os.kill(main, signal.SIGKILL)
            await asyncio.wait_for(one.process.ended.wait(), 60)
            assert one.process.exit.words() == "was ended by SIGKILL"
            assert all_gone(fds, 0)
            assert one.records.read() is None

    asyncio.run(story())


def test_a_program_that_is_not_there_is_told_with_the_setting(tmp_path):
    async def story():
        one = Kept(tmp_path, launch("", argv=("/nowhere/vllm",)))
        with pytest.raises(EngineNotStarted, match=r"/nowhere/vllm is no program .*: see \[engine\] program") as told:
            one.process.start()
        assert told.value.code is StartFault.SETTINGS
        assert one.records.read() is None

    asyncio.run(story())


def test_files_stay_inside_its_folder(tmp_path):
    async def story():
        one = Kept(tmp_path, launch("", files=(("../above", "x"),)))
        with pytest.raises(PermissionError, match=r"\.\./above would be written outside"):
            one.process.start()
        assert not (tmp_path / "above").exists()

    asyncio.run(story())


def test_nothing_of_it_outlives_a_replica_that_is_killed(tmp_path):
    with Keeper(tmp_path) as keeper:
        guard = pidfds(keeper.guard())
        keeper.kill()
        assert all_gone(keeper.fds, close=False)
        assert all_gone(guard)
        assert keeper.records.read().pid == keeper.pids[0], "the record stays: who is killed can't remove it"


def test_what_the_guard_could_not_end_is_swept_and_strangers_are_spared(tmp_path):
    with Keeper(tmp_path) as keeper:
        record = keeper.records.read()
        assert set(dict(record.members)) == set(keeper.pids)
        keeper.kill_guard()
        keeper.kill()
        for fd in keeper.fds[:2]:
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        assert all_gone(keeper.fds[:2], close=False)
        assert not all_gone(keeper.fds[2:3], 0, close=False), "the worker without an environment lives on"

        stranger = structs.replace(record, token="another", start_ticks=1, members=())
        assert sweep(stranger) == [], "a session of the same number, and no witness that it is the one meant"
        assert sweep(structs.replace(stranger, token="")) == []
        assert sweep(structs.replace(stranger, pid=keeper.pids[3])) == [], "the same pid, and another start time"
        assert sweep(structs.replace(record, machine="b")) == [], "numbers of another boot of the machine mean nothing"

        asyncio.run(make_way(record, MonotonicClock()))
        assert all_gone(keeper.fds, 0, close=False)
        assert sweep(record) == []


def test_one_witness_is_enough_to_end_a_session_with_those_who_came_to_it_later(tmp_path):
    with Keeper(tmp_path) as keeper:
        record = keeper.records.read()
        main, core, worker, loner = keeper.pids
        known = structs.replace(record, token="another", start_ticks=1, members=((core, dict(record.members)[core]),))
        assert sorted(sweep(known)) == sorted([main, core, worker, loner])
        assert all_gone(keeper.fds, close=False)


def test_a_start_of_which_only_the_token_was_written_down_is_swept_with_all_that_descends_from_it(tmp_path):
    with Keeper(tmp_path) as keeper:
        record = keeper.records.read()
        keeper.kill_guard()
        keeper.kill()
        born = EngineRecord(kind="vllm", token=record.token, machine=record.machine)
        assert sorted(sweep(born)) == sorted(keeper.pids)
        assert all_gone(keeper.fds, close=False)


def test_what_does_not_end_is_told_with_its_pids(tmp_path):
    with Keeper(tmp_path) as keeper:
        record = keeper.records.read()
        words = ", ".join(map(str, sorted(keeper.pids)))
        with pytest.raises(EngineNotStarted) as told:
            asyncio.run(make_way(record, MonotonicClock(), within_s=-1))
        assert told.value.why == (
            f"what is left of this replica's former engine does not end (vllm, pid {words}): look at the GPU's driver"
        )
        assert all_gone(keeper.fds, close=False)
        asyncio.run(make_way(record, MonotonicClock()))
        asyncio.run(make_way(None, MonotonicClock()))
