"""Neighbours: the other workers, as the gate minds them when it hands out places."""

from dataclasses import dataclass, field

from holdfast.policy.courtesy import Courtesy
from holdfast.policy.room import Room

LOOK_S = 0.005  # what they hold is added up no more often: it grows with the number of replicas


@dataclass
class Neighbours:
    """`flooded`: in so many other workers somebody waits for room, as they told last; `workers`: how many live, this one too."""

    flooded: int = 0
    workers: int = 1
    courtesy: Courtesy = field(default_factory=Courtesy)
    _theirs: int = 0
    _looked_at: float = float("-inf")

    def part(self, slots: int) -> int:
        """This worker's part of all slots: at least one, where there are any."""
        return -(-slots // self.workers)

    def go_first(self, room: Room, running: int, now: float) -> bool:
        """Whether what is free now is left to one of them. `running`: answers of this worker."""
        if not self.flooded or room.free <= 0:
            return False
        if now - self._looked_at >= LOOK_S:
            self._looked_at = now
            self._theirs = sum(place.other_streams for place in room.places.values())
        return self.courtesy.gives_way(now, room.total()[0], running, self._theirs, self.flooded)
