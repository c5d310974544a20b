"""Births: what the supervisor writes down about a child before and after it starts it, so that the next one can adopt it.

Before: the token alone, with pid 0. After: pid and start time. A supervisor that dies between the two leaves a token that
can be looked for in /proc, so no child is ever lost.
"""

from pathlib import Path

from msgspec import Struct

from holdfast.domain.ports import Sighting
from holdfast.store import snapshot


class _Birth(Struct, frozen=True, kw_only=True):
    name: str
    token: str
    pid: int = 0
    start_ticks: int = 0
    epoch: int = 0


class Births:
    """One small file a child, in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, sighting: Sighting) -> None:
        """Raises OSError."""
        birth = _Birth(
            name=sighting.name,
            token=sighting.token,
            pid=sighting.pid,
            start_ticks=sighting.start_ticks,
            epoch=sighting.epoch,
        )
        snapshot.put(self._folder / f"{sighting.name}.json", birth)

    def read(self) -> list[Sighting]:
        """All births on record; whether they live is for the host to find out."""
        found = (snapshot.take(path, _Birth) for path in snapshot.listing(self._folder))
        return [
            Sighting(name=b.name, pid=b.pid, start_ticks=b.start_ticks, token=b.token, alive=False, epoch=b.epoch)
            for b in found
            if b is not None
        ]

    def remove(self, name: str) -> None:
        snapshot.remove(self._folder / f"{name}.json")
