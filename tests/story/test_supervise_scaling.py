"""Stories of scaling and of warm standbys in virtual time: the number follows the load, and a lost one is made good at once."""

import asyncio

import pytest
from supervised import Supervised

from holdfast.domain.ailment import Ailment, Cure
from holdfast.domain.board import WorkerView
from holdfast.domain.event import ReplicaCalled, ReplicaDrained, ReplicaLost, ReplicaWarm, SiteScaled, UpgradeEnded
from holdfast.domain.replica import ReplicaState
from holdfast.domain.settings import Restart
from holdfast.domain.settings_overload import Scaling
from holdfast.domain.wish import Wishes
from holdfast.policy import wishes
from holdfast.policy.standing import Rules
from holdfast.sim.clock import run

POOL = tuple(f"replica-{number}" for number in range(8))
OTHERS = ("gateway-0", "control")
SCALING = Scaling(on=True, min=2, max=5, out_after_s=5.0, in_after_s=60.0)
SLOTS = 64  # of a simulated replica


def site(count: int = 2, warm: int = 0, scaling: Scaling = SCALING, *more: str) -> Supervised:
    rules = Rules(restart=Restart(first_delay_s=10), silent_s=4.0, count=count, warm=warm, scaling=scaling)
    return Supervised(*POOL, *more, *OTHERS, rules=rules)


async def served(world: Supervised) -> asyncio.Task:
    world.hire()
    task = asyncio.create_task(world.serve())
    await world.clock.sleep(15)
    return task


def load(world: Supervised, replicas: float, **more: float) -> None:
    """From now on the work of so many replicas is offered."""
    world.board = [WorkerView(worker="gateway-0", waiting=round(replicas * SLOTS), **more)]


def serving(world: Supervised) -> list[str]:
    return [place.replica for place in world.roster.places if place.weight > 0]


def warm(world: Supervised) -> list[str]:
    return [place.replica for place in world.roster.places if place.warm]


def running(world: Supervised) -> list[str]:
    return sorted(name for name in world.host.alive() if name.startswith("replica"))


def states(world: Supervised) -> dict[str, ReplicaState]:
    return {view.name: view.state for view in world.views if view.name.startswith("replica")}


async def turns(world: Supervised) -> None:
    """Let what is due at this moment happen; no time passes."""
    before = world.clock.now()
    for _ in range(100):
        await asyncio.sleep(0)
    assert world.clock.now() == before


def test_the_number_of_replicas_follows_the_load_up_and_down_again():
    async def story():
        world = site()
        task = await served(world)
        assert serving(world) == ["replica-0", "replica-1"]
        load(world, 3.1)
        await world.clock.sleep(10)
        assert serving(world) == ["replica-0", "replica-1", "replica-2", "replica-3"]
        load(world, 30)
        await world.clock.sleep(600)
        assert serving(world) == running(world) == list(POOL[:5]), "never more than max"
        assert {one.replicas for one in world.rosters[-1:]} == {5}
        load(world, 0.1)
        await world.clock.sleep(59)
        assert len(serving(world)) == 5
        await world.clock.sleep(20)
        assert serving(world) == running(world) == ["replica-0", "replica-1"], "never fewer than min"
        told = [(event.before, event.after) for event in world.events if isinstance(event, SiteScaled)]
        assert told == [(2, 4), (4, 5), (5, 4), (4, 3), (3, 2)]
        assert world.whys(SiteScaled)[0] == (
            "4 replicas instead of 2: for 5 s at least 155% of 2 replicas asked for, 198 waiting, above 80%"
        )
        assert len(world.whys(ReplicaDrained)) == 3
        assert [name for name, _ in world.host.told] == ["replica-4", "replica-3", "replica-2"], "one at a time"
        task.cancel()

    run(story())


def test_those_that_are_too_many_leave_by_migration_one_at_a_time():
    async def story():
        world = site(count=4)
        world.host.leave_s = 20.0
        task = await served(world)
        await world.clock.sleep(50)
        (leaving,) = [place for place in world.roster.places if place.leaving]
        assert (leaving.replica, leaving.weight) == ("replica-3", 0.0)
        assert leaving.leaving == "replica-3 (pid 104) has to leave: it is not wanted any more"
        await world.clock.sleep(15)
        assert serving(world) == ["replica-0", "replica-1", "replica-2"], "the next one waits until this one is gone"
        await world.clock.sleep(60)
        assert serving(world) == ["replica-0", "replica-1"]
        task.cancel()

    run(story())


