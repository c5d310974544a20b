"""Stories of answers that outlive their gateway worker, in virtual time: several workers, one shelf."""

import asyncio

import pytest
from pair import Machine

from holdfast.domain.event import AnswerFenced, JournalOff, JournalOn
from holdfast.domain.fault import BadRequest, EngineLost, Fenced
from holdfast.domain.journal import START
from holdfast.domain.release import Release
from holdfast.domain.request import Finish
from holdfast.domain.roster import Roster
from holdfast.sim.clock import run


def test_a_worker_dies_mid_stream_and_another_goes_on_exactly():
    async def story():
        machine = Machine()
        async with machine.running():
            first, second = machine.worker(), machine.worker()
            asked = machine.world.generation(200)
            head = await first.ask(asked, until=80)
            kept = await second.streams.find(asked.id)
            assert kept is not None
            assert not kept.alive
            rest = await second.resume(kept)
            assert head.ids == rest.ids[:80]
            assert rest.ids == machine.world.expected(asked)
            assert rest.finish is Finish.LENGTH
            again = await machine.worker().streams.find(asked.id)
            assert again is not None
            assert (again.owners, again.finish, again.ids) == (1, Finish.LENGTH, rest.ids)

    run(story())


@pytest.mark.parametrize("torn", [0, 1, 7, 12, 20])
def test_a_torn_tail_costs_a_token_of_the_journal_and_none_of_the_answer(torn):
    async def story():
        machine = Machine()
        async with machine.running():
            first, second = machine.worker(), machine.worker()
            asked = machine.world.generation(60)

            async def reader():
                return await first.ask(asked)

            reading = asyncio.ensure_future(reader())
            await machine.world.clock.sleep(0.5)
            first.die(torn)
            reading.cancel()
            kept = await second.streams.find(asked.id)
            assert 10 < len(kept.ids) < 60
            rest = await second.resume(kept)
            assert rest.ids == machine.world.expected(asked)

    run(story())


def test_a_frozen_worker_is_taken_over_and_fenced_when_it_wakes():
    async def story():
        machine = Machine(step_s=0.05)
        async with machine.running():
            first, second = machine.worker(), machine.worker()
            asked = machine.world.generation(200)
            old = asyncio.ensure_future(first.ask(asked))
            await machine.world.clock.sleep(1)
            first.freeze()
            old_reader_stops = first.journal.live[asked.id]
            await machine.world.clock.sleep(0.5)
            kept = await second.streams.find(asked.id)
            assert kept.alive  # half a second is nothing yet
            follower = asyncio.ensure_future(second.resume(kept))
            await machine.world.clock.sleep(1.5)
            assert second.journal.live[asked.id].owners == 1
            first.thaw()
            got, rest = await old, await follower
            assert isinstance(got.fault, Fenced)
            assert got.fault.why == "another gateway worker has taken this answer over"
            assert [type(event) for event in first.events] == [AnswerFenced]
            assert rest.ids == machine.world.expected(asked)
            assert old_reader_stops.fenced

    run(story())


def test_a_late_worker_whom_nobody_replaced_keeps_its_answers():
    async def story():
        machine = Machine(step_s=0.05)
        async with machine.running():
            first, second = machine.worker(), machine.worker()
            asked = machine.world.generation(100)
            reading = asyncio.ensure_future(first.ask(asked))
            await machine.world.clock.sleep(1)
            first.clock.stop()
            await machine.world.clock.sleep(2)
            first.clock.go()
            got = await reading
            assert got.ids == machine.world.expected(asked)
            kept = await second.streams.find(asked.id)
            assert kept.ids == got.ids
            assert kept.owners > 0  # it has claimed its own answer anew
            assert not first.events

    run(story())


def test_two_who_want_the_same_answer_get_one_continuation():
    async def story():
        machine = Machine()
        async with machine.running():
            first, second, third = machine.worker(), machine.worker(), machine.worker()
            asked = machine.world.generation(150)
            await first.ask(asked, until=50)
            calls = []
            for one in (second, third):
                inner = one.streams._service

                def counted(generation, inner=inner):
                    calls.append(generation.id)
                    return inner(generation)

                one.streams._service = counted
            found = [await one.streams.find(asked.id) for one in (second, second, third, third)]
            got = await asyncio.gather(
                *(one.resume(kept) for one, kept in zip((second, second, third, third), found, strict=True))
            )
            assert [one.ids for one in got] == [machine.world.expected(asked)] * 4
            assert len(calls) == 1
            assert not machine.shelves.claims

    run(story())


