"""An answer is asked for until it is over, and not for ever."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from holdfast.domain.fault import BadRequest, EngineLost
from holdfast.domain.request import Chunk, Finish, Generation, Sampling
from holdfast.engine.answer import Answer, until_over
from holdfast.engine.serving import Serving

SERVING = Serving(model="ours", digest="d" * 64, vocab_size=100, context_tokens_max=20)


class Requests:
    """Each brings so many ids, 50 and on, and ends without a finish of its own."""

    def __init__(self, *counts: int) -> None:
        self._counts = list(counts)
        self.closed = 0

    async def once(self, answer: Answer) -> AsyncGenerator[Chunk, None]:
        try:
            for _ in range(self._counts.pop(0)):
                yield answer.take([50 + len(answer.ids)])
        finally:
            self.closed += 1


def asked(max_tokens: int, delivered_ids: list[int], stop_ids: tuple[int, ...] = ()) -> Answer:
    generation = Generation(
        id="g",
        prompt_ids=[1, 2, 3],
        delivered_ids=delivered_ids,
        sampling=Sampling(),
        max_tokens=max_tokens,
        stop_ids=stop_ids,
    )
    return Answer.to(generation, SERVING)


async def told(answer: Answer, requests: Requests) -> tuple[list[int], Finish | None]:
    ids, finish = [], None
    async with aclosing(until_over(answer, requests.once, "http://there")) as chunks:
        async for chunk in chunks:
            assert finish is None, "something came after the finish"
            ids += chunk.ids
            finish = chunk.finish
    return ids, finish


def test_it_is_asked_on_until_its_room_is_used_up_or_a_stop_comes() -> None:
    for stop_ids, heard in (((), ([51, 52, 53, 54, 55], Finish.LENGTH)), ((54,), ([51, 52, 53], Finish.STOP))):
        requests = Requests(2, 2, 9)
        assert asyncio.run(told(asked(6, [40], stop_ids), requests)) == heard
        assert requests.closed == (2 if stop_ids else 3)


def test_without_room_nothing_is_asked() -> None:
    assert asyncio.run(told(asked(1, [40]), Requests())) == ([], Finish.LENGTH)


def test_a_request_that_brings_nothing_is_the_engines_end() -> None:
    with pytest.raises(EngineLost, match="http://there ended an answer without a token and without a reason"):
        asyncio.run(told(asked(6, []), Requests(2, 0)))


def test_what_could_never_run_is_refused() -> None:
    with pytest.raises(BadRequest, match="token id 100 in delivered_ids is outside the vocabulary of 100"):
        asked(6, [100])
