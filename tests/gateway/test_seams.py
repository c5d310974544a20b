"""An answer whose replica is lost on the way has the same bytes in every surface's shape, wherever it was cut."""

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import pytest
from doorway import Answer, HandClock, doorway, ids_of, run
from test_anthropic import LOOK as TOOL
from test_anthropic import PATH as MESSAGES
from test_anthropic import body as message_body
from test_door_resume import Goes, desk
from test_responses import LONG, LOOK
from test_responses import PATH as RESPONSES
from test_responses import body as response_body
from world import World

from holdfast.domain.fault import EngineLost
from holdfast.domain.request import Chunk, Finish, Generation
from holdfast.gateway.failover import failover
from holdfast.gateway.quarantine import Quarantine
from holdfast.policy.retry_budget import RetryBudget
from holdfast.sim.shelf import SimShelves

IDS = ids_of(LONG)
ASKED: list[tuple[str, dict[str, Any]]] = [
    (RESPONSES, response_body(stream=True, reasoning={"effort": "high"}, tools=[LOOK], seed=1)),
    (MESSAGES, message_body(stream=True, thinking={"type": "adaptive"}, tools=[TOOL], seed=1)),
]


@dataclass
class Dies:
    """Replicas of which the first dies after so many tokens; the next makes three at a time."""

    after: int
    attempts: int = 0

    async def __call__(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        self.attempts += 1
        rest, step = IDS[len(generation.delivered_ids) :], 1 if self.attempts == 1 else 3
        for at in range(0, len(rest), step):
            if self.attempts == 1 and at == self.after:
                raise EngineLost("connection reset by peer")
            yield Chunk(rest[at : at + step], epoch=generation.epoch)
        yield Chunk([], finish=Finish.STOP, epoch=generation.epoch)


def told(path: str, sent: dict[str, Any], after: int) -> Answer:
    async def story() -> Answer:
        world = World("a", "b")
        quarantine = Quarantine(world.lines, world.clock, world.clock.now, world.events.append)
        layer = failover(world.lines, 4, world.clock, world.events.append, quarantine=quarantine, budget=RetryBudget())
        async with doorway(layer(Dies(after))) as place, place.client() as client:
            return await client.ask(sent, path)

    return run(story())


def without_comments(body: bytes) -> bytes:
    return b"".join(line for line in body.splitlines(keepends=True) if not line.startswith(b":"))


@pytest.mark.parametrize(("path", "sent"), ASKED)
def test_wherever_its_replica_dies_the_client_gets_the_same_bytes(path: str, sent: dict[str, Any]) -> None:
    peaceful = told(path, sent, len(IDS) + 1)
    assert b": holdfast moves=0\n" in peaceful.body
    for after in range(1, len(IDS)):
        moved = told(path, sent, after)
        assert b": holdfast moves=1\n" in moved.body
        assert without_comments(moved.body) == without_comments(peaceful.body), after


@pytest.mark.parametrize(("path", "sent"), ASKED)
@pytest.mark.parametrize("stream", [True, False])
def test_a_repeated_key_gets_the_same_bytes(path: str, sent: dict[str, Any], stream: bool) -> None:
    async def story() -> None:
        async with desk(Goes(text=LONG), SimShelves(), HandClock()) as one:
            first = await one.ask(path, sent | {"stream": stream}, idempotency_key="k1")
            again = await one.ask(path, sent | {"stream": stream}, idempotency_key="k1")
            assert (again.headers["x-holdfast-replayed"], again.body) == ("true", first.body)
            name = first.headers["x-holdfast-answer"]
            assert (await one.ask(f"/v1/streams/{name}")).body == first.body

    run(story())
