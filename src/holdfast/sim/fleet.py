"""A fleet in virtual time: a thousand replicas, a hundred thousand requests a second, the real policies, and what goes wrong.

One heap of events, no tasks: a refused request is one event, an answered one three or four. Everything is a function of the
plan with its seed. With a stopwatch (seconds, any origin) the cost of each decision is taken down too; the engine's and the
clients' parts are left out of it. That changes nothing of what happens.
"""

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from heapq import heappop, heappush
from typing import Any

from holdfast.policy.admission import Shed
from holdfast.policy.affinity import Affinity
from holdfast.policy.breaker import Closed, Peers, Way
from holdfast.policy.error_rate import ErrorRate
from holdfast.policy.ladder import Ladder, Step
from holdfast.policy.pressure import pressure_of
from holdfast.policy.room import Room
from holdfast.sim.fleet_crowd import Crowd
from holdfast.sim.fleet_engine import Desk, Replica, Shared
from holdfast.sim.fleet_gate import FleetGate, Hands
from holdfast.sim.fleet_plan import Illness, Job, Outage, Plan
from holdfast.sim.fleet_tally import Bin, Costs, Report, quantile

LOOK_S = 0.05
SHARE_S = 0.1  # workers tell each other what they served
LADDER_S = 0.25
BACKOFF_S = 1.0  # of obedient clients after a time-out, which nobody told them anything about
COSTS_MAX = 200_000


