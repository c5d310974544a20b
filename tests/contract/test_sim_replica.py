"""The simulator's engine keeps the contract too, in virtual time: else what stories and simulations show would be of another
world. It takes any token and has no end of context, so what needs these is not played."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
from line_bugs import BUGS

from holdfast.domain.engine import Ability
from holdfast.domain.ports import Line
from holdfast.domain.release import Exactness
from holdfast.domain.request import Generation
from holdfast.sim.clock import VirtualClock, run
from holdfast.sim.line import SimLine
from holdfast.sim.network import Way
from holdfast.sim.replica import SimReplica
from holdfast.testing.engine_contract import ENGINE_STORIES, LINE_STORIES, LineContract, Mishap, Stage


@dataclass
class SimScene:
    """A LineScene. What befalls the next attempt is pulled on the replica's levers when it is submitted."""

    replica: SimReplica
    engine: SimLine
    befalling: list[tuple[Mishap, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine.on_submit = self._submitted

    def _submitted(self, generation: Generation) -> None:
        mishap, after = self.befalling.pop() if self.befalling else (None, 0)
        self.replica.refusing = "told to refuse" if mishap is Mishap.REFUSED else ""
        self.replica.cut_after = after if mishap is Mishap.UNFINISHED else None

    async def befall(self, mishap: Mishap, after_tokens: int = 0) -> None:
        if mishap is Mishap.FROZEN:
            self.replica.lying = True
        elif mishap is Mishap.SILENT:
            self.replica.frozen = True
        elif mishap is Mishap.GONE:
            self.replica.kill()
        else:
            self.befalling.append((mishap, after_tokens))

    async def relent(self) -> None:
        self.replica.lying = self.replica.frozen = False

    async def working(self) -> int:
        return self.replica.running()

    async def another(self) -> Line:
        return self.replica.dial("another")

    async def drain(self) -> None:
        self.replica.draining = True


class SimStage(Stage):
    slots, queue = 4, 2
    exactness = Exactness.EXACT
    abilities = frozenset((*Stage.abilities, Ability.SEED, Ability.COUNTERS))
    mishaps = frozenset((Mishap.REFUSED, Mishap.UNFINISHED, Mishap.FROZEN, Mishap.SILENT, Mishap.GONE))
    clock = VirtualClock()
    patience_s = 100.0

    def __init__(self, way: Callable[[str], Way | None] = lambda who: None, **levers: Any) -> None:
        self._levers = {"way": way, "slots": self.slots, "queue_max": self.queue, **levers}

    def play(self, story: Callable[[Any], Awaitable[None]]) -> None:
        async def told() -> None:
            replica = SimReplica("r", self.clock, **self._levers)
            line = replica.dial()
            await story(SimScene(replica, line))
            await line.close()

        run(told())


class TestSimReplica(LineContract):
    @pytest.fixture(params=["direct", "over a network"])
    def stage(self, request: pytest.FixtureRequest) -> SimStage:
        return SimStage(lambda who: Way(Random(7)) if request.param == "over a network" else None)


STORIES = {story.name: story for story in LINE_STORIES}
READING = "pings_are_answered_while_a_long_prompt_is_read"


@pytest.mark.parametrize(("line_of", "story", "says"), BUGS, ids=[line.__name__ for line, *_ in BUGS])
def test_a_line_with_a_bug_is_found(line_of: type[SimLine], story: str, says: str) -> None:
    with pytest.raises(BaseException, match=says):
        STORIES[story].play(SimStage(line_of=line_of))


def test_a_replica_that_reads_a_long_prompt_at_once_is_found() -> None:
    stage = SimStage(chunk_tokens=16)
    stage.context = 512
    STORIES[READING].play(stage)
    stage = SimStage()
    stage.context = 512
    with pytest.raises(AssertionError, match="not read in several steps"):
        STORIES[READING].play(stage)


def test_every_story_of_lines_has_a_bug_that_it_finds() -> None:
    assert {story for _, story, _ in BUGS} | {READING} == set(STORIES)


def test_what_a_stage_lacks_is_told() -> None:
    class Bare(SimStage):
        abilities: frozenset[Ability] = frozenset()
        mishaps: frozenset[Mishap] = frozenset()
        slots, exactness = 0, Exactness.FAIR

    assert {story.lacking(Bare()) for story in ENGINE_STORIES} > {
        "",
        "Bare has not the ability: ids in",
        "Bare does not know its slots",
        "the engine of Bare can't be made to suffer this: frozen",
        "the release of Bare does not promise the same tokens twice: fair",
    }
