"""Stories of an engine that is not well. Whatever happens, an answer ends by a finish or by one fault that has a sentence, what
was delivered is the beginning of the answer, and the next one is served."""

import asyncio
from contextlib import aclosing

import pytest

from holdfast.domain.engine import Ability
from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused
from holdfast.testing.stage import Mishap, Scene, Stage
from holdfast.testing.story import (
    LOOK_S,
    Heard,
    Story,
    check_count,
    check_fault,
    each,
    listen_to,
    long,
    reading,
    short,
    still_serves,
    story,
    until,
    until_idle,
    waiting_for,
)

ORDERLY = (Mishap.FAULT, Mishap.ABORTED, Mishap.UNFINISHED)  # nothing that was said before gets lost on the way
BLOWS = 4
LOOKS = 5


@each(Mishap.FAULT, Mishap.ABORTED, Mishap.UNFINISHED, Mishap.CUT, Mishap.RESET, Mishap.GARBAGE)
async def a_broken_answer_is_lost_and_can_be_continued(stage: Stage, scene: Scene, mishap: Mishap) -> None:
    whole = (await listen_to(scene.engine, short(stage))).ids
    for after in (0, 5):
        heard = Heard()
        await scene.befall(mishap, after)
        with pytest.raises(EngineLost) as told:
            await listen_to(scene.engine, short(stage), heard)
        check_fault(told.value)
        assert not told.value.planned
        assert heard.finish is None, "the answer had its finish, and then a fault"
        assert len(heard.ids) <= after, "more came than was made"
        assert len(heard.ids) == after or mishap not in ORDERLY, "what was made before is lost"
        assert heard.ids == whole[: len(heard.ids)] or not stage.repeats, (
            "what came before is not the answer's beginning"
        )
        rest = await listen_to(scene.engine, short(stage, delivered_ids=heard.ids))
        check_count(stage, rest, 12 - len(heard.ids))
        assert heard.ids + rest.ids == whole or not stage.repeats
        await until_idle(stage, scene)


@each(Mishap.REFUSED, Mishap.CROWDED)
async def a_refusal_is_told_as_one_and_costs_nothing(stage: Stage, scene: Scene, mishap: Mishap) -> None:
    heard = Heard()
    await scene.befall(mishap)
    with pytest.raises(EngineRefused) as told:
        await listen_to(scene.engine, short(stage), heard)
    check_fault(told.value)
    assert heard.chunks == []
    await still_serves(stage, scene)


@story(mishap=Mishap.REJECTED)
async def what_the_engine_finds_wrong_is_the_requests_own_fault(stage: Stage, scene: Scene) -> None:
    await scene.befall(Mishap.REJECTED)
    with pytest.raises(BadRequest) as told:
        await listen_to(scene.engine, short(stage))
    check_fault(told.value)
    await still_serves(stage, scene)


@story(mishap=Mishap.FAULT)
async def a_fault_of_one_answer_is_not_its_neighbours(stage: Stage, scene: Scene) -> None:
    asked = short(stage, id="well", prompt_ids=list(stage.plain_ids[20:40]), max_tokens=60)
    alone = (await listen_to(scene.engine, asked)).ids
    well = Heard()
    async with aclosing(scene.engine.generate(asked)) as chunks:
        well.ids += (await anext(chunks)).ids
        await scene.befall(Mishap.FAULT, 5)
        with pytest.raises(EngineLost):
            await listen_to(scene.engine, short(stage))
        async for chunk in chunks:
            well.ids += chunk.ids
            well.finish = chunk.finish
    check_count(stage, well, 60)
    assert well.ids == alone or not stage.repeats


async def stalled(stage: Stage, scene: Scene, heard: Heard, after: int) -> None:
    """Wait until so many tokens came and the engine has it at work, and see that nothing follows for some looks."""

    async def there() -> bool:
        return len(heard.ids) >= after and await scene.working() == 1

    await until(stage, there)
    for _ in range(LOOKS):
        assert (await scene.engine.probe()).ready, "one answer stalls, and the whole engine is called not ready"
        assert len(heard.ids) == after
        await stage.clock.sleep(LOOK_S)


@story(mishap=Mishap.STALLED)
async def a_slow_first_token_is_waited_for_and_nothing_is_lost(stage: Stage, scene: Scene) -> None:
    whole = (await listen_to(scene.engine, short(stage))).ids
    for after in (0, 5):
        heard = Heard()
        await scene.befall(Mishap.STALLED, after)
        async with reading(scene.engine, short(stage), heard) as answer:
            await stalled(stage, scene, heard, after)
            assert not answer.done(), "it stalls, and the answer ended"
            await scene.relent()
            await answer
        check_count(stage, heard, 12)
        assert heard.ids == whole or not stage.repeats


