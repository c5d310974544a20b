"""Reads the roster that fleet publishes, and makes the lines fit it. Constant work: the same reading every 50 ms, come what may.

The last good roster stays in force when the file is gone or torn: the data plane needs nobody's help to go on serving.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from msgspec import structs

from holdfast.domain.ports import Clock
from holdfast.domain.roster import Roster
from holdfast.gateway.lines import Lines


def of_model(read: Callable[[], Roster | None], model: str = "") -> Callable[[], Roster | None]:
    """The same roster with the places of one model only: the site's own, or a smaller one by name.

    Of the smaller one the roster tells neither how many are wanted nor which release: all that are listed are.
    """

    def theirs() -> Roster | None:
        roster = read()
        if roster is None or not (model or any(place.model for place in roster.places)):
            return roster  # by far the commonest
        places = tuple(place for place in roster.places if place.model == model)
        if not model:
            return structs.replace(roster, places=places)
        return Roster(epoch=roster.epoch, replicas=len(places), places=places)

    return theirs


@dataclass
class Follower:
    """`read` returns the newest roster, or None when there is no new good one."""

    lines: Lines
    read: Callable[[], Roster | None]
    clock: Clock
    every_s: float = 0.05
    roster: Roster = field(default_factory=Roster)

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            self.roster = self.read() or self.roster
            await self.lines.follow(self.roster)
            await self.clock.sleep(self.every_s)
