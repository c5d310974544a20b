"""A crowd of clients: so many streams are always open, each asking its next question as soon as the last is answered."""

import asyncio
from collections.abc import Callable

from holdfast.domain.ports import Clock
from holdfast.drill.client import Client, Question
from holdfast.policy.reckoning import Answer

REFUSED_PAUSE_S = 0.2  # a refused client does not ask again at once


class Crowd:
    """`answers` holds the ended ones, `open` what each stream is at."""

    def __init__(self, client: Client, clock: Clock, turn: Callable[[int, int], Question]) -> None:
        self._client, self._clock, self._turn = client, clock, turn
        self.answers: list[Answer] = []
        self.open: dict[int, tuple[Question, Answer]] = {}
        self.closing = False  # set it, and nothing new is asked
        self._tokens_done = 0

    async def run(self, streams: int, until: float) -> None:
        """Ask until the clock says `until`, then let every open answer end."""
        async with asyncio.TaskGroup() as group:
            for stream in range(streams):
                group.create_task(self._stream(stream, until), name=f"stream {stream}")

    @property
    def tokens(self) -> int:
        """Events with text so far, over all streams: a token each, where the site sends them singly."""
        return self._tokens_done + sum(len(answer.arrivals) for _, answer in self.open.values())

    @property
    def moves(self) -> int:
        """How often ended answers have changed replicas."""
        return sum(answer.moves for answer in self.answers)

    async def _stream(self, stream: int, until: float) -> None:
        number = 0
        while self._clock.now() < until and not self.closing:
            question = self._turn(stream, number)
            answer = self._client.opened(question)
            self.open[stream] = (question, answer)
            try:
                await self._client.fill(question, answer)
            finally:
                del self.open[stream]
            self.answers.append(answer)
            self._tokens_done += len(answer.arrivals)
            number += 1
            if answer.end == "refused":
                await self._clock.sleep(REFUSED_PAUSE_S)


async def drizzle(client: Client, clock: Clock, question: Question, per_s: float, count: int) -> list[Answer]:
    """`count` new requests at a steady rate, whether or not the earlier ones were answered (an open loop)."""
    began = clock.now()
    async with asyncio.TaskGroup() as group:
        tasks = []
        for number in range(count):
            await clock.sleep(max(0.0, began + number / per_s - clock.now()))
            tasks.append(group.create_task(client.ask(question)))
    return [task.result() for task in tasks]


class Drizzle:
    """The same without an end: `answers` grows until `closing` is set."""

    def __init__(self, client: Client, clock: Clock, question: Question, per_s: float) -> None:
        self._client, self._clock, self._question, self._per_s = client, clock, question, per_s
        self.answers: list[Answer] = []
        self.closing = False

    async def run(self) -> None:
        """Ask on and on; ends when it was told to and all answers are there."""
        began, number = self._clock.now(), 0
        async with asyncio.TaskGroup() as group:
            while not self.closing:
                await self._clock.sleep(max(0.0, began + number / self._per_s - self._clock.now()))
                number += 1
                group.create_task(self._ask())

    async def _ask(self) -> None:
        self.answers.append(await self._client.ask(self._question))
