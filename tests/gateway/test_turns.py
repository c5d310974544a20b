"""The short way and the long way to a choice are the same choice."""

import asyncio
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from holdfast.domain.request import Generation
from holdfast.domain.roster import Place, Roster
from holdfast.gateway.lane import Turns
from holdfast.gateway.lines import Lines
from holdfast.gateway.quarantine import Quarantine
from holdfast.policy.balance import Crowded, Picked
from holdfast.policy.breaker import Breaker
from holdfast.sim.clock import VirtualClock, run
from holdfast.sim.replica import SimReplica


@dataclass
class Worker:
    turns: Turns
    lines: Lines


async def _worker(replicas, clock):
    async def dial(place):
        return replicas[place.address].dial()

    lines = Lines(dial, clock, lambda event: None, Breaker)
    quarantine = Quarantine(lines, clock, clock.now, lambda event: None)
    await lines.follow(
        Roster(places=tuple(Place(replica=name, address=name, boot=one.boot) for name, one in replicas.items()))
    )
    return Worker(Turns(lines, quarantine, clock), lines)


class _LongWay(Turns):
    def _straight(self, generation):
        return None


ASKED = st.lists(st.tuples(st.integers(1, 300), st.booleans()), min_size=1, max_size=40)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), ASKED)
def test_both_ways_choose_alike(slots, asked):
    async def story():
        clock = VirtualClock()
        replicas = {name: SimReplica(name, clock, slots=slots[n]) for n, name in enumerate("abcd"[: len(slots)])}
        short, long = await _worker(replicas, clock), await _worker(replicas, clock)
        long.turns = _LongWay(long.lines, long.turns.quarantine, clock)
        running = []
        for number, (tokens, ends) in enumerate(asked):
            if ends and running:
                one = running.pop(0)
                short.turns.over(one)
                long.turns.over(one)
            generation = Generation(id=f"g{number}", prompt_ids=[1] * (tokens % 60), max_tokens=tokens)
            verdicts = [worker.turns.ask(generation) for worker in (short, long)]
            assert verdicts[0] == verdicts[1]
            if isinstance(verdicts[0], Picked):
                running.append(generation)
                for worker in (short, long):
                    worker.lines.picked(verdicts[0].replica)
                    counts = [place.streams for place in worker.lines.room.places.values()]
                    assert sum(counts) == len(running)
                    assert all(place.streams <= place.slots for place in worker.lines.room.places.values())
            else:
                assert isinstance(verdicts[0], Crowded)
                assert len(running) == sum(slots)
        for one in running:
            short.turns.over(one)
        assert short.lines.room.used() == (0, 0)
        await asyncio.gather(short.lines.close(), long.lines.close())

    run(story())


def test_new_work_leaves_those_that_moved_as_many_slots_as_they_are():
    async def story():
        clock = VirtualClock()
        worker = await _worker({"a": SimReplica("a", clock, slots=2)}, clock)
        turns = worker.turns
        first, second = (Generation(id=name, prompt_ids=[1], max_tokens=9) for name in "xy")
        assert isinstance(turns.ask(first), Picked)
        assert isinstance(turns.ask(second), Picked)
        moved = Generation(id="m", prompt_ids=[1], max_tokens=9, epoch=1)
        assert turns.ask(moved) == Crowded("a: all its 2 slots are taken")
        waits = aiter(turns.wait(moved, "no room"))
        waiting = asyncio.ensure_future(anext(waits, None))
        await clock.sleep(0.01)
        third = Generation(id="z", prompt_ids=[1], max_tokens=9)
        assert turns.ask(third) == Crowded("others were there before")
        turns.over(first)  # its slot goes to the one that moved
        assert await waiting is None
        assert isinstance(turns.turn(moved), Picked)
        assert isinstance(turns.ask(third), Crowded)
        turns.over(second)
        assert isinstance(turns.ask(third), Picked)
        for one in (moved, third):
            turns.over(one)
        assert worker.lines.room.used() == (0, 0)
        await worker.lines.close()

    run(story())


def test_one_that_gives_up_waiting_gives_back_what_it_was_just_given():
    async def story():
        clock = VirtualClock()
        worker = await _worker({"a": SimReplica("a", clock, slots=1)}, clock)
        turns = worker.turns
        first, second = (Generation(id=name, prompt_ids=[1], max_tokens=9) for name in "xy")
        assert isinstance(turns.ask(first), Picked)
        assert isinstance(turns.ask(second), Crowded)
        waiting = asyncio.ensure_future(anext(turns.wait(second, "no room"), None))
        await clock.sleep(0.01)
        turns.over(first)
        assert worker.lines.room.used() == (1, 10)  # it is second's
        waiting.cancel()
        turns.over(second)
        assert worker.lines.room.used() == (0, 0)
        await asyncio.gather(waiting, return_exceptions=True)
        await worker.lines.close()

    run(story())
