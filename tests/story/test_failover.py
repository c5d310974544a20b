"""Stories of answers that outlive their replicas, in virtual time: exact times, exact whys."""

import asyncio

import pytest
from world import World, together

from holdfast.domain.event import AnswerMoved, ReplicaCleared, ReplicaSuspected
from holdfast.domain.fault import EngineLost, Expired, Overloaded, Unauthorised
from holdfast.domain.request import Finish
from holdfast.gateway.tenants import Tenants
from holdfast.policy.silence import Patience
from holdfast.sim.clock import Stuck, run


def test_an_undisturbed_answer_comes_whole_and_in_time():
    async def story():
        world = World("a", "b", step_s=0.25)
        async with world.running():
            asked = world.generation(200)
            got = await world.chat(asked)
            assert got.ids == world.expected(asked)
            assert (got.finish, got.moves, world.clock.now()) == (Finish.LENGTH, 0, 50.0)
            world.settled()

    run(story())


def test_client_sees_one_unbroken_answer_when_its_replica_is_killed():
    async def story():
        world = World("a", "b", step_s=0.25)
        async with world.running():
            asked = world.generation(200)

            def kill_at_137(count):
                if count == 137:
                    world.replicas["a"].kill()

            got = await world.chat(asked, kill_at_137)
            assert got.ids == world.expected(asked)
            assert got.moves == 1
            assert world.whys(AnswerMoved) == ["continues after token 137: connection reset by peer"]
            assert world.clock.now() == 50.0  # the other replica's next step takes it on: nothing was waited for
            world.settled()

    run(story())


def test_a_frozen_replica_is_found_from_its_silence_and_its_late_tokens_reach_nobody():
    async def story():
        world = World("a", "b")
        async with world.running():
            await world.clock.sleep(6)  # pings teach the cadence
            asked = [world.generation(300) for _ in range(10)]

            def freeze_at_50(count):
                if count == 50:
                    world.replicas["a"].frozen = True

            async def thaw_later():
                await world.clock.sleep(3)
                world.replicas["a"].frozen = False

            *got, _ = await together(*(world.chat(one, freeze_at_50) for one in asked), thaw_later())
            assert [one.ids for one in got] == [world.expected(one) for one in asked]
            suspected = [event for event in world.events if isinstance(event, ReplicaSuspected)]
            assert [(event.replica, event.streams) for event in suspected] == [("a", 5)]
            assert suspected[0].why.startswith("silent for ")
            assert max(one.pause_s for one in got) < 0.5
            assert sum(one.moves for one in got) == 5
            assert [event.replica for event in world.events if isinstance(event, ReplicaCleared)] == ["a"]
            world.settled()

    run(story())


def test_a_slow_but_moving_replica_is_not_suspected():
    async def story():
        world = World("a", "b", step_s=0.25)  # a quarter of a second a step, over the floor's usual cadence
        async with world.running():
            await world.clock.sleep(20)
            asked = [world.generation(100) for _ in range(8)]
            got = await together(*(world.chat(one) for one in asked))
            assert all(one.moves == 0 for one in got)
            assert not [event for event in world.events if isinstance(event, ReplicaSuspected)]

    run(story())


def test_a_late_watcher_blames_nobody():
    async def story():
        world = World("a", "b")
        async with world.running():
            await world.clock.sleep(6)
            now = world.clock.now()
            for one in world.lines.known().values():
                one.line.ping()
            world.watch.look(now + 5)  # five seconds late: the loop slept, not the replicas
            assert not [event for event in world.events if isinstance(event, ReplicaSuspected)]

    run(story())


def test_with_nobody_to_take_over_only_the_cap_counts():
    async def story():
        world = World("a", patience=Patience(cap_s=5))
        async with world.running():
            await world.clock.sleep(6)
            asked = world.generation(400, deadline=world.clock.now() + 60)

            def freeze(count):
                if count == 10:
                    world.replicas["a"].frozen = True

            async def thaw_later():
                await world.clock.sleep(4)
                world.replicas["a"].frozen = False

            got, _ = await together(world.chat(asked, freeze), thaw_later())
            assert got.ids == world.expected(asked)
            assert got.moves == 0

    run(story())


def test_one_stuck_stream_moves_alone():
    async def story():
        world = World("a", "b")
        async with world.running():
            await world.clock.sleep(6)
            asked = [world.generation(300) for _ in range(4)]

            def stick(count):
                if count == 20:
                    for one in world.replicas.values():
                        if any(stream.generation == asked[0].id for line in one.lines for stream in line.streams()):
                            one.stuck.add(asked[0].id)

            got = await together(world.chat(asked[0], stick), *(world.chat(one) for one in asked[1:]))
            assert [one.ids for one in got] == [world.expected(one) for one in asked]
            assert [one.moves for one in got] == [1, 0, 0, 0]
            assert not [event for event in world.events if isinstance(event, ReplicaSuspected)]

    run(story())


