"""The gate: lets in what the replicas can hold, holds back in fair order what can be served in time, refuses the rest at once.

It asks the policies and obeys. Twice it looks at a request: at a glance when its head has come, so that what will be refused
costs neither parsing nor tokenising; and when its length is known. Rates are taken at the glance, everything else is reserved
when a request is let in and settled when its answer ends. Places are given in fair order whenever an answer ends, and when who
may take traffic changes; other workers' answers end without a word, so while somebody waits it looks every 20 ms.

Urgent answers, of which a client holds the beginning, go ahead of everybody and are never refused.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf

from holdfast.domain.fault import Expired, Fault, Overloaded
from holdfast.domain.ports import Clock
from holdfast.domain.request import Generation
from holdfast.domain.tenant import Limits
from holdfast.gateway.asker import Asker
from holdfast.gateway.gate_place import WORTH_OUT, Account, Away, Place, Waits
from holdfast.gateway.neighbours import Neighbours
from holdfast.gateway.tenants import Tenants
from holdfast.policy.admission import Admission, Asked, Queue, Shed, Standing, degraded, hammering, short_of
from holdfast.policy.codel import CoDel
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

LOOK_S = 0.02
PRESSED_S = 1.0  # so long after a queue it is still counted who is let in: a queue that is kept short is often empty
NO_CHANCE = 1.0  # a draw that refuses nobody: the request is only counted
BYTES_A_TOKEN = 4  # of a request's body, for those that are judged before they are read
CACHED_MIN = 256  # of a shorter prompt it matters little what is cached
CALM_S = 5.0


@dataclass(eq=False)
class Gate:
    """One worker's gate. `refuses` is the ladder's word on a tenant and a band, empty to let it pass; `cached` guesses how much
    of a prompt a replica has in its cache; `draw` gives numbers from 0 to 1."""

    rules: Admission
    room: Room
    clock: Clock
    tenants: Tenants = field(default_factory=Tenants)
    quota: Quota = field(default_factory=lambda: Quota(OwnLedger()))
    expectation: Expectation = field(default_factory=lambda: Expectation(256))
    throttle: Throttle = field(default_factory=lambda: Throttle(2.0, 120.0))
    draw: Callable[[], float] = lambda: 0.5
    refuses: Callable[[Limits, int], str] = lambda limits, band: ""
    cached: Callable[[list[int]], int] = lambda prompt_ids: 0
    elsewhere: Callable[[Asker], bool] = lambda who: (
        False
    )  # whether the smaller model takes it, so that our queue is no matter

    def __post_init__(self) -> None:
        self.queue = FairQueue(lambda tenant: self.tenants.named(tenant).weight)
        self.shares = Shares(self.tenants.all)
        self.headroom = Headroom(self.rules.headroom)
        self.fitting = Fitting(self.room, self.shares, self.queue, self.headroom)
        self.pace = Pace()
        self.accounts: dict[str, Account] = {}
        self.waits, self.away = Waits(), Away()
        self.running = 0
        self.neighbours = Neighbours()
        self._pressed_until = -inf
        self.waiting: dict[int, Place] = {}  # by ticket
        self._tickets = 0
        self._looking: asyncio.TimerHandle | None = None

    # the two looks

    def glance(self, who: Asker, address: str = "") -> None:
        """The look at a request whose body nobody has read. Writes down who it is.

        Raises:
            Unauthorised: nobody's key.
            Overloaded: over a rate, or there is no way that it could be let in.
        """
        (limits, who.key_id), now = self.tenants.who_is(who.key), self.clock.now()
        who.tenant, who.client = limits.tenant, who.key or address
        who.priority = band = limits.priority if who.priority is None else min(who.priority, limits.priority)
        why = self.refuses(limits, band)
        if why:
            raise self._refused(limits, degraded(why, CALM_S, self.draw()))
        if self.queue.requests and not self.elsewhere(who):
            self._crowded(who, limits, band)
        short = self.quota.enter(limits, now)  # last: it is the rate of those that are let in
        if short is not None:
            raise self._refused(limits, short_of(short, self.draw()))

    def enter(self, generation: Generation) -> Place:
        """Let it in, or let it wait: then `turn` is what it waits for. Whatever comes of it, `leave` it in the end.

        Raises:
            Overloaded: neither.
        """
        limits, now = self.tenants.named(generation.tenant), self.clock.now()
        account = self.accounts.get(limits.tenant) or self.account(limits)
        place = self._place(generation, account, now)
        if generation.urgent:
            self._admit(place, now)
            return place
        why = "" if generation.client else self.refuses(limits, generation.priority)  # else it was asked at the glance
        if why:
            raise self._refused(limits, degraded(why, CALM_S, self.draw()))
        if limits.tokens_per_min:
            self._reserve(place, limits, now)
        complaint = self.fitting.complaint(limits, generation.priority, place.hold, now)
        self.fitting.came(limits, generation.priority, place.hold, complaint, now)
        if complaint or self.queue.requests:
            self._line_up(place, complaint, now)
        else:
            self._admit(place, now)
            self.waits.none(now < self._pressed_until)
        return place

    # while it is here

    def outgrew(self, place: Place) -> None:
        """An answer became longer than it was expected to: from here on it is taken to become as long as it may."""
        generation = place.generation
        place.expected = generation.max_tokens
        hold = place.prompt + generation.max_tokens
        if hold > place.hold and place.began >= 0:
            place.account.held.tokens += hold - place.hold
            self.room.grow(generation.id, hold)
            place.hold = hold

    def told(self, place: Place) -> str:
        """What one that waits is told of its place in the queue."""
        ahead = self.queue.position(place.ticket)
        state = place.verdict.state if place.verdict is not None else "others wait"
        return f"{state}; {ahead} requests are ahead" if ahead != 1 else f"{state}; 1 request is ahead"

    def leave(self, place: Place) -> None:
        """Its answer has ended, or it waits no more: what it did not use is given back, and whoever is next goes."""
        now, limits = self.clock.now(), place.account.limits
        if place.began < 0:
            self._step_out(place, now)
        else:
            self._settle(place, limits, now)
        if self.queue.requests:
            self.serve()

    def serve(self) -> None:
        """Give free places to those who wait, in order. Who can't be served in time any more goes without having cost any."""
        queue, now = self.queue, self.clock.now()
        if not queue.requests:
            return
        for waiting in queue.expired(now):
            place = self.waiting.pop(waiting.ticket)
            self._less(place.account, now - place.since, now)
            self._too_late(place, now)
        while queue.requests and not self.neighbours.go_first(self.room, self.running, now):
            goes = queue.next(self._fits)
            if goes is None:
                break
            place = self.waiting.pop(goes.ticket)
            self._less(place.account, now - place.since, now)
            if now + self.pace.service_s(place.expected, now) > place.generation.deadline:
                self._too_late(place, now)  # it could be served, but not in time, as we know by now
                continue
            self._admit(place, now)
            self.waits.add(now - place.since, now, self.fitting.tells(place.account.limits))
            if place.turn is not None and not place.turn.done():
                place.turn.set_result(None)
        if not queue.requests:
            self._emptied(now)

    def changed(self) -> None:
        """Who may take traffic has changed."""
        self.pace.sized(self.room.total()[0])
        self.serve()

    def account(self, limits: Limits) -> Account:
        """A tenant's account."""
        account = self.accounts.get(limits.tenant)
        if account is None:
            shares, codel = self.shares, CoDel(self.rules.first_token_s)
            account = Account(limits, shares.of(limits.tenant), shares.bind(limits), codel)
            self.accounts[limits.tenant] = account
        return account

    # inside

    def _place(self, generation: Generation, account: Account, now: float) -> Place:
        """What it is expected to cost. A continued answer has its beginning to be read again."""
        prompt, most = len(generation.prompt_ids), generation.max_tokens
        if generation.delivered_ids:
            prompt += len(generation.delivered_ids)
            most -= len(generation.delivered_ids)
        expected = self.expectation.of(account.limits.tenant, most)
        uncached = prompt - self.cached(generation.prompt_ids) if prompt >= CACHED_MIN else prompt
        work = uncached + WORTH_OUT * expected
        return Place(generation, account, now, prompt, uncached, expected, work, prompt + expected)

    def _fits(self, waiting: Waiting) -> str:
        place = self.waiting[waiting.ticket]
        return self.fitting.complaint(place.account.limits, waiting.band, place.hold, self.clock.now())

    def _reserve(self, place: Place, limits: Limits, now: float) -> None:
        """The quota, by the longest that the answer may become. Raises Overloaded."""
        most = len(place.generation.prompt_ids) + place.generation.max_tokens
        wait_s = self.quota.reserve(limits, most, now)
        if wait_s > 0:
            self.quota.leave(limits, now)
            raise self._refused(limits, short_of(self.quota.short(limits, most, wait_s, now), self.draw()))
        place.reserved = most
        place.account.reserved += most

    def _settled(self, place: Place, used: int, now: float) -> None:
        """What was reserved and not used goes back."""
        if place.reserved or used:
            place.account.reserved -= place.reserved
            self.quota.settle(place.account.limits, place.reserved, used, now)
            place.reserved = 0

    def _crowded(self, who: Asker, limits: Limits, band: int) -> None:
        """A glance at one that comes while others wait. Its length is a guess, so its own answer's time is left out."""
        now = self.clock.now()
        throttled = self.throttle.asked(who.client, now, self.draw() if self._served_well(limits) else NO_CHANCE)
        if throttled is not None:
            self.away.add(now)
            raise self._refused(limits, hammering(throttled, self.draw()))
        prompt = who.body_bytes // BYTES_A_TOKEN
        expected = self.expectation.of(limits.tenant, prompt)
        work = prompt + WORTH_OUT * expected
        complaint = self.fitting.complaint(limits, band, prompt + expected, now)
        asked = Asked(now=now, deadline=now + who.deadline_s, draw=self.draw(), tenant=limits.tenant)
        asked.work, asked.bytes = work, who.body_bytes
        ruling = self.rules.ask(asked, self._standing(limits, band, complaint, work, now))
        if isinstance(ruling, Shed):
            self.fitting.came(limits, band, prompt + expected, complaint, now)
            raise self._refused(limits, ruling)

    def _served_well(self, limits: Limits) -> bool:
        """Whether so much of its tenant's waits that it gets its share of the slots whoever is refused now."""
        own = self.queue.backlog(limits.tenant)[0]
        return own > 1 and 2 * own * self.queue.active >= self.room.total()[0]

    def _line_up(self, place: Place, complaint: str, now: float) -> None:
        """Join the queue, or raise Overloaded. It may be that those who wait are held back by limits of their own."""
        generation, limits = place.generation, place.account.limits
        service_s = self.pace.service_s(place.expected, now)
        asked = Asked(now=now, deadline=generation.deadline, draw=self.draw(), tenant=limits.tenant)
        asked.service_s, asked.work, asked.bytes = service_s, place.work, generation.body_bytes
        standing = self._standing(limits, generation.priority, complaint, place.work, now)
        verdict = self.rules.ask(asked, standing)
        if isinstance(verdict, Shed):
            self._settled(place, 0, now)
            self.quota.leave(limits, now)
            raise self._refused(limits, verdict)
        self._tickets += 1
        place.ticket = self._tickets
        place.turn = asyncio.get_running_loop().create_future()
        place.verdict = verdict if isinstance(verdict, Queue) else None
        begin_by = min(generation.deadline - service_s, now + self.rules.queue_wait_s)
        if not self.queue.requests:
            self._filled(now)
        place.account.codel.waited(0.0, False, now)
        self.waiting[place.ticket] = place
        waiting = Waiting(
            place.ticket, limits.tenant, generation.priority, begin_by, place.work, now, generation.body_bytes
        )
        self.queue.join(waiting)
        self.serve()
        self._look_later()

    def _standing(self, limits: Limits, band: int, complaint: str, work: int, now: float) -> Standing:
        queue, pace = self.queue, self.pace
        return Standing(
            slots=self.neighbours.part(self.room.total()[0]),
            active=queue.active,
            room=complaint,
            limit_s=self.account(limits).codel.limit_s(now),
            requests=queue.requests,
            tokens=queue.work,
            bytes=queue.bytes,
            ahead_work=queue.ahead(limits.tenant, band, work),
            own_requests=queue.backlog(limits.tenant)[0],
            own_running=self.shares.of(limits.tenant).slots,
            work_per_s=pace.work_per_s(now),
            answers_per_s=pace.answers_per_s(now),
            turned_away=self.away.of(now),
        )

    def _admit(self, place: Place, now: float) -> None:
        """From here on it holds a place, until `leave`."""
        account = place.account
        place.began = now
        self.room.grant(place.generation.id, place.hold)
        account.held.slots += 1
        account.held.tokens += place.hold
        self.running += 1
        account.running += 1
        account.admitted += 1
        account.served += place.work
        if place.turn is not None or self.queue.requests:
            place.charged = True
            self.queue.charge(account.limits.tenant, place.work)
        if now < self._pressed_until and place.generation.client:
            self.throttle.accepted(place.generation.client, now)

    def _settle(self, place: Place, limits: Limits, now: float) -> None:
        """What it really was, instead of what it was taken to be."""
        account = place.account
        work, used = place.done()
        self.running -= 1
        account.running -= 1
        account.served += work - place.work
        self.room.ungrant(place.generation.id)
        account.held.slots -= 1
        account.held.tokens -= place.hold
        if place.charged or self.queue.requests:
            self.queue.charge(limits.tenant, work - place.work if place.charged else 0)
        if limits.tokens_per_min:
            self._settled(place, used, now)
        learns = place.finish is not None and account.learns(now)
        if learns:
            self.expectation.learn(limits.tenant, len(place.generation.delivered_ids) + place.made)
            self.pace.ended(place.made, now - place.began)
        if learns or now < self._pressed_until:
            self.pace.done(work, 1, now)

    def _step_out(self, place: Place, now: float) -> None:
        """It waits no more: it went, or it was sent away."""
        if self.waiting.pop(place.ticket, None) is not None:
            self.queue.leave(place.ticket)
            self._less(place.account, now - place.since, now)
            self._settled(place, 0, now)
            if not self.queue.requests:
                self._emptied(now)
        if place.turn is not None and place.turn.done() and not place.turn.cancelled():
            place.turn.exception()  # it is known, and nobody waits for it
        elif place.turn is not None:
            place.turn.cancel()

    def _too_late(self, place: Place, now: float) -> None:
        """One whose time is up while it waits."""
        self._settled(place, 0, now)
        if place.turn is not None and not place.turn.done():
            place.turn.set_exception(self._verdict_too_late(place, place.generation, now))

    def _verdict_too_late(self, place: Place, generation: Generation, now: float) -> Fault:
        if now >= generation.deadline:
            return Expired(f"the request's deadline passed while it waited: {self.told(place)}")
        limits, waited_s = place.account.limits, now - place.since
        if waited_s < self.rules.queue_wait_s:
            service_s = self.pace.service_s(place.expected, now)
            return self._refused(limits, self.rules.too_late(now, generation.deadline, service_s, self.draw()))
        complaint = self.fitting.complaint(limits, generation.priority, place.hold, now)
        standing = self._standing(limits, generation.priority, complaint, place.work, now)
        return self._refused(limits, self.rules.outwaited(waited_s, standing, self.draw()))

    def _refused(self, limits: Limits, shed: Shed) -> Overloaded:
        """Count a refusal, and make a fault of it."""
        self.account(limits).count(shed.limit.name)
        if shed.status == 503:
            self.away.add(self.clock.now())
        return Overloaded(shed.why, shed.retry_after_s, shed.status, shed.limit)

    def _less(self, account: Account, waited_s: float, now: float) -> None:
        """One of a tenant's waits no more. CoDel is each tenant's own: who makes no standing queue is not cut for one."""
        account.codel.waited(waited_s, not self.queue.backlog(account.limits.tenant)[0], now)

    def _filled(self, now: float) -> None:
        """Somebody begins to wait."""
        self.pace.busy(True, now)
        self.throttle.pressed(True, now)
        self._pressed_until = inf

    def _emptied(self, now: float) -> None:
        """Nobody waits any more."""
        self.pace.busy(False, now)
        self.throttle.pressed(False, now)
        self._pressed_until = now + PRESSED_S

    def _look_later(self) -> None:
        if self._looking is None and self.queue.requests:
            self._looking = asyncio.get_running_loop().call_later(LOOK_S, self._look)

    def _look(self) -> None:
        """While somebody waits: others may have freed something, and time passes."""
        self._looking = None
        try:
            self.serve()
        finally:
            self._look_later()
