"""Stories of requests that kill engines, in virtual time: two engines each, never a third, and nobody else is hurt."""

import asyncio
from random import Random
from typing import Any

import pytest
from msgspec import structs
from world import Answer, World

from holdfast.domain.event import AnswerMoved, RequestCondemned, RequestSuspected
from holdfast.domain.fault import Poisonous
from holdfast.domain.request import Finish, Generation
from holdfast.gateway.lane import Turns
from holdfast.gateway.quarantine import OwnCells, OwnRegister, Quarantine
from holdfast.gateway.stack import Moving
from holdfast.policy.lane import Lane
from holdfast.policy.retry_budget import RetryBudget
from holdfast.sim.clock import run
from holdfast.sim.replica import SimReplica

POISON = 9999
CRASH = "Fatal Python error: Segmentation fault"
RESTART_S = 2.0


class Ward(World):
    """Three replicas that a poison kills, and a supervisor that starts the dead again."""

    def __init__(self, crash: str, after_tokens: int, *names: str) -> None:
        super().__init__(*(names or ("a", "b", "c")))
        self.deaths: list[str] = []
        self._restarts: set[asyncio.Task[None]] = set()
        self.share(OwnCells(), OwnRegister())
        for one in self.replicas.values():
            one.poison = {POISON: (crash, after_tokens)}
            self._watch_over(one)

    def share(
        self, cells: OwnCells, register: OwnRegister, lane: Lane | None = None, budget: RetryBudget | None = None
    ) -> None:
        """Be one of several workers over these."""
        self.quarantine = Quarantine(
            self.lines, self.clock, self.clock.now, self.events.append, cells=cells, register=register
        )
        self.turns = Turns(self.lines, self.quarantine, self.clock, lane or Lane())
        self.moving = Moving(self.quarantine, self.turns, budget or RetryBudget())

    def _watch_over(self, one: SimReplica) -> None:
        def died(crash: str) -> None:
            self.deaths.append(one.boot)
            task = asyncio.get_running_loop().create_task(self.restart(one))
            self._restarts.add(task)
            task.add_done_callback(self._restarts.discard)

        one.on_death = died

    async def restart(self, one: SimReplica) -> None:
        await self.clock.sleep(RESTART_S)
        one.start()

    def poison(self) -> Generation:
        return self.generation(60, id="poison", prompt_ids=[7, POISON])

    def generation(self, count: int, seed: int = 0, **more: Any) -> Generation:
        return structs.replace(super().generation(count, seed), **more)

    async def beside(self, chance: Random, innocents: int, poisons: int = 1) -> tuple[list[Answer], list[Answer]]:
        """Innocents that begin at random moments, and the poison somewhere among them."""

        async def later(asked, after_s):
            await self.clock.sleep(after_s)
            return await self.chat(asked)

        asked = [self.generation(chance.randrange(40, 160), seed=one) for one in range(innocents)]
        bad = [later(self.poison(), chance.uniform(0.2, 1.5)) for _ in range(poisons)]
        got = await asyncio.gather(*bad, *(later(one, chance.uniform(0.0, 1.0)) for one in asked))
        whole = got[poisons:]
        assert [one.ids for one in whole] == [self.expected(one) for one in asked]
        assert all(one.finish is Finish.LENGTH and one.fault is None for one in whole)
        return got[:poisons], whole


@pytest.mark.parametrize("seed", range(50))
@pytest.mark.parametrize(("crash", "after"), [(CRASH, 0), ("", 0), (CRASH, 23)], ids=["loud", "silent", "midway"])
def test_poison_beside_sixty_innocents_costs_exactly_two_engines(crash: str, after: int, seed: int) -> None:
    async def story():
        world = Ward(crash, after)
        async with world.running():
            (poison,), _ = await world.beside(Random(seed), 60)
            assert isinstance(poison.fault, Poisonous)
            assert poison.fault.why.startswith("this request was in flight, as the only suspect, when two engines died")
            assert len(world.deaths) == 2
            condemned = [event for event in world.events if isinstance(event, RequestCondemned)]
            assert [event.generation for event in condemned] == ["poison"]
            assert world.turns.lane.held == 0
            assert not world.quarantine.cases
            world.settled()

    run(story())


