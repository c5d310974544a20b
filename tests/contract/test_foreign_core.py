"""The core of a replica whose engine is another program, where that goes wrong: who hears of it, and what a ping is worth."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from foreign_stage import CLOCK, SCRIPT, EngineEnded, ForeignScene, foreign_scene
from msgspec import structs
from stages import Heard, listen_to

from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused
from holdfast.domain.ports import Work
from holdfast.domain.replica import Probe
from holdfast.domain.request import Chunk, Finish, Generation, Sampling
from holdfast.engine.embedded import dial
from holdfast.engine.foreign import SHUT_S, ForeignCore, Limits
from holdfast.engine.http import fault_of
from holdfast.engine.replay import replayed
from holdfast.sim.foreign import ScriptedForeign
from holdfast.sim.scripted import ScriptedCore, scripted_answer

ASKED = Generation(id="g", prompt_ids=[20, 21, 22], max_tokens=50, seed=5)
WHOLE = scripted_answer(ASKED.prompt_ids, ASKED.seed, 50, SCRIPT)
WORK = Work(prompt_ids=[1, 2], delivered_ids=[], sampling=Sampling(), max_tokens=5, seed=0, stop_ids=())
ENDLESS = structs.replace(ASKED, max_tokens=500)


def on_foreign(folder: Path, story: Callable[[ForeignScene], Awaitable[None]], **limits: Any) -> None:
    async def run() -> None:
        async with foreign_scene(folder, **limits) as scene:
            await story(scene)

    asyncio.run(run())


async def begun(scene: ForeignScene, heard: Heard) -> "asyncio.Task[Heard]":
    reading = asyncio.create_task(listen_to(scene.line, ENDLESS, heard))
    while not heard.ids:
        await scene.line.probe()
    return reading


def test_a_continuation_is_asked_for_by_what_was_delivered(folder: Path) -> None:
    async def story(scene: ForeignScene) -> None:
        heard = await listen_to(scene.line, structs.replace(ASKED, delivered_ids=WHOLE[:20]))
        assert heard.ids == WHOLE[20:]

    on_foreign(folder, story)


def test_an_answer_that_was_complete_is_only_ended(folder: Path) -> None:
    async def story(scene: ForeignScene) -> None:
        heard = await listen_to(scene.line, structs.replace(ASKED, delivered_ids=WHOLE))
        assert (heard.ids, heard.finish) == ([], Finish.LENGTH)

    on_foreign(folder, story)


@pytest.mark.parametrize(("kind", "fault"), [("refuse", EngineRefused), ("bad", BadRequest)])
def test_what_the_engine_does_not_take_is_told_as_such(folder: Path, kind: str, fault: type[Exception]) -> None:
    async def story(scene: ForeignScene) -> None:
        scene.befall(kind)
        with pytest.raises(fault):
            await listen_to(scene.line, ASKED)
        assert (await listen_to(scene.line, ASKED)).ids == WHOLE

    on_foreign(folder, story)


@pytest.mark.parametrize("kind", ["fault", "forget"])
def test_one_broken_stream_is_lost_alone(folder: Path, kind: str) -> None:
    async def story(scene: ForeignScene) -> None:
        heard = Heard()
        scene.befall(kind, 7)
        with pytest.raises(EngineLost) as told:
            await listen_to(scene.line, ASKED, heard)
        assert heard.ids == WHOLE[:7]
        assert not told.value.died
        assert (await listen_to(scene.line, ASKED)).ids == WHOLE

    on_foreign(folder, story)


def test_the_engines_death_ends_the_replica(folder: Path) -> None:
    async def story(scene: ForeignScene) -> None:
        reading = await begun(scene, Heard())
        scene.engine.break_all("killed", dead=True)
        with pytest.raises(EngineLost) as told:
            await reading
        assert told.value.died
        with pytest.raises(EngineEnded, match="killed"):
            await scene.serving
        assert scene.line.gone

    on_foreign(folder, story)


def test_a_death_that_nobody_noticed_shows_while_idle(folder: Path) -> None:
    async def story(scene: ForeignScene) -> None:
        scene.core.end("the process has ended with exit code 1")
        with pytest.raises(EngineEnded, match="exit code 1"):
            await scene.serving

    on_foreign(folder, story)


def test_an_external_engine_whose_door_stays_shut_ends_the_replica(folder: Path) -> None:
    async def story(scene: ForeignScene) -> None:
        await scene.line.probe()
        scene.engine.break_all("connection refused", dead=False)
        scene.line.ping()
        with pytest.raises(EngineEnded, match="refused"):
            await scene.serving

    on_foreign(folder, story, external=True)


def test_a_frozen_engine_leaves_pings_unanswered_and_a_thaw_answers_them(folder: Path) -> None:
    async def story(scene: ForeignScene) -> None:
        heard = Heard()
        reading = await begun(scene, heard)
        scene.engine.core.frozen = True
        scene.line.ping()
        with pytest.raises(EngineLost, match="did not answer a ping"):
            for _ in range(3):  # what had been made before the freeze may still vouch once
                await scene.line.probe()
        scene.engine.core.frozen = False
        await reading
        assert heard.ids == scripted_answer(ENDLESS.prompt_ids, ENDLESS.seed, 500, SCRIPT)
        await scene.line.probe()
        assert scene.line.oldest_ping_at is None

    on_foreign(folder, story)


def test_nobody_is_welcomed_while_the_engine_stands_still(folder: Path) -> None:
    async def story(scene: ForeignScene) -> None:
        scene.engine.shut = "no answer"
        with pytest.raises(EngineLost, match="did not say Welcome"):
            await dial(scene.address, CLOCK, 0.3)
        scene.engine.shut = ""
        other = await scene.another_line()
        assert other.boot == scene.line.boot
        await other.close()

    on_foreign(folder, story)


def test_without_counters_an_answered_probe_is_a_sign_of_life(folder: Path) -> None:
    async def story(scene: ForeignScene) -> None:
        reading = await begun(scene, Heard())
        scene.engine.core.frozen = True
        await scene.line.probe()
        await scene.line.probe()
        scene.engine.core.frozen = False
        await reading

    on_foreign(folder, story, counts=False)


def test_a_long_prompt_that_is_read_is_no_standstill(folder: Path) -> None:
    slow = structs.replace(SCRIPT, token_s=0.05)
    asked = structs.replace(ASKED, prompt_ids=[20] * 320, max_tokens=1)

    async def story() -> None:
        async with foreign_scene(folder, slow) as scene:
            scene.server.pulse.still_s_max = 0.4
            reading = asyncio.create_task(listen_to(scene.line, asked))
            while not reading.done():
                await scene.line.probe()
                assert scene.server.complaint() == ""
            assert len((await reading).ids) == 1

    asyncio.run(story())


def test_an_idle_engine_that_is_unfit_does_not_vouch(folder: Path) -> None:
    async def story(scene: ForeignScene) -> None:
        await scene.line.probe()
        scene.engine.unfit = "a stub is not healthy"
        with pytest.raises(EngineLost):
            await scene.line.probe()
        assert scene.core.unfit == "a stub is not healthy"
        scene.engine.unfit = ""
        await scene.line.probe()

    on_foreign(folder, story)


def test_an_unfit_engine_is_repaired_and_its_answers_move() -> None:
    async def story() -> None:
        engine = ScriptedForeign(ScriptedCore(SCRIPT), CLOCK)
        repaired = asyncio.Event()

        async def repair() -> str:
            engine.unfit = ""
            repaired.set()
            return "loaded anew"

        limits = Limits(slots=4, queue_max=2, context_tokens_max=512)
        core = ForeignCore(engine, engine.core.release(), CLOCK, limits, ended=EngineEnded, repair=repair)
        watching = asyncio.create_task(core.watch())
        engine.core.frozen = True
        core.submit(1, WORK)
        engine.unfit = "a stub is not healthy"
        core.vouch(lambda: None)
        await repaired.wait()
        (failed,) = core.step()
        assert "a stub is not healthy" in failed.fault
        answered = asyncio.Event()
        core.vouch(answered.set)
        await answered.wait()
        watching.cancel()
        await core.close()

    asyncio.run(story())


class Broken(ScriptedForeign):
    """An adapter with a mistake in it."""

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        yield Chunk([1 // 0])

    async def probe(self) -> Probe:
        raise KeyError("a counter")


class Talkative(ScriptedForeign):
    """Its errors quote what it works on."""

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        yield Chunk([1])
        raise fault_of("http://e", 500, b'{"error":{"message":"can not read: my secret"}}')


def test_what_an_engine_says_of_its_failure_goes_no_further() -> None:
    """Nothing of a request is logged, and the sentence of a lost attempt is an event's."""

    async def story() -> None:
        engine = Talkative(ScriptedCore(SCRIPT), CLOCK)
        limits = Limits(slots=4, queue_max=2, context_tokens_max=512)
        core = ForeignCore(engine, engine.core.release(), CLOCK, limits, ended=EngineEnded)
        core.submit(1, WORK)
        faults = []
        while not faults:
            await CLOCK.sleep(0.01)
            faults = [one.fault for one in core.step() if one.fault]
        assert faults == ["http://e answered 500: ..."]

    asyncio.run(story())


