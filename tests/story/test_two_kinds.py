"""Stories of a site with engines of two kinds on the same weights: who goes on with what, and what waits for its own kind."""

import asyncio

import pytest
from msgspec import structs
from pair import Machine
from world import World, together

from holdfast.domain.dialect import ThinkingEnd
from holdfast.domain.event import AnswerMoved
from holdfast.domain.fault import EngineLost, Expired
from holdfast.domain.release import Exactness, Hold, Release
from holdfast.domain.request import Finish, Sampling
from holdfast.gateway.lines import making
from holdfast.gateway.stack import Wiring, stack
from holdfast.sim.clock import run
from holdfast.sim.line import RELEASE
from holdfast.sim.replica import answer, own_seed

PEARL = structs.replace(RELEASE, weights="w")
VLLM = Release(
    model="sim", engine="vllm", version="0.32.0", digest="f" * 64, exactness=Exactness.GREEDY, weights="w",
    grammar=Hold.FRESH,
)  # fmt: skip
GREEDY, DRAWN = Sampling(temperature=0), Sampling(temperature=0.7)
JSON = Sampling(temperature=0, grammar='start: "{}"')


def mixed(*names, across=False, **more):
    """Names that begin with v are replicas of vLLM."""
    world = World(*names, **more)
    world.kinds = tuple(structs.replace(one, greedy_across=across) for one in (PEARL, VLLM))
    for name, one in world.replicas.items():
        one.release = world.kinds[name.startswith("v")]
    return world


def of_kind(world, asked, kind):
    """The undisturbed answer of one kind."""
    return answer(asked.prompt_ids, own_seed(kind, asked), asked.max_tokens)


def of_one_kind(world, got, asked):
    """Whether each is whole, and as one of the kinds would have said it alone."""
    return all(
        one.ids in (of_kind(world, which, PEARL), of_kind(world, which, VLLM))
        for one, which in zip(got, asked, strict=True)
    )


def killing(world, name, at=40):
    def each(count):
        if count == at:
            world.replicas[name].kill()

    return each


async def on(world, name, asked, each=None):
    """Have it begin there: the others refuse for as long."""
    for other in world.replicas.values():
        other.refusing = "" if other.name == name else "not now"
    task = asyncio.ensure_future(world.chat(asked, each))
    lines = world.replicas[name].lines
    while not any(one.tokens for line in lines for one in line.streams() if one.generation == asked.id):
        await world.clock.sleep(0.01)
    for other in world.replicas.values():
        other.refusing = ""
    return task


def test_a_greedy_answer_goes_on_at_another_kind_where_both_releases_say_so():
    async def story():
        world = mixed("p", "v", across=True)
        async with world.running():
            asked = world.generation(100, sampling=GREEDY)
            got = await (await on(world, "v", asked, killing(world, "v")))
            assert got.ids == world.expected(asked)
            assert (got.finish, got.moves, got.waits) == (Finish.LENGTH, 1, [])
            assert world.whys(AnswerMoved) == ["continues after token 40: connection reset by peer"]
            world.settled()

    run(story())


@pytest.mark.parametrize(("across", "sampling"), [(False, GREEDY), (True, DRAWN), (False, DRAWN)])
def test_otherwise_it_waits_for_its_own_kind_and_ends_as_it_began(across, sampling):
    async def story():
        world = mixed("p", "v", across=across)
        async with world.running():
            asked = world.generation(100, seed=3, sampling=sampling, deadline=60.0)

            async def restart():
                await world.clock.sleep(5)
                world.replicas["v"].start()

            task = await on(world, "v", asked, killing(world, "v"))
            got, _ = await together(task, restart())
            assert got.ids == of_kind(world, asked, VLLM)
            assert got.moves == 1
            assert 4.0 < got.pause_s < 7.0
            assert got.waits[-1].startswith(
                "none of 1 replicas may go on with it: it was begun on vllm 0.32.0 (release ffffffff), and scripted"
            )
            assert all(line.in_flight == 0 for line in world.replicas["p"].lines)
            world.settled()

    run(story())


def test_its_kind_does_not_come_back_and_there_is_one_typed_error_at_the_deadline():
    async def story():
        world = mixed("p", "v")
        async with world.running():
            asked = world.generation(100, sampling=GREEDY, deadline=20.0)
            got = await (await on(world, "v", asked, killing(world, "v")))
            assert got.ids == world.expected(asked)[:40]
            assert isinstance(got.fault, Expired)
            assert "neither may go on with the other's answers unless both releases say so" in got.fault.why
            assert 20.0 <= world.clock.now() < 21.5
            world.settled()

    run(story())


