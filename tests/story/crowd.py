"""Clients that come whatever happens to them, for stories of overload."""

import asyncio
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from random import Random

from world import World

from holdfast.domain.fault import Overloaded
from holdfast.gateway.asker import Asker

TOKENS, STEP_S = 37, 0.02  # an answer takes 0.74 s


@dataclass
class Crowd:
    """Clients that come whatever happens to them, at times drawn before: they don't wait for answers."""

    world: World
    deadline_s: float = 2.0
    tokens: int = TOKENS
    said: Counter[str] = field(default_factory=Counter)
    good: Counter[str] = field(default_factory=Counter)  # by tenant
    first_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    refused_s: list[float] = field(default_factory=list)  # how long a refusal took
    wasted: int = 0  # answers that began and missed their deadline
    spread: float = 0.0  # answers are by so much of their length shorter or longer
    count_from_s: float = 0.0  # first tokens of requests that came before this are left out

    async def come(self, rate_per_s: float, seconds: float, key: str = "", seed: int = 1, clients: int = 500) -> None:
        """Poisson arrivals, from so many different clients."""
        random, clock, tasks = Random(seed), self.world.clock, []
        end = clock.now() + seconds
        while clock.now() < end:
            await clock.sleep(random.expovariate(rate_per_s))
            client = key or f"key {len(tasks) % clients}"
            tokens = round(self.tokens * (1 + self.spread * (2 * random.random() - 1)))
            tasks.append(asyncio.ensure_future(self._one(key, client, tokens)))
        await asyncio.gather(*tasks)

    async def _one(self, key: str, client: str, tokens: int) -> None:
        world = self.world
        began = world.clock.now()
        try:
            who = Asker(key, self.deadline_s, body_bytes=60)
            world.gate.glance(who, client)
            asked = world.generation(
                tokens,
                deadline=began + self.deadline_s,
                tenant=who.tenant,
                priority=who.priority,
                client=who.client,
            )
        except Overloaded as fault:
            self._refused(fault, began)
            return
        got = await world.chat(asked)
        if got.fault is None:
            self.good[who.tenant] += 1
            self.said["good"] += 1
            if began >= self.count_from_s:
                self.first_s[who.tenant].append(got.at[0] - began)
        elif isinstance(got.fault, Overloaded):
            self._refused(got.fault, began)
        else:
            self.said[type(got.fault).__name__] += 1
            self.wasted += bool(got.ids)

    def _refused(self, fault: Overloaded, began: float) -> None:
        self.said[fault.limit.name] += 1
        self.refused_s.append(self.world.clock.now() - began)


def p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * len(values))]


def three(slots: int = 16, **more) -> World:
    return World("a", "b", "c", slots=slots, step_s=STEP_S, **more)


CAPACITY = 3 * 16 / (TOKENS * STEP_S)  # 64.9 answers a second