@pytest.mark.parametrize("replicas", [0.5, 1.2, 1.9, 2.4, 3.0, 3.9])
def test_a_load_that_stays_the_same_is_answered_without_turning_back(replicas):
    async def story():
        world = site()
        task = await served(world)
        load(world, replicas)
        await world.clock.sleep(3600)
        count = len(serving(world))
        assert replicas / count <= SCALING.use_high
        changes = [(event.before, event.after) for event in world.events if isinstance(event, SiteScaled)]
        assert all(before < after for before, after in changes)
        assert len(changes) <= 2, "one, or two where more than twice as many are needed"
        task.cancel()

    run(story())


def test_the_next_supervisor_goes_on_with_the_number_that_the_load_had_asked_for():
    async def story():
        world = site()
        world.hire()
        load(world, 3.1)
        await world.serve_for(40)
        assert len(serving(world)) == 4
        pids = world.host.alive()
        load(world, 2.2)
        world.hire()
        await world.serve_for(50)
        assert world.host.alive() == pids
        assert len(world.whys(SiteScaled)) == 1, "nothing new was decided"

    run(story())


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_cut_anywhere_while_it_grows_the_next_supervisor_finishes(before):
    async def story() -> int:
        for acts in range(1, 60):
            world = site(warm=1)
            world.hire()
            await world.serve_for(20)
            load(world, 3.1)
            died = await world.cut_after(acts, before)
            world.hire()
            await world.serve_for(120)
            assert len(serving(world)) == 4
            assert len(warm(world)) == 1
            assert len(running(world)) == 5
            if not died:
                return acts
        return 0

    assert run(story()) > 0


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_cut_anywhere_while_a_standby_takes_over_the_next_supervisor_finishes(before):
    async def story() -> int:
        for acts in range(1, 60):
            world = site(warm=1, scaling=Scaling())
            world.hire()
            await world.serve_for(20)
            world.host.kill("replica-0")
            died = await world.cut_after(acts, before)
            world.hire()
            await world.serve_for(60)
            assert serving(world) == ["replica-1", "replica-2"]
            assert warm(world) == ["replica-0"]
            if not died:
                return acts
        return 0

    assert run(story()) > 0


def test_a_standby_serves_in_the_very_roster_in_which_the_dead_one_is_missing():
    async def story():
        world = site(warm=1, scaling=Scaling())
        task = await served(world)
        assert (serving(world), warm(world)) == (["replica-0", "replica-1"], ["replica-2"])
        assert states(world)["replica-2"] is ReplicaState.WARM
        assert world.whys(ReplicaWarm) == ["replica-2 (pid 103) is ready and stands by: 2 serve"]
        count = len(world.rosters)
        world.host.kill("replica-0")
        await turns(world)
        assert len(world.rosters) == count + 1
        assert serving(world) == ["replica-1", "replica-2"]
        assert world.whys(ReplicaCalled) == [
            "replica-2 (pid 103) stood by and is called: 1 of 2 replicas serve",
        ]
        await world.clock.sleep(30)
        assert (serving(world), warm(world)) == (["replica-1", "replica-2"], ["replica-0"]), "it is warm in its turn"
        assert world.roster.replicas == 2
        task.cancel()

    run(story())


def test_a_standby_stands_in_for_one_that_is_silent_and_the_least_busy_rests_when_that_is_over():
    async def story():
        world = site(warm=1, scaling=Scaling())
        task = await served(world)
        world.host.freeze("replica-1")
        await world.clock.sleep(3)
        assert serving(world) == ["replica-0", "replica-2"]
        world.host.freeze("replica-1", frozen=False)
        await world.clock.sleep(3)
        assert len(serving(world)) == 2
        assert len(warm(world)) == 1
        assert len(world.host.alive()) == 5, "nobody was killed"
        task.cancel()

    run(story())


