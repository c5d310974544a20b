"""A lever does what it says, to a real replica server over a real socket, and nothing before it is pulled."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from stages import CLOCK, SCRIPT

from holdfast.domain.address import UnixAddress
from holdfast.domain.fault import EngineLost
from holdfast.domain.ports import Work
from holdfast.domain.request import Generation, Sampling
from holdfast.domain.wire import Cutter, WireFault, downward
from holdfast.engine.embedded import EmbeddedEngine, dial
from holdfast.pearl.listen import claim
from holdfast.pearl.server import ReplicaServer, ServerOptions
from holdfast.sim.levers import LeveredCore, Pull, State, pull_lever, serve_levers
from holdfast.sim.scripted import Script, scripted_answer
from holdfast.sim.tap import SWALLOWED_BYTES, garbage

PROMPT = [20, 21, 22]
ASKED = Generation(id="g", prompt_ids=PROMPT, max_tokens=400, seed=5)
INSTANT = structs.replace(SCRIPT, token_s=0.0, prefill_chunk_tokens=0)
WHOLE = scripted_answer(PROMPT, 5, 400, SCRIPT)
EAT = """
from holdfast.domain.ports import Work
from holdfast.domain.request import Sampling
from holdfast.sim.levers import LeveredCore, Pull
from holdfast.sim.scripted import Script
core = LeveredCore(Script())
core.pull(Pull("memory"))
core.submit(1, Work(prompt_ids=[20], delivered_ids=[], sampling=Sampling(), max_tokens=5, seed=1, stop_ids=()))
core.step()
"""


def levered(script: Script = INSTANT, attempts: int = 2) -> LeveredCore:
    core = LeveredCore(script)
    for ticket in range(attempts):
        core.submit(ticket, work(PROMPT))
    return core


def work(prompt_ids: list[int]) -> Work:
    return Work(
        prompt_ids=prompt_ids, delivered_ids=[], sampling=Sampling(logprobs=1), max_tokens=400, seed=5, stop_ids=()
    )


def ids(core: LeveredCore, steps: int) -> dict[int, list[int]]:
    told: dict[int, list[int]] = {}
    for _ in range(steps):
        for one in core.step():
            told.setdefault(one.ticket, []).extend(one.ids)
    return told


def test_untouched_it_is_the_scripted_core() -> None:
    assert ids(levered(), 20) == {0: WHOLE[:20], 1: WHOLE[:20]}


def test_wrong_tokens_are_words_of_the_same_vocabulary_until_it_is_healed() -> None:
    core = levered(attempts=1)
    core.pull(Pull("wrong"))
    (one,) = core.step()
    assert one.ids != WHOLE[:1]
    assert one.ids[0] in SCRIPT.vocabulary
    assert one.logprobs is not None
    assert one.logprobs[0].id == one.ids[0] == one.logprobs[0].top[0][0]
    core.pull(Pull("heal"))
    assert ids(core, 3) == {0: WHOLE[1:4]}


def test_errors_fail_their_share_of_attempts_evenly_until_it_is_healed() -> None:
    core = levered(attempts=0)
    core.pull(Pull("errors", share=0.25))

    def failed(count: int) -> list[bool]:
        found = []
        for _ in range(count):
            core.submit(len(found), work(PROMPT))
            found.append(any(one.fault for _ in range(4) for one in core.step()))
            core.abort(len(found) - 1)
        return found

    assert failed(8) == [False, False, False, True] * 2
    core.pull(Pull("heal"))
    assert failed(8) == [False] * 8


def test_an_error_fails_every_answer_once_and_delivers_nothing_of_that_step() -> None:
    core = levered()
    core.step()
    core.pull(Pull("error"))
    assert {(one.ticket, tuple(one.ids), one.fault) for one in core.step()} == {
        (ticket, (), "scripted: told to fail every answer once") for ticket in range(2)
    }
    assert core.load().running == 0
    core.submit(7, work(PROMPT))
    assert ids(core, 2) == {7: WHOLE[:2]}


def test_a_liar_counts_no_steps_and_still_tells_its_load() -> None:
    core = levered()
    core.step()
    core.pull(Pull("lie"))
    state = core.pull(Pull("state"))
    assert core.step() == []
    assert (core.load().step, core.load().running) == (state.step, state.running) == (1, 2)


def test_prompts_are_read_a_chunk_a_step_all_attempts_together() -> None:
    core = LeveredCore(structs.replace(INSTANT, slots=8))
    core.pull(Pull("prefill", chunk_tokens=4, s_per_token=0.0))
    for ticket in range(3):
        core.submit(ticket, work(PROMPT))
    begun = []
    for _ in range(4):
        begun.append(sorted(one.ticket for one in core.step() if one.ids))
    assert begun == [[0], [0, 1], [0, 1, 2], [0, 1, 2]]


def test_a_slow_step_takes_so_many_times_as_long() -> None:
    core = levered(structs.replace(INSTANT, token_s=0.01))
    core.pull(Pull("slow", factor=4.0))
    began = CLOCK.now()
    core.step()
    assert CLOCK.now() - began >= 0.03


def test_an_unknown_lever_is_named() -> None:
    assert "there is no lever 'x'" in levered().pull(Pull("x")).why


def test_out_of_memory_ends_the_process_by_the_allocators_own_word() -> None:
    done = subprocess.run([sys.executable, "-c", EAT], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("MemoryError")


@pytest.mark.parametrize("seed", [0, 1])
def test_garbage_is_found_out_at_once(seed: int) -> None:
    with pytest.raises(WireFault):
        [downward(body) for body in Cutter().feed(garbage(seed))]


def test_a_frame_that_never_ends_swallows_what_comes_after_it() -> None:
    cutter = Cutter()
    assert list(cutter.feed(garbage(2))) == []
    assert list(cutter.feed(bytes(SWALLOWED_BYTES // 2))) == []


@asynccontextmanager
async def site(folder: Path) -> AsyncIterator[tuple[EmbeddedEngine, Callable[[Pull], Coroutine[Any, Any, State]], str]]:
    """A server with a tapped, levered core; a line to it; how to pull; its address."""
    core = LeveredCore(SCRIPT)
    options = ServerOptions(replica="r", boot="b", context_tokens_max=SCRIPT.context_tokens_max, pause_s=0.0005)
    server = ReplicaServer(core, CLOCK, options, core.tap)
    serving = asyncio.create_task(server.serve(claim(UnixAddress(f"{folder}/r.sock"))))
    serve_levers(folder / "levers", core.pull)
    address = f"unix:{folder}/r.sock"
    line = await dial(address, CLOCK, 5.0)
    try:
        yield line, lambda pull: asyncio.to_thread(pull_lever, folder / "levers", pull), address
    finally:
        await line.close()
        server.drain(0.0)
        await asyncio.gather(serving, return_exceptions=True)


async def read(line: EmbeddedEngine, spoil: Callable[[], Coroutine[Any, Any, Any]] | None = None) -> list[int]:
    """The whole answer; `spoil` runs after the first tokens."""
    told: list[int] = []
    async for chunk in line.generate(ASKED):
        told += chunk.ids
        if spoil is not None:
            await spoil()
            spoil = None
    return told


@pytest.mark.parametrize(("pull", "why"), [(Pull("reset"), "gone|closed"), (Pull("garbage", seed=0), "garbage")])
def test_a_line_that_is_cut_is_lost_and_another_one_serves(tmp_path: Path, pull: Pull, why: str) -> None:
    async def story() -> None:
        async with site(tmp_path) as (line, levers, address):
            with pytest.raises(EngineLost, match=why):
                await read(line, lambda: levers(pull))
            again = await dial(address, CLOCK, 5.0)
            assert await read(again) == WHOLE
            await again.close()

    asyncio.run(story())


def test_a_half_open_line_stays_and_says_nothing_until_it_is_healed(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as (line, levers, address):
            await levers(Pull("half-open"))
            with pytest.raises(EngineLost, match="did not answer a ping"):
                await line.probe()
            assert line.gone == ""
            assert (await levers(Pull("state"))).connections == 0
            other = await dial(address, CLOCK, 5.0)
            assert (await other.probe()).ready
            assert (await levers(Pull("state"))).connections == 1
            await levers(Pull("heal"))
            assert (await line.probe()).ready
            await other.close()

    asyncio.run(story())


def test_the_supervisors_connection_is_spared(tmp_path: Path) -> None:
    async def story() -> None:
        async with site(tmp_path) as (_, levers, address):
            supervisor = await dial(address, CLOCK, 5.0, who="supervisor")
            await levers(Pull("half-open"))
            assert (await supervisor.probe()).ready
            await supervisor.close()

    asyncio.run(story())


def test_nonsense_at_the_levers_is_answered_not_obeyed(tmp_path: Path) -> None:
    core = LeveredCore(SCRIPT)
    serve_levers(tmp_path / "levers", core.pull)

    async def story() -> None:
        reader, writer = await asyncio.open_unix_connection(tmp_path / "levers")
        writer.write(b"{")
        assert b"not a pull" in await reader.read(1000)
        writer.close()

    asyncio.run(story())
    assert pull_lever(tmp_path / "levers", Pull("state")).why == ""
