"""Admission: may this request in, must it wait, or is it refused? Decided when it arrives, before any replica is touched.

Refusing late is what kills a site: the work was paid for and nobody has it. So nobody waits who would not be served in time:
the wait is predicted from the work that stands before a request and the pace at which the replicas do such work, and compared
with what the client's deadline leaves after the answer itself, with what the queue may cost (CoDel: policy/codel.py), and with
the longest wait of all. Whoever is refused learns which limit it was, how much of it was used, and when it frees.

The order of questions: the rates; a client that hammers; the tenant's quota; its own memory and concurrency; the queue's
bounds; the wait; the deadline. A caller's own limit is 429, ours is 503. Retry-After is the time after which those that were
turned away would have been served too, spread by half of it either way, so that they don't come back at once.

Regimes: with room and nobody waiting nothing is predicted, everybody goes. At capacity and beyond it, one batch may wait (as
many as there are slots: slots that were filled together free together), if that takes no longer than half of what a first
token may: so slots stay full, and there is always somebody of every tenant to be fair to. The rest is refused in
microseconds. With no replica at all everybody waits for one, as long as the queue's bounds allow.
"""

from dataclasses import dataclass
from math import ceil

from msgspec import Struct

from holdfast.domain.fault import Limit
from holdfast.policy.fair_queue import KEPT, OWN
from holdfast.policy.memory_shares import OWN_CONCURRENCY, OWN_MEMORY
from holdfast.policy.quota import Short
from holdfast.policy.throttle import Throttled

FEW = 2
FEW_SHARE = 0.25  # of the slots: so many may wait whenever they can be served in time, for a slot that frees is to find somebody
HAMMERING_S = 2.0  # a client that is throttled is better off if it stays away for a moment
RETRY_MAX_S = 60.0
RETRY_MIN_S = 0.05


class Asked(Struct, kw_only=True):
    """One request that arrives. `draw` is a number from 0 to 1 for the jitter; `service_s` what its answer takes, 0: unknown."""

    now: float
    deadline: float
    draw: float
    tenant: str = ""
    service_s: float = 0.0
    work: int = 0
    bytes: int = 0


class Standing(Struct, kw_only=True):
    """How things stand for it in this worker.

    `slots` is this worker's part of all. `room` says why it can't be served at once, "" that it can. `ahead_work` is what is
    done before it, as far as the queue can tell: all that waits in higher bands, and in its own what fairness puts first. `own`
    counts its tenant's. Paces are 0 while they are unknown. `turned_away` is how many were refused for lack of room within the
    last second.
    """

    slots: int
    room: str
    limit_s: float
    requests: int = 0
    tokens: int = 0
    bytes: int = 0
    ahead_work: float = 0.0
    own_requests: int = 0
    own_running: int = 0
    active: int = 1  # tenants that wait
    work_per_s: float = 0.0
    answers_per_s: float = 0.0
    turned_away: float = 0.0

    @property
    def ahead(self) -> int:
        """About how many requests that is."""
        return ceil(self.requests * min(1.0, self.ahead_work / self.tokens)) if self.tokens else self.requests


class Admit(Struct, frozen=True):
    """Go ahead."""

    why: str = "a slot is free"


class Queue(Struct, frozen=True):
    """Wait for a slot: `ahead` requests stand before it at most, and `wait_s` is the guess (0: unknown)."""

    ahead: int
    wait_s: float
    state: str

    @property
    def why(self) -> str:
        guess = f", about {self.wait_s:.1f} s" if self.wait_s > 0 else ""
        return f"{self.state}; {self.ahead} requests are ahead{guess}"


class Shed(Struct, frozen=True):
    """Refused: 429 is the caller's own limit, 503 says that all of us are full."""

    limit: Limit
    status: int
    why: str
    retry_after_s: float


Verdict = Admit | Queue | Shed
ADMIT = Admit()


def jittered(seconds: float, draw: float) -> float:
    """Half to one and a half of it, within reason."""
    return min(RETRY_MAX_S, max(RETRY_MIN_S, seconds)) * (0.5 + draw)


