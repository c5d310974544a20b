"""Reads the roster that fleet publishes, and makes the lines fit it. Constant work: the same reading every 50 ms, come what may.

The last good roster stays in force when the file is gone or torn: the data plane needs nobody's help to go on serving.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from holdfast.domain.ports import Clock
from holdfast.domain.roster import Roster
from holdfast.gateway.lines import Lines


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
