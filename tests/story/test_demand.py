"""Demand: what replicas and workers say, as one figure; and the crew that the settings make of a site."""

import asyncio
from pathlib import Path

import pytest
from msgspec import structs
from world import World

from holdfast.app.children import pool, rules_of, wants
from holdfast.domain.board import ReplicaView, WorkerView
from holdfast.domain.replica import Load, ReplicaState
from holdfast.domain.settings import Model, ReplicaSettings, Settings
from holdfast.domain.settings_engine import EngineSettings
from holdfast.domain.settings_overload import Scaling, Smaller
from holdfast.domain.site import Role
from holdfast.domain.tenant import Limits
from holdfast.domain.wish import Wishes
from holdfast.fleet.crew import Crew
from holdfast.fleet.demand import Demands
from holdfast.gateway.gate_view import view_of
from holdfast.gateway.tenants import Tenants
from holdfast.policy.scaling import Demand
from holdfast.policy.standing import Fact, Standing
from holdfast.sim.clock import run
from holdfast.store.folder import Folder


def replica(number: int, state: ReplicaState = ReplicaState.SERVING, **load: int) -> Standing:
    said = Load(slots=8, cache_tokens_max=1000, **load)
    fact = Fact(alive=True, boot=f"boot-{number}", load=said)
    return Standing(name=f"replica-{number}", role=Role.REPLICA, state=state, fact=fact)


def test_those_that_serve_are_added_up_and_nobody_else():
    ones = [
        replica(0, running=4, queued=1, cache_tokens=100),
        replica(1, running=8, cache_tokens=300),
        replica(2, ReplicaState.WARM, running=1),
        replica(3, ReplicaState.DRAINING, running=5),
        structs.replace(replica(4, running=8), model="tiny"),
    ]
    views = [
        WorkerView(worker="gateway-0", at=100.0, waiting=3, wait_s=0.2, tokens_per_s=50.0),
        WorkerView(worker="gateway-1", at=100.0, waiting=9, waiting_own=5, wait_s=0.7, tokens_per_s=25.0),
    ]
    assert Demands(lambda: views).look(ones, 100.5) == Demand(
        serving=2, slots=16, running=12, waiting=8, cache_share=0.2, wait_s=0.7, tokens_per_s=75.0
    )


def test_promised_cache_counts_when_it_is_more_than_what_is_in_use():
    held = ReplicaView(replica="replica-0", boot="boot-0", held_tokens=900)
    elsewhere = ReplicaView(replica="replica-9", boot="boot-9", held_tokens=900)
    views = [WorkerView(worker="gateway-0", at=0.0, replicas=(held, elsewhere))]
    told = Demands(lambda: views).look([replica(0, cache_tokens=100)], 0.0)
    assert told is not None
    assert told.cache_share == pytest.approx(0.9)


def test_refusals_for_want_of_room_are_a_share_of_what_came_lately():
    now, views = 0.0, [WorkerView(worker="gateway-0", admitted=1000, refused={"deadline": 50})]

    def told() -> list[WorkerView]:
        return [structs.replace(view, at=now) for view in views]

    demands = Demands(told)

    def share() -> float:
        found = demands.look([replica(0)], now)
        assert found is not None
        return found.refused_share

    assert share() == 0.0, "what was before is not known to be recent"
    now, views = 1.0, [WorkerView(worker="gateway-0", admitted=1030, refused={"deadline": 60, "tenant_quota": 500})]
    assert share() == 0.25
    now, views = 2.0, [WorkerView(worker="gateway-0", admitted=60, refused={})]
    assert share() == pytest.approx(10 / 100), "a worker that was replaced counts from nothing"
    now = 30.0
    assert share() == 0.0


def test_a_worker_that_has_said_nothing_lately_counts_no_more():
    demands = Demands(lambda: [WorkerView(worker="gateway-0", at=10.0, waiting=99)])
    told = demands.look([replica(0)], 20.0)
    assert told is not None
    assert told.waiting == 0


def test_looks_that_come_too_soon_tell_nothing():
    demands = Demands(list)
    assert demands.look([replica(0)], 10.0) is not None
    assert demands.look([replica(0)], 10.2) is None


