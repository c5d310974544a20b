"""The lines: one open connection to every replica of the roster, and what this worker knows of each.

The layers read it, the watch judges it, the roster feeds it. It decides nothing: pick, breaker and silence are policies. With
each reading of the roster it writes into the room (policy/room.py) who can hold what, and has a trial made where a breaker
has been open long enough.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

from holdfast.domain.event import BreakerClosed, BreakerOpened, Emit, ReplicaJoined, ReplicaLost
from holdfast.domain.fault import EngineLost, EngineRefused
from holdfast.domain.ports import Clock, Line
from holdfast.domain.release import Release
from holdfast.domain.request import Generation
from holdfast.domain.roster import Place, Roster
from holdfast.gateway.kinds import Kinds
from holdfast.gateway.trial import trial
from holdfast.policy.affinity import Affinity
from holdfast.policy.breaker import Breaker, Opened
from holdfast.policy.room import Room
from holdfast.policy.sanity import Odd
from holdfast.policy.silence import READING_MIN_TOKENS, Cost, Rhythm

DIAL_PATIENCE_S = 0.05  # then the next reading of the roster looks again
NEWCOMER_S = 2.0  # who is there so soon after this worker began is not fresh: the worker is
AFFINITY_BLOCKS = 65536  # unless [balance] affinity_blocks says otherwise
Dialler = Callable[[Place], Awaitable[Line]]


class Suspicion(StrEnum):
    """What a replica is suspected of, which says what clears it: a frame; a step; nothing but time."""

    SILENT = "silent"
    WEDGED = "wedged"
    INSANE = "insane"


@dataclass
class Known:
    """What this worker knows of one replica. The watch writes all but the first three and `picked_at`."""

    place: Place
    line: Line
    breaker: Breaker
    rhythm: Rhythm = field(default_factory=Rhythm)  # of its frames, pongs among them, while it reads no long prompts
    reads: Rhythm = field(default_factory=Rhythm)  # of its frames while it does
    strides: Rhythm = field(default_factory=Rhythm)  # of its steps, as the looks see them
    suspected_at: float | None = None
    suspected_of: Suspicion = Suspicion.SILENT
    again_at: float = inf  # when a suspect is given another try, whatever it shows
    tries: int = 0  # so many rests it has had of late
    cleared_at: float = 0.0
    worn: str = ""  # why this line is to be given up for a new one
    doubtful_at: float | None = None
    gap_s_max: float = inf  # longer gaps are learnt as this: a silence taken for a loss teaches patience by degrees
    step: int = -1
    stepped_at: float = 0.0
    working: bool = False  # streams were in flight at the last look
    reading: Cost = field(default_factory=Cost)  # of one step
    first: Cost = field(default_factory=Cost)  # of a whole prompt, with all that goes on meanwhile
    unread: set[str] = field(default_factory=set)  # generations that waited for their first token at the last look
    reading_tokens: int = 0  # prompt tokens that its next step may read, at the last look
    picked_at: int = 0
    fresh_at: float = -inf  # when its slow start began

    @property
    def pickable(self) -> bool:
        """Whether it may be given an answer at all, and be it in need."""
        line = self.line
        return self.suspected_at is None and not line.gone and not line.last_load.draining and self.place.weight > 0

    @property
    def plain(self) -> bool:
        """Nothing at all speaks against it."""
        line = self.line
        return (
            self.suspected_at is None
            and (self.doubtful_at is None or line.last_frame_at > self.doubtful_at)
            and self.breaker.opened_at is None
            and not line.gone
            and not line.last_load.draining
            and self.place.weight > 0
        )

    @property
    def may_serve(self) -> bool:
        """Neither suspect nor gone nor leaving."""
        return self.pickable and not self.place.leaving

    @property
    def doubtful(self) -> bool:
        """Quieter than it should be, since the last look, and no frame has come since."""
        return self.doubtful_at is not None and self.line.last_frame_at <= self.doubtful_at

    def heard(self, gap_s: float) -> None:
        """What the line calls with each gap."""
        learnt_s = min(gap_s, self.gap_s_max)
        if self.reading_tokens < READING_MIN_TOKENS:
            self.rhythm.add(learnt_s, self.line.in_flight)
        else:
            self.reads.add(learnt_s, self.line.in_flight)
            self.reading.add(learnt_s, self.reading_tokens)


@dataclass
class Record:
    """What is remembered of a boot, even if its line is opened anew."""

    breaker: Breaker
    fresh_at: float


class Lines:
    """`dialler` opens a line to a place, or raises EngineLost or OSError.

    `affinity_bound` and `slow_start_s` are policy.balance's; 0 seconds: fresh replicas get their full share at once.
    """

    def __init__(self, dialler: Dialler, clock: Clock, emit: Emit, breaker: Callable[[], Breaker]) -> None:
        self._dialler, self._clock, self._emit, self._breaker = dialler, clock, emit, breaker
        self._known: dict[str, Known] = {}
        self._roster = Roster()
        self.owed: dict[
            str, Generation
        ] = {}  # by id: what is being answered; dial writes it, the watch reads deadlines
        self.room = Room()
        self.kinds = Kinds()
        self.affinity = Affinity(AFFINITY_BLOCKS)
        self.affinity_bound, self.slow_start_s = 1.25, 0.0
        self.by_boot: dict[str, Known] = {}
        self._records: dict[str, Record] = {}
        self._began_at: float | None = None
        self._trials: set[asyncio.Future[None]] = set()
        self._trial_number = 0
        self._picks = 0
        self._slots = 0
        self._dialling: dict[str, asyncio.Future[None]] = {}
        self._listeners: list[Callable[[], None]] = []
        self._bell = asyncio.Event()
        self.stirred = asyncio.Event()  # a replica was picked: the watch looks again, however long it meant to rest
        self.redialled: dict[str, str] = {}  # suspects, with their boots, that are not connected again yet
        self.replicas = 0  # how many the site wants, as far as the roster tells
        self.odd: list[Odd] = []  # answers that look wrong; dial writes them down, the watch judges

    # what the layers read

    def cached(self, prompt_ids: list[int]) -> int:
        """How many tokens of this prompt a replica that serves is believed to have in its cache."""
        found = self.affinity.known(prompt_ids)
        if not found.tokens:
            return 0
        return found.tokens if any(boot in self.by_boot for boot in found.near[0]) else 0

    def picked(self, replica: str) -> None:
        """Take down that this replica was chosen, so that ties go round."""
        self._picks += 1
        self.stirred.set()
        self._known[replica].picked_at = self._picks

    def line(self, replica: str) -> Line | None:
        known = self._known.get(replica)
        return None if known is None or known.line.gone else known.line

    @property
    def now(self) -> float:
        """The clock's seconds."""
        return self._clock.now()

    @property
    def connected(self) -> set[str]:
        """Boots of replicas that are connected."""
        return {known.line.boot for known in self._known.values() if not known.line.gone}

    @property
    def listed(self) -> set[str]:
        """Boots of replicas that are on the roster."""
        return {place.boot for place in self._roster.places}

    def slots(self) -> int:
        """Slots of all replicas that may take traffic."""
        return self._slots

    def release(self) -> Release | None:
        """What the site serves: the roster's word, else that of the first line."""
        if self._roster.release is not None:
            return self._roster.release
        for known in self._known.values():
            return known.line.describe()
        return None

    # what the watch and the roster's reader do

    def known(self) -> dict[str, Known]:
        return self._known

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call `listener` whenever who may take traffic has changed."""
        self._listeners.append(listener)

    def ring(self) -> None:
        """Something about who may take traffic has changed: count slots anew and wake those who wait."""
        self._slots = sum(max(1, known.line.last_load.slots) for known in self._known.values() if known.may_serve)
        self.refresh()
        for listener in self._listeners:
            listener()
        bell, self._bell = self._bell, asyncio.Event()
        bell.set()

    async def changed(self, timeout_s: float) -> bool:
        """Wait for the next ring, at most `timeout_s`. Returns whether it rang."""
        waiter = asyncio.ensure_future(self._bell.wait())
        try:
            done, _ = await asyncio.wait({waiter}, timeout=max(0.0, timeout_s))
        finally:
            waiter.cancel()  # also when the client has hung up: nobody is to wait on in its stead
        return bool(done)

    async def follow(self, roster: Roster) -> None:
        """Make the lines fit this roster: dial the new, drop those that are gone, try the unreachable again."""
        now = self._clock.now()
        if self._began_at is None:
            self._began_at = now
        changed = roster != self._roster
        self._roster, self.replicas = roster, roster.replicas
        if changed:
            self._see_kinds()
        wanted = {place.replica: place for place in roster.places}
        for name, known in list(self._known.items()):
            place = wanted.get(name)
            if known.line.gone or known.worn or place is None or place.boot != known.line.boot:
                await self._drop(name, known, place)
            elif place != known.place:
                changed = (place.leaving, place.weight) != (known.place.leaving, known.place.weight)
                if place.weight > 0 >= known.place.weight:
                    known.fresh_at = now  # it stood by, or was being looked at
                known.place = place
                if changed:
                    self.ring()
        self.redialled = {
            name: boot for name, boot in self.redialled.items() if name in wanted and wanted[name].boot == boot
        }
        for name, place in wanted.items():
            if name not in self._known and name not in self._dialling:
                self._dialling[name] = asyncio.ensure_future(self._dial(place))
        if self._dialling:  # one that does not answer must not keep us from the others
            done, _ = await asyncio.wait(self._dialling.values(), timeout=DIAL_PATIENCE_S)
            self._dialling = {name: task for name, task in self._dialling.items() if task not in done}
            for task in done:
                task.result()
        self.refresh()
        self._try_breakers()

    def refresh(self) -> None:
        """Write into the room who can hold what now, and into the ring who is there."""
        fit = {boot for boot, known in self.by_boot.items() if known.may_serve}
        closed = {boot for boot in fit if not self.by_boot[boot].breaker.is_open}
        serving = closed or fit
        for boot, known in self.by_boot.items():
            if known.pickable:
                load = known.line.last_load
                self.room.see(boot, max(1, load.slots), load.cache_tokens_max, boot in serving)
            else:
                self.room.gone(boot)
        self.affinity.ring.set(frozenset(serving))

    def _see_kinds(self) -> None:
        self.kinds.see(self._roster, (known.line.describe() for known in self._known.values()))

    def _try_breakers(self) -> None:
        """Ask those whose breakers have been open long enough for a token."""
        now = self._clock.now()
        for known in self._known.values():
            if known.breaker.is_open and known.breaker.trial_due(now) and known.pickable:
                known.breaker.trying()
                task = asyncio.ensure_future(self._trial(known))
                self._trials.add(task)
                task.add_done_callback(self._trials.discard)

    async def _trial(self, known: Known) -> None:
        self._trial_number += 1
        fault: str | None = "it was given up"
        try:
            fault = await trial(known.line, self._trial_number, self._clock)
        finally:
            verdict = known.breaker.tried(fault, self._clock.now())
        if verdict is None:
            return
        name = known.place.replica
        if isinstance(verdict, Opened):
            self._emit(BreakerOpened(replica=name, why=verdict.why))
            return
        known.fresh_at = self._records[known.line.boot].fresh_at = self._clock.now()
        self._emit(BreakerClosed(replica=name, why=verdict.why))
        self.ring()

    async def _drop(self, name: str, known: Known, place: Place | None) -> None:
        if place is None and not known.line.gone and known.line.in_flight:
            known.place = Place(replica=name, address=known.place.address, boot=known.place.boot, weight=0.0)
            return  # off the roster but still answering: it gets nothing new and finishes what it has
        why = known.line.gone or known.worn or "it left the roster"
        if known.worn and place is not None and place.boot == known.line.boot:
            self.redialled[name] = place.boot
        del self._known[name]
        self._forget(known.line.boot)
        self._see_kinds()
        self._emit(ReplicaLost(replica=name, why=why))
        self.ring()
        await known.line.close()

    async def _dial(self, place: Place) -> None:
        try:
            line = await self._dialler(place)
        except (EngineLost, EngineRefused, OSError):
            return  # the next reading of the roster tries again
        newest = next((one for one in self._roster.places if one.boot == place.boot), None)
        if line.boot != place.boot or newest is None:  # it may have left the roster while we shook hands
            await line.close()
            return
        place = newest
        now = self._clock.now()
        record = self._records.get(line.boot)
        if record is None:
            fresh = self._began_at is not None and now - self._began_at > NEWCOMER_S
            record = self._records[line.boot] = Record(self._breaker(), now if fresh else -inf)
        known = Known(place, line, record.breaker, fresh_at=record.fresh_at)
        known.stepped_at = now
        line.on_gap = known.heard
        self._known[place.replica] = self.by_boot[line.boot] = known
        self._see_kinds()
        if self.redialled.pop(place.replica, ""):
            known.suspected_at = known.stepped_at  # a suspect still, until its first frame
        self._emit(ReplicaJoined(replica=place.replica, why=f"connected at {place.address}"))
        self.ring()

    def _forget(self, boot: str) -> None:
        """Its line is gone. What is remembered of a boot lasts as long as it is on the roster."""
        self.by_boot.pop(boot, None)
        self.room.gone(boot)
        kept = {place.boot for place in self._roster.places} | set(self.by_boot)
        self._records = {each: record for each, record in self._records.items() if each in kept}

    async def close(self) -> None:
        """Close every line."""
        for task in (*self._dialling.values(), *self._trials):
            task.cancel()
        self._dialling.clear()
        for known in list(self._known.values()):
            await known.line.close()
        self._known.clear()


def making(lines: Lines, generation: str) -> Release | None:
    """What runs on the replica that makes this answer now; None where it is under way nowhere."""
    owed = lines.owed.get(generation)
    known = lines.known().get(owed.replica) if owed is not None else None
    return known.line.describe() if known is not None else None
