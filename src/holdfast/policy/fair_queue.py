"""The fair queue: who goes next when there is room for one more? Bands, then fair shares between tenants, then deadlines.

Fairness is the virtual token counter's (VTC, OSDI'24, arXiv 2401.00588): each tenant has a counter of the work done for it,
divided by its weight, and among those who wait the least counter goes. Work is what an answer costs, in tokens, and not the
number of requests: one long prompt weighs like a hundred short ones. It is charged when it is let in, by what is expected, and
corrected when the answer ends. Two tenants who both wait all the time then differ by no more than twice the dearest request
each (the bound of the paper), however greedily one of them asks, and nobody who waits can hold back a free place.

Idle time is hardly saved up: who comes back is lifted to the band's level, where the last one stood that went (or to the least
counter among those who wait, if that is higher), less a credit of CREDIT requests of average size. The paper has no credit; but
then whoever is idle between two requests is made equal, each time, to one who never is, and a tenant that uses seven tenths of
its share waits behind one that asks for ten times its own. With it, who uses less than its share goes first, bursts included,
and the bound is larger by the credit. A tenant held back by a limit of its own (concurrency, memory share) is lifted too,
without credit: it is stepped over, and asked again when something of its own has ended. Somebody who does not fit for want of
room is not stepped over, and holds his band and those below: otherwise the small ones would always fill the place that the big
one waits for. Somebody for whom what is free is not meant (policy/headroom.py) is stepped over for this once, and loses nothing.

Within a tenant the earliest deadline goes first; one without counts as having one PATIENCE_S after its arrival, so that it is
not passed over for ever. Costs: heaps for tenants and expiry, a sorted list for each tenant's own line, all O(log n); what
moves in the list are pointers, a microsecond for ten thousand.
"""

from bisect import bisect_left, insort
from collections.abc import Callable
from heapq import heapify, heappop, heappush, heapreplace
from itertools import islice
from math import inf, isinf

from msgspec import Struct

OWN = "own: "  # how a reason begins that is the tenant's own limit, not want of room
KEPT = "kept: "  # how one begins that keeps what is free for others: whoever comes next may have it
PATIENCE_S = 30.0
CREDIT = 16.0  # a tenant at 0.7 of its share exceeds it by more than 8 requests for a moment once in 1000 times (M/D/1)
_SMOOTH = 0.02  # what one more request changes of the average
IDLE_MAX = (
    4096  # tenants without anybody waiting whose counters are remembered; who is forgotten comes back as a new one
)
OWED = 2.0  # credits by which somebody may fall behind while what is free is kept for others
_ASIDE = 2  # tenants that are stepped over at one look, since what is free is kept for others
_ASKED_AGAIN = 4  # tenants that their own limit held back, asked again at each look, the longest held first


class Waiting(Struct, frozen=True):
    """One request in the queue. `deadline` and `since` are the Clock's seconds, `work` is in tokens, `bytes` its body."""

    ticket: int
    tenant: str
    band: int
    deadline: float
    work: int
    since: float
    bytes: int = 0

    @property
    def due(self) -> tuple[float, int]:
        """Its place in its tenant's line, negated: the first to go stands last."""
        return -min(self.deadline, self.since + PATIENCE_S), -self.ticket


Entry = tuple[float, int, Waiting]


class _Line:
    """What one tenant has waiting in one band. `stamp` marks its valid entry in the band's heap; 0: it has none."""

    __slots__ = ("account", "band", "entries", "stamp", "work")

    def __init__(self, account: "_Account", band: "_Band") -> None:
        self.account = account
        self.band = band
        self.entries: list[Entry] = []
        self.work = 0
        self.stamp = 0


class _Account:
    """One tenant: its counter, and its lines while anybody of it waits."""

    __slots__ = ("counter", "lines", "requests", "tenant", "weight", "work")

    def __init__(self, tenant: str, counter: float) -> None:
        self.tenant = tenant
        self.counter = counter
        self.weight = 1.0
        self.requests = 0
        self.work = 0
        self.lines: list[_Line] = []


class _Band:
    """One priority. `heap` holds its tenants by counter, lazily: an entry whose stamp is not its line's is void."""

    __slots__ = ("heap", "held_back", "level", "lines", "number", "requests", "weights", "work")

    def __init__(self, number: int, level: float) -> None:
        self.number = number
        self.level = level  # the greatest counter of anybody that went
        self.heap: list[tuple[float, int, _Line]] = []
        self.held_back: dict[_Line, None] = {}  # stepped over, in the order in which that happened
        self.lines: dict[str, _Line] = {}
        self.requests = 0
        self.work = 0
        self.weights = 0.0  # of its tenants together


