"""Stories of a line to a replica of ours: what its watcher sees, fencing, and leaving. They need a LineScene."""

import asyncio
from contextlib import AsyncExitStack, aclosing

import pytest

from holdfast.domain.fault import EngineLost, EngineRefused
from holdfast.domain.ports import Line
from holdfast.testing.stage import LineScene, Mishap, Stage
from holdfast.testing.story import (
    Heard,
    Story,
    check_cut_short,
    listen_to,
    long,
    reading,
    short,
    still_serves,
    story,
    until,
    until_idle,
)


async def begun(stage: Stage, line: Line, *heard: Heard) -> None:
    """Until each of these has ids."""

    async def all_have() -> bool:
        await line.probe()
        return all(one.ids for one in heard)

    await until(stage, all_have)


@story()
async def nothing_is_in_flight_after_an_answer(stage: Stage, scene: LineScene) -> None:
    await listen_to(scene.engine, short(stage))
    assert scene.engine.in_flight == 0
    async with aclosing(scene.engine.generate(long(stage))) as chunks:
        await anext(chunks)
        assert scene.engine.in_flight == 1
    assert scene.engine.in_flight == 0


@story(known=("context",))
async def pings_are_answered_while_a_long_prompt_is_read(stage: Stage, scene: LineScene) -> None:
    room = stage.context - 40
    prompt = [stage.plain_ids[n % len(stage.plain_ids)] for n in range(room)]
    steps: list[int] = []
    async with reading(scene.engine, short(stage, prompt_ids=prompt, max_tokens=1), Heard()) as answer:
        while not answer.done():
            probe = await scene.engine.probe()
            if not answer.done():
                steps.append(probe.load.step)
        assert len((await answer).ids) == 1
    assert steps == sorted(steps)
    assert len(set(steps)) >= stage.reading_steps, "the prompt was not read in several steps"


@story()
async def what_a_slow_reader_missed_is_one_chunk(stage: Stage, scene: LineScene) -> None:
    async with aclosing(scene.engine.generate(short(stage, max_tokens=50))) as chunks:
        heard = [await anext(chunks)]
        while scene.engine.in_flight:
            await scene.engine.probe()
        heard += [chunk async for chunk in chunks]
    assert sum(len(chunk.ids) for chunk in heard) == 50
    assert len(heard) <= 2


@story()
async def the_last_load_is_the_last_probe(stage: Stage, scene: LineScene) -> None:
    probe = await scene.engine.probe()
    assert scene.engine.last_load == probe.load


@story()
async def two_lines_meet_the_same_boot_and_release(stage: Stage, scene: LineScene) -> None:
    other = await scene.another()
    try:
        assert other.boot == scene.engine.boot, "one process, and two boots"
        assert other.describe() == scene.engine.describe() is not None
        mine, theirs = await asyncio.gather(*(listen_to(line, short(stage)) for line in (scene.engine, other)))
        assert mine.ids == theirs.ids
    finally:
        await other.close()


@story()
async def a_line_that_closes_takes_its_work_along(stage: Stage, scene: LineScene) -> None:
    other = await scene.another()
    before = (await other.probe()).load.step
    chunks = other.generate(long(stage))
    await anext(chunks)
    await other.close()
    with pytest.raises(EngineLost):
        async for _ in chunks:
            pass
    assert other.gone
    with pytest.raises(EngineRefused):
        await listen_to(other, short(stage))
    with pytest.raises(EngineLost):
        await other.probe()
    await check_cut_short(stage, scene, before)


@story(mishap=Mishap.GONE)
async def a_line_that_is_lost_says_why_and_owes_nothing(stage: Stage, scene: LineScene) -> None:
    heard = Heard()
    async with reading(scene.engine, long(stage), heard) as answer:
        await begun(stage, scene.engine, heard)
        assert not scene.engine.gone
        await scene.befall(Mishap.GONE)
        with pytest.raises(EngineLost):
            await answer
    assert scene.engine.gone
    assert scene.engine.in_flight == 0


