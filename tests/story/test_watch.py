"""Stories of the watch: what it finds and how soon, and above all what it must not find."""

import pytest
from world import World, together

from holdfast.domain.event import (
    AnswerMoved,
    EjectionFrozen,
    ReplicaCleared,
    ReplicaSuspected,
    SelfDoubted,
)
from holdfast.gateway.lane import candidate
from holdfast.gateway.stack import alone_here
from holdfast.policy.balance import pick
from holdfast.policy.lane import Lane
from holdfast.policy.silence import Patience
from holdfast.sim.clock import run


def _events(world, kind):
    return [event for event in world.events if isinstance(event, kind)]


def _suspects(world):
    return [event.replica for event in _events(world, ReplicaSuspected)]


async def _until(world, true, patience_s=60.0):
    """The virtual seconds until something is true."""
    began = world.clock.now()
    while not true():
        assert world.clock.now() - began < patience_s, "it never came true"
        await world.clock.sleep(0.01)
    return world.clock.now() - began


@pytest.mark.parametrize("after_s", [0.0, 0.13, 0.29, 0.41, 0.499])
def test_a_replica_that_freezes_while_idle_is_found_within_two_seconds(after_s):
    async def story():
        world = World("a", "b", "c")
        async with world.running():
            await world.clock.sleep(30 + after_s)
            world.replicas["b"].frozen = True
            assert await _until(world, lambda: _suspects(world) == ["b"]) < 1.3
            got = await world.chat(world.generation(20))
            assert got.moves == 0

    run(story())


def test_an_idle_worker_looks_twice_a_second_and_wakes_for_the_first_request():
    async def story():
        world = World("a", "b")
        looks = []
        world.watch.beat = looks.append
        async with world.running():
            await world.clock.sleep(30)
            idle = [at for at in looks if at >= 20]
            assert 18 <= len(idle) <= 22
            await world.clock.sleep(0.1)
            began = world.clock.now()
            await world.chat(world.generation(10))
            assert next(at for at in looks if at > began) - began < 0.06

    run(story())


def test_a_replica_that_freezes_under_the_first_request_after_a_rest_is_found_at_once():
    async def story():
        world = World("a", "b")
        async with world.running():
            for _ in range(4):
                await world.chat(world.generation(60))  # both cadences are known
            await world.clock.sleep(30.1)
            asked = world.generation(100)

            def freeze(count):
                if count == 1:
                    for one in world.replicas.values():
                        one.frozen = one.running() > 0

            got = await world.chat(asked, freeze)
            assert got.ids == world.expected(asked)
            assert got.pause_s < 0.5

    run(story())


def test_a_replica_that_answers_pings_and_makes_no_step_is_found_and_rests_longer_each_time():
    async def story():
        world = World("a", "b")
        async with world.running():
            await world.clock.sleep(6)
            asked = [world.generation(300) for _ in range(6)]

            def lie(count):
                if count == 50:
                    world.replicas["a"].lying = True

            got = await together(*(world.chat(one, lie) for one in asked))
            assert [one.ids for one in got] == [world.expected(one) for one in asked]
            assert max(one.pause_s for one in got) < 2.2
            assert sum(one.moves for one in got) == 3
            [found] = _events(world, ReplicaSuspected)
            assert found.replica == "a"
            assert found.why.startswith("it answers pings but made no step for 1.")
            assert found.why.endswith("with 3 in flight; the limit is 1.8 s")
            await _until(world, lambda: _events(world, ReplicaCleared))
            assert world.whys(ReplicaCleared) == ["it is given another try after a rest of 5 s"]
            again = await together(*(world.chat(world.generation(50)) for _ in range(4)))
            assert all(one.finish for one in again)
            rest_s = await _until(world, lambda: len(_events(world, ReplicaCleared)) == 2)
            assert rest_s > 7
            world.replicas["a"].lying = False
            well = await together(*(world.chat(world.generation(50)) for _ in range(4)))
            assert all(one.moves == 0 for one in well)
            assert _suspects(world) == ["a", "a"]

    run(story())


