"""The start of a foreign engine: real programs that print what engines print, and open a door, or do not."""

import asyncio
import logging
import re
import socket
from pathlib import Path

import pytest
from engine_programs import FAMILY, HEAD, WAIT, all_gone, kept, pidfds

from holdfast.domain.engine import Progress, StartFailure
from holdfast.domain.fault import EngineLost, EngineRefused
from holdfast.domain.replica import StartFault
from holdfast.host.engine_log import level_of
from holdfast.host.engine_process import EngineNotStarted
from holdfast.host.engine_start import until_ready

LOADS = r"""
for number in range(1, 4):
    sys.stderr.write(f'\rLoading safetensors checkpoint shards: {number}/3'); sys.stderr.flush()
say('\nwarming up')
"""
OPENS = "import socket; door = socket.socket(socket.AF_UNIX); door.bind('door'); door.listen(); say('open')"


def read(line: str) -> Progress | StartFailure | None:
    """As policy/start_log.py reads; only what these programs say."""
    shards = re.search(r"shards: (\d+)/(\d+)", line)
    if shards:
        return Progress(f"weights loaded {shards[1]}/{shards[2]} shards", int(shards[1]) / int(shards[2]))
    if "out of memory" in line:
        return StartFailure(StartFault.MEMORY, "the GPU's memory is too small: fewer slots")
    return StartFailure(StartFault.MODEL, "bad weights") if "bad weights" in line else None


class Door:
    """Whether the engine listens; `knocks` counts how often it was asked."""

    def __init__(self, folder: Path) -> None:
        self.path, self.knocks = folder / "engine" / "door", 0

    async def open(self) -> bool:
        self.knocks += 1
        with socket.socket(socket.AF_UNIX) as one:
            one.connect(str(self.path))  # FileNotFoundError until it listens
        return True


def start(folder: Path, code: str, **more: object) -> list[str]:
    """Run it until it is ready; what was told of its progress."""

    async def story() -> list[str]:
        told: list[str] = []
        async with kept(folder, code, **more) as one:
            door = Door(folder)
            ready = until_ready(one.process, door.open, read, lambda found: told.append(found.stage), one.clock)
            await asyncio.wait_for(ready, 60)
            assert not one.process.ended.is_set()
            assert one.records.read().members, "who belongs to it is written down"
        return told

    return asyncio.run(story())


def refused(folder: Path, code: str, **more: object) -> EngineNotStarted:
    """Why it could not be started; nothing of it is left by then."""

    async def story() -> EngineNotStarted:
        async with kept(folder, code, **more) as one:
            with pytest.raises(EngineNotStarted) as raised:
                await asyncio.wait_for(
                    until_ready(one.process, Door(folder).open, read, lambda found: None, one.clock), 60
                )
            assert one.process.ended.is_set()
        return raised.value

    return asyncio.run(story())


def test_its_progress_is_told_until_its_door_is_open(tmp_path):
    told = start(tmp_path, HEAD + LOADS + OPENS + WAIT)
    assert told == [f"weights loaded {number}/3 shards" for number in (1, 2, 3)]


def test_of_several_failures_the_first_is_the_cause(tmp_path):
    code = HEAD + "say('ERROR: CUDA out of memory'); say('ERROR: bad weights'); sys.exit(1)"
    found = refused(tmp_path, code)
    assert (found.code, found.why) == (StartFault.MEMORY, "the GPU's memory is too small: fewer slots")


def test_an_unknown_end_is_told_with_the_last_error_and_may_be_tried_again(tmp_path):
    found = refused(tmp_path, HEAD + "say('RuntimeError: the stars are wrong'); say('bye'); sys.exit(9)")
    assert found.code is None
    assert found.why == (
        "the engine ended with code 9 before it was ready; it said last: RuntimeError: the stars are wrong"
    )


def test_a_silent_end_is_told_without_words(tmp_path):
    found = refused(tmp_path, "import os; os.abort()")
    assert found.why == "the engine was ended by SIGABRT before it was ready"


def test_one_that_is_never_ready_is_ended_when_its_time_is_up(tmp_path):
    found = refused(tmp_path, HEAD + "say('thinking')" + WAIT, start_s=0.6)
    assert found.code is None
    assert re.fullmatch(
        r"the engine is not ready after \d s \(it told of no progress\); it said last: thinking. "
        r"For more time: \[engine\] start_s",
        found.why,
    )


def test_one_that_shows_progress_is_given_more_than_its_time_and_not_for_ever(tmp_path):
    code = (
        HEAD
        + "import time\nfor number in range(10**6): say(f'shards: {number}/1000000'); signal.sigtimedwait([], 0.05)"
    )
    found = refused(tmp_path, code, start_s=1.0)
    assert re.match(r"the engine is not ready after 2 s \(weights loaded \d+/1000000 shards\)", found.why)


def test_a_failure_that_was_read_wrongly_does_not_keep_an_engine_from_serving(tmp_path):
    assert start(tmp_path, HEAD + "say('WARNING: not out of memory yet')\n" + OPENS + WAIT) == []


def test_who_gives_up_leaves_nothing_of_it(tmp_path):
    async def story():
        async with kept(tmp_path, FAMILY) as one:
            fds = pidfds(*await one.family())
            waiting = asyncio.create_task(until_ready(one.process, Door(tmp_path).open, read, print, one.clock))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert all_gone(fds, 0)

    asyncio.run(story())


def test_a_door_that_says_no_in_any_way_is_asked_again(tmp_path):
    answers = iter([EngineLost("cut"), EngineRefused("503"), ConnectionRefusedError(), False, True])

    async def ready() -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def story():
        async with kept(tmp_path) as one:
            await asyncio.wait_for(until_ready(one.process, ready, read, print, one.clock), 60)
            assert list(answers) == []

    asyncio.run(story())


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("ERROR 11-29 18:46:37 [core.py:1100] EngineCore failed to start.", logging.ERROR),
        ("(EngineCore_0 pid=7) ERROR 11-29 18:46:37 [core.py:1] RuntimeError: x", logging.ERROR),
        ("(APIServer pid=7) WARNING 11-29 18:46:37 [config.py:1] slow", logging.WARNING),
        ("(APIServer pid=7) INFO 11-29 18:46:37 [config.py:1] error_on_x=False", logging.INFO),
        ("(EngineCore pid=7) torch.OutOfMemoryError: CUDA out of memory. Tried", logging.ERROR),
        ("[2026-11-29 18:46:37 TP0] ERROR: scheduler hit an exception", logging.ERROR),
        ("[2026-11-29 18:46:37] Load weight begin. avail mem=79 GB", logging.INFO),
        ("ERROR:    [Errno 98] error while attempting to bind on address", logging.ERROR),
        ("E1129 18:46:37.123456 77 model_lifecycle.cc:1] failed to load", logging.ERROR),
        ("W1129 18:46:37.123456 77 metrics.cc:1] no GPU", logging.WARNING),
        ("I1129 18:46:37.123456 77 server.cc:1] ERROR is a word", logging.INFO),
        ("error: couldn't bind HTTP server socket", logging.ERROR),
        ("0.00.123.456 E srv  load_model: failed to load model", logging.ERROR),
        ("RuntimeError: Engine core initialization failed.", logging.ERROR),
        ("An error has been seen elsewhere", logging.INFO),
    ],
)
def test_a_level_is_told_by_its_place(line, level):
    assert level_of(line) == level