def test_a_mistake_in_an_adapter_ends_the_replica_and_leaves_nobody_waiting() -> None:
    async def story() -> None:
        for where, error in (("attempt", ZeroDivisionError), ("watch", KeyError)):
            engine = Broken(ScriptedCore(SCRIPT), CLOCK)
            limits = Limits(slots=4, queue_max=2, context_tokens_max=512)
            core = ForeignCore(engine, engine.core.release(), CLOCK, limits, ended=EngineEnded)
            stirred = asyncio.Event()
            core.on_stir = stirred.set
            if where == "attempt":
                core.submit(1, WORK)
            else:
                core.vouch(lambda: None)
                asyncio.create_task(core.watch()).add_done_callback(core.wrecked)
            await stirred.wait()
            with pytest.raises(error):
                core.step()

    asyncio.run(story())


def test_an_attempt_that_waits_can_be_aborted(folder: Path) -> None:
    async def story(scene: ForeignScene) -> None:
        readings = [
            asyncio.create_task(listen_to(scene.line, structs.replace(ENDLESS, id=str(n)))) for n in range(SCRIPT.slots)
        ]
        await scene.line.probe()
        async with aclosing(scene.line.generate(ASKED)) as waiting:
            first = asyncio.ensure_future(anext(waiting))
            while (await scene.line.probe()).load.queued == 0:
                assert not first.done()
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)
        for one in readings:
            assert len((await one).ids) == 500
        assert (await scene.line.probe()).load.queued == 0

    on_foreign(folder, story)