def test_of_three_only_one_is_taken_out_and_the_alarm_is_told_once():
    async def story():
        world = World("a", "b", "c", patience=Patience(cap_s=8))
        async with world.running():
            await world.clock.sleep(6)
            asked = [world.generation(400) for _ in range(9)]

            def freeze(count):
                if count == 50:
                    world.replicas["a"].frozen = world.replicas["b"].frozen = True

            async def alarm():
                await _until(world, lambda: _events(world, EjectionFrozen))
                assert _suspects(world) == ["a"]
                held_at = world.clock.now()
                new = await together(*(world.chat(world.generation(20)) for _ in range(6)))
                assert all(one.moves == 0 for one in new), "b is doubted: new work goes to c"
                assert _suspects(world) == ["a"]
                await _until(world, lambda: _suspects(world) == ["a", "b"])
                assert world.clock.now() - held_at == pytest.approx(8 - 0.35, abs=0.2)

            *got, _ = await together(*(world.chat(one, freeze) for one in asked), alarm())
            assert [one.ids for one in got] == [world.expected(one) for one in asked]
            [told] = _events(world, EjectionFrozen)
            assert (told.suspects, told.replicas) == (2, 3)
            assert told.why == "b: suspect too, but at most half of 3 may be taken out on suspicion"

    run(story())


def test_a_held_suspect_that_is_killed_hands_its_answers_over():
    async def story():
        world = World("a", "b", "c")
        async with world.running():
            await world.clock.sleep(6)
            asked = [world.generation(400) for _ in range(9)]

            def freeze(count):
                if count == 50:
                    world.replicas["a"].frozen = world.replicas["b"].frozen = True

            async def supervisor():
                await _until(world, lambda: _events(world, EjectionFrozen))
                await world.clock.sleep(5)
                world.replicas["b"].kill()

            *got, _ = await together(*(world.chat(one, freeze) for one in asked), supervisor())
            assert [one.ids for one in got] == [world.expected(one) for one in asked]
            assert max(one.pause_s for one in got) < 6
            assert _suspects(world) == ["a"]

    run(story())


def test_a_slow_loop_of_our_own_blames_nobody_and_still_finds_the_frozen():
    async def story():
        world = World("a", "b", "c")
        async with world.running():
            await world.clock.sleep(6)
            chats = [world.chat(world.generation(500)) for _ in range(6)]

            async def stand_still():
                for late_s in (0.3, 1.0, 4.0):
                    await world.clock.sleep(1.5)
                    world.watch.due_at -= late_s  # this look was due so long ago, and what came since is unread
                    for one in world.lines.known().values():
                        one.line.ping()
                    world.watch.look(world.clock.now())
                assert _suspects(world) == []
                await world.clock.sleep(0.02)
                world.replicas["c"].frozen = True
                assert 0.69 < await _until(world, lambda: _suspects(world)) < 0.85  # twice the limit, for a while

            await together(*chats, stand_still())
            assert _suspects(world) == ["c"]
            assert len(_events(world, SelfDoubted)) == 1
            assert world.whys(SelfDoubted) == ["our own look came 0.3 s late: all limits are doubled for a while"]

    run(story())


def test_a_doubted_replica_gets_nothing_new_until_its_next_frame():
    async def story():
        world = World("a", "b")
        async with world.running():
            await world.clock.sleep(6)
            chats = [world.chat(world.generation(200)) for _ in range(4)]

            async def stutter():
                await world.clock.sleep(2)
                world.replicas["a"].frozen = True
                await world.clock.sleep(0.3)
                seen = [candidate(world.lines, known, 0) for known in world.lines.known().values()]
                assert {one.replica: one.doubtful for one in seen} == {"a": True, "b": False}
                assert pick(seen, frozenset()).replica == "b"
                world.replicas["a"].frozen = False
                await world.clock.sleep(0.03)
                assert not any(known.doubtful for known in world.lines.known().values())

            *got, _ = await together(*chats, stutter())
            assert all(one.moves == 0 for one in got)
            assert _suspects(world) == []

    run(story())


