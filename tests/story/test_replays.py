"""Stories of answers under a grammar that are made again from their prompts, and do not come out as they were delivered."""

from functools import partial

import pytest
from test_two_kinds import JSON, killing, mixed, on
from world import together

from holdfast.domain.event import BreakerOpened, ReplicaSuspected
from holdfast.domain.fault import EngineLost, EngineRefused
from holdfast.sim.clock import run


def departing(world, *names):
    """There nothing comes out again as it was delivered. Returns where it was tried."""
    tried = []

    def submitted(name, generation):
        if generation.delivered_ids:
            tried.append(name)
            lost = EngineLost("it departs at token 7")
            lost.unrepeatable = True
            raise lost

    for name in names:
        for line in world.replicas[name].lines:
            line.on_submit = partial(submitted, name)
    return tried


@pytest.mark.parametrize("departs", [("v2",), ("v2", "v3")])
def test_what_does_not_come_out_again_is_tried_once_on_each_replica_and_speaks_against_none(departs):
    async def story():
        world = mixed("v1", "v2", "v3")
        async with world.running():
            tried = departing(world, *departs)
            asked = [world.generation(60, sampling=JSON) for _ in range(8)]
            tasks = [
                await on(world, "v1", one, killing(world, "v1", 20) if one is asked[-1] else None) for one in asked
            ]
            got = await together(*tasks)
            for one, which in zip(got, asked, strict=True):
                whole = world.expected(which)
                if len(departs) == 1:
                    assert (one.ids, one.fault) == (whole, None)
                else:
                    assert isinstance(one.fault, EngineLost)
                    assert one.ids == whole[: len(one.ids)] != whole
                    assert one.fault.why == (
                        f"it is held to a grammar, and nobody here makes its {len(one.ids)} tokens again as they were "
                        "delivered; last: it departs at token 7"
                    )
            assert set(tried) == set(departs)
            assert not world.whys(BreakerOpened)
            world.settled()

    run(story())


@pytest.mark.parametrize("fault", [EngineRefused, EngineLost])
def test_where_it_was_refused_or_lost_meanwhile_it_has_not_been_tried(fault):
    """One replica does not make it again. The other one can't take it twice, and would make it."""

    async def story():
        world = mixed("v1", "v2", "v3")
        async with world.running():
            tried, missed = departing(world, "v2"), []

            def submitted(generation):
                if generation.delivered_ids and missed.count(generation.id) < 2:
                    missed.append(generation.id)
                    raise fault("not now")

            for line in world.replicas["v3"].lines:
                line.on_submit = submitted
            asked = [world.generation(60, sampling=JSON) for _ in range(4)]
            tasks = [
                await on(world, "v1", one, killing(world, "v1", 20) if one is asked[-1] else None) for one in asked
            ]
            for one, which in zip(await together(*tasks), asked, strict=True):
                assert (one.ids, one.fault) == (world.expected(which), None)
            assert tried, "it was made again at once, and nothing shown"
            assert missed
            world.settled()

    run(story())


def test_a_replay_that_takes_long_is_not_taken_for_silence():
    """It takes 24 s until a new token comes, on a replica that serves others meanwhile."""

    async def story():
        world = mixed("v1", "v2", "v3")
        async with world.running():
            asked = world.generation(1400, sampling=JSON)
            beside = [await on(world, name, world.generation(4000)) for name in ("v2", "v3")]
            got = await (await on(world, "v1", asked, killing(world, "v1", 1200)))
            assert (got.ids, got.fault, got.moves) == (world.expected(asked), None, 1)
            assert got.pause_s > 2 * world.watch.patience.first_token_s, "else it shows nothing"
            assert got.waits, "who reads it hears that it lives"
            assert all(one.fault is None for one in await together(*beside))
            assert not world.whys(ReplicaSuspected)
            world.settled()

    run(story())
