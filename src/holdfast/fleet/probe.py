"""Probing: one ear at every replica. A ping every half second, answered between two engine steps, proves that its loop turns.

An ear only listens. What silence means is for policy/supervision.py to say.
"""

import asyncio
from collections.abc import Awaitable, Callable

from msgspec import Struct

from holdfast.domain.fault import Fault
from holdfast.domain.ports import Clock, Line
from holdfast.domain.release import Release
from holdfast.domain.replica import Load

Dial = Callable[[str], Awaitable[Line]]


class Heard(Struct, frozen=True, kw_only=True):
    """What one boot of a replica last said. `at` is in the Clock's seconds."""

    boot: str
    at: float
    load: Load
    release: Release | None


class Ears:
    """`dial` opens a line to an address; `wake` is called when a boot is heard for the first time."""

    def __init__(self, dial: Dial, clock: Clock, every_s: float, wake: Callable[[], None]) -> None:
        self._dial, self._clock, self._every_s, self._wake = dial, clock, every_s, wake
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._heard: dict[tuple[str, str], Heard] = {}

    def follow(self, replicas: dict[str, tuple[str, str]]) -> None:
        """Listen to exactly these: name -> (address, boot). Cheap when nothing has changed."""
        wanted = {(name, boot): address for name, (address, boot) in replicas.items()}
        for key in [key for key in self._tasks if key not in wanted]:
            self._tasks.pop(key).cancel()
            self._heard.pop(key, None)
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
        """Ping until the line is gone."""
        if line.boot != key[1]:
            return  # another life answers at this address: its own run file will say so
        self._hear(key, line)
        while not line.gone:
            try:
                await line.probe()
            except Fault:
                continue  # no answer in the probe's own time; it has waited long enough to ask again at once
            self._hear(key, line)
            await self._clock.sleep(self._every_s)

    def _hear(self, key: tuple[str, str], line: Line) -> None:
        first = key not in self._heard
        self._heard[key] = Heard(boot=key[1], at=self._clock.now(), load=line.last_load, release=line.describe())
        if first:
            self._wake()