def test_external_door_may_be_shut_for_a_moment(folder: Path) -> None:
    async def story(scene: ForeignScene) -> None:
        scene.engine.shut = "a moment"
        scene.line.ping()
        await CLOCK.sleep(SHUT_S / 4)  # longer than so many questions take where nobody listens
        scene.engine.shut = ""
        await scene.line.probe()
        assert not scene.line.gone

    on_foreign(folder, story, external=True)


class Held(ScriptedForeign):
    """Takes a grammar for a wish, and begins it with the answer."""

    @replayed
    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        free = structs.replace(generation, sampling=structs.replace(generation.sampling, grammar=""))
        async with aclosing(super().generate(free)) as chunks:
            async for chunk in chunks:
                yield chunk


HELD = structs.replace(ASKED, sampling=structs.replace(ASKED.sampling, grammar="start: A"), delivered_ids=WHOLE[:30])


def test_an_answer_that_is_made_again_is_not_silent_meanwhile(folder: Path) -> None:
    async def story(scene: ForeignScene) -> None:
        async with aclosing(scene.line.generate(HELD)) as chunks:
            sign = await anext(chunks)
            assert (sign.ids, sign.finish, sign.waiting) == ([], None, "what was delivered is made again")
            (seen,) = scene.line.streams()
            assert seen.tokens == 0
            assert seen.last_token_at is not None, "whoever judges silence sees that its engine makes tokens"
            ids, signs = [], 1
            async for chunk in chunks:
                assert not (chunk.waiting and chunk.ids)
                signs += bool(chunk.waiting)
                ids += chunk.ids
        assert ids == WHOLE[30:]
        assert signs < 30, "not one for every token"
        assert scene.server.tally.tokens == 20, "what was delivered before is not counted again"

    on_foreign(folder, story, make=Held)


def test_an_answer_that_does_not_come_out_again_is_lost_and_not_the_replicas_fault(folder: Path) -> None:
    async def story(scene: ForeignScene) -> None:
        with pytest.raises(EngineLost, match="departs at token 4 from the 30 that were delivered") as told:
            await listen_to(scene.line, structs.replace(HELD, delivered_ids=[*WHOLE[:3], 17, *WHOLE[4:30]]))
        assert told.value.unrepeatable
        assert (await listen_to(scene.line, HELD)).ids == WHOLE[30:]

    on_foreign(folder, story, make=Held)
