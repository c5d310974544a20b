"""Each limit of the gate by itself, in virtual time: memory, concurrency, quota, rate, bands, deadlines, the queue's order."""

import asyncio

import pytest
from world import World, together

from holdfast.domain.board import Rate
from holdfast.domain.fault import Expired, Overloaded
from holdfast.domain.tenant import Limits
from holdfast.gateway.asker import Asker
from holdfast.gateway.tenants import Tenants
from holdfast.gateway.writing import keep_alive
from holdfast.policy.quota import Quota, tokens_account, tokens_rule
from holdfast.policy.token_bucket import OwnLedger
from holdfast.sim.clock import run


def test_expired_work_never_reaches_a_replica():
    async def story():
        world = World("a", slots=2)
        reached = []
        async with world.running():
            for line in world.replicas["a"].lines:
                line.on_submit = lambda generation: reached.append(generation.id)
            busy = [world.generation(500, deadline=100) for _ in range(2)]
            late = [world.generation(5, deadline=0.5 + 0.1 * n) for n in range(2)]
            got = await together(*(world.chat(one) for one in busy + late))
            assert [type(one.fault) for one in got[2:]] == [Expired, Expired]
            assert "while it waited: all 2 slots of 1 replicas are taken" in got[2].fault.why
            assert reached == [one.id for one in busy]
            world.settled()

    run(story())


def test_what_can_not_be_done_in_time_any_more_gives_its_turn_to_the_next():
    """It learns while they wait that an answer takes 2 s: one with 1.9 s left is refused when a slot frees, not begun."""

    async def story():
        world = World("a", slots=1)
        async with world.running():
            first = world.generation(100, deadline=100)
            hurried, patient = world.generation(100, deadline=3.9), world.generation(100, deadline=100)
            got = await together(*(world.chat(one) for one in (first, hurried, patient)))
            assert got[1].fault.limit.name == "deadline"
            assert not got[1].ids
            assert got[2].ids == world.expected(patient)
            assert got[2].at[0] == pytest.approx(2.02, abs=0.05)
            world.settled()

    run(story())


def test_a_higher_band_goes_first_and_a_request_may_only_lower_its_own():
    async def story():
        tenants = Tenants([Limits(tenant="gold", priority=5)], {"g": "gold"}, keyless=True)
        world = World("a", slots=1, tenants=tenants)
        async with world.running():
            began = []
            names = {"plain": ("", 0), "gold": ("g", None), "low": ("g", -1), "cheat": ("g", 10)}

            async def ask(name: str) -> None:
                who = Asker(names[name][0], priority=names[name][1])
                world.gate.glance(who)
                generation = world.generation(10, deadline=500, tenant=who.tenant, priority=who.priority)
                await world.chat(generation, lambda count: began.append(name) if count == 1 else None)
                assert generation.priority == {"plain": 0, "gold": 5, "low": -1, "cheat": 5}[name]

            world.admission.first_token_s = 100
            world.gate.expectation.first = 10
            running = asyncio.ensure_future(world.chat(world.generation(50)))
            await world.clock.sleep(0.1)
            world.gate.pace.ended(10, 0.2)
            await together(ask("low"), ask("gold"), ask("cheat"))
            assert began == ["gold", "cheat", "low"]
            await running
            world.settled()

    run(story())


def test_guaranteed_memory_is_there_when_its_tenant_comes():
    async def story():
        tenants = Tenants([Limits(tenant="vip", memory_min=0.25)], {"v": "vip"}, keyless=True)
        world = World("a", slots=8, tenants=tenants)
        async with world.running():
            others = [asyncio.ensure_future(world.chat(world.generation(100))) for _ in range(8)]
            await world.clock.sleep(0.5)
            assert world.gate.running == 6  # two slots are kept
            vip = await together(*(world.chat(world.generation(10, key="v")) for _ in range(2)))
            assert all(one.at[0] < 0.6 and not one.waits for one in vip)
            assert all(one.fault is None for one in await together(*others))
            world.settled()

    run(story())


def test_the_largest_share_of_memory_and_the_concurrency_hold_while_all_else_is_idle():
    async def story():
        shares = [Limits(tenant="half", memory_max=0.5), Limits(tenant="two", concurrency=2)]
        world = World("a", slots=8, tenants=Tenants(shares, {"h": "half", "t": "two"}))
        async with world.running():
            asked = [world.generation(50, key=key) for key in "hhhhhttt"]
            answers = [asyncio.ensure_future(world.chat(one)) for one in asked]
            await world.clock.sleep(0.5)
            assert {name: one.running for name, one in world.gate.accounts.items()} == {"half": 4, "two": 2}
            assert world.gate.queue.requests == 2
            assert all(one.fault is None for one in await asyncio.gather(*answers))
            world.settled()

    run(story())


def test_beyond_its_concurrency_a_tenant_is_refused_with_429_once_the_wait_is_known():
    async def story():
        world = World("a", slots=8, tenants=Tenants([Limits(tenant="two", concurrency=2)], {"t": "two"}))
        async with world.running():
            await world.chat(world.generation(100, key="t"))
            got = await together(*(world.chat(world.generation(100, key="t")) for _ in range(9)))
            refused = [one.fault for one in got if one.fault]
            assert {fault.limit.name for fault in refused} == {"tenant_concurrency"}
            assert {fault.status for fault in refused} == {429}
            assert refused[0].why.startswith("tenant two: its concurrency is used up; ")
            world.settled()

    run(story())


