"""Stories of drains, upgrades and ailments in virtual time: cut anywhere, the next supervisor goes on from what it sees."""

import asyncio

import pytest
from msgspec import structs
from supervised import RULES, WANTED, Supervised

from holdfast.domain.ailment import Ailment, Cure
from holdfast.domain.event import (
    EjectionFrozen,
    HostAiling,
    ProcessDied,
    ProcessQuarantined,
    ReplicaDrained,
    StepFailed,
    UpgradeBegun,
    UpgradeEnded,
)
from holdfast.domain.replica import ReplicaState
from holdfast.domain.roster import Roster
from holdfast.domain.wish import Wishes
from holdfast.policy import wishes
from holdfast.sim.clock import run

TRIO = ("replica-0", "replica-1", "replica-2", "gateway-0", "gateway-1", "control")
DRAINED = Wishes(drained={"replica-0": "a new card"})


async def served(*wanted: str) -> tuple[Supervised, asyncio.Task]:
    """A site that has come up, with its supervisor at work."""
    world = Supervised(*wanted)
    world.hire()
    task = asyncio.create_task(world.serve())
    await world.clock.sleep(30)
    world.as_wanted()
    return world, task


def serving(rosters: list[Roster]) -> list[set[str]]:
    """Who may take traffic, roster by roster."""
    return [{place.replica for place in roster.places if place.weight} for roster in rosters]


def test_a_drained_replica_moves_its_streams_before_it_goes_and_stays_down():
    async def story():
        world, task = await served()
        count = len(world.rosters)
        world.wish(DRAINED)
        await world.clock.sleep(0.4)
        (leaving, _) = world.roster.places
        assert (leaving.replica, leaving.weight) == ("replica-0", 0.0)
        assert leaving.leaving == "replica-0 (pid 101) has to leave: it is drained, a new card"
        assert world.host.told == [("replica-0", 101)]
        await world.clock.sleep(3600)
        world.as_wanted()
        assert "replica-0" not in world.host.alive()
        assert serving(world.rosters[count:]) == [{"replica-1"}, {"replica-1"}]
        assert world.views[0].why == "drained, a new card; it runs again after: holdfast undrain replica-0"
        assert world.whys(ReplicaDrained) == [
            "replica-0 is drained of 0 streams and gone, 0.5 s after it was told to leave"
        ]
        world.wish(Wishes(pardons={"replica-0": 1}))
        await world.clock.sleep(5)
        world.as_wanted()
        assert world.host.alive()["replica-0"] == 105
        task.cancel()

    run(story())


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_cut_anywhere_in_a_drain_the_next_supervisor_finishes_it(before):
    async def story() -> int:
        for acts in range(1, 40):
            world = Supervised()
            world.hire()
            await world.serve_for(30)
            world.wishes = DRAINED
            died = await world.cut_after(acts, before)
            world.hire()
            await world.serve_for(60)
            world.as_wanted()
            assert world.host.alive()["replica-1"] == 102
            if not died:
                return acts
        return 0

    assert run(story()) > 5


def test_a_drain_that_a_stubborn_process_holds_up_ends_with_its_grace_also_under_the_next_supervisor():
    async def story():
        world = Supervised()
        world.host.stubborn.add("replica-0")
        world.hire()
        await world.serve_for(30)
        world.wishes = DRAINED
        world.hire()
        await world.serve_for(2)
        world.hire()
        await world.serve_for(60)
        world.as_wanted()
        assert world.host.told == [("replica-0", 101)]

    run(story())


@pytest.mark.parametrize("replicas", [False, True], ids=["without replicas", "with replicas"])
def test_an_upgrade_replaces_everything_make_before_break(replicas):
    async def story():
        world, task = await served(*TRIO)
        before = world.host.alive()
        first = len(world.rosters)
        world.wish(wishes.upgraded(world.wishes))
        if replicas:
            world.wish(structs.replace(world.wishes, replicas_epoch=1))
        workers, replies = [], []
        for _ in range(400):
            await world.clock.sleep(0.1)
            alive = world.host.processes.values()
            ready = [one.name for one in alive if one.alive and one.ready_at <= world.clock.now()]
            workers.append(sum(name.startswith("gateway") for name in ready))
            replies.append(sum(name.startswith("replica") for name in ready))
        world.as_wanted()
        assert min(workers) >= 2, "a worker left before the new ones served"
        assert min(replies) >= (2 if replicas else 3)
        after = world.host.alive()
        assert sorted(after) == sorted(world.names())
        kept = [name for name in after if after[name] == before.get(name)]
        assert kept == ([] if replicas else ["replica-0", "replica-1", "replica-2"])
        assert min(len(places) for places in serving(world.rosters[first:]) or [{1, 2, 3}]) >= 2
        assert world.whys(UpgradeBegun) == ["upgrade 1 begins with the supervisor"]
        assert world.whys(UpgradeEnded) == ["upgrade 1 is complete: nothing older runs"]
        assert world.wishes.finished_epoch == 1
        assert world.whys(ProcessDied, StepFailed) == []
        task.cancel()

    run(story())


