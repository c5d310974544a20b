"""Stories of a supervisor in virtual time: whatever is cut, killed or frozen, the site ends as it was wanted."""

import asyncio
from collections.abc import Callable

import pytest
from supervised import WANTED, Mortal, Supervised

from holdfast.domain.event import ProcessDied, ProcessQuarantined, SelfDoubted, SiteReady, StepFailed
from holdfast.domain.procedure import Done
from holdfast.domain.replica import ReplicaState
from holdfast.domain.roster import Roster
from holdfast.loop import run as run_procedure
from holdfast.sim.clock import run
from holdfast.sim.host import SimHost


def test_a_site_comes_up_and_says_when():
    async def story():
        world = Supervised()
        world.hire()
        await world.serve_for(30)
        world.as_wanted()
        assert world.host.started == list(WANTED)
        assert world.whys(SiteReady) == ["gateway-0 listens, replica-0, replica-1 may serve"]
        assert {view.name: view.state for view in world.views} == dict.fromkeys(WANTED, ReplicaState.SERVING)

    run(story())


def test_a_dead_replica_leaves_the_roster_at_once_and_comes_back():
    async def story():
        world = Supervised()
        world.hire()
        task = asyncio.create_task(world.serve())
        await world.clock.sleep(30.3)
        world.host.kill("replica-0")
        await world.clock.sleep(0)
        for _ in range(20):
            await asyncio.sleep(0)
        assert [place.replica for place in world.roster.places] == ["replica-1"]
        assert world.clock.now() == 30.3
        await world.clock.sleep(5)
        world.as_wanted()
        assert world.whys(ProcessDied) == ["replica-0 (pid 101) was ended by signal 9"]
        assert world.views[0].why == "started again: replica-0 (pid 101) was ended by signal 9"
        assert world.views[0].restarts == 1
        task.cancel()

    run(story())


DISTURBANCES: dict[str, Callable[[SimHost], None]] = {
    "nothing": lambda host: None,
    "a replica is killed": lambda host: host.kill("replica-0"),
    "both replicas are killed": lambda host: (host.kill("replica-0"), host.kill("replica-1")),
    "a replica freezes": lambda host: host.freeze("replica-1"),
    "a gateway worker is killed": lambda host: host.kill("gateway-0"),
    "everything is killed": lambda host: [host.kill(name) for name in list(host.processes)],
}


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize("disturbance", DISTURBANCES)
def test_cut_anywhere_while_it_comes_up_the_next_supervisor_finishes(disturbance, before):
    async def story() -> int:
        for acts in range(1, 100):
            world = Supervised()
            died = await world.cut_after(acts, before)
            DISTURBANCES[disturbance](world.host)
            await world.clock.sleep(1)
            world.hire()
            await world.serve_for(120)
            world.as_wanted()
            assert world.whys(ProcessQuarantined) == []
            if not died:
                return acts
        return 0

    assert run(story()) == 10, (
        "four starts, four that became ready, one roster: nine acts, and a tenth life that has none to do"
    )


@pytest.mark.parametrize("disturbance", DISTURBANCES)
def test_cut_anywhere_while_it_mends_the_next_supervisor_finishes(disturbance):
    async def story() -> int:
        for acts in range(1, 100):
            world = Supervised()
            world.hire()
            await world.serve_for(30)
            DISTURBANCES[disturbance](world.host)
            died = await world.cut_after(acts, before=False)
            world.hire()
            await world.serve_for(120)
            world.as_wanted()
            if not died:
                return acts
        return 0

    assert run(story()) > 0


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_cut_anywhere_while_it_stops_the_next_one_told_to_stop_finishes(before):
    async def story() -> None:
        for acts in range(1, 100):
            world = Supervised()
            world.hire()
            await world.serve_for(30)
            mortal = Mortal(world.hire(), acts, before)
            world.supervise.stop("a test says so")
            life = run_procedure(mortal, world.clock, world.events.append, world.wake)
            done = (await asyncio.gather(life, return_exceptions=True))[0]
            await world.ears.close()
            world.wanted = ()
            world.hire().stop("holdfast down")
            assert (await world.serve()).ok
            assert world.host.alive() == {}
            assert world.roster.places == ()
            if isinstance(done, Done):
                return
        raise AssertionError("it never stopped")

    run(story())


