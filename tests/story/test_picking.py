"""Where answers go: never where there is no room, where their beginning is cached if that is bearable, and not to who fails."""

import asyncio
from collections import Counter, defaultdict
from random import Random

from world import World, together

from holdfast.domain.event import BreakerClosed, BreakerOpened, EjectionFrozen
from holdfast.policy.breaker import Breaker
from holdfast.sim.clock import run

PREFIX = list(range(1000, 1200))


def _where(world, generation):
    return world.lines.owed[generation.id].replica


async def _chat(world, prompt_ids, count=5, where=None, **more):
    """One answer. `where` gets the replica's name when its first token is there."""
    asked = world.generation(count, **more)
    asked.prompt_ids[:] = prompt_ids

    def first(tokens):
        if tokens == 1 and where is not None:
            where.append(_where(world, asked))

    got = await world.chat(asked, first)
    assert got.ids == world.expected(asked), got.fault
    return got


def test_no_replica_is_ever_given_more_than_it_can_hold_though_one_dies_under_full_load():
    async def story():
        world, random, most = World("a", "b", "c", slots=4), Random(3), Counter()
        world.admission.queue_max, world.admission.queue_wait_s, world.admission.first_token_s = 1000, 1000, 1000

        async def client(begin_s, count):
            await world.clock.sleep(begin_s)
            await _chat(world, [random.randrange(9999) for _ in range(random.randrange(300))], count)

        async def look():
            for number in range(4000):
                for name, one in world.replicas.items():
                    most[name] = max(most[name], one.running())
                if number == 1000:
                    world.replicas["b"].kill()
                await world.clock.sleep(0.001)

        async with world.running():
            await together(*(client(random.uniform(0, 2), random.randint(5, 60)) for _ in range(60)), look())
            world.settled()
            assert most == {"a": 4, "b": 4, "c": 4}
            assert world.lines.room.used() == (0, 0)

    run(story())


def test_a_chats_next_turn_goes_back_to_its_replica():
    async def story():
        world, homes = World("a", "b", "c"), defaultdict(list)

        async def chat(number):
            random = Random(number)
            said = [random.randrange(50_000) for _ in range(100)]
            for _ in range(5):
                got = await _chat(world, said, 12, homes[number])
                said = said + got.ids + [random.randrange(50_000) for _ in range(40)]
                await world.clock.sleep(random.uniform(0.1, 2))
                assert world.lines.cached(said) >= 64

        async with world.running():
            await together(*(chat(number) for number in range(12)))
            world.settled()
        assert [len(set(names)) for names in homes.values()] == [1] * 12
        assert set().union(*homes.values()) == {"a", "b", "c"}

    run(story())


def test_without_affinity_turns_wander():
    async def story():
        world, home = World("a", "b", "c"), []
        world.lines.affinity.blocks_max = 0
        async with world.running():
            for _ in range(6):
                await _chat(world, PREFIX, 3, home)
        assert set(home) == {"a", "b", "c"}

    run(story())


def test_a_session_brings_short_prompts_back_too():
    async def story():
        world, home = World("a", "b", "c"), []
        async with world.running():
            for number in range(6):
                await _chat(world, [number], 3, home, session="s1")
        assert len(set(home)) == 1

    run(story())


def test_a_hot_prefix_does_not_sink_one_replica():
    async def story():
        world, homes = World("a", "b", "c"), []
        async with world.running():
            await together(*(_chat(world, [*PREFIX, n], 50, homes) for n in range(90)))
            world.settled()
        assert max(Counter(homes).values()) <= 1.25 * 30 + 2
        assert len(set(homes)) == 3

    run(story())


def test_a_lost_replicas_chats_find_another_home():
    async def story():
        world, home = World("a", "b"), []
        async with world.running():
            await _chat(world, PREFIX, 3, home)
            world.replicas[home[0]].kill()
            for _ in range(3):
                await _chat(world, PREFIX, 3, home)
        assert set(home[1:]) == {"a", "b"} - {home[0]}

    run(story())


