"""What every engine adapter owes the gateway, played before every stage. A story that needs a scripted replica is in
test_embedded.py; what is here holds for all."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest
from msgspec import structs
from stages import CONTEXT, QUEUE, SLOTS, Heard, listen_to

from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused
from holdfast.domain.ports import Line
from holdfast.domain.request import Finish, Generation, Sampling

GREEDY = Sampling(temperature=0.0, ignore_eos=True)
SAMPLED = Sampling(temperature=1.0, top_p=0.95, ignore_eos=True)
SHORT = Generation(id="short", prompt_ids=[21, 34, 55, 89], sampling=GREEDY, max_tokens=12)
LONG = Generation(id="long", prompt_ids=[100, 200, 300], sampling=GREEDY, max_tokens=CONTEXT - 10)


async def until_idle(line: Line) -> None:
    """Ask until nothing runs: each answer comes from between two steps, so a freed slot shows within a few."""
    for _ in range(1000):
        probe = await line.probe()
        if probe.load.running == 0 and probe.load.queued == 0:
            return
    raise AssertionError(f"still busy: {probe.load}")


def test_an_answer_has_max_tokens_ids_and_ends_once(stage: Any) -> None:
    async def story(scene: Any) -> None:
        heard = await listen_to(scene.line, SHORT)
        assert len(heard.ids) == 12
        assert heard.finish is Finish.LENGTH
        assert all(0 <= id < stage.vocab_size for id in heard.ids)
        assert scene.line.in_flight == 0

    stage.play(story)


def test_a_stop_id_ends_the_answer_and_is_not_part_of_it(stage: Any) -> None:
    async def story(scene: Any) -> None:
        whole = (await listen_to(scene.line, SHORT)).ids
        stop = whole[5]
        heard = await listen_to(scene.line, structs.replace(SHORT, stop_ids=(stop,)))
        assert heard.ids == whole[: whole.index(stop)]
        assert heard.finish is Finish.STOP

    stage.play(story)


@pytest.mark.parametrize("sampling", [GREEDY, SAMPLED], ids=["greedy", "sampled"])
def test_an_answer_goes_on_exactly_after_every_token(stage: Any, sampling: Sampling) -> None:
    async def story(scene: Any) -> None:
        asked = structs.replace(SHORT, sampling=sampling, seed=7)
        whole = (await listen_to(scene.line, asked)).ids
        for k in range(len(whole) + 1):
            heard = await listen_to(scene.line, structs.replace(asked, delivered_ids=whole[:k]))
            assert heard.ids == whole[k:], f"continued after token {k}"
            assert heard.finish is Finish.LENGTH

    stage.play(story)


def test_another_seed_is_another_sample(stage: Any) -> None:
    async def story(scene: Any) -> None:
        asked = structs.replace(SHORT, sampling=SAMPLED, max_tokens=40)
        first = await listen_to(scene.line, structs.replace(asked, seed=1))
        second = await listen_to(scene.line, structs.replace(asked, seed=2))
        assert first.ids != second.ids

    stage.play(story)


def test_two_answers_at_once_are_what_each_is_alone(stage: Any) -> None:
    async def story(scene: Any) -> None:
        one = structs.replace(SHORT, id="one", max_tokens=60)
        two = structs.replace(SHORT, id="two", prompt_ids=list(range(40, 90)), sampling=SAMPLED, max_tokens=50, seed=3)
        alone = [(await listen_to(scene.line, asked)).ids for asked in (one, two)]
        together = await asyncio.gather(*(listen_to(scene.line, asked) for asked in (one, two)))
        assert [heard.ids for heard in together] == alone

    stage.play(story)


def test_a_closed_answer_frees_its_slot(stage: Any) -> None:
    async def story(scene: Any) -> None:
        async with aclosing(scene.line.generate(LONG)) as chunks:
            await anext(chunks)
            assert (await scene.line.probe()).load.running == 1
        assert scene.line.in_flight == 0
        await until_idle(scene.line)

    stage.play(story)


def test_a_full_replica_refuses_and_those_inside_go_on(stage: Any) -> None:
    async def story(scene: Any) -> None:
        inside = [scene.line.generate(structs.replace(LONG, id=f"inside {n}")) for n in range(SLOTS)]
        for chunks in inside:
            await anext(chunks)
        queued = [scene.line.generate(structs.replace(LONG, id=f"queued {n}")) for n in range(QUEUE)]
        waiting = [asyncio.ensure_future(anext(chunks)) for chunks in queued]
        await asyncio.sleep(0)
        with pytest.raises(EngineRefused):
            await listen_to(scene.line, LONG)
        for chunks in inside:
            assert (await anext(chunks)).ids
        for future in waiting:
            future.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for chunks in inside + queued:
            await chunks.aclose()
        await until_idle(scene.line)

    stage.play(story)


@pytest.mark.parametrize(
    "prompt_ids",
    [[], [1_000_000], list(range(20, 500)) * 2],
    ids=["empty", "no such token", "longer than the context"],
)
def test_an_impossible_request_is_bad_and_not_retried(stage: Any, prompt_ids: list[int]) -> None:
    async def story(scene: Any) -> None:
        with pytest.raises(BadRequest) as told:
            await listen_to(scene.line, structs.replace(SHORT, prompt_ids=prompt_ids))
        assert told.value.why
        assert len((await listen_to(scene.line, SHORT)).ids) == 12

    stage.play(story)


def test_a_context_that_fills_up_ends_the_answer_by_length(stage: Any) -> None:
    async def story(scene: Any) -> None:
        asked = structs.replace(LONG, prompt_ids=[30] * (CONTEXT - 20), max_tokens=1000)
        heard = await listen_to(scene.line, asked)
        assert heard.finish is Finish.LENGTH
        assert 18 <= len(heard.ids) <= 21

    stage.play(story)


def test_logprobs_come_with_every_token(stage: Any) -> None:
    async def story(scene: Any) -> None:
        asked = structs.replace(SHORT, sampling=structs.replace(GREEDY, logprobs=1))
        heard = await listen_to(scene.line, asked)
        told = [one for chunk in heard.chunks for one in chunk.logprobs or ()]
        assert [one.id for one in told] == heard.ids
        assert all(one.logprob <= 0 and one.top[0][0] == one.id for one in told)

    stage.play(story)


def test_cached_prompt_tokens_are_told_once_with_the_first_ids(stage: Any) -> None:
    async def story(scene: Any) -> None:
        asked = structs.replace(SHORT, prompt_ids=list(range(20, 120)))
        for _ in range(2):
            heard = await listen_to(scene.line, asked)
            assert 0 <= heard.chunks[0].cached_tokens < len(asked.prompt_ids)
            assert all(chunk.cached_tokens == 0 for chunk in heard.chunks[1:])

    stage.play(story)


def test_pings_are_answered_while_a_long_prompt_is_read(stage: Any) -> None:
    async def story(scene: Any) -> None:
        asked = structs.replace(SHORT, prompt_ids=[20 + n % 400 for n in range(CONTEXT - 40)], max_tokens=1)
        steps: list[int] = []
        answer = asyncio.ensure_future(listen_to(scene.line, asked))
        while not answer.done():
            probe = await scene.line.probe()
            if not answer.done():
                steps.append(probe.load.step)
        assert len(answer.result().ids) == 1
        assert steps == sorted(steps)
        assert len(set(steps)) >= stage.reading_steps, "the prompt was not read in several steps"

    stage.play(story)


def test_a_slow_client_gets_every_token(stage: Any) -> None:
    async def story(scene: Any) -> None:
        asked = structs.replace(SHORT, max_tokens=50)
        whole = (await listen_to(scene.line, asked)).ids
        async with aclosing(scene.line.generate(asked)) as chunks:
            heard = [await anext(chunks)]
            while scene.line.in_flight:  # the client reads nothing until the replica has said everything
                await scene.line.probe()
            heard += [chunk async for chunk in chunks]
        assert [id for chunk in heard for id in chunk.ids] == whole
        assert len(heard) <= 2, "what came in the meantime is one chunk"

    stage.play(story)


def test_a_probe_tells_the_load(stage: Any) -> None:
    async def story(scene: Any) -> None:
        idle = await scene.line.probe()
        assert idle.ready
        assert idle.load.slots == SLOTS
        await listen_to(scene.line, SHORT)
        after = await scene.line.probe()
        assert after.load.step > idle.load.step
        assert scene.line.last_load == after.load

    stage.play(story)


def test_two_lines_meet_the_same_boot_and_release(stage: Any) -> None:
    async def story(scene: Any) -> None:
        other = await scene.another_line()
        try:
            assert other.boot == scene.line.boot
            release = scene.line.describe()
            assert release is not None
            assert release == other.describe()
            assert len(release.digest) == 64
            mine, theirs = await asyncio.gather(listen_to(scene.line, SHORT), listen_to(other, SHORT))
            assert mine.ids == theirs.ids
        finally:
            await other.close()

    stage.play(story)


def test_a_line_that_closes_takes_its_work_along(stage: Any) -> None:
    async def story(scene: Any) -> None:
        other = await scene.another_line()
        chunks = other.generate(LONG)
        await anext(chunks)
        await other.close()
        with pytest.raises(EngineLost):
            async for _ in chunks:
                pass
        assert other.gone
        with pytest.raises(EngineRefused):
            await listen_to(other, SHORT)
        with pytest.raises(EngineLost):
            await other.probe()
        await until_idle(scene.line)

    stage.play(story)


def test_a_fenced_answer_gets_nothing_more_and_the_others_do(stage: Any) -> None:
    async def story(scene: Any) -> None:
        fenced, other = Heard(), structs.replace(LONG, id="other", max_tokens=60)
        alone = (await listen_to(scene.line, other)).ids
        reading = asyncio.ensure_future(listen_to(scene.line, LONG, fenced))
        beside = asyncio.ensure_future(listen_to(scene.line, other))
        while not fenced.ids:
            await scene.line.probe()
        scene.line.fail("judged silent", "long")
        count = len(fenced.ids)
        with pytest.raises(EngineLost, match="judged silent"):
            await reading
        assert (await beside).ids == alone
        assert len(fenced.ids) == count
        await until_idle(scene.line)

    stage.play(story)


def test_all_answers_can_be_fenced_and_the_line_still_serves(stage: Any) -> None:
    async def story(scene: Any) -> None:
        readings = [
            asyncio.ensure_future(listen_to(scene.line, structs.replace(LONG, id=str(n)))) for n in range(SLOTS)
        ]
        await scene.line.probe()
        assert scene.line.in_flight == SLOTS
        scene.line.fail("the replica is suspect")
        for outcome in await asyncio.gather(*readings, return_exceptions=True):
            assert isinstance(outcome, EngineLost)
            assert outcome.why == "the replica is suspect"
        await until_idle(scene.line)
        assert len((await listen_to(scene.line, SHORT)).ids) == 12

    stage.play(story)


def test_a_watcher_sees_streams_pings_and_gaps(stage: Any) -> None:
    async def story(scene: Any) -> None:
        gaps: list[float] = []
        line = scene.line
        line.on_gap = gaps.append
        async with aclosing(line.generate(LONG)) as chunks:
            await anext(chunks)
            await anext(chunks)
            (seen,) = line.streams()
            assert (seen.generation, seen.prompt_tokens) == ("long", 3)
            assert seen.tokens >= 2
            assert seen.submitted_at <= seen.last_token_at <= line.last_frame_at
            before = line.last_frame_at
            line.ping()
            assert line.oldest_ping_at >= before
            while line.oldest_ping_at is not None:
                await anext(chunks)
            assert line.last_frame_at > before
            assert line.last_load.running == 1
        assert len(gaps) >= 2
        assert all(gap >= 0 for gap in gaps)

    stage.play(story)


def test_a_lost_connection_loses_every_answer_on_it(stage: Any) -> None:
    async def story(scene: Any) -> None:
        heard = [Heard(), Heard()]
        readings = [
            asyncio.ensure_future(listen_to(scene.line, structs.replace(LONG, id=str(n)), heard[n])) for n in range(2)
        ]
        while not all(one.ids for one in heard):
            await scene.line.probe()
        await scene.sever()
        for outcome in await asyncio.gather(*readings, return_exceptions=True):
            assert isinstance(outcome, EngineLost), outcome
        assert scene.line.gone
        assert scene.line.in_flight == 0
        with pytest.raises(EngineRefused):
            await listen_to(scene.line, SHORT)

    stage.play(story)


def test_a_draining_replica_refuses_and_finishes_what_it_has(stage: Any) -> None:
    async def story(scene: Any) -> None:
        asked = structs.replace(LONG, max_tokens=300)
        whole = (await listen_to(scene.line, asked)).ids
        heard = Heard()
        reading = asyncio.ensure_future(listen_to(scene.line, asked, heard))
        while not heard.ids:
            await scene.line.probe()
        await scene.drain()
        while not scene.line.last_load.draining:
            await scene.line.probe()
        with pytest.raises(EngineRefused, match="draining"):
            await listen_to(scene.line, SHORT)
        probe = await scene.line.probe()
        assert not probe.ready
        assert (await reading).ids == whole

    stage.play(story)