def test_a_frozen_replica_that_thaws_teaches_patience_by_degrees():
    async def story():
        world = World("a", "b")
        async with world.running():
            await world.clock.sleep(6)
            found = []

            async def freezes():
                await world.clock.sleep(2)
                for _ in range(3):
                    world.replicas["a"].frozen = True
                    before = len(_suspects(world))
                    found.append(await _until(world, lambda now=before: len(_suspects(world)) > now))
                    await world.clock.sleep(2)
                    world.replicas["a"].frozen = False
                    await world.clock.sleep(4)

            async def load():
                await together(*(world.chat(world.generation(50)) for _ in range(6)))

            async def loads():
                for _ in range(25):
                    await load()

            await together(freezes(), loads())
            assert max(found) < 1.2

    run(story())


def test_a_line_that_is_half_open_is_given_up_for_a_new_one():
    async def story():
        world = World("a", "b")
        async with world.running():
            await world.clock.sleep(6)
            broken = world.lines.line("a")
            world.replicas["a"].hung_up(broken)  # nothing comes of it any more, and nobody is told
            await _until(world, lambda: _suspects(world) == ["a"])
            assert await _until(world, lambda: _events(world, ReplicaCleared)) < 3.5
            assert world.lines.line("a") not in (None, broken)
            got = await together(*(world.chat(world.generation(20)) for _ in range(4)))
            assert all(one.moves == 0 for one in got)
            assert world.lines.line("a").in_flight == 0
            assert [line.in_flight for line in world.replicas["a"].lines] == [0]

    run(story())


def test_a_drained_replica_hands_fifty_answers_over_within_a_second():
    async def story():
        world = World("a", "b", "c")
        async with world.running():
            await world.clock.sleep(6)
            asked = [world.generation(600) for _ in range(150)]

            async def drain():
                await world.clock.sleep(3)
                line = world.lines.line("a")
                assert line.in_flight == 50
                world.replicas["b"].slots = world.replicas["c"].slots = 100
                await world.clock.sleep(0.2)  # a pong tells of the slots
                world.replicas["a"].draining = True
                assert await _until(world, lambda: line.in_flight == 0) < 1.0

            *got, _ = await together(*(world.chat(one) for one in asked), drain())
            assert [one.ids for one in got] == [world.expected(one) for one in asked]
            assert max(one.pause_s for one in got) < 0.2
            assert _suspects(world) == []

    run(story())


def test_who_leaves_by_the_roster_hands_over_no_faster_than_the_others_can_read():
    async def story():
        world = World("a", "b", "c")
        world.moving = alone_here(world.lines, world.clock, world.events.append)
        lane = world.watch.departures.lane = world.moving.turns.lane = Lane(tokens_max=2000)
        for one in world.replicas.values():
            one.chunk_tokens = 500
        async with world.running():
            await world.clock.sleep(6)
            asked = [world.generation(900) for _ in range(60)]
            for one in asked:
                one.prompt_ids.extend(range(600))
            reading, waited = [], []

            async def leave():
                await world.clock.sleep(6)
                world.leaving["a"] = "upgrade"
                line = world.lines.line("a")
                while line.in_flight:
                    await world.clock.sleep(0.01)
                    reading.extend(sum(ones.values()) for ones in lane.reading.values())
                    waited.extend(lane.waiting)

            *got, _ = await together(*(world.chat(one) for one in asked), leave())
            assert [one.ids for one in got] == [world.expected(one) for one in asked]
            assert 1000 < max(reading) <= 2000
            assert waited == [], "nobody stops on a to wait for b or c"
            assert max(one.pause_s for one in got) < 0.2
            assert world.whys(AnswerMoved)[0].endswith("a is leaving: upgrade")
            assert _suspects(world) == []

    run(story())


def test_where_nobody_could_take_them_the_answers_of_a_leaving_replica_stay():
    async def story():
        world = World("a", "b")
        async with world.running():
            await world.clock.sleep(6)
            world.replicas["b"].kill()
            asked = world.generation(100)

            def drain(count):
                if count == 10:
                    world.replicas["a"].draining = True

            got = await world.chat(asked, drain)
            assert (got.ids, got.moves) == (world.expected(asked), 0)

    run(story())
