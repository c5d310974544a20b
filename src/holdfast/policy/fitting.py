"""Fitting: whether one more request may be served now, asked of everything that has a word in it, and in which words it may not.

First the tenant's own limits, then the replicas' room, and then, where there is some, whether what is left is kept for others:
the last few slots are not for a tenant that holds its share already (policy/headroom.py). Unless it is owed more than the fair
queue's credit explains: then it goes, so that the bound of fairness stays what it is, and two credits.
"""

from dataclasses import dataclass

from holdfast.domain.tenant import Limits
from holdfast.policy.fair_queue import KEPT, FairQueue
from holdfast.policy.headroom import Headroom
from holdfast.policy.memory_shares import OWN_CONCURRENCY, OWN_MEMORY, Shares
from holdfast.policy.room import Room


@dataclass
class Fitting:
    """One worker's."""

    room: Room
    shares: Shares
    queue: FairQueue
    headroom: Headroom

    def complaint(self, limits: Limits, band: int, hold: int, now: float) -> str:
        """Why one of a tenant's requests can't be served now, empty if it can. `hold`: cache places that it takes."""
        room, shares = self.room, self.shares
        if shares.bind(limits):
            why = shares.fits(limits, hold, room.total(), room.used())
            if why:
                return why
        why = room.fits(hold)
        if why or not self.headroom.any:
            return why
        total, tenant = room.total(), limits.tenant
        if self.headroom.modest(shares.of(tenant), limits.weight, total[0]) or self.queue.owed(tenant, band):
            return ""
        return self.headroom.complaint(tenant, band, hold, (room.left(), total), now)

    def came(self, limits: Limits, band: int, hold: int, complaint: str, now: float) -> None:
        """A request came and met this complaint: what those need who hold less than their share is learnt from it."""
        headroom, tenant = self.headroom, limits.tenant
        headroom.seen(tenant, limits.weight, now)
        if complaint in (OWN_CONCURRENCY, OWN_MEMORY) or not (complaint or headroom.any):
            return
        if headroom.modest(self.shares.of(tenant), limits.weight, self.room.total()[0]):
            headroom.came(tenant, band, hold, not complaint, now)

    def tells(self, limits: Limits) -> bool:
        """Whether a wait of this tenant's tells how much the site has to do: not while it has more than its share and others,
        who have less, need some of it."""
        if not self.headroom.any:
            return True
        return self.headroom.modest(self.shares.of(limits.tenant), limits.weight, self.room.total()[0])

    def kept_off(self, limits: Limits, now: float) -> int:
        """How many of a tenant's requests wait although something is free, since it is kept for others."""
        waiting = self.queue.backlog(limits.tenant)[0]
        if not waiting or not self.headroom.any or self.room.left()[0] <= 0:
            return 0
        return waiting if self.complaint(limits, limits.priority, 1, now).startswith(KEPT) else 0
