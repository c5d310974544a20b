"""The core of a replica whose engine is another program: attempts in, tokens out, and signs of life that are the engine's own.

Each attempt is one task that reads the adapter's stream; what the streams bring between two looks of the server is one step.

A replica's process answers pings in any case, and would hide that the engine behind it stands still. So here a ping is answered
only at the engine's next sign of life: a token of any stream; else, while answers are under way, a step counter that has grown;
else, with nothing under way, an answered probe. Gateways and supervision then find a frozen engine as they find a frozen
replica, and by the same policies.

When the engine is gone the whole replica goes, at once: a stream that breaks is held back for a moment, until it is known whether
the engine has died, since the death of an engine and the loss of one answer are judged differently (policy/poison.py).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from msgspec import Struct

from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused, Fault
from holdfast.domain.ports import Clock, ForeignEngine, Produced, Work
from holdfast.domain.release import Release
from holdfast.domain.replica import Load
from holdfast.domain.request import Chunk, Finish, Generation

TICK_S = 0.1  # a ping that no token has answered for so long has the counters asked
COUNTERS_S = 1.0  # while answers are under way the counters are read this often in any case
DEATH_GRACE_S = 0.05  # a process's sockets are closed a few milliseconds before its end can be seen
SHUT_MAX, SHUT_S = 3, 2.0  # probes in a row that met a shut door, and for how long, at an engine that is not our child


class Limits(Struct, frozen=True, kw_only=True):
    """What bounds the attempts. `counts`: the engine counts its own steps; without, any answered probe is a sign of life."""

    slots: int
    queue_max: int
    context_tokens_max: int
    counts: bool = True
    external: bool = False  # nobody watches its process: a door that stays shut is its end


class ForeignCore:
    """Implements the RemoteCore port over an adapter that has learnt what its engine can do.

    `ended` makes the exception with which the replica ends, of what is known about the engine's end. `repair` is what may help an
    engine that calls itself unfit, once; it says what it did.
    """

    def __init__(
        self,
        engine: ForeignEngine,
        release: Release,
        clock: Clock,
        limits: Limits,
        *,
        ended: Callable[[str], BaseException],
        repair: Callable[[], Awaitable[str]] | None = None,
    ) -> None:
        self.context_tokens_max = limits.context_tokens_max
        self.unfit = ""  # what the engine says against itself
        self._engine, self._clock, self._limits, self._release = engine, clock, limits, release
        self._ended, self._repair = ended, repair
        self._end: BaseException | None = None
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._waiting: deque[tuple[int, Generation]] = deque()
        self._made: dict[int, Produced] = {}
        self.on_stir: Callable[[], None] = lambda: None
        self.keyless: Callable[[str], str] = str  # takes the key out of what is told of the engine's end
        self.outward: Callable[[Fault], str] = _sentence  # what of a fault goes to who asked; it may take down the rest
        self._asked = asyncio.Event()
        self._pings: list[tuple[float, Callable[[], None]]] = []
        self._steps, self._shut, self._shut_at = 0, 0, 0.0
        self._their_step: int | None = (
            None  # as read since the last token: what grew before that is no sign of life now
        )
        self._told = Load()

    def submit(self, ticket: int, work: Work) -> None:
        """See the port."""
        tokens = len(work.prompt_ids)
        if not work.prompt_ids:
            raise BadRequest("prompt_ids is empty: send at least one token", "prompt_ids")
        if tokens >= self.context_tokens_max:
            raise BadRequest(
                f"a prompt of {tokens} tokens leaves no room in a context of {self.context_tokens_max}",
                "prompt_ids",
                "context_length_exceeded",
            )
        if work.max_tokens < 1:
            raise BadRequest(f"max_tokens is {work.max_tokens}: ask for at least one token", "max_tokens")
        limits = self._limits
        if len(self._tasks) >= limits.slots and len(self._waiting) >= limits.queue_max:
            raise EngineRefused(f"all {limits.slots} slots are taken and {len(self._waiting)} attempts wait")
        room = self.context_tokens_max - tokens
        max_tokens = min(work.max_tokens, room)
        if len(work.delivered_ids) >= max_tokens:  # only the word that it had ended was lost
            self._give(ticket, Produced(ticket, [], Finish.LENGTH))
            return
        generation = Generation(
            id=str(ticket),
            prompt_ids=work.prompt_ids,
            delivered_ids=work.delivered_ids,
            sampling=work.sampling,
            max_tokens=max_tokens,
            seed=work.seed,
            stop_ids=work.stop_ids,
        )
        self._waiting.append((ticket, generation))
        self._fill_slots()

    def abort(self, ticket: int) -> None:
        """See the port. The engine hears of it by the connection that closes."""
        self._made.pop(ticket, None)
        task = self._tasks.pop(ticket, None)
        if task is not None:
            task.cancel()
        else:
            self._waiting = deque(one for one in self._waiting if one[0] != ticket)
        self._fill_slots()

    def step(self) -> list[Produced]:
        """What has come since the last step. Raises what `ended` made, once the engine has ended."""
        if self._end is not None:
            raise self._end
        made, self._made = list(self._made.values()), {}
        return made

    def load(self) -> Load:
        """Our own count of attempts, and the engine's word on its cache. Answers that were not fetched yet count as running."""
        told = self._told
        return Load(
            step=self._steps,
            running=len(self._tasks) or (1 if self.stirred else 0),
            queued=len(self._waiting) + (told.queued if self._tasks else 0),
            slots=self._limits.slots,
            cache_tokens=told.cache_tokens,
            cache_tokens_max=told.cache_tokens_max,
        )

    def release(self) -> Release:
        """See the port."""
        return self._release

    @property
    def stirred(self) -> bool:
        """See the port."""
        return bool(self._made) or self._end is not None

    def vouch(self, answer: Callable[[], None]) -> None:
        """See the port."""
        self._pings.append((self._clock.now(), answer))
        self._asked.set()

    def end(self, why: str) -> None:
        """The engine has ended, or can't be reached any more: the replica ends with its next step."""
        if self._end is None:
            self._end = self._ended(self.keyless(why))
            self.on_stir()

    def wrecked(self, task: asyncio.Task[None]) -> None:
        """A task of ours is done: what it did not survive ends the replica, as an exception out of any core does. Else an
        attempt would hold its slot for good, or all pings stay unanswered."""
        error = None if task.cancelled() else task.exception()
        if error is not None and self._end is None:
            self._end = error
            self.on_stir()

    async def watch(self) -> None:
        """Ask the engine for signs of life where its streams give none. Runs as long as the replica."""
        told_at = self._clock.now()
        while self._end is None:
            if not (self._tasks or self._pings):
                self._asked.clear()
                await self._asked.wait()
            now = self._clock.now()
            due = bool(self._pings) and (not self._tasks or now - self._pings[0][0] >= TICK_S)
            if due or now - told_at >= COUNTERS_S:
                told_at = now
                await self._probe()
            if self._tasks or self._pings:
                await self._clock.sleep(TICK_S)

    async def close(self) -> None:
        """End all attempts and hang up."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._engine.close()

    async def _probe(self) -> None:
        """One look at the engine's own counters, and what follows from it."""
        began = self._clock.now()
        try:
            probe = await self._engine.probe()
        except EngineLost as lost:
            self._shut_at = self._shut_at if self._shut else began
            self._shut += 1
            stays = self._shut >= SHUT_MAX and self._clock.now() - self._shut_at >= SHUT_S
            if lost.died or (self._limits.external and stays):
                self.end(lost.discreet)
            return
        self._shut, self._told = 0, probe.load
        grown = self._their_step is not None and probe.load.step != self._their_step
        self._their_step = probe.load.step
        self.unfit = "" if probe.ready else probe.why
        if self.unfit:
            await self._mend()
        elif grown or not self._limits.counts:
            self._move(began)
        elif not self._tasks:
            self._answer(began)

    async def _mend(self) -> None:
        """An engine that says it is unfit gets one chance; pings stay unanswered meanwhile."""
        if self._repair is None:
            return
        for ticket in tuple(self._tasks):
            self._fail(ticket, EngineLost(f"the engine is unfit: {self.unfit}"))
        try:
            await self._repair()
        except EngineLost as lost:
            self.end(lost.discreet)

    def _move(self, since: float) -> None:
        """The engine has made progress: count it, and answer who asked before `since`."""
        self._steps += 1
        self._answer(since)

    def _answer(self, since: float) -> None:
        if self._pings:
            due = [answer for asked_at, answer in self._pings if asked_at <= since]
            self._pings = [one for one in self._pings if one[0] > since]
            for answer in due:
                answer()

    def _fill_slots(self) -> None:
        while self._waiting and len(self._tasks) < self._limits.slots:
            ticket, generation = self._waiting.popleft()
            self._tasks[ticket] = task = asyncio.create_task(self._read(ticket, generation), name=f"attempt {ticket}")
            task.add_done_callback(self.wrecked)
        if self._tasks:
            self._asked.set()

    async def _read(self, ticket: int, generation: Generation) -> None:
        """One attempt, from its first byte to its end."""
        try:
            async with aclosing(self._engine.generate(generation)) as chunks:
                async for chunk in chunks:
                    self._take(ticket, chunk)
        except (EngineLost, EngineRefused, BadRequest) as fault:
            await self._lost(ticket, fault)
        else:
            if ticket in self._tasks:
                await self._lost(ticket, EngineLost("the engine's stream ended without a finish"))

    def _take(self, ticket: int, chunk: Chunk) -> None:
        if ticket not in self._tasks:
            return
        if chunk.finish is not None:
            self._over(ticket)
        produced = Produced(ticket, chunk.ids, chunk.finish, chunk.logprobs, chunk.cached_tokens)
        produced.again = bool(chunk.waiting)
        self._give(ticket, produced)
        self._their_step, self._shut = None, 0  # what brings tokens is not shut, however late it answers questions
        self._move(self._clock.now())

    async def _lost(self, ticket: int, fault: Fault) -> None:
        """Tell that an attempt has failed, unless it turns out that the whole engine has."""
        if isinstance(fault, EngineLost):
            if fault.died:
                self.end(fault.discreet)
                return
            await self._clock.sleep(DEATH_GRACE_S)
        if self._end is None and ticket in self._tasks:
            self._fail(ticket, fault)

    def _fail(self, ticket: int, fault: Fault) -> None:
        task = self._tasks.get(ticket)
        self._over(ticket)
        if task is not None and task is not asyncio.current_task():
            task.cancel()
        produced = Produced(ticket, [], fault=self.outward(fault))
        if isinstance(fault, EngineRefused):
            produced.refused = True
        elif isinstance(fault, BadRequest):
            produced.param = fault.param or "request"
        elif isinstance(fault, EngineLost):
            produced.unrepeatable = fault.unrepeatable
        self._give(ticket, produced)

    def _over(self, ticket: int) -> None:
        """The attempt needs no slot any more."""
        self._tasks.pop(ticket, None)
        self._fill_slots()

    def _give(self, ticket: int, produced: Produced) -> None:
        """Keep what was made until the next step; what had waited already comes first."""
        had = self._made.get(ticket)
        if had is None:
            self._made[ticket] = produced
        else:
            had.ids.extend(produced.ids)
            had.finish, had.fault, had.param = produced.finish, produced.fault, produced.param
            had.refused, had.unrepeatable = produced.refused, produced.unrepeatable
            had.cached_tokens += produced.cached_tokens
            if produced.logprobs:
                had.logprobs = [*(had.logprobs or ()), *produced.logprobs]
        self.on_stir()


def _sentence(fault: Fault) -> str:
    """What is said of a request that is wrong goes to who asked; the rest becomes an event too."""
    return fault.why if isinstance(fault, BadRequest) else fault.discreet