def test_a_standby_stands_in_while_one_is_drained_and_nobody_has_to_be_forced():
    async def story():
        world = site(count=1, warm=1, scaling=Scaling())
        task = await served(world)
        asked = wishes.drain(world.wishes, world.views, "replica-0", "a new card")
        assert isinstance(asked, wishes.Asked), asked.why
        rosters = len(world.rosters)
        world.wish(asked.wishes)
        await world.clock.sleep(10)
        assert all(any(place.weight > 0 for place in roster.places) for roster in world.rosters[rosters:])
        assert serving(world) == running(world) == ["replica-1"]
        world.wish(Wishes(pardons={"replica-0": 1}))
        await world.clock.sleep(10)
        assert (serving(world), warm(world)) == (["replica-1"], ["replica-0"])
        task.cancel()

    run(story())


def test_an_upgrade_replaces_warm_ones_too_and_as_many_serve_at_every_moment():
    async def story():
        world = site(warm=1, scaling=Scaling())
        task = await served(world)
        pids, rosters = world.host.alive(), len(world.rosters)
        world.wish(Wishes(epoch=1, replicas_epoch=1))
        await world.clock.sleep(120)
        assert world.whys(UpgradeEnded)
        assert not set(pids.values()) & set(world.host.alive().values())
        counts = [sum(place.weight > 0 for place in roster.places) for roster in world.rosters[rosters:]]
        assert set(counts) == {2}
        assert len(warm(world)) == 1
        task.cancel()

    run(story())


def test_the_load_changes_nothing_during_an_upgrade():
    async def story():
        world = site()
        world.host.load_s = 20.0
        task = await served(world)
        await world.clock.sleep(30)
        world.wish(Wishes(epoch=1, replicas_epoch=1))
        load(world, 3.1)
        await world.clock.sleep(30)
        assert not world.whys(UpgradeEnded)
        assert world.whys(SiteScaled) == []
        await world.clock.sleep(120)
        assert world.whys(UpgradeEnded)
        assert len(serving(world)) == 4
        task.cancel()

    run(story())


def test_where_the_load_decides_a_quarantined_one_is_replaced_and_a_drained_machine_is_left_alone():
    async def story():
        world = site()
        task = await served(world)
        world.ailments["replica-0"] = Ailment(
            kind="wrong", cure=Cure.CONDEMN, why="it answers wrongly", since=15.0, on_suspicion=False
        )
        await world.clock.sleep(20)
        assert states(world)["replica-0"] is ReplicaState.QUARANTINED
        assert serving(world) == ["replica-1", "replica-2"]
        asked = wishes.drain(world.wishes, world.views, "host", "a new floor", force=True)
        world.wish(asked.wishes)
        await world.clock.sleep(120)
        assert running(world) == []
        task.cancel()

    run(story())


def test_an_operator_says_how_many_and_takes_it_back():
    async def story():
        world = site()
        task = await served(world)
        asked = wishes.scale(world.wishes, 4, SCALING)
        assert asked.why == "4 replicas should serve, until: holdfast scale auto"
        world.wish(asked.wishes)
        await world.clock.sleep(300)
        assert serving(world) == list(POOL[:4]), "whatever the load"
        assert world.whys(SiteScaled) == [
            "4 replicas instead of 2: an operator asked for 4; holdfast scale auto takes that back"
        ]
        world.wish(wishes.scale(world.wishes, None, SCALING).wishes)
        await world.clock.sleep(30)
        assert serving(world) == ["replica-0", "replica-1"]
        task.cancel()

    run(story())


def test_replicas_of_the_smaller_model_are_counted_apart():
    async def story():
        world = site(2, 1, Scaling(), "smaller-0", "smaller-1")
        task = await served(world)
        small = {place.replica: place.model for place in world.roster.places if place.model}
        assert small == {"smaller-0": "tiny", "smaller-1": "tiny"}
        assert world.roster.replicas == 2
        world.host.kill("smaller-0")
        await turns(world)
        assert warm(world) == ["replica-2"], "it serves another model"
        await world.clock.sleep(30)
        assert len(world.roster.places) == 5
        world.host.kill("replica-0")
        world.host.kill("replica-1")
        await turns(world)
        assert [one for one in serving(world) if one.startswith("replica")] == ["replica-2"]
        assert [event.replica for event in world.events if isinstance(event, ReplicaLost)][-2:] == [
            "replica-0",
            "replica-1",
        ]
        task.cancel()

    run(story())


def test_a_site_with_standbys_stops_whole():
    async def story():
        world = site(warm=2)
        task = await served(world)
        world.supervise.stop("a test says so")
        done = await task
        assert done.ok
        assert world.host.alive() == {}

    run(story())
