"""Stories of a site that gives something up, rung by rung, and gives it back; and of thinking that is brought to an end."""

import asyncio
from contextlib import aclosing, asynccontextmanager

import pytest
from msgspec import structs
from pair import Machine
from world import World, together

from holdfast.domain.dialect import ThinkingEnd
from holdfast.domain.event import AnswerMoved, RungChanged
from holdfast.domain.fault import EngineLost, Fault, Overloaded
from holdfast.domain.request import Finish
from holdfast.domain.tenant import Limits
from holdfast.gateway.degrade import Cuts, Degrader
from holdfast.gateway.gate_view import view_of
from holdfast.gateway.metrics import Tally
from holdfast.gateway.stack import Wiring, stack
from holdfast.gateway.streams import Streams
from holdfast.gateway.telling import OwnBoard, Teller
from holdfast.gateway.tenants import Tenants
from holdfast.policy.ladder import Rules
from holdfast.sim.clock import run
from holdfast.sim.replica import answer

MARK = 5  # no replica says it by itself
END = ThinkingEnd(MARK, (10, MARK, 10))


def full_stack(world, journal=None, clock=None, **more):
    """The real list of layers over this world, with the bound on thinking in its place."""
    wiring = Wiring(
        gate=world.gate,
        lines=world.lines,
        clock=clock or world.clock,
        emit=world.events.append,
        moves_max=world.moves_max,
        journal=journal,
        thinking_end=lambda prompt_ids: END,
        **more,
    )
    return stack(wiring)


def expected(asked):
    """The undisturbed answer: reasoning up to the bound, its end, and the rest, every token at its own place."""
    whole = answer(asked.prompt_ids, asked.seed, asked.max_tokens)
    bound = asked.thinking_max
    return [*whole[:bound], *END.ids, *whole[bound + len(END.ids) :]]


def test_thinking_is_brought_to_an_end_and_costs_one_step_more():
    async def story():
        world = World("a", "b", step_s=0.25)
        async with world.running():
            world.service = full_stack(world)
            asked = world.generation(200, thinking_max=50)
            got = await world.chat(asked)
            assert got.ids == expected(asked)
            assert (got.finish, got.moves) == (Finish.LENGTH, 0)
            assert world.clock.now() <= 50.5
            world.settled()

    run(story())


@pytest.mark.parametrize("kills", [(20,), (50,), (53,), (54,), (120,), (20, 120), (49, 54)])
def test_a_thinking_cut_survives_replicas_that_die_token_for_token(kills):
    async def story():
        world = World("a", "b", "c", step_s=0.25)
        async with world.running():
            world.service = full_stack(world)
            asked = world.generation(200, thinking_max=50)

            def strike(count):
                if count in kills:
                    busy = [one for one in world.replicas.values() if one.alive and one.lines[-1].in_flight]
                    for one in busy:
                        one.kill()

            got = await world.chat(asked, strike)
            assert got.ids == expected(asked)
            moved = [event.token for event in world.events if isinstance(event, AnswerMoved)]
            assert len(moved) == got.moves <= len(kills)
            world.settled()

    run(story())


@pytest.mark.parametrize("until", [1, 30, 49, 50, 53, 54, 120, 199])
def test_an_answer_whose_thinking_is_bounded_survives_its_worker(until):
    """The worker dies after so many tokens have reached the client; whoever goes on makes the same answer of it."""

    async def story():
        machine = Machine()
        async with machine.running():
            one, other = machine.worker(), machine.worker()
            for worker in (one, other):
                worker.service = full_stack(machine.world, worker.journal, worker.clock)
                worker.streams = Streams(worker.journal, worker.archive, worker.shelf, worker.service, worker.clock)
            asked = machine.world.generation(200, thinking_max=50)
            first = await one.ask(asked, until)
            kept = await other.streams.find(asked.id)
            assert kept is not None
            rest = await other.resume(kept)
            assert rest.fault is None
            assert rest.ids == expected(asked)
            assert first.ids == rest.ids[: len(first.ids)]
            assert rest.finish is Finish.LENGTH

    run(story())


class Site:
    """One whole worker below its door: layers, gate, teller, board and ladder, over a world of replicas."""

    def __init__(self, *replicas, limits=(), slots=64, rules=None, **options):
        self.world = World(*(replicas or ("a", "b")), slots=slots)
        self.world.gate.tenants = Tenants(limits)
        self.tally, self.board = Tally(), OwnBoard()
        self.failing = 0.0  # share of answers that end in an error of ours
        self._due = 0.0
        world = self.world
        reserved = {one.tenant for one in limits if one.reserved}
        self.degrader = Degrader(
            worker="gateway-0",
            told=self.board.told,
            clock=world.clock,
            emit=world.events.append,
            rules=rules or Rules(),
            cuts=Cuts(40, 20),
            has_reserved=bool(reserved),
            reserved=reserved.__contains__,
            **options,
        )
        world.gate.refuses = self.degrader.refuses
        self.teller = Teller("gateway-0", self.board, world.clock, world.lines, self.seen)
        self.teller.rung = lambda: (self.degrader.rung, self.degrader.why)
        self.teller.resident_bytes = lambda: 0
        self.got = []

    def seen(self, now):
        return structs.replace(
            view_of(self.world.gate, now), answered=self.tally.answers, failed=self.tally.answers_failed
        )

    @asynccontextmanager
    async def running(self):
        async with self.world.running():
            self.service = full_stack(self.world)
            tasks = [asyncio.ensure_future(self.teller.run()), asyncio.ensure_future(self.degrader.run())]
            try:
                yield self
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def ask(self, tokens=4, tenant="default", priority=0, **more):
        """Be a client, and the door that counts for it."""
        asked = self.world.generation(tokens, tenant=tenant, priority=priority, **more)
        cut = self.degrader.cut(asked.max_tokens, True)
        asked = structs.replace(asked, max_tokens=cut.max_tokens, thinking_max=cut.thinking_max)
        self._due += self.failing
        fails, ids, fault = self._due >= 1.0, [], None
        self._due -= fails
        try:
            async with aclosing(self.service(asked)) as chunks:
                async for chunk in chunks:
                    ids += chunk.ids
                    if fails and ids:
                        raise EngineLost("it went wrong")
            self.tally.answers += 1
        except Fault as found:
            fault = found
            self.tally.failed(found)
        self.got.append((self.world.clock.now(), tenant, len(ids), fault))
        return ids, fault

    async def stream(self, per_s, seconds, **more):
        """An open loop of clients."""
        async with asyncio.TaskGroup() as group:
            for _ in range(round(per_s * seconds)):
                group.create_task(self.ask(**more))
                await self.world.clock.sleep(1 / per_s)

    def steps(self):
        return [(one.before, one.after) for one in self.world.events if isinstance(one, RungChanged)]

    def whys(self):
        return self.world.whys(RungChanged)


