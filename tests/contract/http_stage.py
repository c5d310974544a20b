"""The stage before a scripted server that speaks HTTP, whatever its dialect: what befalls it, and how stories are played."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, Self, TypeVar

from msgspec import structs

from holdfast.domain.ports import ForeignEngine
from holdfast.domain.request import Finish, Generation
from holdfast.sim.foreign_model import ForeignModel, ForeignScript, foreign_answer
from holdfast.sim.http_engine import HttpEngine
from holdfast.testing.engine_contract import Mishap, Stage, listen_to


class Server(Protocol):
    model: ForeignModel
    door: HttpEngine


EngineT = TypeVar("EngineT", bound=ForeignEngine)
ServerT = TypeVar("ServerT", bound=Server)
SceneT = TypeVar("SceneT")


@dataclass
class HttpScene(Generic[EngineT, ServerT]):
    """A ForeignScene that closes both when it is left."""

    engine: EngineT
    server: ServerT

    async def befall(self, mishap: Mishap, after_tokens: int = 0) -> None:
        if mishap is Mishap.FROZEN:
            self.server.model.freeze()
        elif mishap is Mishap.SILENT:
            self.server.model.freeze()
            self.server.door.hush()
        elif mishap is Mishap.GONE:
            await self.end()
        else:
            self.server.model.befall(mishap, after_tokens)

    async def relent(self) -> None:
        self.server.model.release()
        self.server.door.speak()

    async def working(self) -> int:
        return self.server.model.running + self.server.model.waiting

    async def end(self) -> None:
        """The server is gone, with all that ran there."""
        await self.server.door.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        try:
            await self.engine.close()
        finally:
            await self.end()


def played(story: Callable[[SceneT], Awaitable[None]], opening: AbstractAsyncContextManager[SceneT]) -> None:
    """Open a scene, and play one story in it."""

    async def run() -> None:
        async with opening as scene:
            await story(scene)

    asyncio.run(run())


class HttpStage(Stage):
    """`opened` opens a scene, for each story another one. The rest is what the dialect promises."""

    def __init__(self, opened: Callable[[], AbstractAsyncContextManager[Any]]) -> None:
        self._opened = opened

    def play(self, story: Callable[[Any], Awaitable[None]]) -> None:
        played(story, self._opened())


async def assert_only_stops_end_it(engine: ForeignEngine, asked: Generation, script: ForeignScript) -> None:
    """The token that ends a text for the model ends an answer where it is among the stops, and is gone on from elsewhere."""
    whole, tokens = foreign_answer(asked.prompt_ids, asked.max_tokens, script), asked.max_tokens
    assert whole[-1] == script.eos_id
    heard = await listen_to(engine, asked)
    assert (heard.ids, heard.finish) == (whole[:-1], Finish.STOP)
    without = await listen_to(engine, structs.replace(asked, stop_ids=()))
    assert without.ids[: len(whole)] == whole
    assert (len(without.ids), without.finish) == (tokens, Finish.LENGTH)
