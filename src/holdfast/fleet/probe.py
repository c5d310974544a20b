"""Probing: one ear at every replica. A ping every half second, answered between two engine steps, proves that its loop turns.

An ear only listens. What silence means is for policy/supervision.py to say; what was heard is kept in fleet/evidence.py, and
canaries (fleet/canary.py) are asked over the same line while pings go on.
"""

import asyncio
from collections.abc import Awaitable, Callable

from holdfast.domain.fault import Fault
from holdfast.domain.ports import Clock, Line
from holdfast.fleet.canary import Canaries
from holdfast.fleet.evidence import Evidence, Heard

__all__ = ["Dial", "Ears", "Heard"]

Dial = Callable[[str], Awaitable[Line]]


class Ears:
    """`dial` opens a line to an address; `wake` is called when a boot is heard for the first time."""

    def __init__(
        self,
        dial: Dial,
        clock: Clock,
        every_s: float,
        wake: Callable[[], None],
        *,
        evidence: Evidence | None = None,
        canaries: Canaries | None = None,
    ) -> None:
        self._dial, self._clock, self._every_s, self._wake = dial, clock, every_s, wake
        self._evidence, self._canaries = evidence, canaries
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._heard: dict[tuple[str, str], Heard] = {}

    def follow(self, replicas: dict[str, tuple[str, str]]) -> None:
        """Listen to exactly these: name -> (address, boot). Cheap when nothing has changed."""
        wanted = {(name, boot): address for name, (address, boot) in replicas.items()}
        for key in [key for key in self._tasks if key not in wanted]:
            self._tasks.pop(key).cancel()
            self._heard.pop(key, None)
            if self._evidence is not None:
                self._evidence.forget(*key)
        for key, address in wanted.items():
            if key not in self._tasks:
                self._tasks[key] = asyncio.create_task(self._listen(key, address), name=f"ear at {key[0]}")

    def heard(self, name: str, boot: str) -> Heard | None:
        """The last word of this boot, or None before its first."""
        return self._heard.get((name, boot))

    async def close(self) -> None:
        """Hang up everywhere."""
        tasks = list(self._tasks.values())
        self.follow({})
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self, key: tuple[str, str], address: str) -> None:
        while True:
            try:
                line = await self._dial(address)
            except (Fault, OSError):
                await self._clock.sleep(self._every_s)
                continue
            try:
                await self._ask(key, line)
            finally:
                await line.close()
            await self._clock.sleep(self._every_s)

    async def _ask(self, key: tuple[str, str], line: Line) -> None:
        """Ping until the line is gone, or has left a ping unanswered: it may be the line alone that is sick."""
        if line.boot != key[1]:
            return  # another life answers at this address: its own run file will say so
        self._hear(key, line, self._clock.now())
        if self._canaries is None:
            await self._ping(key, line)
            return
        asking = asyncio.create_task(self._canaries.attend(key[0], line), name=f"canaries of {key[0]}")
        try:
            await self._ping(key, line)
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)

    async def _ping(self, key: tuple[str, str], line: Line) -> None:
        asked_at, late_s = self._clock.now(), 0.0
        while not line.gone:
            try:
                await line.probe()
            except Fault:
                return  # no answer in the probe's own time: dial anew, a replica that lives says Welcome
            self._hear(key, line, asked_at, late_s)
            due = self._clock.now() + self._every_s
            await self._clock.sleep(self._every_s)
            asked_at = self._clock.now()
            late_s = asked_at - due

    def _hear(self, key: tuple[str, str], line: Line, asked_at: float, late_s: float = 0.0) -> None:
        first = key not in self._heard
        now = self._clock.now()
        heard = Heard(
            boot=key[1], at=now, load=line.last_load, release=line.describe(), asked_at=asked_at, late_s=late_s
        )
        self._heard[key] = heard
        if self._evidence is not None:
            self._evidence.hear(key[0], heard)
        if first:
            self._wake()
