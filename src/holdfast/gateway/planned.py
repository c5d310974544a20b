"""Departures: answers that are asked to move, from a replica that is leaving to one that stays. Nothing is wrong with either.

A few at each look, shortest first, and only as many as the others can take at once: a free slot, and room in the lane (the
bound on what moved answers may have read again at the same time, policy/lane.py), so that no answer stops here to wait there.
Answers that were lost go first. Where nobody else serves they stay: they end where they began, or with their replica. So do those
that nobody else may go on with, because the others are of another release, and those that would have to be made again there
(policy/mixture.py).
"""

from dataclasses import dataclass

from holdfast.domain.release import Release
from holdfast.domain.request import Generation
from holdfast.gateway.lines import Known
from holdfast.policy.lane import Lane
from holdfast.policy.mixture import barred, stays

MOVES_A_LOOK = 8


@dataclass
class _Room:
    """What one replica can take now."""

    slots: int
    tokens: int
    idle: bool  # its lane is empty: one answer always fits, however long
    release: Release | None

    def takes(self, tokens: int) -> bool:
        return self.slots > 0 and (self.idle or tokens <= self.tokens)

    def take(self, tokens: int) -> None:
        self.slots, self.tokens, self.idle = self.slots - 1, self.tokens - tokens, False


@dataclass
class Departures:
    """`lane`: the worker's own, which failover draws on. `moves_a_look`: so many answers leave one replica at a time."""

    lane: Lane
    moves_a_look: int = MOVES_A_LOOK

    def look(self, known: dict[str, Known], owed: dict[str, Generation]) -> None:
        """Move what may move now. `owed`: what is being answered, by id."""
        leaving = [one for one in known.values() if not one.line.gone and one.line.in_flight and why_of(one)]
        if not leaving or self.lane.waiting:
            return
        rooms = [
            self._room(name, one)
            for name, one in known.items()
            if one.may_serve and not one.doubtful and not one.breaker.is_open
        ]
        for one in leaving:
            why, release = why_of(one), one.line.describe()
            shortest = sorted(one.line.streams(), key=lambda stream: stream.prompt_tokens + stream.tokens)
            moved = 0
            for stream in shortest:
                if moved == self.moves_a_look or not any(room.slots > 0 for room in rooms):
                    break
                tokens, asked = stream.prompt_tokens + stream.tokens, owed.get(stream.generation)
                fit = [
                    room for room in rooms if room.takes(tokens) and not _barred(asked, stream.tokens, release, room)
                ]
                room = max(fit, key=lambda room: room.slots, default=None)
                if room is None:
                    continue
                moved += 1
                room.take(tokens)
                one.line.fail(why, stream.generation, planned=True)

    def _room(self, replica: str, one: Known) -> _Room:
        reading = self.lane.reading.get(replica, {})
        free = one.line.last_load.slots - one.line.in_flight
        return _Room(free, self.lane.tokens_max - sum(reading.values()), not reading, one.line.describe())


def _barred(asked: Generation | None, made: int, release: Release | None, room: _Room) -> str:
    """Why an answer that has made so many tokens here must not go on there."""
    if asked is None or not (made or asked.delivered_ids):
        return ""
    return barred(asked.begun or release, room.release, asked.sampling) or stays(room.release, asked.sampling)


def why_of(one: Known) -> str:
    """Why its answers are to move; empty if they stay."""
    if one.suspected_at is not None:
        return ""
    if one.place.leaving:
        return f"{one.place.replica} is leaving: {one.place.leaving}"
    return f"{one.place.replica} is draining" if one.line.last_load.draining else ""