def test_an_upgrade_of_all_does_not_wait_for_an_engine_that_is_away_and_two_others_serve_meanwhile():
    async def story():
        world = Supervised(*TRIO, rules=structs.replace(RULES, restart=structs.replace(RULES.restart, start_s=1e6)))
        world.host.away = {"replica-1"}
        world.hire()
        task = asyncio.create_task(world.serve())
        await world.clock.sleep(30)
        before = world.host.alive()
        first = len(world.rosters)
        world.wish(structs.replace(wishes.upgraded(world.wishes), replicas_epoch=1))
        await world.clock.sleep(60)
        assert world.whys(UpgradeEnded) == ["upgrade 1 is complete: nothing older runs"]
        after = world.host.alive()
        assert [name for name in after if after[name] == before.get(name)] == [], "the one that waits is replaced too"
        assert min(len(places) for places in serving(world.rosters[first:])) >= 1
        away = {one.name: one.why for one in world.views if one.away}
        assert away == {"replica-1": "waits for http://e:1"}
        task.cancel()

    run(story())


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_cut_anywhere_in_an_upgrade_the_next_supervisor_finishes_it(before):
    async def story() -> int:
        for acts in range(1, 80):
            world = Supervised()
            world.hire()
            await world.serve_for(30)
            world.wishes = Wishes(epoch=1, replicas_epoch=1)
            died = await world.cut_after(acts, before)
            world.hire()
            await world.serve_for(120)
            world.as_wanted()
            assert world.wishes.finished_epoch == 1
            assert all(process.epoch == 1 for process in world.host.processes.values() if process.alive)
            assert world.whys(ProcessDied, ProcessQuarantined) == []
            if not died:
                return acts
        return 0

    assert run(story()) > 15


def test_an_upgrade_that_is_refused_leaves_everything_as_it_is():
    async def story():
        world, task = await served()
        before = world.host.alive()

        def refuse() -> None:
            raise OSError("the supervisor stays as it is: unknown key")

        world._renew = refuse
        world.hire()
        world.wish(Wishes(epoch=1, replicas_epoch=1))
        task.cancel()
        await world.serve_for(30)
        assert world.host.alive() == before
        assert world.wishes == Wishes(refused="the supervisor stays as it is: unknown key")
        assert len(world.whys(StepFailed)) == 1

    run(story())


def test_a_frozen_worker_is_killed_and_replaced_while_the_other_serves():
    async def story():
        world, task = await served(*TRIO)
        frozen = world.host.alive()["gateway-0"]
        world.host.freeze("gateway-0")
        await world.clock.sleep(2.5)
        assert world.host.alive()["gateway-0"] == frozen
        await world.clock.sleep(2)
        assert world.host.alive()["gateway-0"] != frozen
        assert world.host.ended == ["gateway-0"]
        task.cancel()

    run(story())


def test_workers_that_freeze_together_are_replaced_one_after_the_other():
    async def story():
        world, task = await served(*TRIO)
        world.host.freeze("gateway-0")
        world.host.freeze("gateway-1")
        while len(world.host.ended) < 2:
            await world.clock.sleep(0.05)
        assert world.clock.now() > 34
        reborn = world.host.processes["gateway-0"]
        assert reborn.alive, "both were killed before one was there again"
        assert reborn.ready_at <= world.clock.now()
        await world.clock.sleep(20)
        assert world.host.ended == ["gateway-0", "gateway-1"]
        world.as_wanted()
        task.cancel()

    run(story())


def ailment(world: Supervised, cure: Cure, kind: str = "slow", on_suspicion: bool = True) -> Ailment:
    return Ailment(kind=kind, cure=cure, why=f"it is {kind}", since=world.clock.now(), on_suspicion=on_suspicion)


