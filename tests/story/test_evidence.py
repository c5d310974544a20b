"""Stories of replicas that run and answer, and are ill all the same: found from what they say of themselves, in virtual time."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest
from supervised import Supervised

from holdfast.domain.ailment import Ailment, Exhibit
from holdfast.domain.event import EjectionFrozen, ReplicaAiling, SelfDoubted, StepFailed
from holdfast.domain.release import Release
from holdfast.domain.replica import Load, ReplicaState
from holdfast.domain.request import Generation
from holdfast.domain.roster import Roster
from holdfast.fleet.canary import Canaries
from holdfast.fleet.evidence import Evidence, Heard, Rules, Sources
from holdfast.fleet.probe import Ears
from holdfast.policy import canary
from holdfast.policy.canary import Known
from holdfast.sim.clock import run
from holdfast.sim.replica import SimReplica, answer

RULES = Rules(canaries=canary.Rules(every_s=300.0, idle_s=10.0, idle_every_s=15.0))


class Watched(Supervised):
    """A site whose supervisor gathers evidence."""

    def __init__(self, *wanted: str, rules: Rules = RULES) -> None:
        super().__init__(*wanted)
        self.judged_by = rules
        self.memory: dict[str, float] = {}
        self.recorded: Known | None = None
        self.agreed: list[Known] = []
        self.exhibits: list[Exhibit] = []
        self.evidence: Evidence

    def listen(self) -> Ears:
        sources = Sources(
            now=self.clock.now,
            unix_s=self.clock.now,
            emit=self.events.append,
            resident_mib=self.memory.get,
            recorded=self._recorded,
            agree=lambda release, known: self.agreed.append(known),
            keep=self.exhibits.append,
        )
        self.evidence = Evidence(self.judged_by, sources)
        canaries = Canaries(self.evidence, self.clock, 16)
        return Ears(self.host.dial, self.clock, 0.5, self.wake.set, evidence=self.evidence, canaries=canaries)

    def replica(self, name: str) -> SimReplica:
        process = self.host.processes[name]
        assert process.replica is not None
        return process.replica

    async def load(self, name: str, streams: int = 4) -> list[asyncio.Task[None]]:
        """Long answers on one replica, as a gateway would ask for them."""
        line = self.replica(name).dial()

        async def stream(number: int) -> None:
            asked = Generation(id=f"{name}-{number}", prompt_ids=[7, number], max_tokens=1_000_000)
            async for _ in line.generate(asked):
                pass

        return [asyncio.create_task(stream(number)) for number in range(streams)]

    def _recorded(self, release: Release) -> Known | None:
        return self.recorded

    def _ailment(self, name: str) -> Ailment | None:
        return self.evidence.ailment(name)


def tell(story: Callable[[Watched], Coroutine[None, None, None]], *wanted: str, rules: Rules = RULES) -> None:
    """Let a site come up for 30 s, then tell the story."""

    async def whole() -> None:
        world = Watched(*wanted, rules=rules)
        world.hire()
        task = asyncio.create_task(world.serve())
        await world.clock.sleep(30)
        await story(world)
        assert not task.done(), task.result()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(whole())


async def until(world: Watched, found: Callable[[], object], within_s: float) -> float:
    """Wait for something, and say how long it took."""
    began = world.clock.now()
    while not found():
        assert world.clock.now() - began < within_s, f"not within {within_s} s: {world.whys(ReplicaAiling)}"
        await world.clock.sleep(0.1)
    return world.clock.now() - began


def test_a_replica_that_answers_pings_and_makes_no_step_is_killed_and_replaced() -> None:
    async def story(world: Watched) -> None:
        tasks = await world.load("replica-0")
        await world.clock.sleep(5)
        pid = world.host.alive()["replica-0"]
        world.replica("replica-0").lying = True
        took = await until(world, lambda: world.host.alive().get("replica-0") != pid, 8)
        assert took > 5
        assert "has made no step for" in world.whys(ReplicaAiling)[0]
        await until(world, lambda: len(world.roster.places) == 2, 20)
        await world.clock.sleep(60)
        world.as_wanted()
        assert len(world.whys(ReplicaAiling)) == 1, "the next life is innocent"
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    tell(story)


def test_a_replica_that_wedges_while_idle_is_found_by_its_canary() -> None:
    async def story(world: Watched) -> None:
        pid = world.host.alive()["replica-1"]
        world.replica("replica-1").lying = True
        await until(world, lambda: world.host.alive().get("replica-1") != pid, 35)
        await until(world, lambda: len(world.roster.places) == 2, 20)

    tell(story)


def test_one_that_wedges_and_denies_having_work_is_found_by_two_canaries() -> None:
    async def story(world: Watched) -> None:
        one = world.replica("replica-1")
        pid = world.host.alive()["replica-1"]
        one.lying = one.denying = True
        await until(world, lambda: world.host.alive().get("replica-1") != pid, 40)
        assert "2 canaries in a row got no token" in world.whys(ReplicaAiling)[0]

    tell(story)


def test_a_frozen_replica_is_silent_and_neither_idle_nor_wedged() -> None:
    async def story(world: Watched) -> None:
        world.host.freeze("replica-0")
        await world.clock.sleep(20)
        assert world.whys(ReplicaAiling) == []

    tell(story)


def test_slow_steps_are_no_wedge() -> None:
    async def story(world: Watched) -> None:
        tasks = await world.load("replica-0")
        for step_s in (0.5, 1.0, 2.0, 4.0):
            world.replica("replica-0").step_s = step_s
            await world.clock.sleep(40)
        assert [why for why in world.whys(ReplicaAiling) if "no step" in why] == []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    tell(story, rules=Rules(slow_s=1e6))


def test_a_replica_three_times_slower_than_its_peer_is_drained_and_renewed() -> None:
    async def story(world: Watched) -> None:
        tasks = [*await world.load("replica-0"), *await world.load("replica-1")]
        await world.clock.sleep(60)
        assert world.whys(ReplicaAiling) == []
        pid = world.host.alive()["replica-0"]
        world.replica("replica-0").step_s = 0.06
        took = await until(world, lambda: any(place.leaving for place in world.roster.places), 90)
        assert took > 60
        leaving = next(place for place in world.roster.places if place.leaving)
        assert (leaving.replica, leaving.weight) == ("replica-0", 0.0)
        assert "slow for 60 s: it takes 60.0 ms a step at a batch of 4, its peers 20.0 ms" in leaving.leaving
        await until(world, lambda: world.host.alive().get("replica-0", pid) != pid, 60)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    tell(story)


def test_when_all_slow_down_together_nobody_is_slow() -> None:
    async def story(world: Watched) -> None:
        tasks = [*await world.load("replica-0"), *await world.load("replica-1")]
        await world.clock.sleep(30)
        for name in ("replica-0", "replica-1"):
            world.replica(name).step_s = 0.2
        await world.clock.sleep(300)
        assert world.whys(ReplicaAiling) == []
        assert len(world.roster.places) == 2
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    tell(story)


def test_two_replicas_agree_on_the_known_answer() -> None:
    async def story(world: Watched) -> None:
        ids = tuple(answer(list(canary.PROMPT_IDS), 0, 16))
        assert world.agreed == [Known(prompt_ids=canary.PROMPT_IDS, ids=ids, source="agreed")]

    tell(story)


def test_a_replica_that_computes_wrongly_is_condemned_and_the_evidence_kept() -> None:
    async def story(world: Watched) -> None:
        await until(world, lambda: world.agreed, 5)
        world.replica("replica-0").wrong = True
        await until(world, lambda: "replica-0" in world.wishes.condemned, 310)
        await until(world, lambda: "replica-0" not in world.host.alive(), 60)
        await world.clock.sleep(60)
        assert "replica-0" not in world.host.alive(), "it stays out until somebody has looked"
        states = {view.name: view.state for view in world.views}
        assert states["replica-0"] is ReplicaState.QUARANTINED
        first = world.exhibits[0]
        assert len(world.whys(ReplicaAiling)) == 1
        assert first.expected == world.agreed[0].ids
        assert len(first.got) == len(first.expected)
        assert first.got != first.expected
        assert (first.replica, first.kind, first.release, len(world.exhibits)) == ("replica-0", "wrong", "0" * 64, 2)
        assert [place.replica for place in world.roster.places] == ["replica-1"]

    tell(story)


def test_when_two_disagree_and_nothing_is_known_somebody_is_told() -> None:
    async def whole() -> None:
        world = Watched()
        world.hire()
        task = asyncio.create_task(world.serve())
        await until(world, lambda: "replica-0" in world.host.processes, 5)
        world.replica("replica-0").wrong = True
        await world.clock.sleep(700)
        assert world.wishes.condemned == {}
        (why,) = world.whys(SelfDoubted)
        assert why.startswith("replica-0, replica-1 all answer one canary differently, and nobody knows who is right")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(whole())


def test_when_all_contradict_what_was_recorded_the_record_is_doubted() -> None:
    async def whole() -> None:
        world = Watched()
        world.recorded = Known(prompt_ids=(1, 2, 3), ids=(4, 5, 6), source="recorded")
        world.hire()
        task = asyncio.create_task(world.serve())
        await world.clock.sleep(700)
        assert world.wishes.condemned == {}
        world.as_wanted()
        assert world.whys(SelfDoubted) == [
            "a peer gives the same answer: what was recorded is in doubt, not the replica"
        ]
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(whole())


def test_the_last_replica_is_not_taken_out_on_suspicion_but_told_of() -> None:
    async def story(world: Watched) -> None:
        world.recorded = Known(prompt_ids=(1, 2, 3), ids=tuple(answer([1, 2, 3], 0, 3)), source="recorded")
        world.replica("replica-0").wrong = True
        await until(world, lambda: world.whys(EjectionFrozen), 310)
        assert world.wishes.condemned == {}
        assert [place.replica for place in world.roster.places] == ["replica-0"]
        assert "canaries in a row came back wrong" in world.whys(EjectionFrozen)[0]

    tell(story, "replica-0", "gateway-0", "control")


def test_a_replica_that_outgrows_its_limit_is_renewed() -> None:
    async def story(world: Watched) -> None:
        pid = world.host.alive()["replica-1"]
        world.memory["replica-1"] = 950.0
        await until(world, lambda: world.host.alive().get("replica-1", pid) != pid, 60)
        world.memory["replica-1"] = 100.0
        assert world.whys(ReplicaAiling) == ["replica-1: it holds 950 MiB of memory, its limit is 1000 MiB"]
        await world.clock.sleep(60)
        world.as_wanted()

    tell(story, rules=Rules(replica_mib_max=1000.0))


class FullDisk(Watched):
    """Its roster can't be written while `full`."""

    full = False

    def _publish(self, roster: Roster) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        super()._publish(roster)


