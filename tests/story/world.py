"""A whole gateway over simulated replicas, in virtual time. Stories are written against this."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from holdfast.domain.event import AnswerMoved, Event
from holdfast.domain.fault import Fault
from holdfast.domain.ports import Line
from holdfast.domain.release import Release
from holdfast.domain.request import Finish, Generation
from holdfast.domain.roster import Place, Roster
from holdfast.gateway.follow import Follower
from holdfast.gateway.gate import Gate
from holdfast.gateway.lines import Lines
from holdfast.gateway.stack import Moving, Wiring, stack
from holdfast.gateway.tenants import Tenants
from holdfast.gateway.watch import Watch
from holdfast.policy.admission import Admission
from holdfast.policy.breaker import Breaker
from holdfast.policy.quota import Quota
from holdfast.policy.silence import Patience
from holdfast.policy.token_bucket import OwnLedger
from holdfast.sim.clock import VirtualClock
from holdfast.sim.replica import SimReplica, answer


@dataclass
class Answer:
    """What a simulated client got."""

    ids: list[int] = field(default_factory=list)
    finish: Finish | None = None
    fault: Fault | None = None
    moves: int = 0
    waits: list[str] = field(default_factory=list)
    at: list[float] = field(default_factory=list)  # when each token came

    @property
    def pause_s(self) -> float:
        """The longest time between two tokens."""
        return max((b - a for a, b in zip(self.at, self.at[1:], strict=False)), default=0.0)


class World:
    """Replicas by name, the gateway over them, and every event it emitted."""

    def __init__(
        self,
        *names: str,
        step_s: float = 0.02,
        slots: int = 64,
        patience: Patience | None = None,
        tenants: Tenants | None = None,
        beside: "World | None" = None,
    ) -> None:
        """With `beside` it is another worker over the replicas of that world."""
        self.clock = beside.clock if beside else VirtualClock()
        mine = {} if beside else {name: SimReplica(name, self.clock, step_s, slots) for name in names}
        self.replicas = beside.replicas if beside else mine
        self.events: list[Event] = []
        self.lines = Lines(self._dial, self.clock, self.events.append, lambda: Breaker(failures_max=3))
        self.watch = Watch(self.lines, patience or Patience(), self.clock, self.events.append)
        self.listed = set(self.replicas)
        self.leaving: dict[str, str] = {}  # replica -> why
        self.kinds: tuple[Release, ...] = ()  # what the roster lists where there are several
        self.admission = Admission(queue_max=100, queue_wait_s=30)
        self.gate = Gate(
            self.admission,
            self.lines.room,
            self.clock,
            tenants or Tenants(),
            Quota(OwnLedger()),
            cached=self.lines.cached,
        )
        self.moves_max = 16
        self.moving: Moving | None = None  # None: as a worker alone makes it
        self._asked = 0

    async def _dial(self, place: Place) -> Line:
        return self.replicas[place.address].dial()

    def _roster(self) -> Roster:
        """What fleet would publish: the living, frozen ones included."""
        return Roster(
            kinds=self.kinds,
            places=tuple(
                Place(replica=name, address=name, boot=one.boot, leaving=self.leaving.get(name, ""))
                for name, one in self.replicas.items()
                if one.alive and name in self.listed
            ),
        )

    @asynccontextmanager
    async def running(self):
        """The world turns while this is open."""
        follower = Follower(self.lines, self._roster, self.clock)
        self.service = stack(
            Wiring(
                gate=self.gate,
                lines=self.lines,
                clock=self.clock,
                emit=self.events.append,
                moves_max=self.moves_max,
                moving=self.moving,
            )
        )
        turning = [one.run() for one in self.replicas.values()] + [self.watch.run(), follower.run()]
        tasks = [asyncio.ensure_future(one) for one in turning]
        try:
            await self.clock.sleep(0)
            await self.clock.sleep(0)
            yield self
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            await self.lines.close()
            crashed = [one for one in results if not isinstance(one, asyncio.CancelledError)]
            assert not crashed, f"a part of the world crashed: {crashed}"

    def generation(self, count: int, seed: int = 0, **more: Any) -> Generation:
        self._asked += 1
        return Generation(id=f"g{self._asked}", prompt_ids=[7, 8, self._asked], max_tokens=count, seed=seed, **more)

    async def chat(self, generation: Generation, each: Callable[[int], None] | None = None) -> Answer:
        """Be a client: take tokens until the end. `each` is called with the count after every token."""
        got = Answer()
        try:
            async with aclosing(self.service(generation)) as chunks:
                async for chunk in chunks:
                    if chunk.waiting:
                        got.waits.append(chunk.waiting)
                    for one in chunk.ids:
                        got.ids.append(one)
                        got.at.append(self.clock.now())
                        if each is not None:
                            each(len(got.ids))
                    got.finish, got.moves = chunk.finish, chunk.moves
        except Fault as fault:
            got.fault = fault
        return got

    async def hang_up(self, generation: Generation) -> None:
        """Be a client that leaves after the first sign of life."""
        with suppress(Fault):
            async with aclosing(self.service(generation)) as chunks:
                async for _ in chunks:
                    break

    def expected(self, generation: Generation) -> list[int]:
        return answer(generation.prompt_ids, generation.seed, generation.max_tokens)

    def whys(self, *kinds: type[Event]) -> list[str]:
        return [event.why for event in self.events if isinstance(event, kinds or AnswerMoved)]

    def settled(self) -> None:
        """The invariants of a quiet world: nothing held, nothing owed."""
        assert self.gate.running == 0
        assert not self.gate.waiting
        assert self.gate.queue.requests == self.gate.queue.work == self.gate.queue.bytes == 0
        assert self.lines.room.used() == (0, 0)
        assert all(self.gate.shares.of(one).slots == 0 for one in self.gate.accounts)
        assert all(self.gate.shares.of(one).tokens == 0 for one in self.gate.accounts)
        assert all(line.in_flight == 0 for one in self.replicas.values() for line in one.lines)


def together(*parts: Coroutine[Any, Any, Any]):
    return asyncio.gather(*parts)
