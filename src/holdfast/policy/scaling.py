"""Scaling: how many replicas does the load need? Between two bounds, and never to and fro under a load that stays the same.

Everything is counted in replicas' worth of work: `load` is how many are in use, share by share, with what waits and what was
refused for want of room on top. At each look that gives two numbers:

    at least   so many that use stays at or under `use_high`, and one more than serve now while answers wait too long
    at most    so many that use stays under `use_low`; more than that could go

More replicas run when the *least* of what was needed during `out_after_s` is more than there are, fewer when the *most* of what
was wanted during `in_after_s` is less: the stabilisation windows of Kubernetes' HorizontalPodAutoscaler (which has 0 s and
300 s), and its limit of doubling at most. Neither number depends on how many there are, but for a wait that is too long; and the
first is never above the second while `use_low` is not above `use_high`. So a steady load has a band of counts that it rests in,
and what was added for it is not taken away again.

Wait and refusals count only while half (`use_low`) of the replicas is in use, and a wait only while somebody waits for room: one
that has other causes, a tenant's own limit for instance, is not shortened by more of them. Fewer go one at a time, each by
migration.

Tokens a second count for the way down only. How many a replica makes at its best is learnt while all slots are taken; below, the
share of that is a kind of use: slots may be half empty and the processors all but full.
"""

from collections import deque
from collections.abc import Callable
from math import ceil, floor

from msgspec import Struct

from holdfast.domain.settings_overload import Scaling

ROOM_LIMITS = frozenset(
    ("queue_requests", "queue_tokens", "queue_bytes", "queue_wait", "deadline", "degraded", "no_replica")
)  # refusals that more replicas would have spared; the others are the caller's own affair
GAP_S = 10.0  # without a look for so long, nothing is known of the time between
REFUSED_MAX = 0.9  # of what came: beyond that the rest is too small to reckon from
BEST_KEPT_S = 600.0  # how long it is believed how many tokens a second a full replica makes
SETTLED_S = 2.0  # after the number of replicas has changed, rates are of before for so long
SMOOTH = 0.2  # weight of one look in the rate of tokens
GROWTH_MAX = 2.0
FUZZ = 1e-9


class Demand(Struct, frozen=True, kw_only=True):
    """One look at the load of the replicas that serve."""

    serving: int
    slots: int
    running: int = 0
    waiting: int = 0  # for room, in gateways and in replicas
    cache_share: float = 0.0  # of cache places, in use or promised
    wait_s: float = 0.0  # what those who were let in lately had waited
    refused_share: float = 0.0  # of what came lately: refused for want of room
    tokens_per_s: float = 0.0


class Wanted(Struct, frozen=True):
    """How many should serve from now on. `why` is empty when that is as many as before."""

    count: int
    why: str = ""


class _Need(Struct, frozen=True):
    """A number that one look gave, and what it was seen in."""

    at: float
    count: int
    use: float
    demand: Demand


class _Window:
    """The least (or the most) of the last `seconds`, in constant time a look. The newest of equals is kept."""

    def __init__(self, seconds: float, beats: Callable[[int, int], bool]) -> None:
        self._seconds, self._beats = seconds, beats
        self._ones: deque[_Need] = deque()
        self._since = self._last = float("-inf")

    def add(self, one: _Need) -> None:
        if one.at - self._last > GAP_S:
            self._ones.clear()
            self._since = one.at
        self._last = one.at
        while self._ones and not self._beats(self._ones[-1].count, one.count):
            self._ones.pop()
        self._ones.append(one)
        while self._ones[0].at < one.at - self._seconds:
            self._ones.popleft()

    def forget(self) -> None:
        self._ones.clear()
        self._last = float("-inf")

    def of(self, now: float) -> _Need | None:
        """None until the whole window was looked at."""
        known = self._ones and now - self._last <= GAP_S and now - self._since >= self._seconds
        return self._ones[0] if known else None