def test_a_roster_that_can_not_be_written_stops_no_supervision_and_is_written_later() -> None:
    async def whole() -> None:
        world = FullDisk()
        world.hire()
        task = asyncio.create_task(world.serve())
        await world.clock.sleep(30)
        world.full = True
        pid = world.host.alive()["replica-0"]
        world.host.kill("replica-0")
        await until(world, lambda: world.host.alive().get("replica-0", pid) != pid, 5)
        await world.clock.sleep(10)
        assert {view.name: view.state for view in world.views}["replica-0"] is ReplicaState.SERVING
        (why,) = world.whys(StepFailed)
        assert why.startswith("roster 2 can't be written: [Errno 28] No space left on device.")
        world.full = False
        await world.clock.sleep(2)
        world.as_wanted()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    run(whole())


@pytest.mark.parametrize(("other", "slow"), [("pearl", True), ("pearl-mini", False)])
def test_the_pace_of_another_model_is_no_measure(other: str, slow: bool) -> None:
    now = [0.0]
    evidence = Evidence(Rules(slow_s=60.0), Sources(now=lambda: now[0], unix_s=lambda: 0.0, emit=lambda event: None))

    def pong(name: str, model: str, second: int, step_s: float) -> None:
        load = Load(step=20 * second, running=4, slots=8, paced_steps=20 * second, paced_s=20 * second * step_s)
        release = Release(model=model, engine="e", digest=f"digest of {model}")
        evidence.hear(name, Heard(boot=name, at=now[0], load=load, release=release, asked_at=now[0]))

    found = None
    for second in range(120):
        now[0] = float(second)
        pong("replica-0", "pearl", second, 0.06)
        pong("replica-1", other, second, 0.02)
        found = evidence.ailment("replica-0")
    assert (found is not None) == slow
