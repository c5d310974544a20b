"""Answers that no sound engine gives, seen as they pass, and what comes of it."""

from math import nan

from world import World, together

from holdfast.domain.event import ReplicaAiling, ReplicaCleared, ReplicaSuspected
from holdfast.domain.request import TokenLogprob
from holdfast.policy.sanity import REPEATS_MAX, Check
from holdfast.sim.clock import run


def _events(world, kind):
    return [event for event in world.events if isinstance(event, kind)]


def _suspects(world):
    return [event.replica for event in _events(world, ReplicaSuspected)]


def test_a_replica_that_repeats_one_token_without_end_is_taken_out_until_it_has_rested():
    async def story():
        world = World("a", "b", "c")
        async with world.running():
            await world.clock.sleep(6)
            asked = [world.generation(400) for _ in range(6)]
            world.replicas["b"].parrot = 7
            got = await together(*(world.chat(one) for one in asked))
            assert sum(one.ids == world.expected(that) for one, that in zip(got, asked, strict=True)) == 4
            assert [one.ids.count(7) >= REPEATS_MAX for one in got].count(True) == 2
            assert all(one.finish for one in got)
            assert [event.replica for event in _events(world, ReplicaAiling)] == ["b", "b"]
            assert world.whys(ReplicaAiling)[0] == f"token 7 came {REPEATS_MAX} times in a row: 2 streams within 60 s"
            assert _suspects(world) == ["b"]
            await world.chat(world.generation(400))
            assert not _events(world, ReplicaCleared), "frames do not clear it"
            await world.clock.sleep(60)
            assert world.whys(ReplicaCleared) == ["it is given another try after a rest of 60 s"]

    run(story())


def test_a_model_that_repeats_itself_everywhere_costs_no_replica():
    async def story():
        world = World("a", "b", "c")
        async with world.running():
            await world.clock.sleep(6)
            for one in world.replicas.values():
                one.parrot = 7
            got = await together(*(world.chat(world.generation(400)) for _ in range(12)))
            assert all(one.moves == 0 for one in got)
            assert len(_events(world, ReplicaAiling)) == 12
            assert _suspects(world) == []

    run(story())


def test_numbers_that_are_none_obey_the_half_rule():
    async def story():
        world = World("a", "b", "c")
        async with world.running():
            await world.clock.sleep(6)
            for replica in ("a", "a", "b", "b"):
                world.lines.odd.append(Check(replica, [1]).see([5], [TokenLogprob(5, nan)]))
            await world.clock.sleep(1)
            assert _suspects(world) == ["a"]

    run(story())
