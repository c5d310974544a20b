"""The simulator's own parts: who may run, in which order, and what a network does."""

import asyncio
from random import Random

import pytest

from holdfast.sim.clock import Stuck
from holdfast.sim.lives import Life, nobody, run_seeded
from holdfast.sim.network import Lane, Way


def told(story, seed=1):
    """What a story says, in its order."""
    said = []
    run_seeded(lambda: story(said), seed)
    return said


def _sleeper(said, name, seconds):
    async def sleep():
        loop = asyncio.get_running_loop()
        waited = loop.create_future()
        loop.call_later(seconds, waited.set_result, None)
        try:
            await waited
            said.append((name, round(loop.time(), 3)))
        finally:
            said.append((name, "finally"))

    return sleep()


async def _until(seconds):
    loop = asyncio.get_running_loop()
    waited = loop.create_future()
    loop.call_later(seconds, waited.set_result, None)
    await waited


def test_the_dead_run_nothing_any_more_not_even_their_finally():
    async def story(said):
        life = Life("a")
        life.spawn(_sleeper(said, "a", 1.0))
        await _until(0.5)
        life.kill()
        await _until(2.0)
        said.append("over")
        said.append(list(said))

    assert told(story)[1] == ["over"]


def test_the_frozen_run_late_and_at_once():
    async def story(said):
        life = Life("a")
        life.spawn(_sleeper(said, "a", 1.0))
        await _until(0.5)
        life.freeze()
        await _until(2.5)
        assert said == []
        life.thaw()
        await _until(0.1)

    assert told(story) == [("a", 3.0), ("a", "finally")]


def test_what_is_ready_in_one_instant_runs_in_the_seeds_order():
    async def story(said):
        for name in "abcdef":
            Life(name).spawn(_sleeper(said, name, 1.0))
        await _until(2.0)

    orders = {tuple(name for name, what in told(story, seed) if what == 1.0) for seed in range(8)}
    assert len(orders) > 4
    assert told(story, 3) == told(story, 3)


def test_a_crashed_task_is_told_to_the_world():
    async def story(said):
        life = Life("a")
        life.on_crash = lambda error: said.append(repr(error))

        async def crash():
            raise ValueError("boom")

        life.spawn(crash())
        await _until(1.0)

    assert told(story) == ["ValueError('boom')"]


def test_a_livelock_is_found_though_time_stands_still():
    async def story():
        def again():
            asyncio.get_running_loop().call_soon(again)

        again()
        await _until(1.0)

    with pytest.raises(Stuck, match="round and round"):
        run_seeded(story, 1)


def test_a_lane_keeps_order_whatever_the_delays():
    async def story(said):
        lane = Lane(Way(Random(1), 0.01, 0.5), nobody(), said.append)
        for number in range(20):
            lane.send(number)
        await _until(2.0)

    assert told(story) == list(range(20))


def test_a_way_that_holds_delivers_after_it_is_healed():
    async def story(said):
        way = Way(Random(1))
        lane = Lane(way, nobody(), said.append)
        way.holds = True
        lane.send("late")
        await _until(5.0)
        assert said == []
        way.heal()
        await _until(0.1)

    assert told(story) == ["late"]


def test_a_way_that_went_black_tells_nobody_and_new_connections_work():
    async def story(said):
        way = Way(Random(1))
        old = Lane(way, nobody(), said.append)
        way.black_out()
        old.send("lost")
        Lane(way, nobody(), said.append).send("found")
        await _until(1.0)

    assert told(story) == ["found"]
