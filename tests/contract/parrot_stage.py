"""The stage on which the parrot's adapter plays the contract."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import parrot
from parrot_engine import CONTEXT, QUEUE, SLOTS, VOCAB, ParrotEngine

from holdfast.domain.engine import Ability
from holdfast.domain.release import Exactness
from holdfast.testing.engine_contract import Mishap, PlainScene, Stage


@dataclass
class ParrotScene(PlainScene):
    """Before an engine of our own everything can be made to go wrong."""

    engine: parrot.Parrot
    itself: ParrotEngine

    async def befall(self, mishap: Mishap, after_tokens: int = 0) -> None:
        if mishap is Mishap.SILENT:
            self.engine.look_s = 0.05  # in all other stories a busy machine must not look like a silent engine
        self.itself.befall(mishap, after_tokens)

    async def relent(self) -> None:
        self.engine.look_s = parrot.LOOK_S
        self.itself.relent()

    async def working(self) -> int:
        return self.itself.running + self.itself.queued


class ParrotStage(Stage):
    vocab_size, context, slots, queue = VOCAB, CONTEXT, SLOTS, QUEUE
    plain_ids = tuple(range(20, 180))
    long_tokens = 200
    exactness = Exactness.GREEDY
    abilities = frozenset(set(Ability) - {Ability.LED, Ability.PRIORITY})
    mishaps = frozenset(Mishap)

    def __init__(self, adapter: Callable[[int], parrot.Parrot] = parrot.Parrot, patience_s: float = 20.0) -> None:
        self._adapter, self.patience_s = adapter, patience_s

    def play(self, story: Callable[[Any], Awaitable[None]]) -> None:
        async def run() -> None:
            async with ParrotEngine() as itself:
                adapter = self._adapter(itself.port)
                await adapter.learn()
                try:
                    await story(ParrotScene(adapter, itself))
                finally:
                    await adapter.close()

        asyncio.run(run())
