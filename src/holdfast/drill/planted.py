"""Eleven bugs, planted on purpose: each takes one safeguard away, and the simulator has to find it.

A simulator that finds nothing proves nothing until it has been seen to find something. Each plant puts a part into the real
wiring that lacks exactly what its sentence says.
"""

from collections.abc import AsyncGenerator, Callable
from dataclasses import replace

from msgspec import structs

from holdfast.domain.event import Event
from holdfast.domain.fault import EngineLost
from holdfast.domain.ports import Clock, Shelf
from holdfast.domain.procedure import Done, Step, Wait
from holdfast.domain.release import Release
from holdfast.domain.request import Chunk, Finish, Generation
from holdfast.domain.roster import Roster
from holdfast.drill.simulation_plant import Mixed, Plant
from holdfast.fleet.supervise import Hands, Supervise, Want
from holdfast.gateway.archive import Archive
from holdfast.gateway.gate import Gate
from holdfast.gateway.gate_place import Place as Held
from holdfast.gateway.journal import Journal, Live
from holdfast.gateway.lane import Turns
from holdfast.gateway.quarantine import Quarantine
from holdfast.gateway.stack import Wiring
from holdfast.policy.supervision import Rules, Seen, Start
from holdfast.sim.line import Down, Item, SimLine
from holdfast.sim.shelf import SimShelf, SimShelves


class _SeamlessLine(SimLine):
    def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        had = generation.delivered_ids
        return super().generate(structs.replace(generation, delivered_ids=had[:-1]) if generation.epoch else generation)


class Seam(Plant):
    """A continuation forgets the last token that was delivered: it comes twice."""

    line_of = _SeamlessLine


class _UnfencedLine(SimLine):
    def _say(self, said: Down) -> None:
        if said.submit is not None:
            self.__dict__.setdefault("names", {})[said.number] = said.submit.id
        if not said.abort:
            super()._say(said)

    def _take(self, item: Item, now: float) -> None:
        name = self.__dict__.get("names", {}).get(item.number, "")
        heirs = [one for one in self._attempts.values() if one.seen.generation == name]
        if item.number in self._attempts or not heirs or item.kind:
            super()._take(item, now)
        else:
            heirs[0].put(Chunk(item.ids, item.finish))


class Fence(Plant):
    """An attempt that was left may still deliver: what it makes goes to the attempt that has followed it."""

    line_of = _UnfencedLine


class _LateJournal(Journal):
    def write(self, live: Live, chunk: Chunk) -> None:
        waiting = self.__dict__.setdefault("waiting", {})
        before = waiting.pop(live.number, None)
        if before is not None:
            super().write(live, before)
        if chunk.finish is not None:
            super().write(live, chunk)
        else:
            waiting[live.number] = structs.replace(chunk, ids=list(chunk.ids))


class Record(Plant):
    """Tokens are sent first and journalled afterwards."""

    def journal(
        self, shelf: Shelf, archive: Archive, owner: str, clock: Clock, emit: Callable[[Event], None]
    ) -> Journal:
        return _LateJournal(shelf, archive, owner, clock, emit)


class _FreeShelf(SimShelf):
    def claim(self, name: str) -> bool:
        return True


class _FreeShelves(SimShelves):
    def shelf(self) -> SimShelf:
        return _FreeShelf(self)


class Claim(Plant):
    """Every claim is granted: two workers begin, or go on with, the same answer."""

    def shelves(self) -> SimShelves:
        return _FreeShelves()


class _LeakyGate(Gate):
    left: int = 0

    def leave(self, place: Held) -> None:
        self.left += 1
        if self.left % 7:
            super().leave(place)


class Place(Plant):
    """Now and then an answer that ended keeps its place in the worker."""

    def wiring(self, w: Wiring) -> Wiring:
        gate = w.gate
        return replace(
            w, gate=_LeakyGate(gate.rules, gate.room, gate.clock, gate.tenants, gate.quota, gate.expectation)
        )


class _Hoarders(Turns):
    def read(self, generation: Generation) -> None:
        return

    def over(self, generation: Generation) -> None:
        held = {replica: dict(ones) for replica, ones in self.lane.reading.items()}
        super().over(generation)
        self.lane.reading.update(held)


class Permit(Plant):
    """A moved answer never gives its permit of the lane back."""

    def wiring(self, w: Wiring) -> Wiring:
        assert w.moving is not None
        old = w.moving.turns
        return replace(w, moving=replace(w.moving, turns=_Hoarders(old.lines, old.quarantine, old.clock, old.lane)))


class _Lenient(Quarantine):
    async def judge(self, attempt: Generation, fault: EngineLost, tokens: int) -> None:
        return


class Leniency(Plant):
    """Nobody is ever suspected of an engine's death: a request that kills is carried from engine to engine."""

    def wiring(self, w: Wiring) -> Wiring:
        assert w.moving is not None
        old, turns = w.moving.quarantine, w.moving.turns
        lenient = _Lenient(old.lines, old.clock, old.unix_s, old.emit, old.cells, old.register)
        return replace(
            w, moving=replace(w.moving, quarantine=lenient, turns=Turns(turns.lines, lenient, turns.clock, turns.lane))
        )


class _Idle(Supervise):
    def next_step(self, seen: Seen, now: float) -> Step | Wait | Done:
        step = super().next_step(seen, now)
        deaths = {one.name: one.deaths for one in seen.standings}
        if isinstance(step, Start) and len(deaths.get(step.name, ())) > 1:
            return Wait(now + 1.0, "all is well")
        return step


class Restart(Plant):
    """The supervisor takes a process that died twice for one that is not wanted."""

    def supervise(self, wants: list[Want], rules: Rules, hands: Hands, epoch: int) -> Supervise:
        return _Idle(wants, rules, hands, epoch)


class _Forgetting(Supervise):
    def _publish(self, roster: Roster, why: str) -> None:
        super()._publish(structs.replace(roster, epoch=1 + roster.epoch % 3), why)


class Epoch(Plant):
    """The supervisor counts rosters wrongly: numbers come again."""

    def supervise(self, wants: list[Want], rules: Rules, hands: Hands, epoch: int) -> Supervise:
        return _Forgetting(wants, rules, hands, epoch)


class _EndingLine(SimLine):
    def _take(self, item: Item, now: float) -> None:
        if item.kind == "lost":
            item = Item(item.number, [], Finish.STOP)
        super()._take(item, now)


class Truncation(Plant):
    """A stream that breaks off inside its replica passes for one that is complete."""

    line_of = _EndingLine


class _DisguisedLine(SimLine):
    def describe(self) -> Release | None:
        return Mixed.kinds[0]


class Kind(Mixed):
    """A replica of another kind passes for one of the first: answers move to it that it goes on with in its own words."""

    line_of = _DisguisedLine


PLANTS: dict[str, type[Plant]] = {
    one.__name__.lower(): one
    for one in (Seam, Fence, Record, Claim, Place, Permit, Leniency, Restart, Epoch, Truncation, Kind)
}
