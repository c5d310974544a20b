"""Departures: answers that are asked to move, from a replica that is leaving to one that stays. Nothing is wrong with either.

A few at each look, shortest first, and only as many as the others can take at once: a free slot, and room in the lane (the
bound on what moved answers may have read again at the same time, policy/lane.py), so that no answer stops here to wait there.
Answers that were lost go first. Where nobody else serves they stay: they end where they began, or with their replica.
"""

from dataclasses import dataclass

from holdfast.gateway.lines import Known
from holdfast.policy.lane import Lane

MOVES_A_LOOK = 8


@dataclass
class _Room:
    """What one replica can take now."""

    slots: int
    tokens: int
    idle: bool  # its lane is empty: one answer always fits, however long

    def takes(self, tokens: int) -> bool:
        return self.slots > 0 and (self.idle or tokens <= self.tokens)

    def take(self, tokens: int) -> None:
        self.slots, self.tokens, self.idle = self.slots - 1, self.tokens - tokens, False


@dataclass
class Departures:
    """`lane`: the worker's own, which failover draws on. `moves_a_look`: so many answers leave one replica at a time."""

    lane: Lane
    moves_a_look: int = MOVES_A_LOOK

    def look(self, known: dict[str, Known], now: float) -> None:
        """Move what may move now."""
        leaving = [one for one in known.values() if not one.line.gone and one.line.in_flight and why_of(one)]
        if not leaving or self.lane.waiting:
            return
        rooms = [
            self._room(name, one)
            for name, one in known.items()
            if one.may_serve and not one.doubtful and not one.breaker.is_open
        ]
        for one in leaving:
            why = why_of(one)
            shortest = sorted(one.line.streams(), key=lambda stream: stream.prompt_tokens + stream.tokens)
            for stream in shortest[: self.moves_a_look]:
                tokens = stream.prompt_tokens + stream.tokens
                room = max((room for room in rooms if room.takes(tokens)), key=lambda room: room.slots, default=None)
                if room is None:
                    break
                room.take(tokens)
                one.line.fail(why, stream.generation, planned=True)

    def _room(self, replica: str, one: Known) -> _Room:
        reading = self.lane.reading.get(replica, {})
        free = one.line.last_load.slots - one.line.in_flight
        return _Room(free, self.lane.tokens_max - sum(reading.values()), not reading)


def why_of(one: Known) -> str:
    """Why its answers are to move; empty if they stay."""
    if one.suspected_at is not None:
        return ""
    if one.place.leaving:
        return f"{one.place.replica} is leaving: {one.place.leaving}"
    return f"{one.place.replica} is draining" if one.line.last_load.draining else ""
