"""One gateway worker of a simulated fleet: the real policies, wired as the gate wires them, without sockets and tasks.

The order of questions is that of gateway/gate.py: a glance before the body is read, then the whole look, and everything is
settled when an answer ends. What is measured here is therefore what a decision costs there, but for asyncio's part.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp

from holdfast.domain.board import Rate, ReplicaView, TenantView, WorkerView
from holdfast.domain.tenant import Limits
from holdfast.policy.admission import Asked, Shed, Standing, degraded, hammering, short_of
from holdfast.policy.codel import CoDel
from holdfast.policy.courtesy import Courtesy
from holdfast.policy.expectation import Expectation
from holdfast.policy.fair_queue import FairQueue, Waiting
from holdfast.policy.fitting import Fitting
from holdfast.policy.headroom import Headroom
from holdfast.policy.memory_shares import Shares
from holdfast.policy.pace import Pace
from holdfast.policy.quota import Quota
from holdfast.policy.room import Room
from holdfast.policy.throttle import Throttle
from holdfast.policy.token_bucket import OwnLedger
from holdfast.sim.fleet_plan import Job, Plan

WORTH_OUT = 2
BYTES_A_TOKEN = 4
CALM_S = 5.0
NO_CHANCE = 1.0  # a draw that refuses nobody: the request is only counted
AWAY_S = 1.0
SITE_RATE = Rate(1e6, 1e6)  # asked like any other, and never in the way: the fleet's limits are its replicas


class Account:
    """A tenant in this worker. Totals since the start; `told` is what other workers have heard of `served`. A standing queue
    is its own affair: who makes none is not cut for one."""

    __slots__ = ("admitted", "codel", "refused", "running", "served", "told")

    def __init__(self, codel: CoDel) -> None:
        self.codel = codel
        self.running = self.admitted = 0
        self.served = self.told = 0.0
        self.refused: dict[str, int] = {}


@dataclass(frozen=True)
class Hands:
    """What a gate needs of the world: chance, somebody who gives a job that was let in to a replica, somebody who tells a
    client that it was refused, and a guess at how much of a prompt is cached."""

    draw: Callable[[], float]
    begin: Callable[["FleetGate", Job, float], None]
    refuse: Callable[[Job, Shed, float], None]
    cached: Callable[[Job], int]


class FleetGate:
    """One worker's gate."""

    def __init__(self, name: str, plan: Plan, room: Room, hands: Hands) -> None:
        self.name, self.rules, self.room, self.draw, self.hands = name, plan.admission, room, hands.draw, hands
        self._limits = {one.tenant: one for one in plan.limits}
        self.queue = FairQueue(self._weight)
        self.shares = Shares(plan.limits)
        self.headroom = Headroom(plan.admission.headroom)
        self.fitting = Fitting(room, self.shares, self.queue, self.headroom)
        self.quota = Quota(OwnLedger(), SITE_RATE)
        self.expectation = Expectation(plan.expected_tokens)
        self.throttle = Throttle(plan.throttle_factor, plan.throttle_s)
        self.pace = Pace()
        self.courtesy = Courtesy()
        self.flooded = 0  # other workers in which somebody waits, as they told last
        self.running = 0
        self.elsewhere: Callable[[], int] = lambda: 0  # answers that run in all other workers
        self.accounts: dict[str, Account] = {}
        self.waiting: dict[int, Job] = {}
        self.movers: list[tuple[Job, int]] = []  # with their stamps: answers that have no replica and wait for one
        self.rung = 0
        self.answered = self.failed = 0
        self.waits: list[float] = []  # of those let in since the last view
        self._tickets = 0
        self._away, self._away_at = 0.0, 0.0

    def ask(self, job: Job, now: float) -> None:
        """A request comes: it is let in, or waits, or is refused."""
        shed = self._glance(job, now) or self._enter(job, now)
        if shed is not None:
            self._turn_away(job, shed, now)

    def leave(self, job: Job, made: int, whole: bool, now: float) -> None:
        """An answer that was let in has ended after so many tokens. Whoever is next goes."""
        account, tenant, limits = self.account(job.limits.tenant), job.limits.tenant, job.limits
        work = job.uncached + WORTH_OUT * made
        account.running -= 1
        self.running -= 1
        account.served += work - job.work
        self.room.ungrant(job.id)
        self.shares.give(tenant, job.hold)
        if job.charged or self.queue.requests:
            self.queue.charge(tenant, work - job.work if job.charged else 0)
        if job.reserved:
            self.quota.settle(limits, job.reserved, job.prompt + made, now)
        if whole:
            self.expectation.learn(tenant, made)
            self.pace.ended(made, now - job.began)
        self.pace.done(work, 1, now)
        self.answered += 1
        self.serve(now)

    def serve(self, now: float) -> None:
        """Give free places to those who wait, in order."""
        queue = self.queue
        if not queue.requests:
            return
        for waiting in queue.expired(now):
            job = self.waiting.pop(waiting.ticket)
            self._less(job, now)
            self._too_late(job, now)

        def fits(one: Waiting) -> str:
            job = self.waiting[one.ticket]
            return self.fitting.complaint(job.limits, one.band, job.hold, now)

        while queue.requests and not self._give_way(now):
            next_one = queue.next(fits)
            if next_one is None:
                break
            job = self.waiting.pop(next_one.ticket)
            if now + self.pace.service_s(job.expected, now) > job.deadline:
                self._less(job, now)
                self._too_late(job, now)
                continue
            self._admit(job, now)
            self._less(job, now)
        if not queue.requests:
            self._emptied(now)

    def outgrew(self, job: Job) -> None:
        """An answer became longer than expected: it is taken to become as long as it may."""
        hold = job.prompt + job.flow.max_tokens
        if hold > job.hold:
            self.shares.grow(job.limits.tenant, hold - job.hold)
            self.room.grow(job.id, hold)
            job.hold = hold

    def sized(self, now: float) -> None:
        """Replicas came or went."""
        self.pace.sized(self.room.total()[0])
        self.serve(now)

    def heard(self, tenant: str, work: float) -> None:
        """Another worker served so much for a tenant."""
        self.queue.charge(tenant, work)

    def hear(self, others: Sequence["FleetGate"], now: float) -> None:
        """What their tenants hold, and what headroom those needed that use less than their share."""
        held: dict[str, tuple[int, int]] = {}
        needed: dict[tuple[str, int], float] = {}
        for other in others:
            for tenant in other.accounts:
                has, limits = other.shares.of(tenant), self._named(tenant)
                if has.slots or other.queue.backlog(tenant)[0]:
                    self.headroom.seen(tenant, limits.weight, now)
                slots, tokens = held.get(tenant, (0, 0))
                held[tenant] = slots + has.slots, tokens + has.tokens
                more = other.headroom.told(tenant, limits.priority)
                if more:
                    key = tenant, limits.priority
                    needed[key] = needed.get(key, 0.0) + more
        self.shares.elsewhere(held)
        self.headroom.elsewhere(needed)

    def kept_off(self, now: float) -> int:
        """How many wait although something is free."""
        return sum(self.fitting.kept_off(self._named(tenant), now) for tenant in self.queue.tenants())

    def _named(self, tenant: str) -> Limits:
        return self._limits.get(tenant) or Limits(tenant=tenant)

    def account(self, tenant: str) -> Account:
        """A tenant's account."""
        account = self.accounts.get(tenant)
        if account is None:
            account = self.accounts[tenant] = Account(CoDel(self.rules.first_token_s))
        return account

    def view(self, now: float, replicas: tuple[ReplicaView, ...] = ()) -> WorkerView:
        """What the ladder reads."""
        waits, self.waits = sorted(self.waits), []
        return WorkerView(
            worker=self.name,
            at=now,
            running=self.running,
            waiting=self.queue.requests,
            waiting_tokens=self.queue.work,
            wait_s=waits[len(waits) // 2] if waits else 0.0,
            answered=self.answered,
            failed=self.failed,
            replicas=replicas,
            tenants=tuple(
                TenantView(tenant=tenant, admitted=account.admitted, refused=dict(account.refused))
                for tenant, account in self.accounts.items()
            ),
        )

    def _weight(self, tenant: str) -> float:
        limits = self._limits.get(tenant)
        return limits.weight if limits else 1.0

    def _glance(self, job: Job, now: float) -> Shed | None:
        limits = job.limits
        why = self._given_up(limits)
        if why:
            return degraded(why, CALM_S, self.draw())
        if self.queue.requests:
            shed = self._crowded(job, limits, now)
            if shed is not None:
                return shed
        short = self.quota.enter(limits, now)
        return short_of(short, self.draw()) if short is not None else None

    def _crowded(self, job: Job, limits: Limits, now: float) -> Shed | None:
        """A glance at one that comes while others wait."""
        own = self.queue.backlog(limits.tenant)[0]
        served_well = own > 1 and 2 * own * self.queue.active >= self.room.total()[0]
        throttled = self.throttle.asked(job.client, now, self.draw() if served_well else NO_CHANCE)
        if throttled is not None:
            return hammering(throttled, self.draw())
        expected = self.expectation.of(limits.tenant, job.flow.max_tokens)
        work = job.prompt + WORTH_OUT * expected
        asked = Asked(now=now, deadline=job.deadline, draw=self.draw(), tenant=limits.tenant, work=work)
        asked.bytes = job.prompt * BYTES_A_TOKEN
        complaint = self.fitting.complaint(limits, limits.priority, job.prompt + expected, now)
        verdict = self.rules.ask(asked, self._standing(limits, complaint, work, now))
        if not isinstance(verdict, Shed):
            return None
        self.fitting.came(limits, limits.priority, job.prompt + expected, complaint, now)
        return verdict

    def _enter(self, job: Job, now: float) -> Shed | None:
        limits = job.limits
        why = self._given_up(limits)
        if why:
            return degraded(why, CALM_S, self.draw())
        job.expected = self.expectation.of(limits.tenant, job.flow.max_tokens)
        job.uncached = job.prompt - self.hands.cached(job)
        job.work = job.uncached + WORTH_OUT * job.expected
        job.hold = job.prompt + job.expected
        if limits.tokens_per_min:
            most = job.prompt + job.flow.max_tokens
            wait_s = self.quota.reserve(limits, most, now)
            if wait_s > 0:
                return short_of(self.quota.short(limits, most, wait_s, now), self.draw())
            job.reserved = most
        complaint = self.fitting.complaint(limits, limits.priority, job.hold, now)
        self.fitting.came(limits, limits.priority, job.hold, complaint, now)
        if complaint or self.queue.requests:
            return self._line_up(job, complaint, now)
        self._admit(job, now)
        return None

    def _line_up(self, job: Job, complaint: str, now: float) -> Shed | None:
        limits = job.limits
        service_s = self.pace.service_s(job.expected, now)
        asked = Asked(now=now, deadline=job.deadline, draw=self.draw(), tenant=limits.tenant, work=job.work)
        asked.service_s, asked.bytes = service_s, job.prompt * BYTES_A_TOKEN
        verdict = self.rules.ask(asked, self._standing(limits, complaint, job.work, now))
        if isinstance(verdict, Shed):
            self.quota.settle(limits, job.reserved, 0, now)
            self.quota.leave(limits, now)
            return verdict
        self._tickets += 1
        job.ticket = self._tickets
        begin_by = min(job.deadline - service_s, now + self.rules.queue_wait_s)
        if not self.queue.requests:
            self.pace.busy(True, now)
            self.throttle.pressed(True, now)
        self.account(limits.tenant).codel.waited(0.0, False, now)
        self.waiting[job.ticket] = job
        self.queue.join(Waiting(job.ticket, limits.tenant, limits.priority, begin_by, job.work, now, asked.bytes))
        self.serve(now)
        return None

    def _standing(self, limits: Limits, complaint: str, work: int, now: float) -> Standing:
        queue, pace = self.queue, self.pace
        return Standing(
            slots=self.room.total()[0],
            room=complaint,
            limit_s=self.account(limits.tenant).codel.limit_s(now),
            requests=queue.requests,
            tokens=queue.work,
            bytes=queue.bytes,
            ahead_work=queue.ahead(limits.tenant, limits.priority, work),
            own_requests=queue.backlog(limits.tenant)[0],
            own_running=self.shares.of(limits.tenant).slots,
            work_per_s=pace.work_per_s(now),
            answers_per_s=pace.answers_per_s(now),
            turned_away=self._away * exp(-max(0.0, now - self._away_at) / AWAY_S),
        )

    def _given_up(self, limits: Limits) -> str:
        if self.rung >= 3 and limits.priority < 0:
            return "requests of a priority below 0 are refused"
        if self.rung >= 5 and not limits.reserved:
            return "only tenants with a reservation are served"
        return ""

    def _admit(self, job: Job, now: float) -> None:
        account, tenant = self.account(job.limits.tenant), job.limits.tenant
        job.began = now
        self.waits.append(now - job.asked_at)
        self.room.grant(job.id, job.hold)
        self.shares.take(tenant, job.hold)
        account.running += 1
        self.running += 1
        account.admitted += 1
        account.served += job.work
        self.throttle.accepted(job.client, now)
        if job.ticket or self.queue.requests:
            job.charged = True
            self.queue.charge(tenant, job.work)
        self.hands.begin(self, job, now)

    def _turn_away(self, job: Job, shed: Shed, now: float) -> None:
        refused, name = self.account(job.limits.tenant).refused, shed.limit.name
        refused[name] = refused.get(name, 0) + 1
        if shed.status == 503:
            self._away = self._away * exp(-max(0.0, now - self._away_at) / AWAY_S) + 1.0
            self._away_at = now
        self.hands.refuse(job, shed, now)

    def _less(self, job: Job, now: float) -> None:
        """One of a tenant's waits no more."""
        tenant = job.limits.tenant
        self.account(tenant).codel.waited(now - job.asked_at, not self.queue.backlog(tenant)[0], now)

    def _too_late(self, job: Job, now: float) -> None:
        """It could not be complete in time any more, and goes without having cost a slot."""
        self.quota.settle(job.limits, job.reserved, 0, now)
        service_s = self.pace.service_s(job.expected, now)
        self._turn_away(job, self.rules.too_late(now, job.deadline, service_s, self.draw()), now)

    def _give_way(self, now: float) -> bool:
        """Whether what is free now is left to another worker."""
        if not self.flooded or self.room.free <= 0:
            return False
        return self.courtesy.gives_way(now, self.room.total()[0], self.running, self.elsewhere(), self.flooded)

    def _emptied(self, now: float) -> None:
        self.pace.busy(False, now)
        self.throttle.pressed(False, now)