def short_of(short: Short, draw: float) -> Shed:
    """A rate or quota that has not enough left."""
    limit = Limit(short.limit, short.used, short.size, short.unit, short.wait_s)
    return Shed(limit, 429, short.why, jittered(short.wait_s, draw))


def hammering(found: Throttled, draw: float) -> Shed:
    """A client that sends far more than is accepted of it, while others wait."""
    limit = Limit("throttled", round(found.requests), round(found.accepts), "requests", HAMMERING_S)
    return Shed(limit, 429, found.why, jittered(HAMMERING_S, draw))


def degraded(why: str, calm_s: float, draw: float) -> Shed:
    """The ladder takes nobody like it at present."""
    return Shed(Limit("degraded", unit="requests", frees_s=calm_s), 503, why, jittered(calm_s, draw))


@dataclass
class Admission:
    """The queue's bounds, each worker's own. `first_token_s` is when an answer should begin."""

    queue_max: int = 1024
    queue_wait_s: float = 30.0
    tokens_max: int = 4_000_000
    bytes_max: int = 64 * 1024 * 1024
    first_token_s: float = 2.0
    headroom: float = 0.04  # see policy/headroom.py

    def ask(self, asked: Asked, standing: Standing) -> Verdict:
        """The verdict on one that is within its rates and quota."""
        if not standing.room and not standing.requests:
            return ADMIT
        shed = self._bounds(asked, standing)
        if shed is not None:
            return shed
        if standing.room in (OWN_CONCURRENCY, OWN_MEMORY):
            wait_s = self._own_wait_s(asked, standing)
        else:
            wait_s = self.wait_s(asked, standing)
        return self._waits(asked, standing, wait_s)

    def wait_s(self, asked: Asked, standing: Standing) -> float:
        """How long it would wait: until what stands before it is done, and a slot frees. 0: unknown, or there is no replica."""
        if not standing.slots:
            return 0.0
        answers_per_s = standing.answers_per_s
        if answers_per_s <= 0 and asked.service_s > 0:
            answers_per_s = standing.slots / asked.service_s  # as long as nobody had to wait
        if answers_per_s <= 0:
            return 0.0
        if standing.work_per_s > 0:
            return standing.ahead_work / standing.work_per_s + 1.0 / answers_per_s
        return (standing.ahead + 1.0) / answers_per_s

    def _own_wait_s(self, asked: Asked, standing: Standing) -> float:
        """The wait of one that is held up by its own tenant's answers alone: until enough of them have ended."""
        return (standing.own_requests + 1.0) * asked.service_s / max(1, standing.own_running)

    def _bounds(self, asked: Asked, s: Standing) -> Shed | None:
        """The queue's bounds. Whose tenant has less than its part of what waits is let into a queue that others have filled."""
        modest = s.own_requests * max(1, s.active) < s.requests
        for name, used, size, more, unit in (
            ("queue_requests", s.requests, self.queue_max, 1, "requests"),
            ("queue_tokens", s.tokens, self.tokens_max, asked.work, "tokens"),
            ("queue_bytes", s.bytes, self.bytes_max, asked.bytes, "bytes"),
        ):
            if used + more > (2 * size if modest else size) and (used or not size):
                frees_s = self._frees_s(s)
                why = f"{self._state(s)} and {used} {unit} wait, the queue's limit is {size}"
                return Shed(Limit(name, used, size, unit, frees_s), 503, why, self._retry_s(asked, s, frees_s))
        return None

    def _waits(self, asked: Asked, s: Standing, wait_s: float) -> Verdict:
        """Whether so long a wait is worth it."""
        own = s.room in (OWN_CONCURRENCY, OWN_MEMORY)
        slack_s = asked.deadline - asked.now - asked.service_s
        if wait_s > slack_s:
            left_s = max(0.0, asked.deadline - asked.now)
            why = (
                f"its deadline is in {left_s:.2f} s, but {self._state(s)}: it would wait about {wait_s:.2f} s and take about "
                f"{asked.service_s:.2f} s"
            )
            limit = Limit("deadline", wait_s + asked.service_s, left_s, "seconds", max(0.0, wait_s - slack_s))
            return Shed(limit, 503, why, self._retry_s(asked, s, wait_s))
        few, batch = max(FEW, int(s.slots * FEW_SHARE)), max(FEW, s.own_running if own else s.slots)
        ahead, limit_s, crowded = s.own_requests if own else s.ahead, self.queue_wait_s, False
        if s.slots:
            limit_s = min(limit_s, max(s.limit_s, self.first_token_s / 2) if ahead < batch else s.limit_s)
            if ahead >= few:  # slots that were filled together free together: by so much it may be longer than it looks
                limit_s = max(0.0, min(limit_s, slack_s - asked.service_s))
            if wait_s <= 0:  # nobody knows for how long: a batch may wait, and of those in a hurry a few
                crowded = ahead >= (few if slack_s < self.queue_wait_s else batch)
        if wait_s <= limit_s and not crowded:
            return Queue(ahead, wait_s, self._state(s))
        return self._too_long(asked, s, wait_s, limit_s)

    def _too_long(self, asked: Asked, s: Standing, wait_s: float, limit_s: float) -> Shed:
        """The refusal of one that would wait too long, by what holds it up."""
        frees_s = max(0.0, wait_s - limit_s) or self._frees_s(s)
        if s.room in (OWN_CONCURRENCY, OWN_MEMORY):
            name = "tenant_concurrency" if s.room == OWN_CONCURRENCY else "tenant_memory"
            why = f"tenant {asked.tenant}: {self._state(s)}; {s.own_requests} of its requests wait for one of {s.own_running}"
            limit = Limit(name, s.own_running, s.own_running, "requests", frees_s)
            return Shed(limit, 429, why, jittered(max(frees_s, wait_s), asked.draw))
        guess = f"about {wait_s:.2f} s" if wait_s > 0 else f"behind {s.ahead} others for nobody knows how long"
        why = f"{self._state(s)} and it would wait {guess}; at present a wait of {limit_s:.2f} s is allowed"
        return Shed(Limit("queue_wait", wait_s, limit_s, "seconds", frees_s), 503, why, self._retry_s(asked, s, wait_s))

    def _frees_s(self, s: Standing) -> float:
        """Until one of those that wait is served."""
        return 1.0 / s.answers_per_s if s.answers_per_s > 0 else 1.0

    def _retry_s(self, asked: Asked, s: Standing, wait_s: float) -> float:
        """When to come back: after the queue and as many as were turned away of late."""
        return jittered(wait_s + (s.turned_away + 1.0) * self._frees_s(s), asked.draw)

    def _state(self, s: Standing) -> str:
        if not s.slots:
            return "no replica may take traffic"
        return s.room.removeprefix(OWN).removeprefix(KEPT) if s.room else f"{s.requests} requests wait"

    def outwaited(self, waited_s: float, standing: Standing, draw: float) -> Shed:
        """The verdict on a request whose patience in the queue is over."""
        name = "queue_wait" if standing.slots else "no_replica"
        why = f"no slot came free in {waited_s:.1f} s of waiting: {self._state(standing)}"
        limit = Limit(name, waited_s, self.queue_wait_s, "seconds", self._frees_s(standing))
        return Shed(limit, 503, why, jittered(self._frees_s(standing), draw))

    def too_late(self, now: float, deadline: float, service_s: float, draw: float) -> Shed:
        """The verdict on one that waited until its answer could not be complete in time any more: it never costs a slot."""
        why = f"its deadline is in {max(0.0, deadline - now):.2f} s and an answer like it takes about {service_s:.2f} s"
        limit = Limit("deadline", service_s, max(0.0, deadline - now), "seconds", 1.0)
        return Shed(limit, 503, why, jittered(1.0, draw))
