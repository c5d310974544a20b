"""Full batches and very long prompts: what must not be mistaken for a freeze, and the freeze that must be found all the same."""

from random import Random

import pytest
from world import World, together

from holdfast.domain.event import AnswerMoved, EjectionFrozen, ReplicaSuspected
from holdfast.sim.clock import run
from holdfast.sim.replica import SimReplica


class _Engine:
    """How long a step takes on a busy engine: by batch, by what it reads, and with the machine's moods."""

    def __init__(self, random: Random, reading_s: float) -> None:
        self._random = random
        self.base_s = random.choice((0.008, 0.02, 0.05))
        self.stream_s = random.uniform(0.0001, 0.001)
        self.read_s = random.uniform(0.00005, reading_s)  # a token; the configured 0.001 is on the safe side
        self.spike = random.uniform(0.002, 0.01)

    def __call__(self, replica: SimReplica) -> float:
        random = self._random
        step_s = self.base_s + self.stream_s * replica.running() + self.read_s * min(4096, replica.reading())
        step_s *= random.uniform(0.9, 1.3)
        if random.random() < self.spike:
            step_s = step_s * random.uniform(1.2, 2.5) + random.uniform(
                0, 0.1
            )  # the machine is busy with something else
        return step_s


def _suspicions(world):
    return [event for event in world.events if isinstance(event, ReplicaSuspected)]


async def _busy(seed: int, freeze_at: float | None = None, reading_s: float = 0.0008) -> World:
    """Full batches for a minute, and prompts of 30,000 tokens in between. With `freeze_at`, one freezes then. Reading a token
    takes at most `reading_s`."""
    random = Random(seed)
    world = World("a", "b", "c", slots=random.choice((16, 32)))
    world.admission.queue_max, world.admission.queue_wait_s, world.admission.first_token_s = 1000, 3000, 6000
    for one in world.replicas.values():
        one.chunk_tokens = random.choice((256, 1024, 4096))
        one.pace = _Engine(random, reading_s)

    async def client(begin_s: float, prompt_tokens: int, count: int) -> None:
        await world.clock.sleep(begin_s)
        asked = world.generation(count, deadline=world.clock.now() + 3000)
        asked.prompt_ids.extend(range(prompt_tokens))
        got = await world.chat(asked)
        assert got.ids == world.expected(asked)

    async def freeze() -> None:
        if freeze_at is not None:
            await world.clock.sleep(freeze_at)
            world.replicas["a"].frozen = True

    async with world.running():
        draw, count = random.uniform, random.randint
        slots = sum(one.slots for one in world.replicas.values())
        short = [client(draw(0, 30), count(10, 800), count(50, 300)) for _ in range(slots * 2)]
        long = [client(draw(2, 40), 30_000, count(20, 100)) for _ in range(6)]
        await together(*short, *long, freeze())
        world.settled()
    return world


@pytest.mark.parametrize("seed", range(12))
def test_a_full_batch_with_prompts_of_thirty_thousand_tokens_is_never_mistaken_for_a_freeze(seed):
    world = run(_busy(seed))
    assert world.whys(ReplicaSuspected, AnswerMoved, EjectionFrozen) == []


@pytest.mark.parametrize("seed", range(6))
def test_a_freeze_in_the_middle_of_all_that_is_found_and_nobody_else_is_blamed(seed):
    world = run(_busy(seed, freeze_at=20.0, reading_s=0.0001))
    assert {event.replica for event in _suspicions(world)} == {"a"}
    assert _suspicions(world)[0].silent_s < 5
