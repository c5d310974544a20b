"""Headroom: the last few slots are not for tenants that use more than their share, while others that use less need them.

Fair order alone can't help whom it puts first when every slot is held: no engine gives one back midway, so the first in line
still waits for somebody's answer to end. With slots that free one after another that is a queue: whoever comes while k are
free waits with a probability that falls with k like a power. So a few free ones are worth much to those who come seldom, and
cost little: they are the last to be filled, not empty for good.

How many is learnt. Each request of a modest tenant, one that holds no more than its share of the slots, that finds no room adds
one to what is kept; each that finds room takes WAIT_SHARE of one away, so that about so large a share of them waits; and all is
forgotten in MEMORY_S. What is kept is kept against the others: a tenant is not held up by what it needed itself, so whoever is
alone has all slots. Never more than `share` of them is kept, rounded: that is the price, paid only while a modest tenant asks
beside a greedy one. Where the replicas count cache places, as many are kept as so many requests of the modest would take.

Shares are by weight among those who asked of late. Nobody starves: whoever is held up has more than its share, and as soon as it
has not, it is held up no more. Of two bands the higher one is not held up by what the lower one needs. Several workers tell one
another what theirs needed.

Regimes: many slots (hundreds), the modest at half of their shares: a few in a hundred, and next to nobody waits. Few slots, or
modest tenants who use nearly all of their shares: they come in larger swells than the share can hold; it helps, and does not
suffice. Everybody greedy: somebody who waits has always less than its share, so no slot stays idle.
"""

from math import ceil, exp, inf, sqrt

from holdfast.policy.fair_queue import KEPT
from holdfast.policy.memory_shares import Held

WAIT_SHARE = 0.005
MEMORY_S = 30.0
SLACK = 2.0  # deviations: whoever uses its share on average holds more than this one time in forty
ACTIVE_S = 10.0  # who has not asked for so long claims no share
_FADE_S = 0.1  # forgetting is worked out no more often
_LEAST = 0.1  # what is left of a need that is forgotten
_SMOOTH = 0.05  # what one more request changes of the size that is kept for each


class _Need:
    """Slots that one band's modest tenants needed: together, and each one's part. Scaled, so that forgetting is one product."""

    __slots__ = ("_parts", "_scale", "_sum")

    def __init__(self) -> None:
        self._scale, self._sum = 1.0, 0.0
        self._parts: dict[str, float] = {}

    @property
    def slots(self) -> float:
        return self._sum * self._scale

    def part(self, tenant: str) -> float:
        return self._parts.get(tenant, 0.0) * self._scale

    def add(self, tenant: str) -> None:
        more = 1.0 / self._scale
        self._sum += more
        self._parts[tenant] = self._parts.get(tenant, 0.0) + more

    def shrink(self, factor: float) -> None:
        self._scale *= factor
        if self._scale < 1e-6:  # small parts are dropped, the rest is counted anew
            self._parts = {one: raw * self._scale for one, raw in self._parts.items() if raw * self._scale > 1e-3}
            self._scale, self._sum = 1.0, sum(self._parts.values())


class Headroom:
    """`share` of all slots and cache places is kept at most; 0: nothing is."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.any = False  # whether anything is kept at all; to be read only
        self._needs: dict[int, _Need] = {}
        self._elsewhere: dict[tuple[str, int], float] = {}
        self._elsewhere_all: dict[int, float] = {}  # by band
        self._active: dict[str, tuple[float, float]] = {}  # weight, and when last seen; longest ago first
        self._weights = 0.0  # of these together
        self._tokens = 0.0  # places that a modest tenant's request takes
        self._at = 0.0
        self._due = -inf  # before then nobody of the active can have been away for long enough

    def most(self, total: int) -> int:
        """Slots that may be kept of so many."""
        return int(self.share * total + 0.5)

    def seen(self, tenant: str, weight: float, now: float) -> None:
        """A tenant asks, or holds something."""
        known = self._active.pop(tenant, None)
        self._active[tenant] = weight, now
        if known is None or known[0] != weight:
            self._weights += weight - (known[0] if known is not None else 0.0)
        if now > self._due:
            self._forget(now)

    def modest(self, held: Held, weight: float, total: int) -> bool:
        """Whether a tenant holds no more than its share of so many slots, by weight among all that asked of late, and what
        chance makes of that."""
        share = total * weight / (self._weights or weight)
        return held.slots + held.slots_elsewhere < min(share + SLACK * sqrt(share), (share + total) / 2)

    def came(self, tenant: str, band: int, tokens: int, found: bool, now: float) -> None:
        """A modest tenant's request of so many places came. `found`: there was room for it."""
        self._fade(now)
        self._tokens += (_SMOOTH if self._tokens else 1.0) * (tokens - self._tokens)
        need = self._needs.get(band)
        if found:
            if need is not None and need.slots > 0:
                need.shrink(max(0.0, 1.0 - WAIT_SHARE / need.slots))
        elif self.share > 0:
            if need is None:
                need = self._needs[band] = _Need()
                self.any = True
            need.add(tenant)

    def kept(self, tenant: str, band: int, total: int, now: float) -> int:
        """Slots of so many that a tenant which is not modest may not have now."""
        self._fade(now)
        slots, most = 0.0, self.most(total)
        for number, need in self._needs.items():
            others = need.slots - need.part(tenant)
            if others > most:  # what can't be kept anyway would only take long to be forgotten
                need.shrink(most / others)
                others = float(most)
            if number >= band:
                slots += others
        for number, more in self._elsewhere_all.items():
            if number >= band:
                slots += more - self._elsewhere.get((tenant, number), 0.0)
        return min(most, max(0, ceil(slots - _LEAST)))

    def complaint(
        self, tenant: str, band: int, tokens: int, room: tuple[tuple[int, int], tuple[int, int]], now: float
    ) -> str:
        """Why one that is not modest may not have so many places now; empty if it may. `room`: what is free and what there is,
        each in slots and cache places of all replicas; where there are no places they don't count."""
        free, total = room
        slots = self.kept(tenant, band, total[0], now)
        if not slots:
            return ""
        places = min(slots * self._tokens, self.share * total[1])
        if free[0] > slots and (not total[1] or free[1] - tokens >= places):
            return ""
        return f"{KEPT}the last {slots} of {total[0]} slots are kept for tenants that use less than their share"

    def told(self, tenant: str, band: int) -> float:
        """What a tenant needed in this worker: for the others."""
        need = self._needs.get(band)
        return need.part(tenant) if need is not None else 0.0

    def elsewhere(self, told: dict[tuple[str, int], float]) -> None:
        """What all other workers together tell, by tenant and band."""
        self._elsewhere = told
        self._elsewhere_all = {}
        for (_, band), more in told.items():
            self._elsewhere_all[band] = self._elsewhere_all.get(band, 0.0) + more
        self.any = bool(self._needs or told)

    def _forget(self, now: float) -> None:
        """Who has not been seen for long claims no share."""
        while True:
            tenant = next(iter(self._active))
            weight, at = self._active[tenant]
            if now - at <= ACTIVE_S:
                self._due = at + ACTIVE_S
                return
            del self._active[tenant]
            self._weights = self._weights - weight if self._active else 0.0

    def _fade(self, now: float) -> None:
        if now - self._at < _FADE_S:
            return
        factor, self._at = exp((self._at - now) / MEMORY_S), now
        for number, need in list(self._needs.items()):
            need.shrink(factor)
            if need.slots < _LEAST:
                del self._needs[number]
        self.any = bool(self._needs or self._elsewhere)