def test_a_site_stops_in_order():
    async def story():
        world = Supervised()
        world.hire()
        task = asyncio.create_task(world.serve())
        await world.clock.sleep(30)
        world.supervise.stop("Ctrl-C")
        done = await task
        assert done == Done("everything has stopped: Ctrl-C")
        gateway, *replicas, control = world.host.ended
        assert (gateway, sorted(replicas), control) == ("gateway-0", ["replica-0", "replica-1"], "control")
        assert world.clock.now() == 31.5  # three roles, half a second each to leave

    run(story())


def test_one_that_will_not_leave_is_killed_after_its_grace():
    async def story():
        world = Supervised("replica-0", "gateway-0")
        world.host.stubborn.add("replica-0")
        world.hire()
        task = asyncio.create_task(world.serve())
        await world.clock.sleep(30)
        world.supervise.stop("Ctrl-C")
        await task
        assert world.clock.now() == 30 + 0.5 + world.rules.replica_grace_s

    run(story())


def test_a_second_signal_does_not_wait():
    async def story():
        world = Supervised()
        world.host.stubborn.update(WANTED)
        world.hire()
        task = asyncio.create_task(world.serve())
        await world.clock.sleep(30)
        world.supervise.stop("Ctrl-C")
        await world.clock.sleep(1)
        world.supervise.hurry()
        await task
        assert world.clock.now() == 31.0

    run(story())


def test_a_frozen_replica_is_suspected_killed_and_replaced():
    async def story():
        world = Supervised()
        world.hire()
        task = asyncio.create_task(world.serve())
        await world.clock.sleep(30.3)
        world.host.freeze("replica-0")
        await world.clock.sleep(3.5)
        assert [place.replica for place in world.roster.places] == ["replica-1"]
        assert world.host.alive()["replica-0"] == 101
        await world.clock.sleep(2)
        assert world.host.alive()["replica-0"] == 105
        await world.clock.sleep(3)
        world.as_wanted()
        task.cancel()

    run(story())


def test_a_thawed_replica_is_welcomed_back():
    async def story():
        world = Supervised()
        world.hire()
        task = asyncio.create_task(world.serve())
        await world.clock.sleep(30.3)
        world.host.freeze("replica-0")
        await world.clock.sleep(3)
        assert [place.replica for place in world.roster.places] == ["replica-1"]
        world.host.freeze("replica-0", frozen=False)
        await world.clock.sleep(2)
        world.as_wanted()
        assert world.host.alive()["replica-0"] == 101
        task.cancel()

    run(story())


def test_when_all_fall_silent_at_once_nobody_is_killed_at_first():
    async def story():
        world = Supervised()
        world.hire()
        task = asyncio.create_task(world.serve())
        await world.clock.sleep(30.3)
        world.host.freeze("replica-0")
        world.host.freeze("replica-1")
        await world.clock.sleep(15)
        assert world.host.alive()["replica-0"] == 101
        assert len(world.roster.places) == 2
        assert world.whys(SelfDoubted) == [
            "all replicas fell silent at once: it is likelier that this machine is starved"
        ]
        world.host.freeze("replica-0", frozen=False)
        world.host.freeze("replica-1", frozen=False)
        await world.clock.sleep(15)
        world.as_wanted()
        assert world.host.ended == []
        task.cancel()

    run(story())


def test_doubt_does_not_last_for_ever():
    async def story():
        world = Supervised()
        world.hire()
        task = asyncio.create_task(world.serve())
        await world.clock.sleep(30.3)
        world.host.freeze("replica-0")
        world.host.freeze("replica-1")
        await world.clock.sleep(40)
        world.as_wanted()
        assert sorted(world.host.ended) == ["replica-0", "replica-1"]
        task.cancel()

    run(story())