class FairQueue:
    """`weight` tells a tenant's share relative to the others', more than 0; it is asked when a tenant begins to wait, and
    at each charge."""

    def __init__(self, weight: Callable[[str], float], credit_requests: float = CREDIT) -> None:
        self.requests = 0
        self.work = 0
        self.bytes = 0
        self._weight = weight
        self._credit_requests = credit_requests
        self._floor = 0.0  # the counter of whoever went last
        self._stamp = 0
        self._average = 0.0  # work of a request
        self._waiting: dict[int, Waiting] = {}
        self._busy: dict[str, _Account] = {}
        self._idle: dict[str, _Account] = {}  # oldest use first
        self._bands: dict[int, _Band] = {}
        self._order: list[_Band] = []  # those with somebody waiting, highest first
        self._expiry: list[tuple[float, int]] = []

    @property
    def active(self) -> int:
        """Tenants who have something waiting."""
        return len(self._busy)

    @property
    def credit(self) -> float:
        """Work by which one that comes back may be ahead of the others."""
        return self._credit_requests * self._average

    def tenants(self) -> list[str]:
        """Who they are."""
        return list(self._busy)

    def join(self, waiting: Waiting) -> None:
        """Add one. Its ticket is unique among those who wait."""
        band = self._bands.get(waiting.band)
        if band is None:
            band = self._bands[waiting.band] = _Band(waiting.band, self._floor)
        line = band.lines.get(waiting.tenant)
        if line is None:
            line = self._begin(self._account(waiting.tenant), band)
        insort(line.entries, (*waiting.due, waiting))
        self._average += (_SMOOTH if self._average else 1.0) * (waiting.work - self._average)
        self._count(line, waiting, 1)
        self._waiting[waiting.ticket] = waiting
        if not isinf(waiting.deadline):
            heappush(self._expiry, (waiting.deadline, waiting.ticket))
            if len(self._expiry) > 2 * len(self._waiting) + 64:
                self._expiry = [entry for entry in self._expiry if entry[1] in self._waiting]
                heapify(self._expiry)

    def leave(self, ticket: int) -> Waiting | None:
        """Take one out, wherever it stands. Returns it, or None when it does not wait."""
        waiting = self._waiting.get(ticket)
        if waiting is None:
            return None
        line = self._bands[waiting.band].lines[waiting.tenant]
        del line.entries[bisect_left(line.entries, waiting.due)]
        self._release(line)
        self._taken(line, waiting)
        return waiting

    def charge(self, tenant: str, work: float) -> None:
        """Work was done for a tenant, or is about to be; negative corrects what was charged too much.

        Also tells that something of this tenant's may have ended: one whom its own limit held back is asked again.
        """
        account = self._account(tenant)
        weight = self._weight(tenant)
        if not account.lines:
            account.counter = max(account.counter, self._floor - self.credit / weight)
        account.counter += work / weight
        if not self._waiting:
            self._floor = max(self._floor, account.counter)
        for line in account.lines:
            if line in line.band.held_back:
                self._release(line)
            elif work < 0:  # its entry stands too far back; one that stands too far ahead is put right when it is met
                self._enter(line)

    def next(self, fits: Callable[[Waiting], str]) -> Waiting | None:
        """Take out whoever goes now. `fits` says why one may not go; empty if it may.

        A reason that begins with "own: " passes its tenant over, and one that begins with "kept: " too, but for this once;
        any other one stops its band and those below, and nobody goes. Charge the tenant before asking for the next one.
        """
        aside: list[_Line] = []
        try:
            return self._next(fits, aside)
        finally:
            for line in aside:
                self._enter(line)

    def _next(self, fits: Callable[[Waiting], str], aside: list[_Line]) -> Waiting | None:
        for band in self._order:
            if band.held_back:
                for held in tuple(islice(band.held_back, _ASKED_AGAIN)):
                    self._release(held)
            while (line := self._first(band)) is not None:
                waiting = line.entries[-1][2]
                why = fits(waiting)
                if not why:
                    line.entries.pop()
                    band.level = max(band.level, line.account.counter)
                    self._floor = max(self._floor, band.level)
                    self._taken(line, waiting)
                    return waiting
                if why.startswith(KEPT) and len(aside) < _ASIDE:
                    line.stamp = 0
                    aside.append(line)
                elif why.startswith(OWN):
                    line.stamp = 0
                    band.held_back[line] = None
                else:
                    return None
        return None

    def expired(self, now: float) -> list[Waiting]:
        """Take out all whose deadline has come, earliest first."""
        gone = []
        while self._expiry and self._expiry[0][0] <= now:
            deadline, ticket = heappop(self._expiry)
            waiting = self._waiting.get(ticket)
            if waiting is not None and waiting.deadline == deadline:
                self.leave(ticket)
                gone.append(waiting)
        return gone

    def position(self, ticket: int) -> int:
        """About how many go before this one: exact within its own tenant's line, and half a round of the other tenants ahead
        of each turn. 0 for one that does not wait."""
        waiting = self._waiting.get(ticket)
        if waiting is None:
            return 0
        band = self._bands[waiting.band]
        line = band.lines[waiting.tenant]
        before = len(line.entries) - 1 - bisect_left(line.entries, waiting.due)
        others = min(band.requests - len(line.entries), (2 * before + 1) * (len(band.lines) - 1) // 2)
        return before + others + sum(one.requests for one in self._order if one.number > waiting.band)

    def ahead(self, tenant: str, band: int, work: float = 0.0) -> float:
        """Work that goes before one more request of this tenant in this band: all in higher bands, and of its own band the
        tenant's own backlog with what the others' shares get meanwhile, which is never more than all that waits there. With
        its own `work`, half a round of the others comes before it too; as far as it has credit, nothing of others."""
        higher = 0
        for one in self._order:
            if one.number <= band:
                break
            higher += one.work
        here = self._bands.get(band)
        if here is None:
            return higher
        line = here.lines.get(tenant)
        weight = self._weight(tenant) if line is None else line.account.weight
        weights = here.weights + (weight if line is None else 0.0)
        own = (line.work if line else 0) + work / 2
        first = min(own, max(0.0, here.level - self._after_lift(tenant, weight)) * weight)
        return higher + min(float(here.work), first + (own - first) * weights / weight)

    def backlog(self, tenant: str) -> tuple[int, int]:
        """Requests and work that a tenant has waiting."""
        account = self._busy.get(tenant)
        return (account.requests, account.work) if account else (0, 0)

    def counter(self, tenant: str) -> float:
        """A tenant's virtual counter: work over weight, with the lifts. For comparing, within one queue."""
        return self._after_lift(tenant, self._weight(tenant))

    def owed(self, tenant: str, band: int) -> bool:
        """Whether it has waited while others went until it was behind them by OWED credits: then nothing is kept from it."""
        here, weight = self._bands.get(band), self._weight(tenant)
        lag = (here.level if here is not None else self._floor) - self._after_lift(tenant, weight)
        return lag * weight > OWED * self.credit

    def _after_lift(self, tenant: str, weight: float) -> float:
        account = self._busy.get(tenant)
        if account is not None:
            return account.counter
        account = self._idle.get(tenant)
        least = self._floor - self.credit / weight
        return max(account.counter, least) if account is not None else least

    def _account(self, tenant: str) -> _Account:
        account = self._busy.get(tenant)
        if account is not None:
            return account
        account = self._idle.pop(tenant, None) or _Account(tenant, -inf)
        self._idle[tenant] = account
        if len(self._idle) > IDLE_MAX:
            del self._idle[next(iter(self._idle))]
        return account

    def _begin(self, account: _Account, band: _Band) -> _Line:
        """A tenant begins to wait in a band: lifted to its level, less the credit."""
        if not account.lines:
            del self._idle[account.tenant]
            self._busy[account.tenant] = account
            account.weight = self._weight(account.tenant)
            first = self._first(band)
            level = max(band.level, first.account.counter) if first else band.level
            account.counter = max(account.counter, level - self.credit / account.weight)
        if not band.lines:
            self._order.append(band)
            self._order.sort(key=lambda one: -one.number)
        line = _Line(account, band)
        account.lines.append(line)
        band.lines[account.tenant] = line
        band.weights += account.weight
        self._enter(line)
        return line

    def _count(self, line: _Line, waiting: Waiting, sign: int) -> None:
        account, band, work = line.account, line.band, sign * waiting.work
        self.requests += sign
        account.requests += sign
        band.requests += sign
        self.bytes += sign * waiting.bytes
        self.work += work
        account.work += work
        band.work += work
        line.work += work

    def _taken(self, line: _Line, waiting: Waiting) -> None:
        """One has gone from a line: count, and forget what is empty now."""
        account, band = line.account, line.band
        del self._waiting[waiting.ticket]
        self._count(line, waiting, -1)
        if line.entries:
            return
        line.stamp = 0
        band.held_back.pop(line, None)
        del band.lines[account.tenant]
        account.lines.remove(line)
        band.weights -= account.weight
        if not band.lines:
            band.weights = 0.0
            band.heap.clear()
            self._order.remove(band)
            del self._bands[band.number]
        if not account.lines:
            del self._busy[account.tenant]
            self._idle[account.tenant] = account
            if len(self._idle) > IDLE_MAX:
                del self._idle[next(iter(self._idle))]

    def _release(self, line: _Line) -> None:
        """One that its own limit held back stands in the heap again, and is owed nothing for the meantime."""
        if line not in line.band.held_back:
            return
        del line.band.held_back[line]
        line.account.counter = max(line.account.counter, line.band.level)
        self._enter(line)

    def _enter(self, line: _Line) -> None:
        """Stand in the band's heap by the tenant's counter now; whatever entry there was is void."""
        self._stamp += 1
        line.stamp = self._stamp
        heap = line.band.heap
        heappush(heap, (line.account.counter, self._stamp, line))
        if len(heap) > 2 * len(line.band.lines) + 64:
            heap[:] = [entry for entry in heap if entry[2].stamp == entry[1]]
            heapify(heap)

    def _first(self, band: _Band) -> _Line | None:
        """The line whose tenant has the least counter, with void entries swept away and late ones put right."""
        heap = band.heap
        while heap:
            key, stamp, line = heap[0]
            if line.stamp != stamp:
                heappop(heap)
            elif key < line.account.counter:
                self._stamp += 1
                line.stamp = self._stamp
                heapreplace(heap, (line.account.counter, self._stamp, line))
            else:
                return line
        return None
