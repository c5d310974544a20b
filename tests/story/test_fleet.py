"""Small fleets in virtual time, with the policies that the gateway asks. bench/fleet.py plays the large ones."""

import itertools

import msgspec
import pytest

from holdfast.domain.tenant import Limits
from holdfast.sim import fleet_days
from holdfast.sim.fleet import Fleet
from holdfast.sim.fleet_plan import Engines, Flow, Illness, Outage, Plan
from holdfast.sim.fleet_tally import quantile

SMALL = Engines(replicas=3, slots=8)


def eventful(seed: int) -> Plan:
    """Everything at once, and then silence, so that all that began has ended at the end."""
    engines = Engines(replicas=12, slots=4, tokens_max=800)
    flow = Flow(
        name="all",
        tenants=fleet_days.tenants(7),
        per_s=1.5 * engines.capacity_per_s(30.0, 32.0),
        end_s=12.0,
        prompt_tokens=(1, 200),
        tokens=30.0,
        max_tokens=150,
        deadline_s=3.0,
        obeys=0.4,
        hammers=0.3,
        tries_max=3,
    )
    return Plan(
        seed=seed,
        seconds=90.0,
        gateways=3,
        engines=engines,
        flows=(flow,),
        outages=(Outage(4.0, 0.5, 7.0), Outage(5.0, 0.2, 9.0)),
        illness=Illness(1.0, 8.0, 2, 0.3),
        limits=(Limits(tenant="tenant-1", concurrency=2), Limits(tenant="tenant-2", weight=3.0, memory_min=0.1)),
        expected_tokens=30,
        affinity=True,
    )


def test_the_same_seed_is_the_same_story_and_a_stopwatch_changes_nothing():
    first, second = Fleet(eventful(3)).run(), Fleet(eventful(3), itertools.count(0.0, 1e-6).__next__).run()
    assert first.bins == second.bins
    assert first.refusals == second.refusals
    assert first.events == second.events
    assert len(second.costs.refused) > 100
    assert Fleet(eventful(4)).run().bins != first.bins


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_lost_and_nothing_is_left_behind(seed):
    fleet = Fleet(eventful(seed))
    report = fleet.run()
    flow = report.flows["all"]
    assert flow["asked"] == flow["good"] + flow["late"] + flow["refused"]
    assert flow["good"] > 900
    assert report.moves >= 30
    assert all(one.running <= one.slots for one in report.bins)
    for gate, desk in zip(fleet.gates, fleet.desks, strict=True):
        assert desk.room.used() == (0, 0)
        assert desk.room.held == {}
        assert desk.lane.held == 0
        assert (gate.queue.requests, gate.queue.work, gate.waiting, gate.running) == (0, 0, {}, 0)
        assert [job for job, stamp in gate.movers if job.stamp == stamp] == []
        assert all(gate.shares.of(tenant).slots == 0 for tenant in gate.accounts)


class Watched(Fleet):
    """Looks at every replica each time somebody is given to one."""

    most = 0

    def _start(self, job, replica):
        super()._start(job, replica)
        self.most = max(self.most, len(replica.running))
        assert len(replica.running) <= self.plan.engines.slots


def test_no_replica_is_ever_given_more_than_it_can_hold_by_three_workers_that_share_it():
    fleet = Watched(eventful(1))
    fleet.run()
    assert fleet.most == 4


@pytest.mark.parametrize("load", [2.0, 10.0])
def test_goodput_stays_at_its_peak_however_much_is_asked(load):
    at_capacity = Fleet(fleet_days.flood(1.0, SMALL, 10, 16.0)).run().goodput(4.0, 16.0)
    report = Fleet(fleet_days.flood(load, SMALL, 10, 16.0)).run()
    assert report.goodput(4.0, 16.0) >= 0.97 * at_capacity
    assert report.flows["flood"]["late"] == 0


def test_nine_who_use_less_than_their_share_do_not_suffer_from_one_who_asks_for_ten_times_its_own():
    alone, beside = (Fleet(fleet_days.greed(one, 16.0)).run() for one in (True, False))
    assert beside.good_share_of("normal", 3.0, 13.0) >= 0.99
    late = quantile(beside.first_tokens["normal"], 0.99) - quantile(alone.first_tokens["normal"], 0.99)
    assert late < 0.2  # a slot comes free each 3 ms
    share = beside.served["greedy"] / sum(beside.served.values())
    assert 0.25 < share < 0.4  # what the nine leave, and what came in before the slots were full


@pytest.mark.parametrize("gateways", [1, 3])
def test_with_headroom_their_first_tokens_come_as_if_they_were_alone_and_the_slots_stay_full(gateways):
    def play(alone: bool, headroom: float) -> tuple[float, float]:
        plan = fleet_days.greed(alone, 16.0, headroom=headroom, used=0.5)
        report = Fleet(msgspec.structs.replace(plan, gateways=gateways)).run()
        bins = report.within(5.0, 15.0)
        settled = sum(report.asked_by["normal"][:50])
        first = quantile(report.first_tokens["normal"][settled:], 0.99)
        return first, sum(one.running for one in bins) / sum(one.slots for one in bins)

    (alone, _), (without, _), (beside, used) = play(True, 0.0), play(False, 0.0), play(False, 0.04)
    assert without > 2 * alone
    assert beside <= 1.5 * alone
    assert used >= 0.97


@pytest.mark.parametrize("seed", range(2))
def test_after_a_storm_it_gets_well_by_itself_within_ten_seconds(seed):
    report = Fleet(fleet_days.storm(seed)).run()
    ends, end = fleet_days.STORM_ENDS_S, fleet_days.STORM_END_S
    assert report.good_share(fleet_days.STORM_BEGINS_S + 1.0, ends) < 0.5
    assert report.good_share(ends + 10.0, end - 2.0) >= 0.99
    capacity = SMALL.capacity_per_s(20.0, 32.0)
    assert report.goodput(fleet_days.STORM_HEALS_S + 1.0, ends) >= 0.95 * capacity
    assert report.goodput(fleet_days.STORM_KILLS_S + 1.0, fleet_days.STORM_HEALS_S) >= 0.95 * capacity * 2 / 3


def test_a_sick_replica_is_left_alone_and_comes_back():
    engines = Engines(replicas=6, slots=8)
    plan = fleet_days.flood(0.5, engines, 5, 40.0)
    fleet = Fleet(msgspec.structs.replace(plan, illness=Illness(2.0, 12.0, 1, 0.5)))
    report = fleet.run()
    assert 3 <= report.moves <= 40
    assert report.flows["flood"]["late"] == 0
    assert report.good_share(0.0, 38.0) == 1.0
    assert not fleet.replicas[0].breaker.is_open
    assert len(fleet.replicas[0].running) > 0


def test_the_ladder_is_climbed_in_overload_and_left_again():
    plan = fleet_days.bad_day(12, 20, gateways=2)
    report = Fleet(msgspec.structs.replace(plan, seconds=30.0)).run()
    assert any("rung 0 -> 1" in step for step in report.steps_of_ladder)
    assert max(one.rung for one in report.bins) >= 1
    assert report.good_share_of("everybody", fleet_days.GREED[0] + 0.5, fleet_days.GREED[1]) >= 0.97