FOLDER = Folder(Path("/state"), Path("/state/sock"))
SETTINGS = Settings(
    model=Model(path="/models/big", name="big"),
    replica=ReplicaSettings(count=2, devices="cuda:0,cuda:1,cuda:2,cuda:3", health_port=5000),
    scaling=Scaling(warm=1),
    smaller=Smaller(path="/models/tiny", name="tiny", count=2),
)


def test_the_settings_make_a_site_with_standbys_and_a_smaller_model():
    found = {want.child.name: want for want in wants(SETTINGS, FOLDER)}
    assert list(found) == ["replica-0", "replica-1", "replica-2", "smaller-0", "smaller-1", "gateway-0", "control"]
    assert [found[name].device for name in list(found)[:5]] == ["cuda:0", "cuda:1", "cuda:2", "cuda:3", "cuda:0"]
    assert [want.model for want in found.values()] == ["", "", "", "tiny", "tiny", "", ""]
    small, big = found["smaller-1"].child.argv, found["replica-1"].child.argv
    assert {"--model=/models/tiny", "--serve-as=tiny", "--health=127.0.0.1:5129"} <= set(small)
    assert {"--model=/models/big", "--serve-as=big", "--health=127.0.0.1:5001"} <= set(big)
    assert not [name for name in found if name.startswith("smaller") and not SETTINGS.smaller.path]


def test_in_a_mix_devices_go_to_those_that_compute_on_them_and_the_smaller_model_is_of_one_kind():
    mixed = structs.replace(
        SETTINGS,
        replica=structs.replace(SETTINGS.replica, engine="vllm", count=6, health_port=0),
        engine=EngineSettings(
            program="/v/python", mix=("embedded", "openai=http://h:1", "llamacpp=/x/python"), greedy_across=True
        ),
        scaling=Scaling(),
    )
    found = {want.child.name: want for want in wants(mixed, FOLDER)}
    every = mixed.replica.devices
    assert [found[f"replica-{n}"].device for n in range(6)] == [every, "cuda:1", "", "cpu", every, "cuda:3"]
    wide = structs.replace(mixed, engine=structs.replace(mixed.engine, gpus=2))
    assert {want.child.name: want.device for want in wants(wide, FOLDER)}["replica-1"] == "cuda:2"
    for name, number in (("smaller-0", 4), ("smaller-1", 5)):
        assert {"--engine=vllm", f"--number={number}"} <= set(found[name].child.argv), "behind the four on GPUs"


def test_a_supervisor_gets_everybody_that_could_be_wanted_and_wants_what_the_settings_say():
    everybody = wants(SETTINGS, FOLDER, 0, pool(SETTINGS))
    crew = Crew(everybody, rules_of(SETTINGS), list)
    mustered = crew.muster({}, Wishes())
    assert crew.names(mustered) == [want.child.name for want in wants(SETTINGS, FOLDER)]
    assert crew.names(crew.muster({}, Wishes(count=64)))[63:67] == [
        "replica-63",
        "replica-64",
        "smaller-0",
        "smaller-1",
    ]
    assert (crew.role("smaller-7"), crew.model("smaller-7")) == (Role.REPLICA, "smaller"), "of settings that are gone"
    assert (crew.role("gateway-3.2"), crew.role("stranger")) == (Role.GATEWAY, Role.CONTROL)


def test_those_who_wait_for_a_limit_of_their_own_are_told_apart_from_those_who_wait_for_room():
    async def story() -> tuple[WorkerView, WorkerView]:
        tenants = Tenants([Limits(tenant="two", concurrency=2), Limits(tenant="free")], {"t": "two", "f": "free"})
        world = World("a", slots=8, step_s=0.02, tenants=tenants)
        async with world.running():
            asked = [asyncio.ensure_future(world.chat(world.generation(50, key="t"))) for _ in range(4)]
            await world.clock.sleep(0.2)
            idle = view_of(world.gate, world.clock.now())
            asked += [asyncio.ensure_future(world.chat(world.generation(50, key="f"))) for _ in range(8)]
            await world.clock.sleep(0.2)
            full = view_of(world.gate, world.clock.now())
            await asyncio.gather(*asked)
            return idle, full

    idle, full = run(story())
    assert (idle.running, idle.waiting, idle.waiting_own) == (2, 2, 2)
    assert (full.running, full.waiting, full.waiting_own) == (8, 4, 2)
