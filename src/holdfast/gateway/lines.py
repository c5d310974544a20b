"""The lines: one open connection to every replica of the roster, and what this worker knows of each.

The layers read it, the watch judges it, the roster feeds it. It decides nothing: pick, breaker and silence are policies.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from holdfast.domain.event import Emit, ReplicaJoined, ReplicaLost
from holdfast.domain.fault import EngineLost, EngineRefused
from holdfast.domain.ports import Clock, Line
from holdfast.domain.release import Release
from holdfast.domain.request import Generation
from holdfast.domain.roster import Place, Roster
from holdfast.policy.balance import Candidate
from holdfast.policy.breaker import Breaker
from holdfast.policy.silence import Cadence

DIAL_PATIENCE_S = 0.05  # then the next reading of the roster looks again
Dialler = Callable[[Place], Awaitable[Line]]


@dataclass
class Known:
    """What this worker knows of one replica."""

    place: Place
    line: Line
    breaker: Breaker
    cadence: Cadence = field(default_factory=Cadence)
    suspected_at: float | None = None
    picked_at: int = 0


class Lines:
    """`dialler` opens a line to a place, or raises EngineLost or OSError."""

    def __init__(self, dialler: Dialler, clock: Clock, emit: Emit, breaker: Callable[[], Breaker]) -> None:
        self._dialler, self._clock, self._emit, self._breaker = dialler, clock, emit, breaker
        self._known: dict[str, Known] = {}
        self._roster = Roster()
        self.owed: dict[
            str, Generation
        ] = {}  # by id: what is being answered; dial writes it, the watch reads deadlines
        self._picks = 0
        self._slots = 0
        self._dialling: dict[str, asyncio.Future[None]] = {}
        self._listeners: list[Callable[[], None]] = []
        self._bell = asyncio.Event()

    # what the layers read

    def candidates(self) -> Iterable[Candidate]:
        """Every live line, for policy.balance."""
        now = self._clock.now()
        return [
            Candidate(
                name,
                known.line.boot,
                known.line.in_flight,
                max(1, known.line.last_load.slots),
                known.suspected_at is not None or known.line.last_load.draining or bool(known.line.gone),
                known.breaker.is_open(now),
                known.picked_at,
                known.place.weight,
            )
            for name, known in self._known.items()
        ]

    def picked(self, replica: str) -> None:
        """Take down that this replica was chosen, so that ties go round."""
        self._picks += 1
        self._known[replica].picked_at = self._picks

    def line(self, replica: str) -> Line | None:
        known = self._known.get(replica)
        return None if known is None or known.line.gone else known.line

    def breaker(self, replica: str) -> Breaker:
        """The replica's breaker; one that is gone gets a fresh one that nobody reads."""
        known = self._known.get(replica)
        return self._breaker() if known is None else known.breaker

    def slots(self) -> int:
        """Slots of all replicas that may take traffic."""
        return self._slots

    def release(self) -> Release | None:
        """What the site serves: the roster's word, else that of the first line."""
        if self._roster.release is not None:
            return self._roster.release
        return next((known.line.describe() for known in self._known.values()), None)

    # what the watch and the roster's reader do

    def known(self) -> dict[str, Known]:
        return self._known

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever who may take traffic has changed."""
        self._listeners.append(listener)

    def ring(self) -> None:
        """Something about who may take traffic has changed: count slots anew and wake those who wait."""
        self._slots = sum(
            max(1, known.line.last_load.slots)
            for known in self._known.values()
            if known.suspected_at is None and not known.line.gone and not known.line.last_load.draining
        )
        for listener in self._listeners:
            listener()
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()

    async def changed(self, timeout_s: float) -> bool:
        """Wait for the next ring, at most `timeout_s`. Returns whether it rang."""
        waiter = asyncio.ensure_future(self._bell.wait())
        done, _ = await asyncio.wait({waiter}, timeout=max(0.0, timeout_s))
        waiter.cancel()
        return bool(done)

    async def follow(self, roster: Roster) -> None:
        """Make the lines fit this roster: dial the new, drop those that are gone, try the unreachable again."""
        self._roster = roster
        wanted = {place.replica: place for place in roster.places}
        for name, known in list(self._known.items()):
            place = wanted.get(name)
            if known.line.gone or place is None or place.boot != known.line.boot:
                await self._drop(name, known, place)
            elif place != known.place:
                known.place = place
        for name, place in wanted.items():
            if name not in self._known and name not in self._dialling:
                self._dialling[name] = asyncio.ensure_future(self._dial(place))
        if self._dialling:  # one that does not answer must not keep us from the others
            done, _ = await asyncio.wait(self._dialling.values(), timeout=DIAL_PATIENCE_S)
            self._dialling = {name: task for name, task in self._dialling.items() if task not in done}
            for task in done:
                task.result()

    async def _drop(self, name: str, known: Known, place: Place | None) -> None:
        if place is None and not known.line.gone and known.line.in_flight:
            known.place = Place(replica=name, address=known.place.address, boot=known.place.boot, weight=0.0)
            return  # off the roster but still answering: it gets nothing new and finishes what it has
        why = known.line.gone or "it left the roster"
        del self._known[name]
        self._emit(ReplicaLost(replica=name, why=why))
        self.ring()
        await known.line.close()

    async def _dial(self, place: Place) -> None:
        try:
            line = await self._dialler(place)
        except (EngineLost, EngineRefused, OSError):
            return  # the next reading of the roster tries again
        if line.boot != place.boot:
            await line.close()
            return
        known = Known(place, line, self._breaker())
        line.on_gap = known.cadence.add
        self._known[place.replica] = known
        self._emit(ReplicaJoined(replica=place.replica, why=f"connected at {place.address}"))
        self.ring()

    async def close(self) -> None:
        """Close every line."""
        for task in self._dialling.values():
            task.cancel()
        self._dialling.clear()
        for known in list(self._known.values()):
            await known.line.close()
        self._known.clear()
