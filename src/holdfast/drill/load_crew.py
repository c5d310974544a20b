"""The open loop: sends each request when it is due, whatever became of those before it, and gives up when patience ends."""

import asyncio
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from random import Random

from holdfast.domain.ports import Clock
from holdfast.drill.load_line import Asked, Line
from holdfast.drill.load_plan import Due, Plan, schedule
from holdfast.drill.load_tally import ERRORED, GAVE_UP, GOOD, LATE, REFUSED, Tally
from holdfast.drill.load_words import Words

REST_S = 0.001  # requests that are due within it go out together; an event loop's timers are no finer
LOOK_S = 0.05  # at most so long between two looks at who has ended
PAUSE_S = 0.1  # before the first retry, where nobody says how long; doubled each time


class Crew:
    """One process's share of a load: every `of`-th request, beginning with number `share`."""

    def __init__(self, plan: Plan, clock: Clock, share: int = 0, of: int = 1) -> None:
        self._plan, self._clock = plan, clock
        due = schedule(plan)
        longest = max((one.prompt_tokens for one in due), default=1)
        self._due: deque[Due] = deque(due[share::of])
        self._words = Words(plan, longest)
        self._random = Random(f"crew {plan.seed} {share}")
        self._free: list[Line] = []
        self._open = 0
        self._opening: set[asyncio.Task[None]] = set()
        self._backlog: deque[Asked] = deque()
        self._later: list[tuple[float, int, Asked]] = []
        self._patience: list[tuple[float, int, Asked]] = []
        self._lines: dict[int, Line] = {}  # by request: who is answering it
        self._left = len(self._due)
        self._count = 0
        self._began = 0.0
        self._counting = False
        self.tally, self._warming = Tally(stream=plan.stream), Tally(stream=plan.stream)

    async def run(self, begin_at: float, tell: Callable[[Tally], None] | None = None) -> Tally:
        """Play the whole schedule; its zero is the Clock's `begin_at`. `tell` is called now and then."""
        self._began = begin_at
        told = begin_at
        try:
            await self._fill_pool()
            while self._left:
                now = self._clock.now()
                self._look(now)
                if tell is not None and now - told >= 0.25:
                    told = now
                    tell(self.tally)
                await self._clock.sleep(min(LOOK_S, max(REST_S, self._next_at() - self._clock.now())))
        finally:
            for task in tuple(self._opening):
                task.cancel()
            for line in [*self._free, *self._lines.values()]:
                line.hang_up()
        return self.tally

    def _look(self, now: float) -> None:
        self._counting = now >= self._began + self._plan.warm_s
        while self._due and self._began + self._due[0].at <= now:
            due = self._due.popleft()
            at = self._began + due.at
            tally = self._tally_of(due)
            tally.offer(due.at, self._plan.clients[due.client].name)
            tally.time("lag", now - at)
            asked = Asked(due, at, at)
            heappush(self._patience, (at + self._plan.patience_s, due.number, asked))
            self._send(asked)
        while self._later and self._later[0][0] <= now:
            self._send(heappop(self._later)[2])
        while self._patience and self._patience[0][0] <= now:
            self._give_up(heappop(self._patience)[2].due.number, now)

    def _next_at(self) -> float:
        return min(
            self._began + self._due[0].at if self._due else float("inf"),
            self._later[0][0] if self._later else float("inf"),
            self._patience[0][0] if self._patience else float("inf"),
        )

    def _send(self, asked: Asked) -> None:
        while self._free:
            line = self._free.pop()
            if line.open:
                self._ask(line, asked)
                return
        if self._open >= self._plan.connections_max:
            self._backlog.append(asked)
            return
        self._open += 1
        self.tally.connections += 1
        task = asyncio.get_running_loop().create_task(self._connect(asked))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _fill_pool(self) -> None:
        """Raises OSError: nobody listens there."""
        for _ in range(self._plan.pool):
            self._open += 1
            self.tally.connections += 1
            self._free.append(await self._dial())

    async def _dial(self) -> Line:
        plan, words = self._plan, self._words
        local = (plan.source, 0) if plan.source else None
        _, line = await asyncio.get_running_loop().create_connection(
            lambda: Line(self, self._clock.now, plan.stream), words.host, words.port, local_addr=local
        )
        return line

    async def _connect(self, asked: Asked) -> None:
        left_s = asked.first_due + self._plan.patience_s - self._clock.now()
        try:
            async with asyncio.timeout(max(0.0, left_s)):
                line = await self._dial()
        except (OSError, TimeoutError) as error:
            self._open -= 1
            asked.ended, asked.reason = self._clock.now(), f"no connection: {type(error).__name__}"
            self._over(asked, GAVE_UP if isinstance(error, TimeoutError) else ERRORED)
            return
        self._ask(line, asked)

    def _ask(self, line: Line, asked: Asked) -> None:
        self._lines[asked.due.number] = line
        line.ask(asked, self._words.request(asked.due))

    def gap(self, seconds: float) -> None:
        """See load_line.Desk; likewise the next two."""
        if self._counting:
            self.tally.time("gap", seconds)

    def _tally_of(self, due: Due) -> Tally:
        return self.tally if due.at >= self._plan.warm_s else self._warming

    def ended(self, line: Line, asked: Asked) -> None:
        del self._lines[asked.due.number]
        if line.open:
            self._free.append(line)
        plan = self._plan
        if asked.whole:
            kept = not plan.deadline_s or asked.ended <= asked.first_due + plan.deadline_s
            self._over(asked, GOOD if kept else LATE)
        else:
            self._over(asked, REFUSED if asked.refused else ERRORED)
        while self._backlog and self._free:
            self._send(self._backlog.popleft())

    def closed(self, line: Line) -> None:
        self._open -= 1
        if self._backlog:
            self._send(self._backlog.popleft())

    def _give_up(self, number: int, now: float) -> None:
        line = self._lines.pop(number, None)
        if line is not None and line.asked is not None:
            asked = line.asked
            line.hang_up()
        else:
            found = next((one for one in self._backlog if one.due.number == number), None)
            if found is None:
                return  # it ended long ago, or is about to be tried again: then that is its last word
            self._backlog.remove(found)
            asked = found
        asked.ended = now
        self._over(asked, GAVE_UP)

    def _over(self, asked: Asked, word: str) -> None:
        tally = self._tally_of(asked.due)
        tally.attempt(asked)
        if word in (REFUSED, ERRORED) and asked.attempt < self._plan.retries and self._again(asked):
            return
        self._left -= 1
        tally.end(asked, word, self._plan.clients[asked.due.client].name, self._began)

    def _again(self, asked: Asked) -> bool:
        """Put it back for another attempt; false when patience does not last for one."""
        if self._plan.obey and asked.retry_after_s:
            pause_s = asked.retry_after_s
        else:
            pause_s = PAUSE_S * 2**asked.attempt * self._random.uniform(0.5, 1.5)
        at = asked.ended + pause_s
        if at >= asked.first_due + self._plan.patience_s:
            return False
        self._count += 1
        heappush(self._later, (at, self._count, Asked(asked.due, at, asked.first_due, asked.attempt + 1)))
        return True
