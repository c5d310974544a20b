"""Turns: which replica an attempt begins on, and when. Pick asks; policy.balance chooses, policy.lane and the cells say when.

Nobody begins where there is no room (policy.room): room is taken at the moment of the choice, so that nobody can come in
between. An answer that moves needs a permit of its new replica's lane too, a suspect its replica's cell. Who has to wait waits
in the lane's order, and shows that it lives. New work begins at once where there is room; where there is none (it was lost
between admission and here) it waits behind those that moved, and leaves them as many slots as they are.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection, Iterable
from dataclasses import dataclass, field
from math import inf

from holdfast.domain.fault import Poisonous
from holdfast.domain.ports import Clock
from holdfast.domain.request import Chunk, Generation
from holdfast.gateway.lines import Known, Lines
from holdfast.gateway.quarantine import Quarantine
from holdfast.policy import balance, mixture
from holdfast.policy.affinity import BLOCK
from holdfast.policy.balance import FEW, Ask, Candidate, Crowded, NonePicked, Picked, share_of
from holdfast.policy.lane import Lane

SIGN_OF_LIFE_S = 1.0
LOOK_S = 0.05  # those who wait look again this often: other workers' rooms and cells free themselves without a word
TRIAL_LOOK_S = 0.01
RACES_MAX = 3  # so often the last room may be lost to another worker before the attempt waits
BEFORE = Crowded("others were there before")

Verdict = Picked | NonePicked | Crowded
Turn = asyncio.Future[Verdict]


def needs_turn(generation: Generation) -> bool:
    """Whether it may have to wait for more than room: it has moved, or a client holds its beginning, or it is a suspect."""
    return generation.epoch > 0 or generation.urgent or generation.alone


def unread(generation: Generation) -> int:
    """Tokens that a replica has to read before it can go on with this answer."""
    return len(generation.prompt_ids) + len(generation.delivered_ids)


def hold_of(generation: Generation, lines: Lines) -> int:
    """Cache places that an attempt at this answer takes: what it was let in with, else its prompt and all it may become."""
    grant = lines.room.grants.get(generation.id)
    if grant is not None:
        return grant.tokens
    return len(generation.prompt_ids) + (generation.expected_tokens or generation.max_tokens)


def candidate(
    lines: Lines, known: Known, hold: int, crowded: str = "", fresh: bool = True, *, barred: str = ""
) -> Candidate:
    """One live line, for policy.balance. `hold`: tokens that are to be held there. `fresh`: this is new work."""
    line, room, share = known.line, lines.room, 1.0
    if fresh and lines.slow_start_s > 0 and known.fresh_at > -inf:
        share = share_of(lines.now - known.fresh_at, lines.slow_start_s)
    boot = line.boot
    full = room.has_room(boot, hold)
    place = room.places.get(boot)
    running = work = 0
    if place is not None:
        running, work = place.streams + place.other_streams, place.work + place.other_tokens
    return Candidate(
        known.place.replica,
        boot,
        running,
        max(1, line.last_load.slots),
        not known.pickable,
        known.breaker.opened_at is not None,
        known.picked_at,
        known.place.weight,
        known.doubtful,
        crowded,
        full,
        work,
        share,
        barred,
    )


def _key(generation: Generation) -> str:
    """One attempt. An answer may have two for a moment: a worker that stood still can take it over from itself."""
    return f"{generation.id}#{id(generation):x}"


def _session(generation: Generation) -> str:
    return f"{generation.tenant}/{generation.session}" if generation.session else ""


@dataclass
class Turns:
    """The turns of one worker. A permit ends with `read` (the first new token), everything with `over`.

    `draw` gives numbers in [0, 1) for choices among many replicas.
    """

    lines: Lines
    quarantine: Quarantine
    clock: Clock
    lane: Lane = field(default_factory=Lane)
    draw: Callable[[], float] = field(default_factory=lambda: Lots().draw)
    _waiters: dict[str, tuple[Generation, Turn]] = field(default_factory=dict)  # of the lane
    _fresh: dict[str, tuple[Generation, Turn]] = field(default_factory=dict)  # for room alone, first come first served
    _held: dict[int, str] = field(default_factory=dict)  # attempts that hold room, and under which name

    def __post_init__(self) -> None:
        self.quarantine.freed = self.serve
        self.lines.on_change(self.serve)

    def ask(self, generation: Generation) -> Verdict:
        """A replica with room, and with permit and cell where they are needed; Crowded if it has to `wait`."""
        if not needs_turn(generation):
            if self._fresh or (self._waiters and self.lines.room.free <= len(self._waiters)):
                return BEFORE
            straight = self._straight(generation)
            if straight is not None:
                return straight
        elif self._waiters:
            return BEFORE
        return self._try(generation)

    def _straight(self, generation: Generation) -> Picked | None:
        """The same choice as `_try`'s for the usual case, at a fraction of its cost: new work, few replicas, nothing odd about
        any of them, and nobody has its prompt's beginning, or there is nobody else. None: it is another case."""
        lines = self.lines
        room, several = lines.room, len(lines.by_boot) > 1
        if (
            self.lane.reading
            or self.quarantine.cases
            or generation.tried
            or (several and (generation.session or len(generation.prompt_ids) > BLOCK))
            or len(lines.by_boot) > FEW
            or generation.id in room.held
            or (lines.kinds.mixed and generation.sampling.grammar)
        ):
            return None
        hold, slow_until = hold_of(generation, lines), self.clock.now() - lines.slow_start_s
        best, best_known, least = None, None, (0.0, 0.0, 0)
        for boot, known in lines.by_boot.items():
            place = room.places.get(boot)
            if place is None or not place.serving or not known.plain or known.fresh_at > slow_until:
                return None
            if several and room.has_room(boot, hold):  # asked of all: the room then knows what others have given back
                continue
            size = place.slots * known.place.weight
            rank = (
                (place.work + place.other_tokens) / size,
                (place.streams + place.other_streams) / size,
                known.picked_at,
            )
            if best is None or rank < least:
                best, best_known, least = place, known, rank
        if best is None or best_known is None:
            return None
        prompt = len(generation.prompt_ids)
        if room.take(best.boot, generation.id, hold, prompt + 2 * max(1, hold - prompt)):
            return None
        self._held[id(generation)] = generation.id
        return Picked(best_known.place.replica, best.boot, "least work")

    async def wait(self, generation: Generation, why: str) -> AsyncGenerator[Chunk, None]:
        """Wait for a turn; gives signs of life. Afterwards `turn` holds the verdict."""
        turn: Turn = asyncio.get_running_loop().create_future()
        key = _key(generation)
        if needs_turn(generation):
            self.lane.join(key, unread(generation), self.clock.now())
            self._waiters[key] = generation, turn
        else:
            self._fresh[key] = generation, turn
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
        waited = self._waiters.pop(key, None) or self._fresh.pop(key)
        return waited[1].result()

    def read(self, generation: Generation) -> None:
        """Its prompt has been read again: the lane has room."""
        if self.lane.end(_key(generation)):
            self.serve()

    def over(self, generation: Generation) -> None:
        """Its attempt has ended, or it waits no more."""
        held = self._held.pop(id(generation), "")
        if held:
            self.lines.room.give(held)
        if needs_turn(generation) or self._fresh:
            key = _key(generation)
            self.lane.leave(key)
            gone = self._waiters.pop(key, None) or self._fresh.pop(key, None)
            if gone is not None:
                gone[1].cancel()
            self.lane.end(key)
        if self._waiters or self._fresh:
            self.serve()

    def serve(self) -> None:
        """Give turns to those who wait, in order. Nobody overtakes one that waits for its lane or for room."""
        blocked: set[str] = set()  # releases whose replicas have no room: who is bound to another one goes on
        for name in self.lane.queue() if self._waiters else ():
            generation, turn = self._waiters[name]
            bound = generation.begun.digest if generation.begun is not None and self.lines.kinds.mixed else ""
            if bound in blocked or self._settle(generation, turn) or generation.alone:
                continue
            if not bound:
                break
            blocked.add(bound)
        if not self._fresh:
            return
        before = sum(1 for _, turn in self._waiters.values() if not turn.done())
        for generation, turn in self._fresh.values():
            if self.lines.room.free <= before:
                return
            if not self._settle(generation, turn) and not (self.lines.kinds.mixed and generation.sampling.grammar):
                return

    def _settle(self, generation: Generation, turn: Turn) -> bool:
        """Try to end a wait. Returns whether it has ended."""
        if turn.done():
            return True
        try:
            verdict = self._try(generation)
        except Poisonous as fault:
            turn.set_exception(fault)
            return True
        if isinstance(verdict, Crowded):
            return False
        turn.set_result(verdict)
        return True

    def _try(self, generation: Generation) -> Verdict:
        """Choose, and take what the choice needs."""
        lines, fresh = self.lines, not needs_turn(generation)
        locked: set[str] = set()
        found = lines.affinity.find(generation.prompt_ids, _session(generation)) if fresh else None
        ask = Ask(generation.tried, not fresh, found.near if found else (), lines.affinity_bound)
        field = _Field(self, generation, hold_of(generation, lines), locked)
        races = 0
        while True:
            verdict = balance.choose(field, ask, self.draw)
            if not isinstance(verdict, Picked):
                return verdict
            boot = verdict.boot
            cached = found.tokens if found and found.near and boot in found.near[0] else 0
            why = self._hold(generation, boot, field.hold, unread(generation) - cached)
            if why:
                races += 1
                if races == RACES_MAX:
                    return Crowded(why)
            elif generation.alone and not self.quarantine.enter(generation, boot):
                lines.room.give(self._held.pop(id(generation)))
                locked.add(boot)
            else:
                if fresh:
                    lines.affinity.learn(generation.prompt_ids, boot, _session(generation))
                else:
                    self.lane.begin(verdict.replica, _key(generation), unread(generation))
                return verdict

    def _hold(self, generation: Generation, boot: str, tokens: int, reading: int) -> str:
        """Take room there. Returns why that failed, or nothing."""
        room = self.lines.room
        key = generation.id if generation.id not in room.held else _key(generation)
        to_come = max(1, tokens - unread(generation))
        why = room.take(boot, key, tokens, max(1, reading) + 2 * to_come)
        if not why:
            self._held[id(generation)] = key
        return why

    def complaint(self, one: Known, generation: Generation, locked: Collection[str]) -> str:
        """Why it should not begin there now, although there is room."""
        replica, boot = one.place.replica, one.line.boot
        if generation.alone and (boot in locked or self.quarantine.occupied(boot)):
            return f"another suspect is on trial on {replica}"
        if needs_turn(generation):
            return self.lane.complaint(replica, unread(generation))
        if self.lane.complaint(replica, 1):
            return "its lane is full"
        return "a suspect is on trial there" if self.quarantine.occupied(boot) else ""


