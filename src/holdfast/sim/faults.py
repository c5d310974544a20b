"""Seeded faults: a nemesis that kills, freezes, slows, cuts and refuses, then heals everything and lets the world settle.

Two phases, as in TigerBeetle's simulator: while faults are on, safety must hold; after the healing, everything must finish.
One seed gives one story: print it, and it replays.
"""

from dataclasses import dataclass
from random import Random

from holdfast.domain.ports import Clock
from holdfast.sim.replica import SimReplica

KINDS = ("kill", "freeze", "slow", "cut", "refuse", "stick")


@dataclass
class Nemesis:
    """Does something bad every 0.2 to 3 virtual seconds for `seconds`, to one replica at a time, then heals."""

    replicas: list[SimReplica]
    clock: Clock
    random: Random
    seconds: float = 20.0

    def __post_init__(self) -> None:
        self.done: list[str] = []
        self._steps = {one.name: one.step_s for one in self.replicas}

    async def run(self) -> None:
        """Both phases."""
        end = self.clock.now() + self.seconds
        while self.clock.now() < end:
            await self.clock.sleep(self.random.uniform(0.2, 3.0))
            victim = self.random.choice(self.replicas)
            if victim.alive:
                self._hurt(victim, self.random.choice(KINDS))
            else:
                self._heal(victim)
        for one in self.replicas:
            self._heal(one)

    def _hurt(self, victim: SimReplica, kind: str) -> None:
        self.done.append(f"{self.clock.now():.2f} {kind} {victim.name}")
        if kind == "kill":
            victim.kill()
        elif kind == "freeze":
            victim.frozen = not victim.frozen
        elif kind == "slow":
            victim.step_s = self._steps[victim.name] * self.random.choice((1, 3, 10))
        elif kind == "cut":
            victim.cut_after = self.random.choice((None, 0, 1, 7))
        elif kind == "refuse":
            victim.refusing = "" if victim.refusing else "the queue is full"
        else:
            victim.stuck.update(stream.generation for line in victim.lines for stream in list(line.streams())[:1])

    def _heal(self, victim: SimReplica) -> None:
        if not victim.alive:
            victim.start()
        victim.frozen, victim.refusing, victim.cut_after = False, "", None
        victim.step_s = self._steps[victim.name]
        victim.stuck.clear()