def test_the_innocents_of_a_loud_death_are_tried_one_at_a_time_and_soon_cleared() -> None:
    async def story():
        world = Ward(CRASH, 0)
        async with world.running():
            _, whole = await world.beside(Random(1), 60)
            suspects = [event.generation for event in world.events if isinstance(event, RequestSuspected)]
            assert len(suspects) > 5
            assert len(set(suspects)) == len(suspects)
            assert max(one.pause_s for one in whole) < 1.5  # some twenty suspects, two replicas, three steps each

    run(story())


def test_two_engines_killed_from_outside_condemn_nobody_and_slow_nobody() -> None:
    async def story():
        world = Ward(CRASH, 0)
        async with world.running():
            asked = [world.generation(100, seed=one) for one in range(60)]

            async def kills():
                await world.clock.sleep(1.01)
                for name in ("a", "b"):
                    world.replicas[name].kill()
                    await world.clock.sleep(0.1)

            *got, _ = await asyncio.gather(*(world.chat(one) for one in asked), kills())
            assert [one.ids for one in got] == [world.expected(one) for one in asked]
            assert not [event for event in world.events if isinstance(event, RequestSuspected | RequestCondemned)]
            assert max(one.pause_s for one in got) < 0.05  # a step is 0.02 s: nobody waited for anything
            assert max(one.moves for one in got) == 2

    run(story())


def test_a_condemned_request_is_refused_at_the_door_and_let_in_when_its_time_is_over() -> None:
    async def story():
        world = Ward(CRASH, 0)
        async with world.running():
            await world.chat(world.poison())
            steps = {name: one.steps for name, one in world.replicas.items()}
            again = await world.chat(world.poison())
            assert isinstance(again.fault, Poisonous)
            assert "is refused for another 3" in again.fault.why
            assert {name: one.steps for name, one in world.replicas.items()} == steps
            assert len(world.deaths) == 2
            other = world.generation(5)
            assert (await world.chat(other)).ids == world.expected(other)
            await world.clock.sleep(3601)
            for one in world.replicas.values():
                one.poison = {}  # the engine was mended meanwhile
            asked = world.poison()
            assert (await world.chat(asked)).ids == world.expected(asked)

    run(story())


def test_a_copy_that_comes_while_the_first_is_on_trial_is_tried_alone_too() -> None:
    async def story():
        world = Ward(CRASH, 0)
        async with world.running():
            first = asyncio.ensure_future(world.chat(world.poison()))
            while not world.deaths:
                await world.clock.sleep(0.001)
            second = await world.chat(world.generation(10, id="copy", prompt_ids=[7, POISON]))
            assert isinstance((await first).fault, Poisonous)
            assert isinstance(second.fault, Poisonous)
            assert len(world.deaths) == 2

    run(story())


def test_a_suspect_whose_engine_only_lost_its_connection_is_not_condemned() -> None:
    async def story():
        world = Ward(CRASH, 0, "a", "b")
        async with world.running():
            for one in world.replicas.values():
                one.step_s = 0.5
            asked = world.generation(3)

            async def cuts():
                for at in (0.1, 0.25):
                    await world.clock.sleep(at)
                    for one in world.replicas.values():
                        for line in list(one.lines):
                            if line.in_flight:
                                one.reset(line, "connection reset by peer")

            got, _ = await asyncio.gather(world.chat(asked), cuts())
            assert got.ids == world.expected(asked)
            assert [event.generation for event in world.events if isinstance(event, RequestSuspected)]
            assert not [event for event in world.events if isinstance(event, RequestCondemned)]

    run(story())


