"""What a worker tells the others: its replicas as its layers see them, and what happened in the last second."""

import asyncio

import pytest
from world import World

from holdfast.domain.board import TenantView, WorkerView
from holdfast.domain.roster import Place
from holdfast.gateway.gate_view import view_of
from holdfast.gateway.lines import Suspicion
from holdfast.gateway.telling import EVERY_S, OwnBoard, Teller, replica_views, state_of, with_rates
from holdfast.policy.breaker import Peers, Way
from holdfast.sim.clock import run


def teller_of(world: World, board: OwnBoard) -> Teller:
    return Teller("gateway-0", board, world.clock, world.lines, lambda now: view_of(world.gate, now))


def test_a_worker_tells_what_runs_where_ten_times_a_second():
    async def story() -> tuple[WorkerView, WorkerView, float]:
        world, board = World("a", "b", step_s=0.02, slots=4), OwnBoard()
        async with world.running():
            telling = asyncio.ensure_future(teller_of(world, board).run())
            asked = [asyncio.ensure_future(world.chat(world.generation(100))) for _ in range(3)]
            await world.clock.sleep(1.0)
            during = board.told()[0]
            await asyncio.gather(*asked)
            ended = world.clock.now()
            await world.clock.sleep(0.2)
            after = board.told()[0]
            telling.cancel()
            return during, after, ended

    during, after, ended = run(story())
    assert during.worker == "gateway-0"
    assert during.memory_mib > 1
    assert (during.running, during.admitted, during.waiting) == (3, 3, 0)
    assert sorted((one.replica, one.slots, one.state) for one in during.replicas) == [
        ("a", 4, "serving"),
        ("b", 4, "serving"),
    ]
    assert sum(one.running for one in during.replicas) == 3
    assert all(one.outstanding_tokens > 0 and one.held_tokens > 0 for one in during.replicas)
    assert [(one.tenant, one.running) for one in during.tenants] == [("default", 3)]
    assert (after.running, after.admitted) == (0, 3)
    assert after.at >= ended
    assert after.at - ended <= 0.2 + EVERY_S
    assert all((one.running, one.held_tokens) == (0, 0) for one in after.replicas)


def test_a_view_that_was_told_stays_as_it_was():
    async def story() -> tuple[int, int]:
        world, board = World("a", slots=4), OwnBoard()
        async with world.running():
            teller = teller_of(world, board)
            world.gate.account(world.gate.tenants.default).refused["queue_wait"] = 1
            first = teller.view()
            world.gate.account(world.gate.tenants.default).refused["queue_wait"] = 5
            return first.tenants[0].refused["queue_wait"], teller.view().tenants[0].refused["queue_wait"]

    assert run(story()) == (1, 5)


def test_rates_are_those_of_the_last_second():
    before = WorkerView(
        worker="w",
        at=10.0,
        admitted=100,
        failed=1,
        refused={"tenant_rate": 50},
        tenants=(TenantView(tenant="a", admitted=60, refused={"tenant_rate": 50}, served_tokens=900.0),),
    )
    now = WorkerView(
        worker="w",
        at=12.0,
        admitted=120,
        failed=4,
        refused={"tenant_rate": 50, "queue_wait": 10},
        tenants=(
            TenantView(tenant="a", admitted=70, refused={"tenant_rate": 50, "queue_wait": 10}, served_tokens=1000.0),
            TenantView(tenant="new", admitted=900, served_tokens=9000.0),
        ),
    )
    told = with_rates(now, before, tokens=500)
    assert (told.admitted_per_s, told.requests_per_s, told.failed_per_s, told.tokens_per_s) == (10.0, 15.0, 1.5, 250.0)
    assert told.refused_per_s == {"queue_wait": 5.0}
    assert [(one.admitted_per_s, one.refused_per_s, one.served_per_s) for one in told.tenants] == [
        (5.0, {"queue_wait": 5.0}, 50.0),
        (0.0, {}, 0.0),  # of one who comes again after it was not told of, nothing is known yet
    ]
    assert with_rates(now, now, 0) == now


def test_rates_forget_what_is_older_than_a_second():
    async def story() -> list[float]:
        world, board, made = World("a"), OwnBoard(), 0
        async with world.running():
            teller, found = teller_of(world, board), []
            teller.tokens = lambda: made
            for tick in range(40):
                made += 50 if tick < 20 else 0
                found.append(round(teller.view().tokens_per_s))
                await world.clock.sleep(EVERY_S)
            return found

    found = run(story())
    assert found[0] == 0
    assert found[15] == pytest.approx(500, rel=0.01)
    assert found[25] == pytest.approx(200, rel=0.01)  # of the last ten looks, four found something new
    assert found[39] == 0


def test_a_replicas_state_says_why_it_gets_no_work():
    async def story() -> list[str]:
        world, states = World("a"), []
        async with world.running():
            known = world.lines.known()["a"]
            states.append(state_of(known))
            known.place = Place(replica="a", address="a", boot=known.place.boot, weight=0.0, warm=True)
            states.append(state_of(known))
            known.place = Place(replica="a", address="a", boot=known.place.boot, leaving="drained")
            states.append(state_of(known))
            known.place = Place(replica="a", address="a", boot=known.place.boot)
            for number in range(3):
                known.breaker.failed(Way.DIED, float(number), Peers(out=0, replicas=9, others=8))
            states.append(state_of(known))
            known.suspected_at, known.suspected_of = 1.0, Suspicion.SILENT
            states.append(state_of(known))
            states.append(replica_views(world.lines)[0].state)
            world.replicas["a"].kill()
            await world.clock.sleep(0)
            states.append(state_of(known))
        return states

    states = run(story())
    assert states[:3] == ["serving", "warm", "leaving"]
    assert states[3].startswith("breaker open: ")
    assert states[4:] == ["suspect: silent", "suspect: silent", "lost"]
