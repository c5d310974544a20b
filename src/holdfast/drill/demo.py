"""The demo: answers go on while the replicas beneath them are killed and frozen, and every one of them is checked.

First the site is left in peace and each question is asked once: these are the answers that must come. Then a crowd of clients
asks the same questions over and over while havoc reigns, and each answer is compared with its undisturbed twin, token for
token. The verdict counts; it does not interpret.
"""

import asyncio
from collections import deque
from collections.abc import Iterable

from msgspec import Struct
from rich.console import Console

from holdfast.domain.fault import NoReplica
from holdfast.domain.ports import Clock
from holdfast.drill.arena import Arena, Plan, Sections
from holdfast.drill.board import Board, Line, Row, View, blow_word
from holdfast.drill.chaos import Chaos
from holdfast.drill.client import Client, Question
from holdfast.drill.crowd import Crowd
from holdfast.drill.questions import mixed, turn
from holdfast.policy.havoc import Havoc, Pace
from holdfast.policy.reckoning import Answer, Reckoning, pauses, reckon

PATIENCE_S = 180.0  # a starved machine is slow, and slow is not broken
AT_ONCE = 8
CONTEXT_TOKENS_MAX = 1024  # twice the longest answer; three replicas should fit into a small machine's memory
RATE_S = 2.0


class Wishes(Struct, frozen=True, kw_only=True):
    """What the user asked for."""

    seconds: float = 30.0
    streams: int = 20
    replicas: int = 3
    seed: int = 1


class Demo:
    """One run. `console` gets the board and the words; the result is a Reckoning."""

    def __init__(self, wishes: Wishes, clock: Clock, console: Console) -> None:
        self._wishes, self._clock, self._console = wishes, clock, console
        self._pause_ms_max, self._reckoned = 0.0, 0
        self._samples: deque[tuple[float, int]] = deque()
        self._began = 0.0
        self.survivors: list[str] = []
        self.broken: list[tuple[Question, Answer]] = []

    async def run(self) -> Reckoning:
        """Everything, from the first process to the last one's end.

        Raises:
            NoReplica: the site did not come up, or could not answer while nobody hurt it.
        """
        wishes = self._wishes
        self._say(f"starting a site of its own: {wishes.replicas} replicas of the model that ships")
        more: Sections = {"replica": {"context_tokens_max": CONTEXT_TOKENS_MAX}}
        arena = Arena(Plan(replicas=wishes.replicas, more=more), self._clock)
        async with arena:
            client = Client("127.0.0.1", arena.port, self._clock, PATIENCE_S)
            questions = mixed(arena.model)
            self._say(f"asking {len(questions)} questions in peace, to know the answers")
            at_rest = await peaceful(client, questions)
            self._say(f"now {wishes.streams} streams, and havoc for {wishes.seconds:g} s")
            crowd = Crowd(client, self._clock, lambda stream, number: turn(questions, stream, number))
            self._began = self._clock.now()
            chaos = Chaos(arena, Havoc(wishes.seed, Pace(), self._began), self._clock)
            await self._havoc(arena, crowd, chaos)
        self.survivors = arena.survivors
        asked = {question.case: question for question in questions}
        self.broken = [
            (asked[one.case], one) for one in crowd.answers if one.end != "ended" or not one.same_as(at_rest[one.case])
        ]
        return reckon(crowd.answers, at_rest, chaos.strikes)

    async def _havoc(self, arena: Arena, crowd: Crowd, chaos: Chaos) -> None:
        until = self._began + self._wishes.seconds
        board = Board(self._console, self._clock, lambda: self._view(arena, crowd, chaos))
        async with asyncio.TaskGroup() as group:
            group.create_task(chaos.run(until), name="chaos")
            group.create_task(crowd.run(self._wishes.streams, until), name="crowd")
            group.create_task(board.run(until), name="board")

    def _view(self, arena: Arena, crowd: Crowd, chaos: Chaos) -> View:
        now = self._clock.now()
        for answer in crowd.answers[self._reckoned :]:
            self._pause_ms_max = max(
                [self._pause_ms_max, *(1000 * one.seconds for one in pauses(answer, chaos.strikes))]
            )
        self._reckoned = len(crowd.answers)
        return View(
            title="Holdfast demo",
            seconds=now - self._began,
            seconds_all=self._wishes.seconds,
            rows=_rows(arena, chaos),
            lines=[
                Line(question.prompt, said.content or said.reasoning, said.moves) for question, said in _open(crowd)
            ],
            strikes=chaos.strikes,
            answers=len(crowd.answers),
            tokens=crowd.tokens,
            tokens_per_s=self._rate(now, crowd.tokens),
            moves=crowd.moves,
            pause_ms_max=self._pause_ms_max,
        )

    def _rate(self, now: float, tokens: int) -> float:
        """Tokens a second over the last RATE_S seconds."""
        self._samples.append((now, tokens))
        while now - self._samples[0][0] > RATE_S:
            self._samples.popleft()
        then, before = self._samples[0]
        return (tokens - before) / (now - then) if now > then else 0.0

    def _say(self, sentence: str) -> None:
        self._console.print(sentence, highlight=False, soft_wrap=True)


async def peaceful(client: Client, questions: Iterable[Question]) -> dict[int, Answer]:
    """Each question's answer while nothing happens.

    Raises:
        NoReplica: one of them did not end well; there is nothing to compare with then.
    """
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(question: Question) -> Answer:
        async with gate:
            return await client.ask(question)

    answers = await asyncio.gather(*(one(question) for question in questions))
    for answer in answers:
        if answer.end != "ended":
            raise NoReplica(f"the site could not answer in peace: {answer.end}, {answer.why}")
    return {answer.case: answer for answer in answers}


def _open(crowd: Crowd) -> list[tuple[Question, Answer]]:
    return [crowd.open[stream] for stream in sorted(crowd.open)]


def _rows(arena: Arena, chaos: Chaos) -> list[Row]:
    site = arena.site()
    rows = []
    for process in site.processes if site is not None else ():
        if process.role == "replica":
            blow = chaos.struck(process.name, process.pid)
            running = process.load.running if process.load is not None and blow is None else 0
            rows.append(Row(process.name, blow_word(blow) if blow else str(process.state), process.pid, running))
    return rows
