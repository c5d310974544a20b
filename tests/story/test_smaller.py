"""A smaller model beside the site's own, on replicas of its own, in one worker and in virtual time."""

import asyncio
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from random import Random

import pytest
from msgspec import structs

from holdfast.dialect.open import open_dialect
from holdfast.domain.event import AnswerMoved
from holdfast.domain.fault import Fault, Overloaded
from holdfast.domain.request import Generation
from holdfast.domain.roster import Place, Roster
from holdfast.domain.settings import Settings
from holdfast.gateway.asker import Asker
from holdfast.gateway.degrade import Degrader
from holdfast.gateway.follow import Follower, of_model
from holdfast.gateway.smaller import SmallerModel
from holdfast.gateway.worker import Parts, needs_of, second_of, wire
from holdfast.sim.clock import VirtualClock, run
from holdfast.sim.replica import SimReplica, answer

DIALECT = open_dialect(Path(__file__).parents[2] / "src/holdfast/shipped/pearl")
NAMED = Settings()
SETTINGS = structs.replace(NAMED, model=structs.replace(NAMED.model, name="pearl"))


class Site:
    """Replicas a and b serve the site's model, s the smaller one."""

    def __init__(self, slots=4):
        self.clock, self.events = VirtualClock(), []
        self.replicas = {name: SimReplica(name, self.clock, 0.02, slots) for name in ("a", "b", "s")}
        self.dialled = []
        self.parts = Parts(
            dialler=self.dial,
            dialect=DIALECT,
            read_roster=self.roster,
            context_tokens_max=1000,
            clock=self.clock,
            unix_s=lambda: 7.0,
            bits=Random(1).getrandbits,
            emit=self.events.append,
            announce=lambda address: None,
            smaller=SmallerModel("tiny", DIALECT, 500),
        )
        self.degrader = Degrader(worker="gateway-0.0", told=list, clock=self.clock, emit=self.events.append)
        self.asked = 0

    async def dial(self, place):
        self.dialled.append((place.replica, place.model))
        return self.replicas[place.address].dial()

    def roster(self):
        return Roster(
            replicas=2,
            places=tuple(
                Place(replica=name, address=name, boot=one.boot, model="tiny" if name == "s" else "")
                for name, one in self.replicas.items()
                if one.alive
            ),
        )

    @asynccontextmanager
    async def running(self):
        wiring = wire(SETTINGS, self.parts)
        wiring.gate.refuses = self.degrader.refuses
        main = needs_of(SETTINGS, self.parts, wiring)
        second = second_of(SETTINGS, self.parts, main, self.degrader, wiring.gate.tenants)
        assert second is not None
        self.gate = wiring.gate
        self.lines, self.second, self.service, self.smaller = wiring.lines, second.lines, main.service, second.smaller
        turning = [Follower(self.lines, of_model(self.roster), self.clock).run(), *second.running]
        tasks = [asyncio.ensure_future(one) for one in (*turning, *(one.run() for one in self.replicas.values()))]
        try:
            await self.clock.sleep(0.2)
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.lines.close()
            await self.second.close()

    def on_rung(self, rung):
        self.degrader.rung = rung

    async def ask(self, service, tokens=20, **more):
        self.asked += 1
        asked = Generation(id=f"g{self.asked}", prompt_ids=[7, 8, self.asked], max_tokens=tokens, **more)
        ids, fault = [], None
        try:
            async with aclosing(service(asked)) as chunks:
                async for chunk in chunks:
                    ids += chunk.ids
        except Fault as found:
            fault = found
        return ids == answer(asked.prompt_ids, asked.seed, tokens), fault


def test_each_model_has_replicas_and_lines_of_its_own():
    async def story():
        site = Site()
        async with site.running():
            assert sorted(site.dialled) == [("a", ""), ("b", ""), ("s", "tiny")]
            assert (set(site.lines.known()), set(site.second.known())) == ({"a", "b"}, {"s"})
            assert (site.lines.slots(), site.second.slots()) == (8, 4)
            assert await site.ask(site.service) == (True, None)
            assert await site.ask(site.smaller.needs.service) == (True, None)

    run(story())