def test_the_taker_over_dies_too():
    async def story():
        machine = Machine()
        async with machine.running():
            first, second, third = machine.worker(), machine.worker(), machine.worker()
            asked = machine.world.generation(150)
            await first.ask(asked, until=50)
            middle = asyncio.ensure_future(second.resume(await second.streams.find(asked.id)))
            await machine.world.clock.sleep(0.5)
            second.die(torn=3)
            middle.cancel()
            kept = await third.streams.find(asked.id)
            assert kept.owners == 1
            got = await third.resume(kept)
            assert got.ids == machine.world.expected(asked)

    run(story())


def test_an_answer_left_by_its_reader_goes_on_in_the_same_worker():
    async def story():
        machine = Machine()
        async with machine.running():
            first = machine.worker()
            asked = machine.world.generation(100)
            reading = asyncio.ensure_future(first.ask(asked))
            await machine.world.clock.sleep(0.5)
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            kept = await first.streams.find(asked.id)
            assert kept.left
            assert kept.alive
            got = await first.resume(kept)
            assert got.ids == machine.world.expected(asked)
            machine.world.settled()

    run(story())


def test_following_a_living_owner_brings_each_token_once():
    async def story():
        machine = Machine()
        async with machine.running():
            first, second = machine.worker(), machine.worker()
            asked = machine.world.generation(100)
            reading = asyncio.ensure_future(first.ask(asked))
            await machine.world.clock.sleep(0.5)
            got = await second.resume(await second.streams.find(asked.id))
            assert got.ids == (await reading).ids == machine.world.expected(asked)
            assert second.journal.live == {}
            assert not second.streams.followed

    run(story())


def test_a_full_shelf_turns_the_journal_off_and_serving_goes_on():
    async def story():
        machine = Machine()
        async with machine.running():
            machine.shelves.full = "No space left on device"
            one = machine.worker()
            asked = machine.world.generation(200)
            reading = asyncio.ensure_future(one.ask(asked))
            await machine.world.clock.sleep(1.2)
            assert one.streams.complaint(asked.id) == "the journal can't be written: No space left on device"
            assert await one.streams.find(asked.id) is None
            machine.shelves.full = ""
            await machine.world.clock.sleep(2.2)
            assert one.streams.complaint(asked.id) == ""
            one.journal.sweep(machine.world.clock.now())
            kept = await machine.worker().streams.find(asked.id)  # written anew, with what it had said by then
            assert kept is not None
            got = await reading
            assert got.ids == machine.world.expected(asked)
            assert [type(event) for event in one.events] == [JournalOff, JournalOn]

    run(story())


def test_a_small_journal_rolls_on_and_running_answers_stay_whole():
    async def story():
        machine = Machine(step_s=0.005)
        async with machine.running():
            first, second = machine.worker(bytes_max=1024 * 1024, grace_s=1), machine.worker()
            asked = [machine.world.generation(4000) for _ in range(12)]
            reading = asyncio.ensure_future(asyncio.gather(*(first.ask(one) for one in asked)))
            await machine.world.clock.sleep(15)
            names = sorted(machine.shelves.sheets)
            mine = [name for name in names if name.startswith(first.name)]
            assert len(mine) < 12
            assert sum(len(machine.shelves.sheets[name].data) for name in mine) <= 1024 * 1024
            assert mine[0] > f"{first.name}.000001"  # the first ones have left
            for one in asked:
                kept = await second.streams.find(one.id)
                assert kept.ids == machine.world.expected(one)[: len(kept.ids)]
                assert not kept.broken
                assert len(kept.ids) > 2000
            await reading
            assert first.events == []

    run(story())


