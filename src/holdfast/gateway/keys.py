"""Keys that come and go while a worker serves: it looks at the key ring twice a second, and goes by the newest that it has seen.

What can't be read changes nothing: a worker goes on with the keys that it knows, and says so. An older ring than the one it
knows is not believed either: a copy that somebody brought back must not bring back its keys.
"""

from collections.abc import Callable

from holdfast.domain.event import Emit, KeysChanged, KeysStale
from holdfast.domain.key import KeyRing, Looked
from holdfast.domain.ports import Clock
from holdfast.gateway.tenants import Tenants

LOOK_S = 0.5


class KeyWatch:
    """Keeps `tenants` at what `look` finds. `unkeyed`: whether the site may serve without any key (loopback, or on purpose)."""

    def __init__(
        self,
        tenants: Tenants,
        look: Callable[[], Looked],
        unix_s: Callable[[], float],
        emit: Emit,
        unkeyed: bool = True,
    ) -> None:
        self._tenants, self._look, self._unix_s, self._emit = tenants, look, unix_s, emit
        self._unkeyed = unkeyed
        self._ring: KeyRing | None = None
        self._live: tuple[str, ...] = ()
        self._why = ""

    def look(self) -> None:
        """One look. The first one belongs before the first request."""
        looked, known = self._look(), self._ring
        ring, why = looked.ring, looked.why
        if known is not None and ring is None:
            why = why or "the key file is gone"
        elif known is not None and ring is not None and ring.version < known.version:
            why = f"the key file has version {ring.version}, older than {known.version}, which was here before"
        elif ring is not None:
            self._ring = ring
        if why and why != self._why:
            self._emit(KeysStale(why=f"{why}; {self._goes_on()}"))
        self._why = why
        self._apply(known)

    def _goes_on(self) -> str:
        if self._ring is None:
            return "nobody is let in by a key of it"
        return f"the keys of version {self._ring.version} go on to hold"

    def _apply(self, known: KeyRing | None) -> None:
        ring, now = self._ring, self._unix_s()
        if ring is None:  # damaged is not empty: it may have locked the door
            self._tenants.close(bool(self._why) or not self._unkeyed)
            return
        live = tuple(one for one in ring.keys if one.live(now))
        if ring is known and tuple(one.id for one in live) == self._live:
            return
        self._live = tuple(one.id for one in live)
        self._tenants.take(ring.salt, live, closed=True)
        self._emit(KeysChanged(version=ring.version, live=len(live), why=f"{len(live)} keys of the ring are live"))

    async def run(self, clock: Clock) -> None:
        """Look twice a second until cancelled."""
        while True:
            await clock.sleep(LOOK_S)
            self.look()