def test_a_slow_replica_is_renewed_after_its_streams_have_moved():
    async def story():
        world, task = await served(*TRIO)
        world.ailments["replica-1"] = ailment(world, Cure.RENEW)
        await world.clock.sleep(20)
        world.as_wanted()
        assert world.host.ended == ["replica-1"]
        assert world.host.told == [("replica-1", 102)]
        assert world.whys(ProcessDied) == []
        task.cancel()

    run(story())


def test_a_replica_that_stays_slow_ends_in_quarantine():
    async def story():
        world, task = await served(*TRIO)
        for _ in range(3):
            world.ailments["replica-1"] = ailment(world, Cure.RENEW)
            await world.clock.sleep(60)
        assert world.whys(ProcessQuarantined)[0].startswith("replica-1 is quarantined: it died 3 times")
        assert "replica-1" not in world.host.alive()
        task.cancel()

    run(story())


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_wrong_replica_is_condemned_and_stays_so_under_any_supervisor_until_it_is_let_off(before):
    async def story() -> int:
        for acts in range(1, 40):
            world = Supervised(*TRIO)
            world.hire()
            await world.serve_for(30)
            world.ailments["replica-1"] = ailment(world, Cure.CONDEMN, "wrong")
            died = await world.cut_after(acts, before)
            world.hire()
            await world.serve_for(600)
            world.as_wanted()
            assert world.wishes.condemned == {"replica-1": "it is wrong"}
            assert {view.name: view.state for view in world.views}["replica-1"] is ReplicaState.QUARANTINED
            world.ailments.clear()
            world.wishes = wishes.undrain(world.wishes, world.views, "replica-1").wishes
            world.hire()
            await world.serve_for(30)
            world.as_wanted()
            if not died:
                return acts
        return 0

    assert run(story()) > 5


def test_let_off_under_a_living_supervisor_it_runs_again_at_once():
    async def story():
        world, task = await served()
        for _ in range(3):
            world.host.kill("replica-0")
            await world.clock.sleep(25)
        assert "replica-0" not in world.host.alive()
        assert world.whys(HostAiling)[0].startswith("1 of 2 replicas of this host are in quarantine (replica-0)")
        world.wish(wishes.undrain(world.wishes, world.views, "replica-0").wishes)
        await world.clock.sleep(2)
        world.as_wanted()
        task.cancel()

    run(story())


def test_suspicion_of_most_takes_out_half_and_raises_an_alarm():
    async def story():
        world, task = await served(*TRIO)
        for name in ("replica-0", "replica-1", "replica-2"):
            world.ailments[name] = ailment(world, Cure.CONDEMN, "wrong")
        await world.clock.sleep(60)
        assert world.wishes.condemned == {"replica-0": "it is wrong"}
        assert len(serving([world.roster])[0]) == 2
        (why,) = world.whys(EjectionFrozen)
        assert why == (
            "replica-1 is left in service although it is wrong: 2 of 3 replicas are under suspicion at once: "
            "at most half may be taken out"
        )
        task.cancel()

    run(story())


def test_a_device_is_reset_before_a_replica_is_given_up():
    async def story():
        world = Supervised()
        world.resettable = True
        world.hire()
        task = asyncio.create_task(world.serve())
        await world.clock.sleep(30)
        for _ in range(3):
            world.host.kill("replica-0")
            await world.clock.sleep(25)
        assert world.resets == ["cuda:0"]
        world.as_wanted()
        for _ in range(3):
            world.host.kill("replica-0")
            await world.clock.sleep(25)
        assert world.resets == ["cuda:0"]
        (why,) = world.whys(ProcessQuarantined)
        assert why.endswith("also after cuda:0 was reset")
        task.cancel()

    run(story())


def test_a_worker_over_its_memory_is_replaced_by_an_upgrade():
    async def story():
        world, task = await served()
        world.ailments["gateway-0"] = ailment(world, Cure.RENEW, "bloated", on_suspicion=False)
        await world.clock.sleep(20)
        assert sorted(world.host.alive()) == ["control", "gateway-0.1", "replica-0", "replica-1"]
        assert world.wishes == Wishes(epoch=1, finished_epoch=1)
        task.cancel()

    run(story())


def test_a_site_with_a_wish_in_its_file_comes_up_with_it():
    async def story():
        world = Supervised(*WANTED)
        world.wishes = DRAINED
        world.hire()
        await world.serve_for(30)
        world.as_wanted()
        assert "replica-0" not in world.host.started

    run(story())
