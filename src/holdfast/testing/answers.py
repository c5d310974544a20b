"""Stories of an engine that is well: what an answer is, how it goes on elsewhere, how it is hung up on, what a probe tells."""

import asyncio
import gc
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest
from msgspec import structs

from holdfast.domain.engine import Ability
from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused
from holdfast.domain.release import Exactness
from holdfast.domain.request import Finish, Generation, Sampling
from holdfast.testing.stage import Scene, Stage
from holdfast.testing.story import (
    GREEDY,
    LOOK_S,
    SAMPLED,
    Heard,
    Story,
    Tell,
    check_count,
    check_cut_short,
    check_fault,
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


@story()
async def an_answer_has_max_tokens_ids_and_ends_once(stage: Stage, scene: Scene) -> None:
    for tokens in (1, 2, 12):
        check_count(stage, await listen_to(scene.engine, short(stage, max_tokens=tokens)), tokens)
    await until_idle(stage, scene)


@story()
async def a_stop_id_ends_the_answer_and_is_not_part_of_it(stage: Stage, scene: Scene) -> None:
    whole = (await listen_to(scene.engine, short(stage))).ids
    stop = whole[len(whole) // 2]
    heard = await listen_to(scene.engine, short(stage, stop_ids=(stop,)))
    assert stop not in heard.ids, "the stop id is among the ids"
    if stage.repeats:
        assert heard.ids == whole[: whole.index(stop)]
        assert heard.finish is Finish.STOP


@story(repeats=True)
async def an_answer_whose_end_alone_was_lost_ends_at_once(stage: Stage, scene: Scene) -> None:
    whole = (await listen_to(scene.engine, short(stage))).ids
    before = whole[: whole.index(whole[5])]
    heard = await listen_to(scene.engine, short(stage, stop_ids=(whole[5],), delivered_ids=before))
    assert (heard.ids, heard.finish) == ([], Finish.STOP), "only a stop id was left to come"


def goes_on(sampling: Sampling) -> Tell:
    """After every token, as another replica would be asked to."""

    async def tell(stage: Stage, scene: Scene) -> None:
        asked = short(stage, sampling=sampling, seed=7)
        whole = (await listen_to(scene.engine, asked)).ids
        same = stage.exactness is Exactness.EXACT or (sampling is GREEDY and stage.repeats)
        for k in range(len(whole) + 1):
            heard = await listen_to(scene.engine, structs.replace(asked, delivered_ids=whole[:k]))
            check_count(stage, heard, 12 - k)
            if same:
                assert heard.ids == whole[k:], f"continued after token {k}"

    return tell


an_answer_goes_on_after_every_token = (
    Story("an_answer_goes_on_after_every_token-greedy", goes_on(GREEDY)),
    Story("an_answer_goes_on_after_every_token-sampled", goes_on(SAMPLED)),
)


def held(stage: Stage) -> tuple[list[int], Generation]:
    """Ordinary ids in a row, and what is asked for under a grammar that allows them alone."""
    ids = list(stage.plain_ids[-1:-9:-1])
    grammar = "start: " + " ".join(f"<[{id}]>" for id in ids)
    return ids, short(stage, sampling=structs.replace(GREEDY, grammar=grammar), max_tokens=len(ids))


@story(Ability.GRAMMAR)
async def an_answer_under_a_grammar_goes_on_after_every_token(stage: Stage, scene: Scene) -> None:
    ids, asked = held(stage)
    for k in range(len(ids) + 1):
        heard = await listen_to(scene.engine, structs.replace(asked, delivered_ids=ids[:k]))
        assert heard.ids == ids[k:], f"continued after token {k}"


@story(Ability.GRAMMAR)
async def what_a_grammar_would_not_have_said_is_never_gone_on_with(stage: Stage, scene: Scene) -> None:
    """As when the engine that said it computes otherwise: a loss is told, and no token that does not fit."""
    ids, asked = held(stage)
    heard = Heard()
    with pytest.raises((EngineLost, BadRequest)) as told:
        await listen_to(scene.engine, structs.replace(asked, delivered_ids=[*ids[:2], ids[0], *ids[3:5]]), heard)
    check_fault(told.value)
    assert heard.ids == [], "it went on with what it would not have said"
    await still_serves(stage, scene)


@story()
async def an_answer_that_was_complete_ends_by_length_and_says_nothing_more(stage: Stage, scene: Scene) -> None:
    whole = (await listen_to(scene.engine, short(stage))).ids
    filled = [*whole, *stage.plain_ids[:12]][:12]
    heard = await listen_to(scene.engine, short(stage, delivered_ids=filled))
    assert (heard.ids, heard.finish) == ([], Finish.LENGTH), "nothing was left to come"
    await until_idle(stage, scene)


@story(Ability.SEED)
async def the_same_seed_is_the_same_sample_and_another_is_another(stage: Stage, scene: Scene) -> None:
    asked = short(stage, sampling=SAMPLED, max_tokens=40)
    first, again, second = [
        (await listen_to(scene.engine, structs.replace(asked, seed=seed))).ids for seed in (1, 1, 2)
    ]
    assert first == again, "the same seed gave other tokens"
    assert first != second, "another seed gave the same tokens"


@story(repeats=True)
async def answers_at_once_are_what_each_is_alone(stage: Stage, scene: Scene) -> None:
    second = SAMPLED if stage.exactness is Exactness.EXACT else GREEDY
    asked = [
        short(stage, id="one", max_tokens=60),
        short(stage, id="two", prompt_ids=list(stage.plain_ids[20:70]), sampling=second, max_tokens=50, seed=3),
    ]
    alone = [(await listen_to(scene.engine, one)).ids for one in asked]
    together = await asyncio.gather(*(listen_to(scene.engine, one) for one in asked))
    assert [heard.ids for heard in together] == alone, "they are others beside each other than alone"


@story()
async def a_hang_up_frees_the_engine(stage: Stage, scene: Scene) -> None:
    before = (await scene.engine.probe()).load.step
    async with aclosing(scene.engine.generate(long(stage))) as chunks:
        await anext(chunks)

        async def at_work() -> bool:
            return (await scene.engine.probe()).load.running == 1 and await scene.working() == 1

        await until(stage, at_work)
    await check_cut_short(stage, scene, before)


@story()
async def a_hang_up_before_the_first_token_frees_the_engine(stage: Stage, scene: Scene) -> None:
    before = (await scene.engine.probe()).load.step
    unread = scene.engine.generate(long(stage))
    await unread.aclose()
    for begun in (False, True):
        async with aclosing(scene.engine.generate(long(stage))) as chunks, waiting_for(chunks) as first:
            await asyncio.wait({first}, timeout=0)
            while begun and not first.done() and await scene.working() == 0:
                await asyncio.wait({first}, timeout=LOOK_S / 20)
    await check_cut_short(stage, scene, before)
    await still_serves(stage, scene)


@story(known=("slots", "queue"))
async def a_full_engine_refuses_and_those_inside_go_on(stage: Stage, scene: Scene) -> None:
    async with AsyncExitStack() as stack:
        inside = [scene.engine.generate(long(stage, id=f"inside {n}")) for n in range(stage.slots)]
        for chunks in inside:
            await stack.enter_async_context(aclosing(chunks))
            await anext(chunks)
        for n in range(stage.queue):
            await stack.enter_async_context(reading(scene.engine, long(stage, id=f"queued {n}"), Heard()))

        async def full() -> bool:
            return await scene.working() == stage.slots + stage.queue

        await until(stage, full)
        with pytest.raises(EngineRefused) as told:
            await listen_to(scene.engine, long(stage))
        check_fault(told.value)
        for chunks in inside:
            assert (await anext(chunks)).ids
    await until_idle(stage, scene)


async def check_bad(stage: Stage, scene: Scene, prompt_ids: list[int]) -> None:
    """No replica could do it, so it is not to be tried elsewhere; and it harms nobody."""
    with pytest.raises(BadRequest) as told:
        await listen_to(scene.engine, short(stage, prompt_ids=prompt_ids))
    check_fault(told.value)
    assert told.value.param == "prompt_ids"
    await still_serves(stage, scene)


@story()
async def an_empty_prompt_is_bad(stage: Stage, scene: Scene) -> None:
    await check_bad(stage, scene, [])


@story(Ability.IDS_IN, known=("vocab_size",))
async def a_token_that_does_not_exist_is_bad(stage: Stage, scene: Scene) -> None:
    await check_bad(stage, scene, [stage.plain_ids[0], max(1_000_000, stage.vocab_size)])


@story(known=("context",))
async def a_prompt_longer_than_the_context_is_bad(stage: Stage, scene: Scene) -> None:
    await check_bad(stage, scene, prompt_of(stage, stage.context + 40))


def prompt_of(stage: Stage, tokens: int) -> list[int]:
    """A prompt of so many ordinary ids."""
    return (list(stage.plain_ids) * (tokens // len(stage.plain_ids) + 1))[:tokens]


@story(Ability.IDS_IN, Ability.IDS_OUT, known=("context",))
async def a_context_that_fills_up_ends_the_answer_by_length(stage: Stage, scene: Scene) -> None:
    asked = long(stage, prompt_ids=prompt_of(stage, stage.context - 20), max_tokens=1000)
    heard = await listen_to(scene.engine, asked)
    assert heard.finish is Finish.LENGTH
    assert 18 <= len(heard.ids) <= 21


@story(Ability.IDS_IN, known=("context",))
async def a_context_that_was_filled_elsewhere_is_the_end_and_no_fault(stage: Stage, scene: Scene) -> None:
    for room in (1, 0):
        prompt, delivered = prompt_of(stage, stage.context - 20), prompt_of(stage, 20 - room)
        heard = await listen_to(scene.engine, long(stage, prompt_ids=prompt, delivered_ids=delivered, max_tokens=1000))
        assert heard.finish is Finish.LENGTH
        assert len(heard.ids) <= room + 1


@story(Ability.LOGPROBS, Ability.IDS_OUT)
async def logprobs_come_with_every_token(stage: Stage, scene: Scene) -> None:
    asked = short(stage, sampling=structs.replace(GREEDY, logprobs=1))
    heard = await listen_to(scene.engine, asked)
    told = [one for chunk in heard.chunks for one in chunk.logprobs or ()]
    assert [one.id for one in told] == heard.ids, "not every token has its logprob"
    assert all(one.logprob <= 0 for one in told)
    assert all(one.top[0][0] == one.id for one in told), "a greedy token is the likeliest"
    plain = await listen_to(scene.engine, short(stage))
    assert not any(chunk.logprobs for chunk in plain.chunks), "nobody asked for logprobs"


@story()
async def cached_prompt_tokens_are_told_once_with_the_first_ids_or_at_the_end(stage: Stage, scene: Scene) -> None:
    asked = short(stage, prompt_ids=list(stage.plain_ids[:100]))
    for _ in range(2):
        heard = await listen_to(scene.engine, asked)
        first = next(n for n, chunk in enumerate(heard.chunks) if chunk.ids)
        told = [n for n, chunk in enumerate(heard.chunks) if chunk.cached_tokens]
        assert told in ([], [first], [len(heard.chunks) - 1]), "told more than once, or in the middle"
        assert all(0 < heard.chunks[n].cached_tokens <= len(asked.prompt_ids) for n in told)


@story()
async def a_slow_reader_gets_every_token(stage: Stage, scene: Scene) -> None:
    asked = short(stage, max_tokens=50)
    whole = (await listen_to(scene.engine, asked)).ids
    async with aclosing(scene.engine.generate(asked)) as chunks:
        heard = [await anext(chunks)]
        await until_idle(stage, scene)  # nobody reads until the engine has said everything
        heard += [chunk async for chunk in chunks]
    assert [chunk.finish for chunk in heard if chunk.finish] == [Finish.LENGTH]
    ids = [id for chunk in heard for id in chunk.ids]
    assert len(ids) == len(whole), "the reader was slow, and tokens are missing"
    assert ids == whole or not stage.repeats


@story()
async def a_probe_tells_the_load(stage: Stage, scene: Scene) -> None:
    idle = await scene.engine.probe()
    assert idle.ready, f"it is idle and well, and is called not ready: {idle.why}"
    assert (idle.load.running, idle.load.queued) == (0, 0)
    assert stage.slots in (0, idle.load.slots)
    await listen_to(scene.engine, short(stage))
    assert (await scene.engine.probe()).ready


@story(Ability.COUNTERS)
async def the_step_grows_while_tokens_are_made_and_rests_with_them(stage: Stage, scene: Scene) -> None:
    before = (await scene.engine.probe()).load.step
    await listen_to(scene.engine, short(stage))
    await until_idle(stage, scene)

    async def grown() -> bool:
        return (await scene.engine.probe()).load.step > before

    await until(stage, grown)
    idle = {(await scene.engine.probe()).load.step for _ in range(5)}
    assert len(idle) == 1, "it makes nothing, and its step grows"
    before = idle.pop()
    async with aclosing(scene.engine.generate(long(stage))) as chunks:
        await anext(chunks)
        await until(stage, grown)


@story()
async def nothing_piles_up(stage: Stage, scene: Scene) -> None:
    """Neither tasks nor descriptors, such as sockets, of answers that came to their end or were hung up on."""

    async def some_answers() -> None:
        await listen_to(scene.engine, short(stage))
        async with aclosing(scene.engine.generate(long(stage))) as chunks:
            await anext(chunks)
        await until_idle(stage, scene)

    def held() -> tuple[int, int]:
        gc.collect()  # what others left in this process must not vanish meanwhile, and hide what is kept here
        return len(asyncio.all_tasks()), sum(1 for _ in Path("/dev/fd").iterdir())

    await some_answers()
    before = held()
    for _ in range(4):
        await some_answers()

    async def back() -> bool:
        now = held()
        return now[0] <= before[0] and now[1] <= before[1]

    await until(stage, back)


@story()
async def a_closed_adapter_refuses_and_can_be_closed_again(stage: Stage, scene: Scene) -> None:
    await scene.engine.close()
    with pytest.raises(EngineRefused):
        await listen_to(scene.engine, short(stage))
    with pytest.raises(EngineLost):
        await scene.engine.probe()
    await scene.engine.close()


@story()
async def it_describes_its_release(stage: Stage, scene: Scene) -> None:
    release = scene.engine.describe()
    assert release is not None
    order = (Exactness.FAIR, Exactness.GREEDY, Exactness.EXACT)
    assert order.index(release.exactness) <= order.index(stage.exactness), "the release promises more than is kept here"
    assert release.model
    assert release.engine
    assert len(release.digest) == 64, "the digest is a SHA-256, in hex"


def _stories(*told: Story | tuple[Story, ...]) -> tuple[Story, ...]:
    return tuple(one for some in told for one in (some if isinstance(some, tuple) else (some,)))


STORIES: tuple[Story, ...] = _stories(
    an_answer_has_max_tokens_ids_and_ends_once,
    a_stop_id_ends_the_answer_and_is_not_part_of_it,
    an_answer_whose_end_alone_was_lost_ends_at_once,
    an_answer_goes_on_after_every_token,
    an_answer_under_a_grammar_goes_on_after_every_token,
    what_a_grammar_would_not_have_said_is_never_gone_on_with,
    an_answer_that_was_complete_ends_by_length_and_says_nothing_more,
    the_same_seed_is_the_same_sample_and_another_is_another,
    answers_at_once_are_what_each_is_alone,
    a_hang_up_frees_the_engine,
    a_hang_up_before_the_first_token_frees_the_engine,
    a_full_engine_refuses_and_those_inside_go_on,
    an_empty_prompt_is_bad,
    a_token_that_does_not_exist_is_bad,
    a_prompt_longer_than_the_context_is_bad,
    a_context_that_fills_up_ends_the_answer_by_length,
    a_context_that_was_filled_elsewhere_is_the_end_and_no_fault,
    logprobs_come_with_every_token,
    cached_prompt_tokens_are_told_once_with_the_first_ids_or_at_the_end,
    a_slow_reader_gets_every_token,
    a_probe_tells_the_load,
    the_step_grows_while_tokens_are_made_and_rests_with_them,
    nothing_piles_up,
    a_closed_adapter_refuses_and_can_be_closed_again,
    it_describes_its_release,
)
