"""Asking canaries, through the ears' own lines. They must not disturb: short, limited in time, one at a time on a whole site."""

import asyncio
import itertools
from contextlib import aclosing

from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused
from holdfast.domain.ports import Clock, Line
from holdfast.domain.request import Generation, Sampling, TokenLogprob
from holdfast.fleet.evidence import Evidence
from holdfast.policy.canary import Answer, Due, Kind

KNOWN_S_MIN = 30.0  # a whole answer on a crowded replica takes longer than one token on an idle one
LOOK_S = 0.5
_GREEDY = Sampling(temperature=0.0, logprobs=2, ignore_eos=True)


class Canaries:
    """Asks whatever policy/canary.py says is due, and hands the outcome to the evidence."""

    def __init__(self, evidence: Evidence, clock: Clock, tokens: int) -> None:
        self._evidence, self._clock, self._tokens = evidence, clock, tokens
        self._turn = asyncio.Lock()
        self._numbers = itertools.count(1)

    async def attend(self, name: str, line: Line) -> None:
        """Ask one replica over this line until the line is gone."""
        while not line.gone:
            due = self._evidence.next_canary(name, line.boot)
            if not isinstance(due, Due):
                await self._clock.sleep(min(LOOK_S, max(0.05, due.at - self._clock.now())))
                continue
            async with self._turn:
                due = self._evidence.next_canary(name, line.boot)  # the wait may have been long
                if isinstance(due, Due) and not line.gone:
                    await self._ask(name, line, due.kind)
            await self._clock.sleep(0.05)

    async def _ask(self, name: str, line: Line, kind: Kind) -> None:
        evidence, boot = self._evidence, line.boot
        patience_s = evidence.patience_s(name, boot)
        if kind is Kind.KNOWN:
            patience_s = max(KNOWN_S_MIN, patience_s)
        evidence.asking(name, boot, True)
        step = line.last_load.step
        answer = asyncio.ensure_future(self._answer(line, self._generation(line, kind)))
        timer = asyncio.ensure_future(self._clock.sleep(patience_s))
        try:
            await asyncio.wait({answer, timer}, return_when=asyncio.FIRST_COMPLETED)
            told = answer.result() if answer.done() else None
        finally:
            evidence.asking(name, boot, False)
            for task in (answer, timer):
                task.cancel()
            await asyncio.gather(answer, timer, return_exceptions=True)
        if isinstance(told, Answer):
            evidence.answered(name, boot, kind, told)
        elif line.gone or told is not None:
            evidence.unasked(name, boot, kind)
        else:
            evidence.unanswered(name, boot, kind, moved=line.last_load.step != step)

    def _generation(self, line: Line, kind: Kind) -> Generation:
        return Generation(
            id=f"canary-{next(self._numbers)}",
            prompt_ids=list(self._evidence.question(line.describe())),
            sampling=_GREEDY,
            max_tokens=1 if kind is Kind.ALIVE else self._tokens_of(line),
        )

    def _tokens_of(self, line: Line) -> int:
        return self._evidence.answer_tokens(line.describe()) or self._tokens

    async def _answer(self, line: Line, generation: Generation) -> Answer | str:
        """The answer, or why there was none to be had."""
        ids: list[int] = []
        rows: list[TokenLogprob] = []
        try:
            async with aclosing(line.generate(generation)) as chunks:
                async for chunk in chunks:
                    ids += chunk.ids
                    rows += chunk.logprobs or ()
        except (EngineRefused, BadRequest) as refused:
            return refused.why
        except EngineLost as lost:
            gone = lost.died or lost.planned or line.gone or line.last_load.draining
            return lost.why if gone else Answer(tuple(ids), tuple(rows), fault=lost.why)
        return Answer(tuple(ids), tuple(rows))
