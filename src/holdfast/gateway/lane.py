"""Turns: which replica an attempt begins on, and when. Pick asks; policy.balance chooses, policy.lane and the cells say when.

New work never waits here: it begins at once, where it is in nobody's way if that can be had. An answer that moves needs a
permit of its new replica's lane, a suspect needs its replica's cell too; both are taken at the moment of the choice, so that
nobody can come in between. Who has to wait waits in the lane's order, and shows that it lives.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection
from dataclasses import dataclass, field

from msgspec import structs

from holdfast.domain.fault import Poisonous
from holdfast.domain.ports import Clock
from holdfast.domain.request import Chunk, Generation
from holdfast.gateway.lines import Lines
from holdfast.gateway.quarantine import Quarantine
from holdfast.policy import balance
from holdfast.policy.balance import Candidate, Crowded, NonePicked, Picked
from holdfast.policy.lane import Lane

SIGN_OF_LIFE_S = 1.0
LOOK_S = 0.05  # those who wait look again this often: other workers' cells free themselves without a word
TRIAL_LOOK_S = 0.01

Verdict = Picked | NonePicked | Crowded


def needs_turn(generation: Generation) -> bool:
    """Whether it may have to wait: it has moved, or a client holds its beginning, or it is a suspect."""
    return generation.epoch > 0 or generation.urgent or generation.alone


def unread(generation: Generation) -> int:
    """Tokens that a replica has to read before it can go on with this answer."""
    return len(generation.prompt_ids) + len(generation.delivered_ids)


def _key(generation: Generation) -> str:
    """One attempt. An answer may have two for a moment: a worker that stood still can take it over from itself."""
    return f"{generation.id}#{id(generation):x}"


@dataclass
class Turns:
    """The turns of one worker. A permit ends with `read` (the first new token), everything with `over`."""

    lines: Lines
    quarantine: Quarantine
    clock: Clock
    lane: Lane = field(default_factory=Lane)
    _waiters: dict[str, tuple[Generation, asyncio.Future[Verdict]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.quarantine.freed = self.serve
        self.lines.on_change(self.serve)

    def ask(self, generation: Generation) -> Verdict:
        """A replica, with permit and cell where they are needed; Crowded if it has to `wait`."""
        if not needs_turn(generation):
            return balance.pick(self._candidates(generation), generation.tried)
        if self._waiters:
            return Crowded("others were there before")
        return self._try(generation)

    async def wait(self, generation: Generation, why: str) -> AsyncGenerator[Chunk, None]:
        """Wait for a turn; gives signs of life. Afterwards `turn` holds the verdict."""
        turn: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        key = _key(generation)
        self.lane.join(key, unread(generation), self.clock.now())
        self._waiters[key] = generation, turn
        told_at = self.clock.now()
        self.serve()
        while not turn.done():
            await asyncio.wait({turn}, timeout=TRIAL_LOOK_S if generation.alone else LOOK_S)
            self.serve()
            now = self.clock.now()
            if now >= generation.deadline and not turn.done():
                turn.set_result(NonePicked(why))
            elif now - told_at >= SIGN_OF_LIFE_S:
                told_at = now
                yield Chunk([], waiting=why)

    def turn(self, generation: Generation) -> Verdict:
        """What the wait has brought. Raises Poisonous, and KeyError if it did not wait."""
        key = _key(generation)
        self.lane.leave(key)
        return self._waiters.pop(key)[1].result()

    def read(self, generation: Generation) -> None:
        """Its prompt has been read again: the lane has room."""
        if self.lane.end(_key(generation)):
            self.serve()

    def over(self, generation: Generation) -> None:
        """Its attempt has ended, or it waits no more."""
        key = _key(generation)
        self.lane.leave(key)
        gone = self._waiters.pop(key, None)
        if gone is not None:
            gone[1].cancel()
        if self.lane.end(key) or gone is not None:
            self.serve()

    def serve(self) -> None:
        """Give turns to those who wait, in order. Nobody overtakes one that waits for room in the lane."""
        for name in self.lane.queue() if self._waiters else ():
            generation, turn = self._waiters[name]
            if turn.done():
                continue
            try:
                verdict = self._try(generation)
            except Poisonous as fault:
                turn.set_exception(fault)
                continue
            if not isinstance(verdict, Crowded):
                turn.set_result(verdict)
            elif not generation.alone:
                return

    def _try(self, generation: Generation) -> Verdict:
        """Choose, and take what the choice needs."""
        locked: set[str] = set()
        while True:
            verdict = balance.pick(self._candidates(generation, locked), generation.tried, patient=True)
            if not isinstance(verdict, Picked):
                return verdict
            line = self.lines.line(verdict.replica)
            if line is None:
                return Crowded(f"{verdict.replica} went away")
            if not generation.alone or self.quarantine.enter(generation, line.boot):
                self.lane.begin(verdict.replica, _key(generation), unread(generation))
                return verdict
            locked.add(line.boot)

    def _candidates(self, generation: Generation, locked: Collection[str] = ()) -> list[Candidate]:
        """The live lines, each with what speaks against this attempt there."""
        found = list(self.lines.candidates())
        if not (needs_turn(generation) or self.lane.reading or self.quarantine.cases):
            return found
        return [structs.replace(one, crowded=self._complaint(one, generation, locked)) for one in found]

    def _complaint(self, one: Candidate, generation: Generation, locked: Collection[str]) -> str:
        if generation.alone and (one.boot in locked or self.quarantine.occupied(one.boot)):
            return f"another suspect is on trial on {one.replica}"
        if needs_turn(generation):
            return self.lane.complaint(one.replica, unread(generation))
        if self.lane.complaint(one.replica, 1):
            return "its lane is full"
        return "a suspect is on trial there" if self.quarantine.occupied(one.boot) else ""
