"""Simulated clients: they stream, hang up, come back, retry with their key, and know the true answer."""

import asyncio
from dataclasses import dataclass, field
from random import Random

from msgspec import structs

from holdfast.domain.fault import BadRequest, Fault, Fenced, Overloaded
from holdfast.domain.request import Finish, Generation
from holdfast.drill.simulation_check import is_poison
from holdfast.drill.simulation_ground import Ask, Told, Wire
from holdfast.drill.simulation_site import SimSite

STALL_S = 4.0  # a client that hears nothing at all for so long comes back on another connection
PATIENCE_S = 120.0
AGAIN_S = 0.05
DEADLINE_S = 90.0


@dataclass(eq=False)
class Client:
    """One request and what became of it. `loyal`: it resumes; `fickle`: it breaks its own connection now and then."""

    site: SimSite
    random: Random
    asked: Generation
    loyal: bool
    fickle: float = 0.0
    hasty: bool = False  # sends its request twice at once, as a retry that overtakes does
    quits_after: int = -1
    ids: list[int] = field(default_factory=list)
    finish: Finish | None = None
    fault: Fault | None = None
    why: str = ""
    posts: int = 0
    name: str = ""  # the answer's id, once the head has come

    async def run(self, after_s: float) -> None:
        """From the first byte sent to the end."""
        site = self.site
        await self.site.clock.sleep(after_s)
        self.asked = structs.replace(self.asked, deadline=site.clock.now() + DEADLINE_S)
        site.check.asked[self.asked.id] = self.asked
        while self.finish is None and self.fault is None and not self.why:
            if self._overdue():
                return
            wire = site.connect(self.random)
            if wire is None:
                await self.site.clock.sleep(AGAIN_S)
                continue
            await self._exchange(wire)
        site.check.ended(self.asked, self.ids, self.finish, self.fault, self.why)

    def _overdue(self) -> bool:
        """Whether it has waited beyond all reason."""
        late_s = self.site.clock.now() - self.asked.deadline
        if late_s > PATIENCE_S:
            self.site.check.violated(f"I7: {self.asked.id} has not ended {late_s:.0f} s after its deadline")
        return late_s > PATIENCE_S

    def _ask(self) -> Ask:
        digest = f"digest-{self.asked.id}" if self.loyal else ""
        if self.loyal and self.name:
            self.site.check.resumed += 1
            self.site.check.handed_on += is_poison(self.asked)
            return Ask(generation=self.asked, resume=self.name, have=len(self.ids), resumable=True)
        return Ask(generation=self._fresh(), digest=digest, have=len(self.ids), resumable=self.loyal)

    def _fresh(self) -> Generation:
        """Every POST is an answer of its own, unless its key says that it is not."""
        self.posts += 1
        key = f"digest-{self.asked.id}" if self.loyal else ""
        again = structs.replace(self.asked, id=f"{self.asked.id}x{self.posts}", idempotency=key)
        self.site.check.asked[again.id] = again
        return again

    async def _exchange(self, wire: Wire) -> None:
        """One connection, from request to end."""
        wire.say(self._ask())
        if self.hasty:
            self.hasty = False
            other = self.site.connect(self.random)
            if other is not None:
                other.say(self._ask())
                asyncio.get_running_loop().call_later(0.3, other.say, None)
        while True:
            told = await wire.hear(STALL_S)
            if self._overdue():
                wire.say(None)
                return
            if told is None or told.lost:
                if told is None:
                    wire.say(None)
                if not self.loyal:
                    self.why = "its connection broke"
                await self.site.clock.sleep(0.005)
                return
            if self._take(told):
                wire.say(None)
                return
            if 0 <= self.quits_after <= len(self.ids):
                self.why = "it hung up"
                wire.say(None)
                return
            if self.fickle and self.random.random() < self.fickle:
                wire.say(None)
                return

    def _take(self, told: Told) -> bool:
        """Returns whether this exchange is over."""
        self.name = told.name or self.name
        if told.fault is not None:
            again = isinstance(told.fault, Overloaded | Fenced) or (
                isinstance(told.fault, BadRequest) and told.fault.code == "idempotency_in_progress"
            )
            unknown = isinstance(told.fault, BadRequest) and told.fault.code == "stream_not_found" and not self.ids
            if not ((again or unknown) and self.loyal):
                self.fault = told.fault
            elif unknown or isinstance(told.fault, Overloaded):
                self.name = ""  # it was never begun, or its worker died while it waited for its turn
            return True
        if told.chunk is not None:
            self.ids += told.chunk.ids
            self.finish = told.chunk.finish
        return self.finish is not None