def test_a_kind_that_leaves_the_site_for_good_ends_its_answers_at_once():
    async def story():
        world = mixed("p", "v")
        async with world.running():
            asked = world.generation(100, sampling=DRAWN, deadline=600.0)

            def kill_and_replace(count):
                if count == 40:
                    world.kinds = (PEARL,)
                    world.replicas["v"].kill()

            got = await (await on(world, "v", asked, kill_and_replace))
            assert isinstance(got.fault, EngineLost)
            assert got.fault.why.startswith(
                "nobody here may go on with it: it was begun on vllm 0.32.0 (release ffffffff)"
            )
            assert got.ids == of_kind(world, asked, VLLM)[:40]
            assert world.clock.now() < 5
            world.settled()

    run(story())


def test_before_its_first_token_an_answer_may_go_anywhere():
    async def story():
        world = mixed("p", "v")
        async with world.running():
            world.replicas["v"].cut_after = 0
            for _ in range(4):
                asked = world.generation(20, sampling=DRAWN)
                got = await world.chat(asked)
                assert got.ids == of_kind(world, asked, PEARL)
            assert world.whys(AnswerMoved), "some began at the one that cuts"
            world.settled()

    run(story())


def test_new_answers_are_shared_out_among_the_kinds():
    async def story():
        world = mixed("p", "v")
        async with world.running():
            asked = [world.generation(30, seed=n, sampling=DRAWN) for n in range(10)]
            got = await together(*(world.chat(one) for one in asked))
            assert of_one_kind(world, got, asked)
            assert sum(one.ids == of_kind(world, which, VLLM) for one, which in zip(got, asked, strict=True)) == 5

    run(story())


def test_many_bound_answers_of_two_kinds_all_end_as_they_began():
    """A replica of each kind dies; each answer goes on at the other one of its kind, and none keeps another one waiting."""

    async def story():
        world = mixed("p1", "p2", "v1", "v2", slots=8)
        async with world.running():
            asked = [world.generation(120, seed=n, sampling=DRAWN) for n in range(16)]
            tasks = [asyncio.ensure_future(world.chat(one)) for one in asked]
            await world.clock.sleep(1)
            world.replicas["p1"].kill()
            world.replicas["v1"].kill()
            got = await together(*tasks)
            assert of_one_kind(world, got, asked)
            assert sum(one.moves for one in got) == 8
            world.settled()

    run(story())


def test_a_kind_without_room_keeps_nobody_of_the_other_kind_waiting():
    async def story():
        world = mixed("p1", "p2", "v1", "v2", slots=4)
        async with world.running():
            long = [world.generation(400, seed=n, sampling=DRAWN) for n in range(14)]
            tasks = [asyncio.ensure_future(world.chat(one)) for one in long]
            await world.clock.sleep(1)
            world.replicas["v1"].kill()  # three or four, and v2 has room for one at most
            await world.clock.sleep(0.5)
            world.replicas["p1"].kill()
            await world.clock.sleep(0.5)
            now = {name: sum(line.in_flight for line in one.lines) for name, one in world.replicas.items()}
            assert now["v2"] == 4
            assert now["p2"] == 4
            got = await together(*tasks)
            assert all(
                one.ids in (of_kind(world, which, PEARL), of_kind(world, which, VLLM))
                for one, which in zip(got, long, strict=True)
            )
            world.settled()

    run(story())


@pytest.mark.parametrize("way", ["killed", "leaving"])
def test_what_is_held_to_a_grammar_that_can_not_be_led_goes_on_when_it_is_lost_and_stays_while_it_is_well(way):
    async def story():
        world = mixed("v1", "v2")
        async with world.running():
            asked = world.generation(60, sampling=JSON)

            def hurt(count):
                if count == 20 and way == "killed":
                    world.replicas["v1"].kill()
                elif count == 20:
                    world.leaving["v1"] = "it is drained"

            got = await (await on(world, "v1", asked, hurt))
            assert (got.ids, got.fault, got.moves) == (world.expected(asked), None, way == "killed")
            world.settled()

    run(story())