class Lots:
    """Numbers in [0, 1), the same ones in every run: a linear congruential generator (Knuth's MMIX), by its upper bits."""

    def __init__(self) -> None:
        self._state = 1

    def draw(self) -> float:
        """The next one."""
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self._state >> 11) / 2**53


class _Field:
    """The live lines as policy.balance sees them, each with what speaks against this attempt there."""

    def __init__(self, turns: Turns, generation: Generation, hold: int, locked: set[str]) -> None:
        self._turns, self._generation, self.hold, self._locked = turns, generation, hold, locked
        self._moves = needs_turn(generation)
        self._quiet = not (self._moves or turns.lane.reading or turns.quarantine.cases)
        kinds, asked = turns.lines.kinds, generation
        self._anywhere = asked.begun is None and not (kinds.mixed and asked.sampling.grammar)

    def count(self) -> tuple[int, int]:
        lines = self._turns.lines
        return len(lines.room.open), len(lines.known())

    def at(self, number: int) -> Candidate:
        lines = self._turns.lines
        return self._see(lines.by_boot[lines.room.open[number].boot])

    def named(self, boot: str) -> Candidate | None:
        known = self._turns.lines.by_boot.get(boot)
        return None if known is None else self._see(known)

    def everybody(self) -> Iterable[Candidate]:
        return [self._see(known) for known in self._turns.lines.known().values()]

    def load(self) -> tuple[int, int]:
        room = self._turns.lines.room
        slots = room.total()[0]
        return slots - room.free, slots

    def _see(self, known: Known) -> Candidate:
        turns = self._turns
        crowded = "" if self._quiet else turns.complaint(known, self._generation, self._locked)
        barred = ""
        if not self._anywhere:
            asked = self._generation
            barred = mixture.barred(asked.begun, known.line.describe(), asked.sampling, turns.lines.kinds.all)
        return candidate(turns.lines, known, self.hold, crowded, not self._moves, barred=barred)
