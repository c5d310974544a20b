"""Whether one more fits: the tenant's own limits, the room, and what is kept for those who use less than their share."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st
from queues import one

from holdfast.domain.tenant import Limits
from holdfast.policy.fair_queue import CREDIT, KEPT, OWED, FairQueue
from holdfast.policy.fitting import Fitting
from holdfast.policy.headroom import Headroom
from holdfast.policy.memory_shares import OWN_CONCURRENCY, Shares
from holdfast.policy.room import Room

SLOTS, WORK = 40, 10
KEPT_SAID = f"{KEPT}the last 2 of 40 slots are kept for tenants that use less than their share"


class Site:
    """One worker over one replica, as the gate wires it: whoever comes goes, or waits; answers end when they are told to."""

    def __init__(self, share: float = 0.05) -> None:
        self.room = Room()
        self.room.see("boot", SLOTS)
        self.shares = Shares()
        self.queue = FairQueue(lambda _: 1.0)
        self.headroom = Headroom(share)
        self.fitting = Fitting(self.room, self.shares, self.queue, self.headroom)
        self.now, self.tickets = 0.0, 0
        self.running: list[tuple[str, int]] = []
        self.served: dict[str, float] = {}
        self.came: dict[int, float] = {}
        self.waits: dict[str, list[float]] = {}

    def ask(self, tenant: str) -> None:
        limits = Limits(tenant=tenant)
        complaint = self.fitting.complaint(limits, 0, 1, self.now)
        self.fitting.came(limits, 0, 1, complaint, self.now)
        self.tickets += 1
        self.came[self.tickets] = self.now
        if complaint or self.queue.requests:
            self.queue.join(one(self.tickets, tenant, WORK))
            self.serve()
        else:
            self._go(tenant, self.tickets)

    def end(self, number: int) -> None:
        tenant, ticket = self.running.pop(number)
        self.room.ungrant(str(ticket))
        self.shares.give(tenant, 1)
        self.serve()

    def serve(self) -> None:
        while True:
            goes = self.queue.next(lambda who: self.fitting.complaint(Limits(tenant=who.tenant), who.band, 1, self.now))
            if goes is None:
                return
            self.queue.charge(goes.tenant, goes.work)
            self._go(goes.tenant, goes.ticket)

    def held(self, tenant: str) -> int:
        return self.shares.of(tenant).slots

    def _go(self, tenant: str, ticket: int) -> None:
        self.running.append((tenant, ticket))
        self.room.grant(str(ticket), 1)
        self.shares.take(tenant, 1)
        self.served[tenant] = self.served.get(tenant, 0.0) + WORK
        self.waits.setdefault(tenant, []).append(self.now - self.came[ticket])


def test_whoever_is_alone_has_every_slot():
    site = Site()
    for _ in range(100):
        site.ask("only")
    assert site.held("only") == SLOTS
    site.end(0)
    assert site.held("only") == SLOTS


def test_its_own_limits_come_first_and_then_the_room():
    site = Site()
    assert site.fitting.complaint(Limits(tenant="a", concurrency=0), 0, 1, 0.0) == ""
    site.ask("a")
    assert site.fitting.complaint(Limits(tenant="a", concurrency=1), 0, 1, 0.0) == OWN_CONCURRENCY
    for _ in range(SLOTS):
        site.ask("a")
    assert (
        site.fitting.complaint(Limits(tenant="a"), 0, 1, 0.0)
        == "all 40 slots of 1 replicas are taken, 40 of them by answers "
        "that have no replica yet"
    )


def test_the_last_slots_are_kept_for_one_that_found_none_and_go_to_it_at_once():
    site = Site()
    for _ in range(60):
        site.ask("greedy")
    site.ask("calm")
    site.ask("calm")  # both wait, and are first in line
    site.end(0)
    site.end(0)
    assert site.held("calm") == 2
    site.end(0)
    site.end(0)
    assert site.fitting.complaint(Limits(tenant="greedy"), 0, 1, site.now) == KEPT_SAID
    assert site.room.left()[0] == 2
    assert site.fitting.kept_off(Limits(tenant="greedy"), site.now) == site.queue.requests == 20
    site.end(0)
    assert (site.room.left()[0], site.queue.requests) == (2, 19)  # a third one is not kept
    site.ask("calm")
    assert (site.held("calm"), site.waits["calm"][-1]) == (3, 0.0)


def test_who_has_been_held_while_others_went_is_held_no_more_once_it_is_owed():
    site = Site()
    for _ in range(60):
        site.ask("greedy")
    site.ask("calm")
    site.end(0)
    site.end(0)
    assert site.room.left()[0] == 1
    lag = (OWED + 1) * CREDIT * WORK
    site.queue.join(one(1000, "calm", WORK))
    site.queue.charge("calm", lag * 2)  # it has had so much that the greedy one is behind it
    goes = site.queue.next(lambda who: "" if who.tenant == "calm" else "own: not now")
    assert goes is not None
    site.queue.charge("greedy", 0)
    site.queue.charge("greedy", -lag * 2)
    assert site.fitting.complaint(Limits(tenant="greedy"), 0, 1, site.now) == ""


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(2, 5), st.sampled_from([0.0, 0.05, 0.2]))
def test_a_slot_is_idle_only_while_all_who_wait_hold_their_share_and_never_more_than_are_kept(seed, tenants, share):
    chance, site = random.Random(seed), Site(share)
    names = [f"t{number}" for number in range(tenants)]
    for _ in range(600):
        site.now += chance.expovariate(20.0)
        if site.running and chance.random() < 0.5:
            site.end(chance.randrange(len(site.running)))
        else:
            site.ask(names[0] if chance.random() < 0.7 else chance.choice(names[1:]))
        idle = site.room.left()[0]
        if site.queue.requests and idle:
            assert idle <= site.headroom.most(SLOTS)
            for tenant in site.queue.tenants():
                assert not site.headroom.modest(site.shares.of(tenant), 1.0, SLOTS)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.2]))
def test_two_who_always_wait_differ_by_no_more_than_the_bound_and_two_credits(seed, share):
    """Whoever is owed is not held: so headroom adds OWED credits to the fair queue's own bound, and nobody starves."""
    chance, site = random.Random(seed), Site(share)
    names = ["greedy", "a", "b", "c"]
    begun: dict[str, float] = {}
    for step in range(3000):
        site.now += 0.01
        for name in names:
            while site.queue.backlog(name)[0] < 2:
                site.ask(name)
        weights = [8 if tenant == "greedy" else 1 for tenant, _ in site.running]  # its answers end sooner than others'
        site.end(chance.choices(range(len(site.running)), weights)[0])
        if step == 200:
            begun = dict(site.served)
        elif step > 200:
            gains = [site.served[name] - begun[name] for name in names]
            assert max(gains) - min(gains) <= (OWED + 1) * CREDIT * WORK + 2 * SLOTS * WORK