def test_an_end_without_a_finish_is_a_loss_not_an_end():
    async def story():
        world = World("a", "b")
        async with world.running():
            world.replicas["a"].cut_after = 5
            asked = world.generation(20)
            got = await world.chat(asked)
            assert got.ids == world.expected(asked)
            assert world.whys(AnswerMoved) == ["continues after token 5: the stream ended without a finish"]

    run(story())


def test_with_no_replica_left_the_answer_waits_and_shows_it_lives():
    async def story():
        world = World("a")
        async with world.running():
            asked = world.generation(50, deadline=60)

            def kill(count):
                if count == 10:
                    world.replicas["a"].kill()

            async def restart():
                await world.clock.sleep(5)
                world.replicas["a"].start()

            got, _ = await together(world.chat(asked, kill), restart())
            assert got.ids == world.expected(asked)
            assert got.moves == 1
            assert got.waits
            assert set(got.waits) <= {
                "no replica is connected",
                "none of 1 replicas may take traffic: 1 silent or draining",
            }

    run(story())


def test_with_no_replica_until_the_deadline_there_is_one_typed_error():
    async def story():
        world = World("a")
        async with world.running():
            world.replicas["a"].kill()
            await world.clock.sleep(1)
            got = await world.chat(world.generation(50, deadline=10))
            assert isinstance(got.fault, Expired)
            assert "while it waited: no replica may take traffic" in got.fault.why
            assert world.clock.now() == 10.0
            world.settled()

    run(story())


def test_a_refusing_replica_costs_nothing():
    async def story():
        world = World("a", "b")
        async with world.running():
            world.replicas["a"].refusing = "all slots are taken"
            asked = world.generation(20)
            got = await world.chat(asked)
            assert got.ids == world.expected(asked)
            assert (got.moves, got.waits) == (0, [])
            assert world.clock.now() == 0.4  # twenty steps: the refusal took no time

    run(story())


def test_an_answer_that_moved_too_often_ends_with_a_typed_error():
    async def story():
        world = World("a", "b")
        world.moves_max = 3
        async with world.running():
            for one in world.replicas.values():
                one.cut_after = 2
            got = await world.chat(world.generation(50))
            assert isinstance(got.fault, EngineLost)
            assert got.fault.why.startswith("the answer has moved 3 times, the limit; last: ")
            assert len(got.ids) == 8  # four attempts of two tokens: nothing doubled
            world.settled()

    run(story())


def test_all_tokens_delivered_and_only_the_finish_lost_is_complete():
    async def story():
        world = World("a", "b")
        async with world.running():
            asked = world.generation(5, delivered_ids=[1, 2, 3, 4, 5])
            world.replicas["a"].cut_after = 0
            got = await world.chat(asked)
            assert (got.ids, got.finish, got.fault) == ([], Finish.LENGTH, None)

    run(story())


def test_a_draining_replica_gets_nothing_new_and_hands_over_what_it_has():
    async def story():
        world = World("a", "b")
        async with world.running():
            first = world.generation(100)

            def drain(count):
                if count == 10:
                    world.replicas["a"].draining = True
                    world.listed.discard("a")

            got = await world.chat(first, drain)
            assert got.ids == world.expected(first)
            assert world.whys(AnswerMoved)[0].endswith("a is draining")
            for _ in range(4):
                assert (await world.chat(world.generation(3))).moves == 0
            assert world.lines.line("a") is None

    run(story())


def test_a_client_that_hangs_up_frees_its_slot():
    async def story():
        world = World("a")
        async with world.running():
            await world.hang_up(world.generation(1000))
            world.settled()

    run(story())


def test_over_the_slots_requests_wait_in_turn_and_over_the_queue_they_are_refused():
    async def story():
        world = World("a", slots=2)
        world.admission.queue_max = 2
        async with world.running():
            got = await together(*(world.chat(world.generation(100)) for _ in range(5)))
            refused = [one.fault for one in got if one.fault]
            assert [type(fault) for fault in refused] == [Overloaded]
            assert refused[0].why == "all 2 slots of 1 replicas are taken and 2 requests wait, the queue's limit is 2"
            assert (refused[0].status, refused[0].limit.name) == (503, "queue_requests")
            assert all(one.finish is Finish.LENGTH for one in got if not one.fault)
            assert sum(bool(one.waits) for one in got) == 2
            world.settled()

    run(story())


def test_a_wrong_key_is_refused_before_anything_is_counted():
    async def story():
        world = World("a")
        world.gate.tenants = Tenants(keys={"right": "default"})
        async with world.running():
            assert isinstance((await world.chat(world.generation(1))).fault, Unauthorised)
            assert isinstance((await world.chat(world.generation(1, key="wrong"))).fault, Unauthorised)
            assert (await world.chat(world.generation(1, key="right"))).fault is None
            world.settled()

    run(story())


def test_the_simulated_world_notices_a_hang():
    async def story():
        await asyncio.get_running_loop().create_future()

    with pytest.raises(Stuck):
        run(story())
