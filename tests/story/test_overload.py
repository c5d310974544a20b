"""Overload as a normal day, in virtual time: the real gate and layers over simulated replicas."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from crowd import CAPACITY, STEP_S, TOKENS, Crowd, p99, three
from msgspec import structs
from world import World, together

from holdfast.domain.tenant import Limits
from holdfast.gateway.gate_view import Ears, view_of
from holdfast.gateway.tenants import Tenants
from holdfast.sim.clock import run
from holdfast.sim.shelf import SimShelves
from holdfast.store.board import FileBoard


@pytest.mark.parametrize("factor", [2, 5, 10])
def test_beyond_capacity_the_site_stays_at_its_peak_and_refuses_at_once(factor):
    async def story():
        world = three()
        crowd = Crowd(world)
        async with world.running():
            await crowd.come(factor * CAPACITY, 15)
            world.settled()
        assert crowd.said["good"] >= 0.97 * 15 * CAPACITY
        assert crowd.wasted == 0  # no slot was spent on an answer that came too late
        assert p99(crowd.refused_s) == 0.0  # decided at arrival
        assert p99(crowd.first_s["default"]) < world.admission.first_token_s
        assert set(crowd.said) <= {"good", "queue_wait", "deadline"}

    run(story())


def test_at_capacity_nearly_everybody_is_served():
    async def story():
        world = three()
        crowd = Crowd(world)
        async with world.running():
            await crowd.come(CAPACITY, 30)
        assert crowd.said["good"] >= 0.97 * sum(crowd.said.values())

    run(story())


def test_one_client_that_hammers_is_throttled_and_the_slots_stay_full():
    async def story():
        world = three()
        crowd, calm = Crowd(world), Crowd(world)
        async with world.running():
            await together(crowd.come(10 * CAPACITY, 15, clients=1), calm.come(2, 15, seed=2))
        assert crowd.said["throttled"] > 0.7 * sum(crowd.said.values())
        assert crowd.said["good"] + calm.said["good"] >= 0.97 * 15 * CAPACITY
        assert not calm.said["throttled"]
        assert crowd.wasted == calm.wasted == 0

    run(story())


def test_after_the_overload_everything_is_well_again_at_once():
    """Three times the load for a while with a replica lost meanwhile, then less than is left: nothing sustains the trouble."""

    async def story():
        world = three()
        storm, after = Crowd(world), Crowd(world)
        async with world.running():
            coming = asyncio.ensure_future(storm.come(3 * CAPACITY, 20, clients=20))
            await world.clock.sleep(8)
            world.replicas["a"].kill()
            await coming
            await after.come(0.8 * 2 / 3 * CAPACITY, 20, seed=3, clients=20)
        assert after.said["good"] >= 0.99 * sum(after.said.values()), after.said

    run(story())


TEN = [Limits(tenant=f"t{n}") for n in range(10)]


def test_a_greedy_tenant_gets_its_share_and_the_others_hardly_notice():
    async def story(greedy: bool) -> dict[str, Crowd]:
        tenants = Tenants(TEN, {f"k{n}": f"t{n}" for n in range(10)})
        world = three(tenants=tenants)
        crowds = {f"t{n}": Crowd(world) for n in range(10)}
        async with world.running():
            share = CAPACITY / 10
            rates = {f"t{n}": 10 * share if n == 0 and greedy else 0.8 * share for n in range(10)}
            coming = [crowds[f"t{n}"].come(rates[f"t{n}"], 20, f"k{n}", seed=n) for n in range(10) if greedy or n > 0]
            await together(*coming)
            world.settled()
        return crowds

    alone = run(story(False))
    crowds = run(story(True))
    normal = [crowds[f"t{n}"] for n in range(1, 10)]
    asked, good = sum(sum(one.said.values()) for one in normal), sum(one.said["good"] for one in normal)
    assert good >= 0.97 * asked, [one.said for one in normal]
    assert crowds["t0"].said["good"] < 0.35 * sum(crowds["t0"].said.values())
    assert crowds["t0"].said["good"] + good >= 0.95 * 20 * CAPACITY  # what the nine leave is not wasted
    firsts = [wait for one in normal for waits in one.first_s.values() for wait in waits]
    quiet = [wait for one in alone.values() for waits in one.first_s.values() for wait in waits]
    assert p99(firsts) < p99(quiet) + 0.74  # one answer's time at most: until the next slot frees


def test_with_headroom_the_others_first_tokens_come_as_if_they_were_alone_and_hardly_a_slot_is_idle():
    """Nine at half of their shares beside one at ten times its own, whose answers are twice as long and so free slots seldom."""
    slots, step_s, tokens, seconds, settled_s = 64, 0.06, 50, 20, 12.0

    async def story(greedy: bool, headroom: float) -> tuple[float, float]:
        world = World(
            "a", "b", "c", slots=slots, step_s=step_s, tenants=Tenants(TEN, {one.tenant: one.tenant for one in TEN})
        )
        world.gate.headroom.share = headroom
        share = 3 * slots / (tokens * step_s) / 10
        normal = Crowd(world, 30.0, tokens, spread=0.5, count_from_s=settled_s)
        hog = Crowd(world, 30.0, 2 * tokens, spread=0.5)
        running = []

        async def look() -> None:
            await world.clock.sleep(settled_s)
            while world.clock.now() < seconds:
                running.append(world.gate.running)
                await world.clock.sleep(0.1)

        async with world.running():
            coming = [normal.come(0.5 * share, seconds, f"t{n}", seed=n) for n in range(1, 10)]
            await together(look(), *coming, *([hog.come(5 * share, seconds, "t0", seed=7)] if greedy else []))
            world.settled()
        assert normal.said["good"] >= 0.99 * sum(normal.said.values())
        return p99([wait for waits in normal.first_s.values() for wait in waits]), sum(running) / len(
            running
        ) / 3 / slots

    (alone, _), (without, full) = run(story(False, 0.0)), run(story(True, 0.0))
    beside, used = run(story(True, 0.04))
    assert without > 4 * alone
    assert full > 0.99
    assert beside <= 1.5 * alone
    assert used >= 0.96  # 8 slots of 192 may be kept


def test_weights_divide_the_work_of_those_who_all_want_more():
    async def story():
        heavy, light = Limits(tenant="heavy", weight=3.0), Limits(tenant="light")
        world = three(tenants=Tenants([heavy, light], {"h": "heavy", "l": "light"}))
        one, other = Crowd(world), Crowd(world)
        async with world.running():
            await together(one.come(2 * CAPACITY, 20, "h"), other.come(2 * CAPACITY, 20, "l", seed=5))
        assert one.said["good"] / other.said["good"] == pytest.approx(3.0, rel=0.15)

    run(story())


def test_when_every_replica_is_gone_requests_wait_for_one_and_are_served():
    async def story():
        world = World("a", slots=4)
        async with world.running():
            world.replicas["a"].kill()
            await world.clock.sleep(1)
            coming = [asyncio.ensure_future(world.chat(world.generation(10))) for _ in range(12)]
            await world.clock.sleep(3)
            world.replicas["a"].start()
            assert all(one.fault is None for one in await together(*coming))
            world.settled()

    run(story())


async def _two(story, tenants: Tenants, slots: int = 8) -> None:
    """Two workers over the same two replicas, at one board."""
    first = World("a", "b", slots=slots, step_s=STEP_S, tenants=tenants)
    second = World(beside=first, tenants=tenants)
    shelves = SimShelves()
    async with AsyncExitStack() as stack:
        boards = []
        for name, world in (("w0", first), ("w1", second)):
            board = FileBoard(shelves.shelf(), name)
            boards.append((name, board, world))
            world.lines.room.others, world.lines.room.changed = board.others, board.put
            await stack.enter_async_context(world.running())

        async def tell() -> None:
            ears = [Ears(world.gate, board, name) for name, board, world in boards]
            while True:
                for name, board, world in boards:
                    now = world.clock.now()
                    board.tell(structs.replace(view_of(world.gate, now), worker=name, at=now))
                for one, (_, board, _) in zip(ears, boards, strict=True):
                    one.hear(board.told())
                await first.clock.sleep(0.1)

        telling = asyncio.ensure_future(tell())
        try:
            await story(first, second)
        finally:
            telling.cancel()
        first.settled()
        second.settled()


def test_two_workers_together_give_no_replica_more_than_it_can_hold_and_stay_at_the_peak():
    async def story(first: World, second: World):
        capacity, most = 2 * 8 / (TOKENS * STEP_S), []
        crowds = [Crowd(first), Crowd(second)]
        watching = asyncio.ensure_future(_watch(first, most))
        await together(crowds[0].come(4 * capacity, 10), crowds[1].come(2 * capacity, 10, seed=2))
        watching.cancel()
        assert max(most) <= 8
        assert sum(one.said["good"] for one in crowds) >= 0.95 * 10 * capacity
        assert (
            sum(one.wasted for one in crowds) <= 2
        )  # the last slot may be lost to the other worker in the same moment

    run(_two(story, Tenants()))


async def _watch(world: World, most: list[int]) -> None:
    while True:
        most.append(max(one.running() for one in world.replicas.values()))
        await world.clock.sleep(0.013)


def test_fairness_and_shares_hold_over_both_workers():
    """A tenant that runs much in one worker has less in the other."""

    async def story(first: World, second: World):
        await together(*(first.chat(first.generation(5, key="t")) for _ in range(2)))
        there = [asyncio.ensure_future(first.chat(first.generation(100, key="t"))) for _ in range(3)]
        await first.clock.sleep(0.3)
        here = [asyncio.ensure_future(second.chat(second.generation(100, key="t"))) for _ in range(3)]
        await first.clock.sleep(0.3)
        assert (first.gate.running, second.gate.running) == (3, 1)
        await together(*there, *here)

    run(_two(story, Tenants([Limits(tenant="t", concurrency=4)], {"t": "t"})))