@story(mishap=Mishap.STALLED)
async def a_reader_can_give_up_on_a_stall_and_the_engine_is_free(stage: Stage, scene: Scene) -> None:
    for after in (0, 5):
        await scene.befall(Mishap.STALLED, after)
        heard = Heard()
        async with reading(scene.engine, long(stage), heard) as answer:
            await stalled(stage, scene, heard, after)
            answer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await answer
        await until_idle(stage, scene)  # it would never end by itself, so only the hang-up can have told the engine
        await scene.relent()
        await still_serves(stage, scene)


@story(mishap=Mishap.STALLED)
async def a_stall_of_one_answer_is_not_its_neighbours(stage: Stage, scene: Scene) -> None:
    await scene.befall(Mishap.STALLED, 3)
    heard = Heard()
    async with reading(scene.engine, short(stage, id="stalled"), heard) as answer:
        await stalled(stage, scene, heard, 3)
        await still_serves(stage, scene)
        assert not answer.done(), "it stalls, and the answer ended"
        await scene.relent()
        await answer
    check_count(stage, heard, 12)


@story(mishap=Mishap.FROZEN)
async def a_frozen_engine_shows_no_step_however_green_its_health(stage: Stage, scene: Scene) -> None:
    tokens = stage.long_tokens // 2
    whole = (await listen_to(scene.engine, long(stage, max_tokens=tokens))).ids
    for _ in range(BLOWS):  # a quick engine may have made the whole answer before it was struck
        heard, (step, running) = await _frozen_under(stage, scene, tokens)
        check_count(stage, heard, tokens)
        assert heard.ids == whole or not stage.repeats
        if running:
            break
    assert running, "an answer is owed, and the probe tells of none: that is no evidence of a wedge"

    async def moved() -> bool:
        return (await scene.engine.probe()).load.step > step

    if Ability.COUNTERS in stage.abilities:
        await until(stage, moved)


async def _frozen_under(stage: Stage, scene: Scene, tokens: int) -> tuple[Heard, tuple[int, int]]:
    """Freeze it under an answer until its counters rest, and let it go on: what was heard, and (step, running) as they rested."""
    heard = Heard()
    async with aclosing(scene.engine.generate(long(stage, max_tokens=tokens))) as chunks:
        heard.ids += (await anext(chunks)).ids
        await scene.befall(Mishap.FROZEN)
        seen: list[tuple[int, int]] = []

        async def rests() -> bool:
            load = (await scene.engine.probe()).load
            seen.append((load.step, load.running))
            return len(seen) > LOOKS and len(set(seen[-LOOKS:])) == 1

        await until(stage, rests)
        await scene.relent()
        async for chunk in chunks:
            heard.ids += chunk.ids
            heard.finish = chunk.finish
    return heard, seen[-1]


@story(mishap=Mishap.SILENT)
async def a_silent_door_is_told_by_the_probe_and_readers_can_give_up(stage: Stage, scene: Scene) -> None:
    async with aclosing(scene.engine.generate(long(stage))) as chunks:
        await anext(chunks)
        await scene.befall(Mishap.SILENT)
        with pytest.raises(EngineLost) as told:
            await scene.engine.probe()
        check_fault(told.value)
    async with aclosing(scene.engine.generate(short(stage))) as chunks, waiting_for(chunks) as first:
        await asyncio.wait({first}, timeout=LOOK_S)
    await scene.relent()
    await until_idle(stage, scene)
    await still_serves(stage, scene)


@story(mishap=Mishap.GONE)
async def a_dead_engine_loses_every_answer_and_its_door_is_shut(stage: Stage, scene: Scene) -> None:
    heard = [Heard(), Heard()]

    async def begun() -> bool:
        await scene.engine.probe()
        return all(one.ids for one in heard)

    async with (
        reading(scene.engine, long(stage, id="one"), heard[0]) as one,
        reading(scene.engine, long(stage, id="two"), heard[1]) as two,
    ):
        await until(stage, begun)
        await scene.befall(Mishap.GONE)
        for outcome in await asyncio.gather(one, two, return_exceptions=True):
            assert isinstance(outcome, EngineLost), outcome
            check_fault(outcome)
    with pytest.raises(EngineLost):
        await scene.engine.probe()
    with pytest.raises(EngineRefused):
        await listen_to(scene.engine, short(stage))


STORIES: tuple[Story, ...] = (
    *a_broken_answer_is_lost_and_can_be_continued,
    *a_refusal_is_told_as_one_and_costs_nothing,
    what_the_engine_finds_wrong_is_the_requests_own_fault,
    a_fault_of_one_answer_is_not_its_neighbours,
    a_slow_first_token_is_waited_for_and_nothing_is_lost,
    a_reader_can_give_up_on_a_stall_and_the_engine_is_free,
    a_stall_of_one_answer_is_not_its_neighbours,
    a_frozen_engine_shows_no_step_however_green_its_health,
    a_silent_door_is_told_by_the_probe_and_readers_can_give_up,
    a_dead_engine_loses_every_answer_and_its_door_is_shut,
)
