"""The contract played before a made-up engine: its adapter keeps it, and each bug that can be planted in the adapter is found by
the story that tells of it. So the suite itself can fail, story by story."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import parrot
import pytest
from parrot_bugs import BUGS, HUNG, Bug
from parrot_engine import CONTEXT, QUEUE, SLOTS, VOCAB, ParrotEngine

from holdfast.domain.engine import Ability
from holdfast.domain.ports import ForeignEngine
from holdfast.domain.release import Exactness
from holdfast.testing.engine_contract import (
    ENGINE_STORIES,
    FOREIGN_STORIES,
    ForeignContract,
    Mishap,
    PlainScene,
    Stage,
)

STORIES = {story.name: story for story in (*ENGINE_STORIES, *FOREIGN_STORIES)}


@dataclass
class ParrotScene(PlainScene):
    """Before an engine of our own everything can be made to go wrong."""

    itself: ParrotEngine

    async def befall(self, mishap: Mishap, after_tokens: int = 0) -> None:
        self.itself.befall(mishap, after_tokens)

    async def relent(self) -> None:
        self.itself.relent()

    async def working(self) -> int:
        return self.itself.running + self.itself.queued


class ParrotStage(Stage):
    vocab_size, context, slots, queue = VOCAB, CONTEXT, SLOTS, QUEUE
    plain_ids = tuple(range(20, 180))
    long_tokens = 200
    exactness = Exactness.GREEDY
    abilities = frozenset((Ability.IDS_IN, Ability.IDS_OUT, Ability.SEED, Ability.LOGPROBS, Ability.COUNTERS))
    mishaps = frozenset(Mishap)

    def __init__(
        self, adapter: Callable[[int, float], ForeignEngine] = parrot.Parrot, patience_s: float = 20.0
    ) -> None:
        self._adapter, self.patience_s = adapter, patience_s

    def play(self, story: Callable[[Any], Awaitable[None]]) -> None:
        async def run() -> None:
            async with ParrotEngine() as itself:
                adapter = self._adapter(itself.port, 0.1)
                await adapter.learn()
                try:
                    await story(ParrotScene(adapter, itself))
                finally:
                    await adapter.close()

        asyncio.run(run())


class TestParrot(ForeignContract):
    @pytest.fixture
    def stage(self) -> ParrotStage:
        return ParrotStage()


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found_by_its_story(bug: Bug, tmp_path: Path) -> None:
    stage = ParrotStage(bug.planted(tmp_path), 0.5 if bug.says is HUNG else 20.0)
    with pytest.raises(BaseException, match=bug.says):
        STORIES[bug.story].play(stage)