def test_a_fresh_replica_starts_slowly_and_takes_all_that_the_others_cannot_hold():
    async def story():
        world = World("a", "b", slots=32)
        world.lines.slow_start_s = 10.0
        b = world.replicas["b"]
        b.alive = False

        async def crowd(seconds):
            """One answer of a second begins each 50 ms: some 20 at a time."""
            homes, tasks = [], []
            for number in range(int(seconds * 20)):
                tasks.append(asyncio.ensure_future(_chat(world, [number], 50, homes)))
                await world.clock.sleep(0.05)
            await asyncio.gather(*tasks)
            return Counter(homes)["b"] / len(homes)

        async with world.running():
            await world.clock.sleep(5)
            b.start()
            await world.clock.sleep(0.1)
            early = await crowd(2)
            await world.clock.sleep(10)
            late = await crowd(2)
            assert 0 < early < 0.25
            assert 0.45 <= late <= 0.55
            b.kill()
            await world.clock.sleep(1)
            b.start()
            await world.clock.sleep(0.1)
            homes = []
            await together(*(_chat(world, [n], 50, homes) for n in range(60)))
            assert Counter(homes)["b"] >= 28

    run(story())


def _frail(world):
    """Breakers that only rates open."""
    world.lines._breaker = lambda: Breaker(failures_max=1000)


async def _steady(world, chats, every=0, homes=None):
    """Ten short answers a second, one at a time; replica a breaks off each `every`th of its own. 0: none."""
    homes, begun = [] if homes is None else homes, 0  # on a
    for number in range(chats):
        world.replicas["a"].cut_after = 0 if every and begun % every == every - 1 else None
        began = world.clock.now()
        got = await _chat(world, [number], 3, homes)
        begun += got.moves + (homes[-1] == "a")
        await world.clock.sleep(max(0.0, began + 0.1 - world.clock.now()))


def test_the_breaker_opens_at_five_errors_in_a_hundred_and_our_own_trial_closes_it():
    async def story():
        world, homes = World("a", "b"), []
        _frail(world)
        a = world.replicas["a"]
        async with world.running():
            await _steady(world, 120, every=16)
            opened = [event for event in world.events if isinstance(event, BreakerOpened)]
            assert [event.replica for event in opened] == ["a"]
            assert "attempts within 30 s failed in one way (stream), more than 5%" in opened[0].why
            closed = [event for event in world.events if isinstance(event, BreakerClosed)]
            assert closed[0].why.startswith("a trial went well 1.")
            world.events.clear()
            for _ in range(3):  # worse: every answer breaks off, and so does the trial
                await _steady(world, 12, every=1)
            fence = [event.why for event in world.events if isinstance(event, BreakerOpened)]
            assert "failed in one way (stream)" in fence[0]
            assert "a trial failed: the stream ended without a finish" in fence[1]
            assert "the next is after 2 s" in fence[1]
            await _steady(world, 15, 1, homes)
            assert set(homes) == {"b"}  # nobody's answer is the experiment
            a.cut_after = None
            await world.clock.sleep(10)
            assert isinstance(world.events[-1], BreakerClosed)
            world.settled()

    run(story())


def test_at_three_errors_in_a_hundred_it_stays_closed():
    async def story():
        world = World("a", "b")
        _frail(world)
        async with world.running():
            await _steady(world, 400, every=32)
            assert world.whys(BreakerOpened) == []

    run(story())


def test_it_never_opens_on_the_last_replica_and_says_so():
    async def story():
        world = World("a")
        _frail(world)
        async with world.running():
            await _steady(world, 100)
            a = world.replicas["a"]

            async def heal():
                await world.clock.sleep(0.05)
                a.cut_after = None

            for number in range(12):
                a.cut_after = 0
                await together(_chat(world, [number], 3), heal())
            assert world.whys(BreakerOpened) == []
            (why,) = world.whys(EjectionFrozen)
            assert why.startswith("a: ")
            assert "failed in one way (stream), more than 5%, but it goes on: it is the last one that serves" in why
            world.settled()

    run(story())


def test_hang_ups_deadlines_and_planned_moves_say_nothing_of_a_replica():
    async def story():
        world = World("a", "b", step_s=0.5)
        _frail(world)
        async with world.running():
            for _ in range(30):
                await world.hang_up(world.generation(50))
            late = [world.generation(50, deadline=world.clock.now() + 2) for _ in range(40)]
            got = await together(*(world.chat(one) for one in late))
            assert all(one.fault is not None for one in got)
            going = asyncio.ensure_future(together(*(_chat(world, [n], 40) for n in range(30))))
            await world.clock.sleep(2)
            world.leaving["a"] = "it is drained"
            await going
            counts = [known.breaker.window.totals for known in world.lines.known().values()]
            assert all(not sum(one.values()) for one in counts)
            world.settled()

    run(story())