def test_six_percent_of_errors_degrade_the_site_within_the_window_and_it_comes_back():
    async def story():
        site = Site()
        async with site.running():
            await site.stream(50, 20)
            assert site.steps() == []
            site.failing = 0.06
            began = site.world.clock.now()
            await site.stream(50, 10)
            assert site.steps() == [(0, 1)]
            assert site.world.clock.now() - began < 10.1
            assert site.whys()[0].startswith("answers are cut to a length: 5.")
            ids, _ = await site.ask(100)
            assert len(ids) == 40
            await site.stream(50, 6)
            assert site.steps() == [(0, 1), (1, 2), (2, 3)]
            site.failing = 0.0
            await site.stream(50, 30)
            assert site.steps()[3:] == [(3, 2), (2, 1), (1, 0)]
            ids, _ = await site.ask(100)
            assert len(ids) == 100
            site.world.settled()

    run(story())


def test_errors_that_another_replica_makes_good_change_nothing():
    async def story():
        site = Site("a", "b", "c")
        async with site.running():
            for _ in range(6):
                stream = asyncio.ensure_future(site.stream(50, 3, tokens=20))
                await site.world.clock.sleep(1.5)
                site.world.replicas["a"].kill()
                await site.world.clock.sleep(0.5)
                site.world.replicas["a"].start()
                await stream
            assert sum(isinstance(event, AnswerMoved) for event in site.world.events) > 20
            assert site.tally.answers_failed == 0
            assert site.steps() == []

    run(story())


def test_on_the_second_rung_thinking_is_short_and_on_the_third_the_sheddable_are_refused():
    async def story():
        site = Site(rules=Rules(step_s=1.0))
        site.failing = 0.2
        async with site.running():
            await site.stream(50, 8)
            assert site.degrader.rung == 3
            ids, fault = await site.ask(30)
            assert (ids[20:23], fault) == (list(END.ids), None)
            _, fault = await site.ask(priority=-1)
            assert isinstance(fault, Overloaded)
            assert (fault.status, fault.limit.name) == (503, "degraded")
            assert fault.why == (
                "no request of a priority below 0 is served while the site stands on rung 3, sheddable refused"
            )

    run(story())


def test_too_much_work_makes_answers_shorter_so_that_more_are_served():
    """Answers of 120 tokens at twice what the replicas can make; with 40 tokens each they fit."""

    def refused(**options):
        async def story():
            site = Site(slots=8, **options)  # 16 slots of 50 tokens a second: 800 tokens a second
            async with site.running():
                await site.stream(13, 70, tokens=120)  # 1560 tokens a second, or 520 of those that are cut
                faults = [fault for _, _, _, fault in site.got]
                return site, sum(fault is not None for fault in faults) / len(faults)

        return run(story())

    site, share = refused()
    without, share_without = refused(on=False)
    assert without.steps() == []
    assert share_without > 0.4
    assert share < 0.1
    assert site.steps()[0] == (0, 1)
    assert site.whys()[0].startswith("answers are cut to a length: requests wait ")
    trials = sum(step == (1, 0) for step in site.steps())
    assert trials <= 4  # each that failed made the next one wait twice as long


def test_one_greedy_tenant_degrades_nobody():
    async def story():
        names = [f"t{number}" for number in range(10)]
        site = Site(slots=8, limits=[Limits(tenant=name) for name in names])
        async with site.running():
            modest = [site.stream(1, 30, tokens=40, tenant=name) for name in names[1:]]
            await together(site.stream(40, 30, tokens=40, tenant=names[0]), *modest)
            refused = {name: sum(one[3] is not None for one in site.got if one[1] == name) for name in names}
            assert refused[names[0]] > 100
            assert sum(refused.values()) - refused[names[0]] <= 5
            assert site.steps() == []

    run(story())


def test_with_no_replica_at_all_it_says_why_it_degrades():
    async def story():
        site = Site("a")
        async with site.running():
            await site.stream(5, 2)
            site.world.replicas["a"].kill()
            waiting = asyncio.ensure_future(site.ask())
            await site.world.clock.sleep(4)
            assert site.steps()[:1] == [(0, 1)]
            assert site.whys()[0] == "answers are cut to a length: no replica may serve and answers are owed: 1"
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)

    run(story())
