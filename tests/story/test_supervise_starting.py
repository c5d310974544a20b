"""Stories of replicas whose engine loads hundreds of gigabytes: the start is told, waited for, and not for ever."""

import asyncio

from supervised import Supervised

from holdfast.domain.event import StepTaken
from holdfast.domain.ports import Line
from holdfast.domain.replica import ReplicaState
from holdfast.fleet.probe import Ears
from holdfast.sim.clock import run
from holdfast.sim.host import SimProcess

LOAD_S = 1800.0


class Loading(Supervised):
    """One replica that loads for half an hour and tells of a new shard every 200 s, up to the last that it can read."""

    def __init__(self, shards: int) -> None:
        super().__init__("replica-0")
        self.shards, self.dialled = shards, []
        self.host.load_s, self.host.stage = LOAD_S, self.stage

    def stage(self, process: SimProcess) -> str:
        loaded = int(self.clock.now() - process.ready_at + LOAD_S) // 200
        return f"weights loaded {min(loaded, self.shards)}/9 shards"

    def listen(self) -> Ears:
        return Ears(self.dial, self.clock, 0.5, self.wake.set)

    async def dial(self, address: str) -> Line:
        self.dialled.append(self.clock.now())
        return await self.host.dial(address)


def test_a_replica_that_loads_for_long_is_waited_for_while_it_comes_further_and_is_not_dialled():
    async def story():
        world = Loading(shards=9)
        world.hire()
        task = asyncio.create_task(world.serve())
        await world.clock.sleep(LOAD_S - 50)
        one = world.views[0]
        assert (one.state, one.why, one.stage) == (ReplicaState.STARTING, *["weights loaded 8/9 shards"] * 2)
        assert (world.roster.places, world.dialled) == ((), [])
        await world.clock.sleep(100)
        assert (world.views[0].state, world.views[0].stage) == (ReplicaState.SERVING, "")
        assert min(world.dialled) >= LOAD_S
        assert world.host.started.count("replica-0") == 1
        task.cancel()

    run(story())


def test_a_start_that_comes_no_further_is_ended_with_its_last_stage():
    async def story():
        world = Loading(shards=3)
        world.hire()
        task = asyncio.create_task(world.serve())
        await world.clock.sleep(890)
        assert world.host.ended == []
        await world.clock.sleep(30)
        assert world.host.ended == ["replica-0"]
        (why,) = [why for why in world.whys(StepTaken) if why.startswith("kill ")]
        assert why == (
            "kill replica-0 (pid 101): its start has come no further for 301 s than this: weights loaded 3/9 shards"
        )
        task.cancel()

    run(story())


def test_a_new_supervisor_waits_for_one_that_loads_too():
    async def story():
        world = Loading(shards=9)
        world.hire()
        await world.serve_for(1000)
        world.hire()
        task = asyncio.create_task(world.serve())
        await world.clock.sleep(LOAD_S - 900)
        assert world.views[0].state is ReplicaState.SERVING
        assert world.host.started.count("replica-0") == 1
        task.cancel()

    run(story())


def test_what_a_dead_replica_may_have_left_of_its_engine_is_swept():
    async def story():
        world = Supervised()
        world.hire()
        task = asyncio.create_task(world.serve())
        await world.clock.sleep(30)
        assert world.swept == []
        world.host.kill("replica-1")
        world.host.kill("gateway-0")
        await world.clock.sleep(5)
        assert world.swept == ["replica-1"]
        task.cancel()

    run(story())
