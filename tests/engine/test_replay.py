"""Replay: what an adapter gives that makes a cut answer again, however its engine cuts it into chunks."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

import pytest
from msgspec import structs

from holdfast.domain.fault import EngineLost
from holdfast.domain.request import Chunk, Finish, Generation, Sampling, TokenLogprob
from holdfast.engine.replay import replayed

WHOLE = [10, 11, 12, 13, 14, 15, 16]
HELD = Sampling(temperature=0.7, logprobs=0, grammar="start: A")
ASKED = Generation(id="g", prompt_ids=[1, 2], sampling=HELD, max_tokens=7, seed=5)


def chunk(ids: list[int], finish: Finish | None = None, cached: int = 0) -> Chunk:
    return Chunk(ids, finish, [TokenLogprob(id, -float(id)) for id in ids] or None, cached)


@dataclass
class Adapter:
    """Says the same whatever it is asked."""

    chunks: list[Chunk]
    asked: list[Generation] = field(default_factory=list)
    closed: bool = False

    @replayed
    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        self.asked.append(generation)
        try:
            for one in self.chunks:
                yield Chunk(list(one.ids), one.finish, one.logprobs, one.cached_tokens)
        finally:
            self.closed = True


def heard(adapter: Adapter, delivered: list[int], asked: Generation = ASKED) -> list[Chunk]:
    async def run() -> list[Chunk]:
        async with aclosing(adapter.generate(structs.replace(asked, delivered_ids=delivered))) as chunks:
            return [one async for one in chunks]

    return asyncio.run(run())


def cut_by(size: int) -> Adapter:
    pieces = [WHOLE[k : k + size] for k in range(0, len(WHOLE), size)]
    return Adapter([chunk(ids, cached=2 * (k == 0)) for k, ids in enumerate(pieces)] + [chunk([], Finish.STOP)])


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("had", range(1, 7))
def test_it_goes_on_behind_what_was_delivered_wherever_chunks_end(had: int, size: int) -> None:
    adapter = cut_by(size)
    told = heard(adapter, WHOLE[:had])
    assert [id for one in told for id in one.ids] == WHOLE[had:]
    rows = [row for one in told for row in one.logprobs or ()]
    assert [(row.id, row.logprob) for row in rows] == [(id, -float(id)) for id in WHOLE[had:]]
    assert sum(one.cached_tokens for one in told) == 2
    assert next(one.cached_tokens for one in told if one.ids or one.finish) == 2, "told with the first ids"
    assert [one.finish for one in told if one.finish] == [Finish.STOP]
    assert all(one.waiting for one in told if not one.ids and not one.finish), "whoever waits sees that it is made"
    assert len(told) == len(adapter.chunks), "every step is seen"
    assert adapter.asked == [ASKED], "the whole, with the seed and the bounds of the first time"


@pytest.mark.parametrize("size", [1, 3, 7])
def test_only_the_end_was_lost(size: int) -> None:
    longer = structs.replace(ASKED, max_tokens=9)
    told = heard(cut_by(size), WHOLE, longer)
    assert [(one.ids, one.finish) for one in told if not one.waiting] == [([], Finish.STOP)]
    together = Adapter([chunk(WHOLE, Finish.STOP)])
    assert [(one.ids, one.finish) for one in heard(together, WHOLE, longer)] == [([], Finish.STOP)]


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("place", range(1, 6))
def test_where_it_departs_nothing_goes_on_and_the_token_is_named(place: int, size: int) -> None:
    adapter, told = cut_by(size), []
    delivered = [*WHOLE[: place - 1], 99, *WHOLE[place:5]]

    async def run() -> None:
        async with aclosing(adapter.generate(structs.replace(ASKED, delivered_ids=delivered))) as chunks:
            async for one in chunks:
                told.append(one)

    why = (
        f"made again from its prompt, the answer departs at token {place} from the {len(delivered)} that were delivered"
    )
    with pytest.raises(EngineLost, match=why) as caught:
        asyncio.run(run())
    assert caught.value.unrepeatable
    assert not caught.value.died
    assert all(one.waiting and not one.ids for one in told)
    assert adapter.closed, "the engine need not go on"


def test_an_end_before_it_is_through_departs_and_a_full_context_is_the_end() -> None:
    short = Adapter([chunk(WHOLE[:2]), chunk([WHOLE[2]], Finish.STOP)])
    with pytest.raises(EngineLost, match="ends after token 3 of the 5 that were delivered"):
        heard(short, WHOLE[:5])
    full = Adapter([chunk(WHOLE[:2]), chunk([WHOLE[2]], Finish.LENGTH)])
    assert [(one.ids, one.finish) for one in heard(full, WHOLE[:5])][-1] == ([], Finish.LENGTH)


@pytest.mark.parametrize(
    ("asked", "delivered"),
    [(structs.replace(ASKED, sampling=Sampling()), WHOLE[:3]), (ASKED, []), (ASKED, WHOLE)],
    ids=["no grammar", "nothing delivered", "all delivered"],
)
def test_what_needs_no_replay_is_asked_as_it_is(asked: Generation, delivered: list[int]) -> None:
    adapter = cut_by(2)
    told = heard(adapter, delivered, asked)
    assert [(one.ids, one.finish) for one in told] == [(one.ids, one.finish) for one in adapter.chunks]
    assert adapter.asked == [structs.replace(asked, delivered_ids=delivered)]


def test_a_hang_up_reaches_the_engine() -> None:
    adapter = cut_by(1)

    async def run() -> None:
        async with aclosing(adapter.generate(structs.replace(ASKED, delivered_ids=WHOLE[:4]))) as chunks:
            assert (await anext(chunks)).waiting == "1 of 4 delivered tokens are made again"
            assert not adapter.closed

    asyncio.run(run())
    assert adapter.closed