def test_no_answer_moves_from_one_model_to_the_other():
    async def story():
        site = Site()
        async with site.running():
            own = asyncio.ensure_future(site.ask(site.service, 100))
            small = asyncio.ensure_future(site.ask(site.smaller.needs.service, 100))
            await site.clock.sleep(0.5)
            for name in ("a", "s"):
                site.replicas[name].kill()
            assert await own == (True, None)
            await site.clock.sleep(1)
            assert not small.done()  # the site's own replicas are free, and still it waits
            site.replicas["s"].start()
            assert await small == (True, None)
            assert "s" in {event.replica for event in site.events if isinstance(event, AnswerMoved)}

    run(story())


def test_it_takes_requests_on_its_rung_only_and_only_as_far_as_it_has_room():
    async def story():
        site = Site(slots=2)
        async with site.running():

            def takes(tenant, **more):
                return site.smaller.takes(Asker("", tenant=tenant, **more))

            site.on_rung(3)
            assert not takes("default")
            site.on_rung(4)
            assert takes("default")
            busy = [asyncio.ensure_future(site.ask(site.smaller.needs.service, 100)) for _ in range(2)]
            await site.clock.sleep(0.2)
            assert not takes("default")
            await asyncio.gather(*busy)
            assert takes("default")
            site.degrader.reserved = "bank".__eq__
            assert not takes("bank")
            assert takes("default")
            assert not takes("default", never_degrade=True)

    run(story())


def test_what_the_smaller_model_takes_is_not_turned_away_for_the_length_of_the_other_queue():
    async def story():
        site = Site(slots=1)
        async with site.running():
            gate = site.gate
            gate.elsewhere = site.smaller.takes
            busy = [asyncio.ensure_future(site.ask(site.service, 400, tenant="default")) for _ in range(40)]
            await site.clock.sleep(4)
            assert gate.queue.requests
            with pytest.raises(Overloaded):
                gate.glance(Asker("", deadline_s=2.0))
            site.on_rung(4)
            gate.glance(Asker("", deadline_s=2.0))
            with pytest.raises(Overloaded):
                gate.glance(Asker("", deadline_s=2.0, never_degrade=True))
            for one in busy:
                one.cancel()
            await asyncio.gather(*busy, return_exceptions=True)

    run(story())


def test_without_a_replica_of_it_the_rung_is_left_out():
    async def story():
        site = Site()
        async with site.running():
            assert site.degrader.smaller_serves()
            site.replicas["s"].kill()
            await site.clock.sleep(0.5)
            assert not site.degrader.smaller_serves()
            site.on_rung(4)
            assert not site.smaller.takes(Asker("", tenant="default"))

    run(story())


def test_its_card_goes_by_its_own_name_and_answers_to_the_names_of_the_model_it_stands_in_for():
    async def story():
        site = Site()
        async with site.running():
            card = site.smaller.needs.card()
            assert (card.name, card.context_tokens_max, site.smaller.needs.stands_in) == ("tiny", 500, "tiny")
            assert dict(card.aliases)["pearl"] is False
            assert "deepseek-reasoner" in dict(card.aliases)
            assert site.smaller.needs.streams is None

    run(story())


def test_what_a_rung_refuses_the_smaller_model_refuses_too():
    async def story():
        site = Site()
        async with site.running():
            site.on_rung(4)
            with pytest.raises(Overloaded, match="no request of a priority below 0"):
                site.gate.glance(Asker("", priority=-1))  # before its body is read
            for service in (site.service, site.smaller.needs.service):
                _, fault = await site.ask(service, priority=-1, tenant="default")
                assert isinstance(fault, Overloaded)
                assert fault.limit.name == "degraded"

    run(story())