class Fleet:
    """One run of one plan."""

    def __init__(self, plan: Plan, stopwatch: Callable[[], float] | None = None) -> None:
        self.plan, self.now = plan, 0.0
        self._chance = random.Random(plan.seed)
        self._draw = self._chance.random
        self._watch = stopwatch
        self._aside = 0.0  # time on the stopwatch that is not the decision's
        self._events: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._count = 0
        bins = [Bin() for _ in range(round(plan.seconds / plan.bin_s))]
        self.report = Report(plan.bin_s, bins, Costs(), Counter(), Counter())
        self.replicas = [Replica(f"r{number}") for number in range(plan.engines.replicas)]
        self._up = {replica.boot: replica for replica in self.replicas}
        self._crowd = Crowd(plan, self._chance, self._at, self._ask)
        shared = Shared()
        self.gates: list[FleetGate] = []
        self.desks: list[Desk] = []
        for number in range(plan.gateways):
            room = Room(*shared.of()) if plan.gateways > 1 else Room()
            affinity = Affinity(65536) if plan.affinity else None
            desk = Desk(room, self._up, affinity, plan.slow_start_s)
            hands = Hands(self._draw, self._begin, self._refused, desk.cached)
            gate = FleetGate(f"gateway-{number}", plan, room, hands)
            self.gates.append(gate)
            self.desks.append(desk)
            gate.elsewhere = partial(self._elsewhere, gate)
        self._ladder = Ladder(plan.ladder) if plan.ladder else None
        self._rate = ErrorRate(10.0)
        self._waits: list[float] = []
        self._see_all()

    def run(self) -> Report:
        """Play it to its end."""
        plan = self.plan
        for flow in plan.flows:
            self.report.flows[flow.name] = Counter()
            self.report.first_tokens[flow.name] = []
            self.report.asked_by[flow.name] = [0] * len(self.report.bins)
            self.report.good_by[flow.name] = [0] * len(self.report.bins)
        self._crowd.begin()
        for outage in plan.outages:
            self._at(outage.at_s, self._strike, outage)
        if plan.illness:
            self._at(plan.illness.at_s, self._sicken, plan.illness)
        self._at(LOOK_S, self._look, None)
        self._at(SHARE_S, self._share, None)
        self._at(plan.bin_s, self._sample, 0)
        if self._ladder:
            self._at(LADDER_S, self._climb, None)
        events, end = self._events, plan.seconds
        while events and events[0][0] < end:
            self.now, _, act, what = heappop(events)
            act(what)
            self.report.events += 1
        for gate in self.gates:
            for tenant, account in gate.accounts.items():
                self.report.served[tenant] += round(account.served)
                self.report.refusals.update(account.refused)
        return self.report

    def _at(self, when: float, act: Callable[[Any], None], what: Any) -> None:
        self._count += 1
        heappush(self._events, (when, self._count, act, what))

    def _elsewhere(self, gate: FleetGate) -> int:
        running = -gate.running
        for other in self.gates:
            running += other.running
        return running

    def _bin(self, when: float) -> Bin:
        return self.report.bins[self._index(when)]

    def _index(self, when: float) -> int:
        return min(len(self.report.bins) - 1, int(when / self.plan.bin_s + 1e-9))

    # requests

    def _ask(self, job: Job) -> None:
        now = self._bin(self.now)
        now.asked += 1
        now.wishes += job.tries == 1
        self.report.flows[job.flow.name]["asked"] += 1
        self.report.asked_by[job.flow.name][self._index(self.now)] += 1
        gate, watch = self.gates[job.gate], self._watch
        if gate.rung >= 1:
            job.tokens = min(job.tokens, self.plan.short_tokens)
        if watch is None:
            gate.ask(job, self.now)
            return
        self._aside = 0.0
        began = watch()
        gate.ask(job, self.now)
        cost_us = (watch() - began - self._aside) * 1e6
        costs = self.report.costs
        kind = costs.let_in if job.began >= 0 else costs.queued if job.ticket else costs.refused
        if len(kind) < COSTS_MAX:
            kind.append(cost_us)

    def _refused(self, job: Job, shed: Shed, now: float) -> None:
        began = self._watch() if self._watch else 0.0
        self._bin(now).refused += 1
        self.report.flows[job.flow.name]["refused"] += 1
        self._crowd.disappointed(job, shed.retry_after_s, now)
        if self._watch:
            self._aside += self._watch() - began

    # replicas

    def _begin(self, gate: FleetGate, job: Job, now: float) -> None:
        """Let in: give it to a replica, or keep it until one has room."""
        self._waits.append(now - job.asked_at)
        began = self._watch() if self._watch else 0.0
        replica = self.desks[job.gate].place(job, self._draw, now)
        if self._watch and len(self.report.costs.picked) < COSTS_MAX:
            self.report.costs.picked.append((self._watch() - began) * 1e6)
        if replica is None:
            job.moved = max(1, job.moved)  # from here on it goes before new ones
            self._stand_by(gate, job)
        else:
            self._start(job, replica)
        if self._watch:
            self._aside += self._watch() - began

    def _start(self, job: Job, replica: Replica) -> None:
        delivered, now = job.delivered, self.now
        job.stamp += 1
        end = replica.begin(job, self.plan.engines, now)
        if job.shown_at < 0:
            job.shown_at = job.start_at + job.step_s
        if replica.sick and self._draw() < replica.sick:
            self._at(job.start_at + (end - job.start_at) * self._draw(), self._broke, (job, job.stamp, replica))
        if end > job.deadline:
            self._at(job.deadline, self._missed, (job, job.stamp))
        else:
            self._at(end, self._done, (job, job.stamp))
        if job.tokens > job.expected > delivered:
            self._at(job.start_at + (job.expected - delivered) * job.step_s, self._grew, (job, job.stamp))
        if job.moved:
            self._at(job.start_at, self._read, (job, job.stamp))

    def _done(self, what: tuple[Job, int]) -> None:
        job, stamp = what
        if job.stamp != stamp:
            return
        self.report.first_tokens[job.flow.name].append(job.shown_at - job.asked_at)
        self._bin(self.now).good += 1
        self._bin(job.asked_at).good_of_asked += 1
        self.report.good_by[job.flow.name][self._index(job.asked_at)] += 1
        self._bin(job.first_at).fulfilled += 1
        self.report.flows[job.flow.name]["good"] += 1
        self._leave(job, job.tokens, whole=True)

    def _missed(self, what: tuple[Job, int]) -> None:
        """Its deadline passed while it was let in: the work was for nothing."""
        job, stamp = what
        if job.stamp != stamp:
            return
        self._bin(self.now).late += 1
        self.report.flows[job.flow.name]["late"] += 1
        made = 0
        if job.replica:
            made = min(job.tokens, job.delivered + max(0, int((self.now - job.start_at) / job.step_s)))
        self._leave(job, made, whole=False)
        self._crowd.disappointed(job, BACKOFF_S * (0.5 + self._draw()), self.now)

    def _leave(self, job: Job, made: int, whole: bool) -> None:
        gate, desk, watch = self.gates[job.gate], self.desks[job.gate], self._watch
        replica = self._up.get(job.replica)
        if replica is not None:
            replica.running.pop(job.id, None)
            if whole:
                replica.breaker.ended(self.now)
        job.stamp += 1
        self._aside = 0.0
        began = watch() if watch else 0.0
        desk.room.give(job.id)
        if job.moved:
            desk.lane.end(job.id)
        if gate.movers:
            self._move(job.gate)
        gate.leave(job, made, whole, self.now)
        if watch and len(self.report.costs.ended) < COSTS_MAX:
            self.report.costs.ended.append((watch() - began - self._aside) * 1e6)

    def _grew(self, what: tuple[Job, int]) -> None:
        job, stamp = what
        if job.stamp == stamp:
            self.gates[job.gate].outgrew(job)

    def _read(self, what: tuple[Job, int]) -> None:
        """A moved answer has been read again: its permit goes to the next one."""
        job, stamp = what
        if job.stamp == stamp:
            self.desks[job.gate].lane.end(job.id)
            self._move(job.gate)

    def _broke(self, what: tuple[Job, int, Replica]) -> None:
        """A replica ended an answer in an error: it goes on elsewhere."""
        job, stamp, replica = what
        if job.stamp != stamp:
            return
        replica.running.pop(job.id, None)
        job.delivered = min(job.tokens - 1, job.delivered + max(0, int((self.now - job.start_at) / job.step_s)))
        out = sum(1 for one in self.replicas if one.breaker.is_open)
        peers = Peers(out, len(self.replicas), len(self._up) - out - 1)
        if replica.breaker.failed(Way.STREAM, self.now, peers) is not None and replica.breaker.is_open:
            self._at(self.now + replica.breaker.wait_s, self._try, replica)
        self._unseat(job)
        self._move(job.gate)

    def _try(self, replica: Replica) -> None:
        """The breaker's own trial."""
        if not replica.up or not replica.breaker.trial_due(self.now):
            return
        replica.breaker.trying()
        fault = "an error inside its answer" if self._draw() < replica.sick else ""
        if not isinstance(replica.breaker.tried(fault, self.now), Closed):
            self._at(self.now + replica.breaker.wait_s, self._try, replica)

    def _unseat(self, job: Job) -> None:
        """It has lost its replica, and waits for another ahead of everybody who is new."""
        desk = self.desks[job.gate]
        desk.room.give(job.id)
        desk.lane.end(job.id)
        job.moved += 1
        job.replica = ""
        self.report.moves += 1
        self._stand_by(self.gates[job.gate], job)

    def _stand_by(self, gate: FleetGate, job: Job) -> None:
        """It waits for a replica, until its deadline at most."""
        job.stamp += 1
        gate.movers.append((job, job.stamp))
        self._at(job.deadline, self._missed, (job, job.stamp))

    def _move(self, number: int) -> None:
        """Places for those who wait for one with an answer under way, first come first served."""
        gate, desk = self.gates[number], self.desks[number]
        movers, placed = gate.movers, 0
        for job, stamp in movers:
            if job.stamp != stamp:
                placed += 1  # gone meanwhile
                continue
            replica = desk.place(job, self._draw, self.now)
            if replica is None:
                break
            placed += 1
            self._start(job, replica)
        if placed:
            del movers[:placed]

    # the world

    def _see_all(self) -> None:
        engines = self.plan.engines
        for gate, desk in zip(self.gates, self.desks, strict=True):
            for boot in [boot for boot in desk.room.places if boot not in self._up]:
                desk.room.gone(boot)
            for boot in self._up:
                desk.room.see(boot, engines.slots, engines.tokens_max)
            if desk.affinity is not None:
                desk.affinity.ring.set(frozenset(self._up))
            gate.sized(self.now)

    def _strike(self, outage: Outage) -> None:
        living = [replica for replica in self.replicas if replica.up]
        victims = self._chance.sample(living, min(len(living), round(outage.share * len(self.replicas))))
        lost = []
        for replica in victims:
            del self._up[replica.boot]
            lost += replica.die(self.now)
        self._see_all()
        for job in lost:
            self._unseat(job)
        for number in range(len(self.gates)):
            self._move(number)
        if outage.back_s < self.plan.seconds:
            self._at(outage.back_s, self._restore, victims)

    def _restore(self, victims: list[Replica]) -> None:
        for replica in victims:
            replica.rise(self.now)
            self._up[replica.boot] = replica
        self._see_all()

    def _sicken(self, illness: Illness) -> None:
        over = self.now >= illness.until_s
        for replica in self.replicas[: illness.replicas]:
            replica.sick = 0.0 if over else illness.share
        if not over:
            self._at(illness.until_s, self._sicken, illness)

    def _look(self, _: None) -> None:
        """While somebody waits, each worker looks what others have freed."""
        self._at(self.now + LOOK_S, self._look, None)
        engines = self.plan.engines
        for number, gate in enumerate(self.gates):
            if gate.movers:
                self._move(number)
            if gate.queue.requests:
                if len(self.gates) > 1:
                    for boot in self._up:
                        gate.room.see(boot, engines.slots, engines.tokens_max)
                gate.serve(self.now)

    def _share(self, _: None) -> None:
        """Each worker hears what the others served since it last heard."""
        self._at(self.now + SHARE_S, self._share, None)
        if len(self.gates) == 1:
            return
        for gate in self.gates:
            others = [other for other in self.gates if other is not gate]
            gate.flooded = sum(other.queue.requests > other.kept_off(self.now) for other in others)
            gate.hear(others, self.now)
            for tenant, account in gate.accounts.items():
                news, account.told = account.served - account.told, account.served
                if news:
                    for other in self.gates:
                        if other is not gate:
                            other.heard(tenant, news)

    def _climb(self, _: None) -> None:
        self._at(self.now + LADDER_S, self._climb, None)
        if self._ladder is None:
            return
        told = tuple(replica.view(self.plan.engines) for replica in self._up.values())
        views = [gate.view(self.now, told if gate is self.gates[0] else ()) for gate in self.gates]
        self._rate.see(views, self.now)
        pressure = pressure_of(views, self._rate, self.now, lambda tenant: self._crowd.limits[tenant].reserved)
        step = self._ladder.look(pressure, self.now, frozenset({2, 4}))  # no reasoning and no smaller model here
        if isinstance(step, Step):
            self.report.steps_of_ladder.append(f"{self.now:.2f} s: rung {step.before} -> {step.after}: {step.why}")
            for gate in self.gates:
                gate.rung = step.after

    def _sample(self, number: int) -> None:
        if number + 1 < len(self.report.bins):
            self._at((number + 2) * self.plan.bin_s, self._sample, number + 1)
        one = self.report.bins[number]
        one.running = sum(len(replica.running) for replica in self._up.values())
        one.waiting = sum(gate.queue.requests for gate in self.gates)
        one.slots = len(self._up) * self.plan.engines.slots
        one.rung = self.gates[0].rung
        waits, self._waits = self._waits, []
        one.wait_s_p50, one.wait_s_p99 = quantile(waits, 0.5), quantile(waits, 0.99)