def test_a_supervisor_that_was_frozen_itself_accuses_nobody():
    async def story():
        world = Supervised()
        world.hire()
        look = world.supervise.look

        async def slow_look():
            seen = await look()
            if 30 < world.clock.now() < 31:
                for process in world.host.processes.values():
                    if process.replica is not None:
                        process.replica.frozen = True
                await world.clock.sleep(10)
                for process in world.host.processes.values():
                    if process.replica is not None:
                        process.replica.frozen = False
            return seen

        world.supervise.look = slow_look
        await world.serve_for(60)
        assert world.host.ended == []
        world.as_wanted()

    run(story())


def test_a_crash_loop_ends_in_quarantine_and_the_others_serve_on():
    async def story():
        world = Supervised()
        world.hire()
        task = asyncio.create_task(world.serve())
        await world.clock.sleep(30)
        for _ in range(3):
            world.host.kill("replica-0")
            await world.clock.sleep(25)
        assert world.whys(ProcessQuarantined) == [
            "replica-0 is quarantined: it died 3 times within 600 s, the limit is 3; "
            "the last time: replica-0 (pid 106) was ended by signal 9"
        ]
        await world.clock.sleep(3600)
        assert world.host.started.count("replica-0") == 3
        assert sorted(world.host.alive()) == ["control", "gateway-0", "replica-1"]
        assert [place.replica for place in world.roster.places] == ["replica-1"]
        task.cancel()

    run(story())


def test_a_model_that_can_not_be_loaded_ends_the_site_with_the_reason():
    async def story():
        world = Supervised()
        world.host.faulty = {"replica-0": 2, "replica-1": 2}
        world.words = "config.json is missing"
        world.hire()
        done = await world.serve()
        assert done == Done("everything has stopped: replica-0 can't be started: config.json is missing", ok=False)
        assert world.host.started.count("replica-0") == 1
        assert world.host.alive() == {}

    run(story())


def test_a_gateway_that_can_not_listen_ends_the_site_with_the_reason():
    async def story():
        world = Supervised()
        world.host.faulty = {"gateway-0": 2}
        world.words = "port 8000 is taken"
        world.hire()
        done = await world.serve()
        assert done == Done("everything has stopped: gateway-0 can't be started: port 8000 is taken", ok=False)
        assert world.host.alive() == {}

    run(story())


def test_a_host_that_starts_nothing_is_asked_again():
    async def story():
        world = Supervised("replica-0", "gateway-0")
        world.host.refusing = "Cannot allocate memory"
        world.hire()
        task = asyncio.create_task(world.serve())
        await world.clock.sleep(3.5)
        assert world.whys(StepFailed)[0] == (
            "start replica-0: it is wanted and does not run; it failed: Cannot allocate memory."
        )
        world.host.refusing = ""
        await world.clock.sleep(10)
        world.as_wanted()
        task.cancel()

    run(story())


def test_a_replica_too_many_leaves_after_the_roster_has_let_go_of_it():
    async def story():
        world = Supervised()
        world.hire()
        await world.serve_for(30)
        world.wanted = ("replica-0", "gateway-0", "control")
        world.hire()
        await world.serve_for(30)
        world.as_wanted()
        assert world.host.ended == ["replica-1"]

    run(story())


def test_a_supervisor_that_takes_over_never_takes_a_living_replica_off_the_roster():
    async def story():
        world = Supervised()
        world.hire()
        await world.serve_for(30)
        count = len(world.rosters)
        world.hire()
        await world.serve_for(30)
        assert world.rosters[count:] == []
        world.as_wanted()

    run(story())


def test_a_roster_that_somebody_removed_is_published_again():
    async def story():
        world = Supervised()
        world.hire()
        task = asyncio.create_task(world.serve())
        await world.clock.sleep(30.3)
        before, world.roster = world.roster, Roster()
        await world.clock.sleep(2)
        assert world.roster.places == before.places
        assert world.roster.epoch == before.epoch + 1
        count = len(world.rosters)
        await world.clock.sleep(60)
        assert len(world.rosters) == count
        task.cancel()

    run(story())