def test_a_replica_that_was_frozen_and_is_killed_for_it_speaks_against_nobody() -> None:
    async def story():
        world = Ward("", 0, "a")
        async with world.running():
            await world.clock.sleep(6)
            world.replicas["a"].frozen = True
            asked = world.generation(5, deadline=world.clock.now() + 60)

            async def kill():
                await world.clock.sleep(5)
                world.replicas["a"].kill()
                await world.clock.sleep(1)
                world.replicas["a"].start()

            got, _ = await asyncio.gather(world.chat(asked), kill())
            assert got.ids == world.expected(asked)
            assert not [event for event in world.events if isinstance(event, RequestSuspected)]

    run(story())


def test_two_workers_with_a_suspect_each_never_share_a_replica() -> None:
    async def story():
        cells, register = OwnCells(), OwnRegister()
        worlds = [Ward(CRASH, 0) for _ in range(2)]
        one, two = worlds
        two.clock, two.replicas = one.clock, one.replicas
        for world in worlds:
            world.share(cells, register)
        together: list[int] = []

        def look():
            on_trial = [case.cell for world in worlds for case in world.quarantine.cases.values() if case.cell]
            together.append(max((on_trial.count(cell) for cell in on_trial), default=0))

        async with one.running(), two.running():
            asked = [[world.generation(60, seed=n, id=f"{k}{n}") for n in range(30)] for k, world in enumerate(worlds)]
            chats = [
                world.chat(each, lambda count: look())
                for world, ones in zip(worlds, asked, strict=True)
                for each in ones
            ]
            poison = one.chat(one.poison())
            await one.clock.sleep(0)
            got, *rest = await asyncio.gather(poison, *chats)
            assert isinstance(got.fault, Poisonous)
            assert [each.ids for each in rest] == [one.expected(each) for ones in asked for each in ones]
            assert len(one.deaths) == 2
            assert max(together) == 1
            assert {
                event.generation[0] for world in worlds for event in world.events if isinstance(event, RequestSuspected)
            } >= {"0", "1"}
            assert isinstance((await two.chat(two.poison())).fault, Poisonous)

    run(story())


def test_a_dead_replicas_answers_are_read_again_a_few_at_a_time_shortest_first() -> None:
    async def story():
        world = Ward(CRASH, 0, "a", "b")
        world.share(OwnCells(), OwnRegister(), Lane(tokens_max=100))
        held: list[int] = []
        async with world.running():
            world.replicas["b"].refusing = "busy"
            asked = [world.generation(100, seed=n, prompt_ids=[n] * (20 + 2 * n)) for n in range(1, 11)]

            async def kill():
                await world.clock.sleep(0.5)
                world.replicas["b"].refusing = ""
                await world.clock.sleep(0.5)
                world.replicas["a"].kill()

            got, *_ = await asyncio.gather(
                asyncio.gather(*(world.chat(one, lambda count: held.append(world.turns.lane.held)) for one in asked)),
                kill(),
            )
            assert [one.ids for one in got] == [world.expected(one) for one in asked]
            assert 0 < max(held) <= 100
            pauses = [one.pause_s for one in got]
            assert pauses == sorted(pauses)
            assert pauses[-1] > pauses[0]
            assert world.turns.lane.held == 0

    run(story())


def test_an_answer_that_moves_too_often_waits_for_the_budget_and_ends_whole() -> None:
    async def story():
        world = Ward(CRASH, 0, "a", "b")
        world.share(OwnCells(), OwnRegister(), Lane(), RetryBudget(share=0.01, floor_tokens=10))
        async with world.running():
            asked = world.generation(400)

            def kill(count):
                if count in (50, 100, 150):
                    name = "a" if world.replicas["a"].running() else "b"
                    world.replicas[name].kill()
                    world.replicas[name].start()

            got = await world.chat(asked, kill)
            assert got.ids == world.expected(asked)
            assert got.moves == 3
            assert any(why.startswith("answers have moved so often of late") for why in got.waits)
            assert len([event for event in world.events if isinstance(event, AnswerMoved)]) == 3

    run(story())