def test_what_has_ended_leaves_after_its_grace_and_so_does_what_the_dead_left():
    async def story():
        machine = Machine()
        async with machine.running():
            first, second = machine.worker(grace_s=4), machine.worker(grace_s=4)
            asked = machine.world.generation(20)
            await first.ask(asked)
            assert (await second.streams.find(asked.id)).finish is Finish.LENGTH
            await machine.world.clock.sleep(10)
            assert await second.streams.find(asked.id) is None
            other = machine.world.generation(20)
            await first.ask(other)
            first.die()
            await machine.world.clock.sleep(2)
            assert await second.streams.find(other.id) is not None
            await machine.world.clock.sleep(5)
            assert await second.streams.find(other.id) is None
            assert all(name.startswith(second.name) for name in second.shelf.names())

    run(story())


def test_an_answer_of_another_release_is_not_continued():
    async def story():
        machine = Machine()
        async with machine.running():
            first, second = machine.worker(), machine.worker()
            old, new = (Release(model="sim", engine="e", digest=digest) for digest in ("old", "new"))
            first.journal.release = lambda: "old"
            second.journal.kinds.see(Roster(release=old), ())
            second.journal.kinds.see(Roster(release=new), ())
            asked = machine.world.generation(100)
            await first.ask(asked, until=40)
            got = await second.resume(await second.streams.find(asked.id))
            assert got.ids == machine.world.expected(asked)[:40]
            assert isinstance(got.fault, EngineLost)
            assert got.fault.why == "this answer was begun by another release, which is gone; ask again"

    run(story())


def test_the_word_that_it_ended_is_all_that_was_lost():
    async def story():
        machine = Machine()
        async with machine.running():
            first, second = machine.worker(), machine.worker()
            asked = machine.world.generation(30)
            await first.ask(asked)
            first.die(torn=0)  # the last record is the end
            kept = await second.streams.find(asked.id)
            assert kept.finish is None
            got = await second.resume(kept)
            assert (got.ids, got.finish) == (machine.world.expected(asked), Finish.LENGTH)
            assert (await second.streams.find(asked.id)).finish is Finish.LENGTH

    run(story())


def test_a_reservation_is_given_once_and_a_dead_holders_is_nobodys():
    async def story():
        machine = Machine()
        async with machine.running():
            first, second = machine.worker(), machine.worker()
            assert await first.streams.reserve("d" * 32) is None
            waiting = asyncio.ensure_future(second.streams.reserve("d" * 32))
            await machine.world.clock.sleep(0.3)
            assert not waiting.done()
            first.die()
            assert await waiting is None
            with pytest.raises(BadRequest, match="has not begun yet"):
                await second.streams.reserve("d" * 32)
            asked = machine.world.generation(10, idempotency="d" * 32)
            await second.ask(asked)
            assert (await second.streams.reserve("d" * 32)).begun.id == asked.id
            assert not machine.shelves.claims

    run(story())


def test_a_flipped_bit_stops_the_reading_and_the_answer_is_made_again_from_there():
    async def story():
        machine = Machine()
        async with machine.running():
            first, second = machine.worker(), machine.worker()
            asked = machine.world.generation(100)
            await first.ask(asked, until=60)
            name = next(name for name in first.shelf.names() if name.startswith(first.name))
            machine.shelves.flip(name, (START + 600) * 8 + 3)
            kept = await second.streams.find(asked.id)
            assert 0 < len(kept.ids) < 60
            assert (await second.resume(kept)).ids == machine.world.expected(asked)

    run(story())


def test_a_continued_answer_is_neither_queued_nor_shed():
    async def story():
        machine = Machine("a")
        machine.world.replicas["a"].slots = 1
        machine.world.admission.queue_max = 0
        async with machine.running():
            first, second = machine.worker(), machine.worker()
            asked = machine.world.generation(60)
            await first.ask(asked, until=20)
            machine.world.gate.room.grant("somebody", 1)  # everybody is busy, and nobody may wait
            refused = await second.ask(machine.world.generation(5))
            assert type(refused.fault).__name__ == "Overloaded"
            got = await second.resume(await second.streams.find(asked.id))
            assert got.ids == machine.world.expected(asked)
            machine.world.gate.room.ungrant("somebody")

    run(story())
