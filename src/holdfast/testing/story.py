"""How a story is told: what it needs, the requests it asks with, and how an answer is listened to."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec import structs

from holdfast.domain.engine import Ability
from holdfast.domain.fault import Fault
from holdfast.domain.ports import Engine
from holdfast.domain.request import Chunk, Finish, Generation, Sampling
from holdfast.testing.stage import Mishap, Scene, Stage

GREEDY = Sampling(temperature=0.0, ignore_eos=True)
SAMPLED = Sampling(temperature=1.0, top_p=0.95, ignore_eos=True)
LOOK_S = 0.002  # between two looks at an engine

Tell = Callable[[Stage, Any], Awaitable[None]]


@dataclass(frozen=True)
class Story:
    """One sentence of the contract. `tell(stage, scene)` fails by AssertionError, or by what the adapter let out."""

    name: str
    tell: Tell
    abilities: tuple[Ability, ...] = ()
    mishaps: tuple[Mishap, ...] = ()
    known: tuple[str, ...] = ()  # attributes of the stage that must be known
    repeats: bool = False  # it asks twice and compares

    def __str__(self) -> str:
        return self.name

    def lacking(self, stage: Stage) -> str:
        """Why it can't be played there; empty: it can."""
        for ability in self.abilities:
            if ability not in stage.abilities:
                return f"{type(stage).__name__} has not the ability: {ability}"
        for mishap in self.mishaps:
            if mishap not in stage.mishaps:
                return f"the engine of {type(stage).__name__} can't be made to suffer this: {mishap}"
        for name in self.known:
            if getattr(stage, name) in (0, -1):
                return f"{type(stage).__name__} does not know its {name}"
        if self.repeats and not stage.repeats:
            return f"the release of {type(stage).__name__} does not promise the same tokens twice: {stage.exactness}"
        return ""

    def play(self, stage: Stage) -> None:
        """Tell it before this stage, or skip it with a sentence."""
        lacking = self.lacking(stage)
        if lacking:
            pytest.skip(lacking)

        async def timed(scene: Scene) -> None:
            limit = asyncio.timeout(stage.patience_s)
            try:
                async with limit:
                    await self.tell(stage, scene)
            except TimeoutError as late:
                if not limit.expired():
                    raise  # the adapter's own
                raise AssertionError(f"{self.name}: it hung, and was given up after {stage.patience_s:g} s") from late

        stage.play(timed)


def story(
    *abilities: Ability, mishap: Mishap | None = None, known: tuple[str, ...] = (), repeats: bool = False
) -> Callable[[Tell], Story]:
    """Makes a story of `async def sentence(stage, scene)`: what it needs, to be played at all."""

    def tells(tell: Tell) -> Story:
        name = getattr(tell, "__name__", "story")
        return Story(name, tell, abilities, () if mishap is None else (mishap,), known, repeats)

    return tells


def each(*mishaps: Mishap) -> Callable[[Callable[[Stage, Any, Mishap], Awaitable[None]]], tuple[Story, ...]]:
    """Makes one story a mishap of `async def sentence(stage, scene, mishap)`."""

    def tells(tell: Callable[[Stage, Any, Mishap], Awaitable[None]]) -> tuple[Story, ...]:
        def of(mishap: Mishap) -> Story:
            async def told(stage: Stage, scene: Any) -> None:
                await tell(stage, scene, mishap)

            return Story(f"{getattr(tell, '__name__', 'story')}-{mishap}", told, mishaps=(mishap,))

        return tuple(of(mishap) for mishap in mishaps)

    return tells


@dataclass
class Heard:
    """An answer as it came."""

    ids: list[int] = field(default_factory=list)
    finish: Finish | None = None
    chunks: list[Chunk] = field(default_factory=list)


async def listen_to(engine: Engine, generation: Generation, heard: Heard | None = None) -> Heard:
    """The whole answer. Pass `heard` to see what had come when a fault ends it."""
    heard = Heard() if heard is None else heard
    async with aclosing(engine.generate(generation)) as chunks:
        async for chunk in chunks:
            assert heard.finish is None, "a chunk came after the finish"
            heard.ids += chunk.ids
            heard.chunks.append(chunk)
            heard.finish = chunk.finish
    assert heard.finish is not None, "the stream ended without a finish, and without a fault"
    return heard


def short(stage: Stage, **changes: Any) -> Generation:
    """Twelve greedy tokens after a prompt of four."""
    asked = Generation(id="short", prompt_ids=list(stage.plain_ids[1:8:2]), sampling=GREEDY, max_tokens=12)
    return structs.replace(asked, **changes)


def long(stage: Stage, **changes: Any) -> Generation:
    """An answer that is not over soon."""
    asked = Generation(
        id="long", prompt_ids=list(stage.plain_ids[80:83]), sampling=GREEDY, max_tokens=stage.long_tokens
    )
    return structs.replace(asked, **changes)


def check_count(stage: Stage, heard: Heard, tokens: int) -> None:
    """So many tokens, and LENGTH. Engines that answer in text are bounded by it: theirs are counted anew."""
    assert heard.finish is Finish.LENGTH, "max_tokens ended it"
    assert len(heard.ids) <= tokens, "more tokens came than were asked for"
    if Ability.IDS_OUT in stage.abilities:
        assert len(heard.ids) == tokens, "fewer tokens came than were asked for"
    if stage.vocab_size:
        assert all(0 <= id < stage.vocab_size for id in heard.ids), "an id is outside the vocabulary"


def check_fault(fault: Fault) -> None:
    """Faults carry a sentence."""
    assert fault.why.strip(), "the fault says nothing"
    assert "\n" not in fault.why, "the fault is not one sentence"


async def still_serves(stage: Stage, scene: Scene) -> None:
    """Whatever befell it before, the next answer is whole."""
    check_count(stage, await listen_to(scene.engine, short(stage)), 12)


async def until(stage: Stage, condition: Callable[[], Awaitable[bool]]) -> None:
    """Look again and again; the story's time-out ends it."""
    while not await condition():
        await stage.clock.sleep(LOOK_S)


async def check_cut_short(stage: Stage, scene: Scene, step_before: int) -> None:
    """Long answers that nobody wants any more were left off, and not made to their end."""
    await until_idle(stage, scene)
    if Ability.COUNTERS in stage.abilities:
        made = (await scene.engine.probe()).load.step - step_before
        assert made < stage.long_tokens, "nobody listened, and the answer was made to its end all the same"


async def until_idle(stage: Stage, scene: Scene) -> None:
    """Until neither the engine itself nor the adapter's probe tells of any work."""

    async def idle() -> bool:
        load = (await scene.engine.probe()).load
        return load.running == 0 and load.queued == 0 and await scene.working() == 0

    await until(stage, idle)


@asynccontextmanager
async def reading(engine: Engine, asked: Generation, heard: Heard) -> AsyncGenerator["asyncio.Task[Heard]", None]:
    """Listens in a task of its own, which hangs up at the end."""
    task = asyncio.ensure_future(listen_to(engine, asked, heard))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def waiting_for(chunks: AsyncGenerator[Chunk, None]) -> AsyncGenerator["asyncio.Task[Chunk]", None]:
    """The next chunk as a task, which is given up at the end, as a reader does who hangs up."""

    async def following() -> Chunk:
        return await anext(chunks)

    task = asyncio.ensure_future(following())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
