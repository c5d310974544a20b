"""The vigil: while a replica owes us tokens, look a hundred times a second whether its process is dying.

The kernel closes the sockets of a killed process only after it has freed its memory, which takes tens of milliseconds for
each gigabyte. A look costs microseconds; nobody is judged by it: either the process has lost its memory, or it has not.
"""

from dataclasses import dataclass

from holdfast.domain.ports import Clock
from holdfast.gateway.lines import Lines


@dataclass
class Vigil:
    """Looks every `tick_s` at lines with streams in flight, every `idle_s` when nobody owes anything."""

    lines: Lines
    clock: Clock
    tick_s: float = 0.01
    idle_s: float = 0.1

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.clock.sleep(self.tick_s if self.look() else self.idle_s)

    def look(self) -> bool:
        """One round. Returns whether anybody owes anything."""
        busy = False
        for known in self.lines.known().values():
            if known.line.in_flight:
                busy = True
                known.line.check()
        return busy