@story()
async def a_fenced_answer_gets_nothing_more_and_the_others_do(stage: Stage, scene: LineScene) -> None:
    fenced, other = Heard(), long(stage, id="other", max_tokens=60)
    alone = (await listen_to(scene.engine, other)).ids
    async with (
        reading(scene.engine, long(stage), fenced) as answer,
        reading(scene.engine, other, Heard()) as beside,
    ):
        await begun(stage, scene.engine, fenced)
        scene.engine.fail("judged silent", "long")
        count = len(fenced.ids)
        with pytest.raises(EngineLost, match="judged silent"):
            await answer
        assert (await beside).ids == alone
    assert len(fenced.ids) == count
    await until_idle(stage, scene)


@story(known=("slots",))
async def all_answers_can_be_fenced_and_the_line_still_serves(stage: Stage, scene: LineScene) -> None:
    several, before = min(stage.slots, 4), (await scene.engine.probe()).load.step
    asked = [long(stage, id=f"{n}") for n in range(several)]
    async with AsyncExitStack() as stack:
        answers = [await stack.enter_async_context(reading(scene.engine, one, Heard())) for one in asked]
        await scene.engine.probe()
        assert scene.engine.in_flight == several
        scene.engine.fail("the replica is suspect")
        for outcome in await asyncio.gather(*answers, return_exceptions=True):
            assert isinstance(outcome, EngineLost)
            assert outcome.why == "the replica is suspect"
    await check_cut_short(stage, scene, before)
    await still_serves(stage, scene)


@story()
async def a_watcher_sees_streams_pings_and_gaps(stage: Stage, scene: LineScene) -> None:
    gaps: list[float] = []
    line = scene.engine
    line.on_gap = gaps.append
    async with aclosing(line.generate(long(stage))) as chunks:
        await anext(chunks)
        await anext(chunks)
        (seen,) = line.streams()
        assert (seen.generation, seen.prompt_tokens) == ("long", 3)
        assert seen.tokens >= 2
        assert seen.last_token_at is not None
        assert seen.submitted_at <= seen.last_token_at <= line.last_frame_at
        before = line.last_frame_at
        line.ping()
        assert line.oldest_ping_at is not None
        assert line.oldest_ping_at >= before
        while line.oldest_ping_at is not None:
            await anext(chunks)
        assert line.last_frame_at > before
        assert line.last_load.running == 1
    assert len(gaps) >= 2
    assert all(gap >= 0 for gap in gaps)


@story()
async def a_draining_replica_refuses_and_finishes_what_it_has(stage: Stage, scene: LineScene) -> None:
    asked = long(stage, max_tokens=300)
    whole = (await listen_to(scene.engine, asked)).ids
    heard = Heard()
    async with reading(scene.engine, asked, heard) as answer:
        await begun(stage, scene.engine, heard)
        await scene.drain()
        while not scene.engine.last_load.draining:
            await scene.engine.probe()
        with pytest.raises(EngineRefused, match="draining"):
            await listen_to(scene.engine, short(stage))
        assert not (await scene.engine.probe()).ready
        assert (await answer).ids == whole


STORIES: tuple[Story, ...] = (
    nothing_is_in_flight_after_an_answer,
    pings_are_answered_while_a_long_prompt_is_read,
    what_a_slow_reader_missed_is_one_chunk,
    the_last_load_is_the_last_probe,
    two_lines_meet_the_same_boot_and_release,
    a_line_that_closes_takes_its_work_along,
    a_line_that_is_lost_says_why_and_owes_nothing,
    a_fenced_answer_gets_nothing_more_and_the_others_do,
    all_answers_can_be_fenced_and_the_line_still_serves,
    a_watcher_sees_streams_pings_and_gaps,
    a_draining_replica_refuses_and_finishes_what_it_has,
)