def _beside_a_greedy_one(share: float) -> tuple[list[float], float]:
    """Nine tenants at half of their shares, and one that always waits: the nine's waits in order, in answers' lengths, and the
    share of slots that was idle."""
    chance, site = random.Random(5), Site(share)
    rate, idle_s = 9 * 0.5 * SLOTS / 10, 0.0
    while site.now < 400.0:
        while site.queue.backlog("greedy")[0] < 5:
            site.ask("greedy")
        either = rate + len(site.running)
        step_s = chance.expovariate(either)
        site.now += step_s
        idle_s += step_s * site.room.left()[0]
        if chance.random() < rate / either:
            site.ask(f"t{chance.randrange(9)}")
        else:
            site.end(chance.randrange(len(site.running)))
    waits = [wait for tenant, row in site.waits.items() if tenant != "greedy" for wait in row[20:]]
    return sorted(waits), idle_s / site.now / SLOTS


def test_nine_who_use_half_of_their_share_find_a_slot_beside_one_that_wants_them_all():
    """And the price: less than the share that may be kept."""
    (without, none), (waits, idle) = _beside_a_greedy_one(0.0), _beside_a_greedy_one(0.15)
    middle, late = len(waits) // 2, int(0.95 * len(waits))
    assert without[middle] > 0.0  # most wait for somebody's answer to end
    assert waits[middle] == waits[late] == 0.0
    assert none == 0.0
    assert 0.0 < idle < 0.15