class Scaler:
    """What was seen of the load, and what follows from it."""

    def __init__(self, scaling: Scaling) -> None:
        self._scaling = scaling
        self._low = min(scaling.use_low, scaling.use_high)
        self._least = _Window(scaling.out_after_s, lambda kept, new: kept < new)
        self._most = _Window(scaling.in_after_s, lambda kept, new: kept > new)
        self._best, self._best_at = 0.0, float("-inf")  # tokens a second of a full replica
        self._rate, self._serving, self._changed_at = 0.0, 0, float("-inf")  # of all together, smoothed

    def look(self, demand: Demand, now: float) -> None:
        """Take down one look. One at which nobody serves tells nothing, and what was seen before counts no more."""
        if demand.serving < 1 or demand.slots < 1:
            self._least.forget()
            self._most.forget()
            return
        scaling, slots = self._scaling, (demand.running + demand.waiting) / demand.slots
        use = max(slots, demand.cache_share)
        busy = use >= self._low
        offered = use / (1.0 - min(REFUSED_MAX, demand.refused_share)) if busy else use
        least = ceil(demand.serving * offered / scaling.use_high - FUZZ) if scaling.use_high else scaling.max
        if busy and demand.waiting and demand.wait_s > scaling.wait_s:
            least = max(least, demand.serving + 1)
        spent = max(offered, self._tokens_use(demand, slots, now))
        most = floor(demand.serving * spent / self._low + FUZZ) + 1 if self._low else scaling.max
        self._least.add(_Need(now, least, offered, demand))
        self._most.add(_Need(now, max(least, most), spent, demand))

    def wanted(self, count: int, now: float) -> Wanted:
        """How many should serve when it was decided before that `count` should."""
        scaling = self._scaling
        low, high = min(scaling.min, scaling.max), scaling.max
        if not low <= count <= high:
            bound = min(max(count, low), high)
            return Wanted(bound, f"{bound} replicas instead of {count}: [scaling] allows {low} to {high}")
        least = self._least.of(now)
        if least is not None and least.count > count:
            doubled = int(GROWTH_MAX * max(1, least.demand.serving))
            more = min(least.count, high, max(count, doubled))
            if more > count:
                return Wanted(more, self._why_more(least, more, count))
        most = self._most.of(now)
        if most is not None and most.count < count and count > low:
            return Wanted(count - 1, self._why_fewer(most, count))
        return Wanted(count)

    def _tokens_use(self, demand: Demand, slots: float, now: float) -> float:
        """Tokens a second, as a share of what full replicas make; 0 while that is not known."""
        if demand.serving != self._serving:
            self._serving, self._changed_at = demand.serving, now
        self._rate += SMOOTH * (demand.tokens_per_s - self._rate)
        rate = demand.tokens_per_s / demand.serving
        if slots >= 1.0 and rate > 0 and now - self._changed_at >= SETTLED_S:
            fresh = now - self._best_at > BEST_KEPT_S
            self._best, self._best_at = rate if fresh else max(rate, 0.9 * self._best + 0.1 * rate), now
        if not self._best or now - self._best_at > BEST_KEPT_S:
            return 0.0
        return min(1.0, self._rate / demand.serving / self._best)

    def _why_more(self, need: _Need, more: int, count: int) -> str:
        scaling, seen = self._scaling, need.demand
        if need.use > scaling.use_high:
            refused = f", {seen.refused_share:.0%} of the requests refused" if seen.refused_share > 0 else ""
            waiting = f", {seen.waiting} waiting" if seen.waiting else ""
            what = (
                f"{need.use:.0%} of {seen.serving} replicas asked for{waiting}{refused}, above {scaling.use_high:.0%}"
            )
        else:
            what = f"answers wait {seen.wait_s:.2g} s for a replica, above {scaling.wait_s:g} s"
        return f"{more} replicas instead of {count}: for {scaling.out_after_s:g} s at least {what}"

    def _why_fewer(self, need: _Need, count: int) -> str:
        scaling = self._scaling
        share = need.use * need.demand.serving / (count - 1)
        return (
            f"{count - 1} replicas instead of {count}: for {scaling.in_after_s:g} s they would have been used {share:.0%} at "
            f"most, under {self._low:.0%}"
        )