def _level(world: World, ledger: OwnLedger, limits: Limits) -> float:
    return ledger.level(tokens_account(limits.tenant), tokens_rule(limits), world.clock.now())


def test_a_quota_is_reserved_at_its_upper_bound_and_settled_when_the_answer_ends():
    async def story():
        limits = Limits(tenant="acme", tokens_per_min=0.6, tokens_burst=1000)
        ledger = OwnLedger()
        world = World("a", tenants=Tenants([limits], {"k": "acme"}))
        world.gate.quota = Quota(ledger)
        async with world.running():
            got = await together(*(world.chat(world.generation(97, key="k")) for _ in range(64)))
            assert sum(one.fault is None for one in got) == 10  # 3 + 97 tokens each
            refused = next(one.fault for one in got if one.fault)
            assert (refused.status, refused.limit.name, refused.limit.unit) == (429, "tenant_quota", "tokens/min")
            assert _level(world, ledger, limits) == pytest.approx(0, abs=0.1)
            assert world.gate.accounts["acme"].reserved == 0

            await world.clock.sleep(100 * 103)
            before = _level(world, ledger, limits)
            asked = world.generation(90, key="k")
            task = asyncio.ensure_future(world.chat(asked))
            await world.clock.sleep(0.5)
            assert _level(world, ledger, limits) == pytest.approx(before - 93, abs=0.1)
            task.cancel()
            await asyncio.wait({task})
            delivered = round(before - _level(world, ledger, limits))
            assert 3 < delivered < 40  # the prompt and what had come; the rest was given back
            world.settled()

    run(story())


def test_what_is_refused_or_expires_costs_no_quota():
    async def story():
        limits = Limits(tenant="acme", tokens_per_min=0.6, tokens_burst=100000)
        ledger = OwnLedger()
        world = World("a", slots=1, tenants=Tenants([limits], {"k": "acme"}))
        world.gate.quota = Quota(ledger)
        async with world.running():
            first = asyncio.ensure_future(world.chat(world.generation(400, key="k")))
            await world.clock.sleep(0.1)
            late = await world.chat(world.generation(10, key="k", deadline=1.0))
            assert isinstance(late.fault, Expired)
            assert _level(world, ledger, limits) == pytest.approx(100000 - 403, abs=0.1)
            await first

    run(story())


def test_who_waits_is_told_how_many_are_ahead():
    async def story():
        world = World("a", slots=2)
        async with world.running():
            got = await together(*(world.chat(world.generation(100)) for _ in range(4)))
            assert got[2].waits[0] == "all 2 slots of 1 replicas are taken; 0 requests are ahead"
            assert got[3].waits[0] == "all 2 slots of 1 replicas are taken; 1 request is ahead"
            assert keep_alive(got[3].waits[0]) == (
                b": keep-alive; all 2 slots of 1 replicas are taken; 1 request is ahead\n"
            )

    run(story())


def test_an_urgent_answer_goes_ahead_of_everybody_and_is_never_refused():
    async def story():
        world = World("a", "b", slots=1)
        async with world.running():
            busy = [asyncio.ensure_future(world.chat(world.generation(100))) for _ in range(2)]
            await world.clock.sleep(0.1)
            waiting = asyncio.ensure_future(world.chat(world.generation(10)))
            await world.clock.sleep(0.1)
            urgent = world.generation(60, urgent=True, delivered_ids=[])
            got = await world.chat(urgent)
            assert got.ids == world.expected(urgent)
            late = await waiting
            await together(*busy)
            assert got.at[0] <= late.at[0]
            world.settled()

    run(story())


def test_over_the_rate_is_refused_at_the_glance_with_the_time_to_come_back():
    async def story():
        world = World("a")
        world.gate.quota = Quota(OwnLedger(), Rate(10, 2))
        async with world.running():
            for _ in range(2):
                world.gate.glance(Asker(""))
            with pytest.raises(Overloaded) as refused:
                world.gate.glance(Asker(""))
            fault = refused.value
            assert (fault.status, fault.limit.name, fault.retry_after_s) == (429, "site_rate", pytest.approx(0.1))
            assert fault.why == "over the site's rate of 10 requests/s; the next one fits in 100 ms"
            await world.clock.sleep(0.1)
            world.gate.glance(Asker(""))

    run(story())


def test_the_ladders_word_is_heard_at_both_looks():
    async def story():
        world = World("a")
        world.gate.refuses = lambda limits, band: "only reserved tenants at present" if band < 0 else ""
        async with world.running():
            got = await world.chat(world.generation(5, priority=-1))
            assert (got.fault.status, got.fault.limit.name) == (503, "degraded")
            assert (await world.chat(world.generation(5))).fault is None

    run(story())


def test_a_large_answer_is_not_starved_by_small_ones():
    """Where cache is short it is waited for, and nobody of its band overtakes meanwhile."""

    async def story():
        world = World("a", slots=8)
        async with world.running():
            boot = world.replicas["a"].boot
            world.lines.room.see(boot, 8, 400)
            small = [asyncio.ensure_future(world.chat(world.generation(60))) for _ in range(6)]
            await world.clock.sleep(0.1)
            large = world.generation(200)
            large.prompt_ids.extend(range(150))
            got = asyncio.ensure_future(world.chat(large))
            await world.clock.sleep(0.1)
            later = [asyncio.ensure_future(world.chat(world.generation(60))) for _ in range(3)]
            began = (await got).at[0]
            assert all(one.at[0] >= began for one in await together(*later))
            assert all(one.fault is None for one in await together(*small))
            world.settled()

    run(story())
