"""Carries out what policy/havoc.py decides, on the replicas of one arena."""

from holdfast.domain.ports import Clock
from holdfast.drill.arena import Arena
from holdfast.policy.havoc import Blow, Havoc, Standing, Strike

LOOK_S = 0.05


class Chaos:
    """Looks at the arena's roster and strikes until told otherwise. `strikes` is what really happened, with the true moment."""

    def __init__(self, arena: Arena, havoc: Havoc, clock: Clock) -> None:
        self._arena, self._havoc, self._clock = arena, havoc, clock
        self._since: dict[str, float] = {}
        self._last: dict[str, tuple[Blow, int]] = {}
        self.strikes: list[Strike] = []

    async def run(self, until: float) -> None:
        """Blow after blow until the clock says `until`."""
        while self._clock.now() < until:
            verdict = self._havoc.next(self._standing(), self._clock.now())
            if isinstance(verdict, Strike):
                await self._strike(verdict)
            await self._clock.sleep(LOOK_S)

    def _standing(self) -> list[Standing]:
        now = self._clock.now()
        return [
            Standing(place.replica, place.boot, self._since.setdefault(place.boot, now))
            for place in self._arena.roster().places
        ]

    async def _strike(self, wanted: Strike) -> None:
        for place in self._arena.roster().places:
            if place.boot == wanted.boot:
                at = await self._arena.hurt(place, wanted.blow, len(self.strikes))
                if at is not None:
                    self._last[place.replica] = (wanted.blow, place.pid)
                    self.strikes.append(Strike(wanted.replica, wanted.boot, wanted.blow, at, wanted.why))

    def struck(self, replica: str, pid: int) -> Blow | None:
        """What was done to this replica's process `pid` (0: it has none), or None if it is another one by now."""
        blow, struck_pid = self._last.get(replica, (None, 0))
        return blow if pid in (0, struck_pid) else None