def test_a_grammar_is_given_to_who_can_hold_it():
    async def story():
        world = mixed("p", "v")
        none = structs.replace(VLLM, grammar=Hold.NONE)
        world.kinds, world.replicas["v"].release = (PEARL, none), none
        async with world.running():
            seen = []
            for line in world.replicas["v"].lines:
                line.on_submit = lambda generation: seen.append(generation.sampling.grammar)
            asked = [world.generation(20, sampling=JSON) for _ in range(6)] + [world.generation(20) for _ in range(6)]
            got = await together(*(world.chat(one) for one in asked))
            assert all(one.fault is None for one in got)
            assert seen
            assert set(seen) == {""}
            world.settled()

    run(story())


def test_a_leaving_replica_hands_over_what_others_may_go_on_with_and_keeps_the_rest():
    async def story():
        world = mixed("v", "p", across=True)
        async with world.running():
            greedy, drawn = world.generation(100, sampling=GREEDY), world.generation(100, sampling=DRAWN)
            first = await on(world, "v", greedy)
            second = await on(world, "v", drawn)
            world.leaving["v"] = "it is drained"
            moved, stayed = await together(first, second)
            assert (moved.ids, moved.moves) == (world.expected(greedy), 1)
            assert (stayed.ids, stayed.moves) == (of_kind(world, drawn, VLLM), 0)
            world.settled()

    run(story())


def test_thinking_that_is_cut_short_goes_on_where_it_was_thought():
    async def story():
        world = mixed("p", "v")
        async with world.running():
            end = ThinkingEnd(5, (5,))
            service = stack(
                Wiring(
                    gate=world.gate,
                    lines=world.lines,
                    clock=world.clock,
                    emit=world.events.append,
                    moves_max=4,
                    thinking_end=lambda prompt_ids: end,
                )
            )
            world.service = service
            for _ in range(4):
                asked = world.generation(60, sampling=DRAWN, thinking_max=20)
                got = await world.chat(asked)
                kind = VLLM if got.ids[:20] == of_kind(world, asked, VLLM)[:20] else PEARL
                whole = of_kind(world, asked, kind)
                assert got.ids == [*whole[:20], 5, *whole[21:]]
            world.settled()

    run(story())


def worker_of(machine):
    one = machine.worker()
    one.journal.kinds = machine.world.lines.kinds
    one.journal.making = lambda generation: making(machine.world.lines, generation)
    one.journal.release = lambda: machine.world.kinds[0].digest
    return one


@pytest.mark.parametrize("back", [True, False])
def test_an_answer_that_another_worker_goes_on_with_stays_with_its_kind(back):
    async def story():
        machine = Machine("p", "v")
        machine.world.kinds = (PEARL, VLLM)
        for name, kind in (("p", PEARL), ("v", VLLM)):
            machine.world.replicas[name].release = kind
        async with machine.running():
            world = machine.world
            first, second = worker_of(machine), worker_of(machine)
            world.replicas["p"].refusing = "not now"
            asked = world.generation(100, seed=5, sampling=DRAWN, deadline=30.0)
            head = await first.ask(asked, until=40)
            world.replicas["p"].refusing = ""
            world.replicas["v"].kill()
            if back:
                asyncio.get_running_loop().call_later(3.0, world.replicas["v"].start)
            kept = await second.streams.find(asked.id)
            assert kept.begun.release == VLLM.digest, "the journal says which kind made the first token"
            got = await second.resume(kept)
            assert head.ids == got.ids[:40]
            if back:
                assert got.ids == of_kind(world, asked, VLLM)
            else:
                assert isinstance(got.fault, Expired)
                assert got.ids == of_kind(world, asked, VLLM)[:40]

    run(story())


def test_a_worker_that_dies_with_an_answer_whose_grammar_can_not_be_led_does_not_cost_it():
    async def story():
        machine = Machine("v")
        machine.world.kinds = (VLLM,)
        machine.world.replicas["v"].release = VLLM
        async with machine.running():
            first, second = worker_of(machine), worker_of(machine)
            asked = machine.world.generation(100, sampling=JSON)
            await first.ask(asked, until=40)
            got = await second.resume(await second.streams.find(asked.id))
            assert (got.ids, got.fault) == (machine.world.expected(asked), None)

    run(story())


def test_on_a_site_with_one_kind_nobody_is_asked_about_kinds():
    async def story():
        world = World("a", "b")
        async with world.running():
            assert world.lines.kinds.all == (RELEASE,)
            assert not world.lines.kinds.mixed
            asked = world.generation(30)
            assert (await world.chat(asked)).ids == world.expected(asked)

    run(story())
