"""The clients of a simulated fleet: they wish, and come again when they get nothing, each in its manner."""

import random
from collections.abc import Callable
from typing import Any

from holdfast.domain.tenant import Limits
from holdfast.sim.fleet_plan import HAMMER_S, Flow, Job, Manner, Plan

PROMPTS_A_TENANT = 4
PROMPT_IDS = 129  # tokens of a prompt as ids, where affinity is on: two blocks, and the one that is always read

At = Callable[[float, Callable[[Any], None], Any], None]


class Crowd:
    """`at` makes something happen at a time, `ask` sends a job to its gateway. Times are virtual seconds."""

    def __init__(self, plan: Plan, chance: random.Random, at: At, ask: Callable[[Job], None]) -> None:
        self.plan = plan
        self.limits = {limits.tenant: limits for limits in plan.limits}
        self._chance, self._at, self._ask = chance, at, ask
        self._jobs = 0
        self._now = 0.0
        self._prompts: dict[tuple[str, int], list[int]] = {}

    def begin(self) -> None:
        """Every flow begins at its time."""
        for flow in self.plan.flows:
            self._next(flow, flow.start_s)

    def disappointed(self, job: Job, told_s: float, now: float) -> None:
        """A client got nothing, and was told to come back after so long."""
        if job.manner is Manner.GIVES_UP or job.tries >= job.flow.tries_max:
            return
        wait_s = told_s if job.manner is Manner.OBEYS else HAMMER_S * (0.5 + self._chance.random())
        self._at(now + wait_s, self._again, (job, now + wait_s))

    def _next(self, flow: Flow, now: float) -> None:
        when = now + self._chance.expovariate(flow.per_s)
        if when < flow.end_s:
            self._at(when, self._wish, (flow, when))

    def _wish(self, what: tuple[Flow, float]) -> None:
        flow, now = what
        self._next(flow, now)
        chance = self._chance
        draw = chance.random()
        manner = Manner.OBEYS if draw < flow.obeys else Manner.GIVES_UP
        if flow.obeys <= draw < flow.obeys + flow.hammers:
            manner = Manner.HAMMERS
        tenant = flow.tenants[int(chance.random() * len(flow.tenants))]
        limits = self.limits.get(tenant)
        if limits is None:
            limits = self.limits[tenant] = Limits(tenant=tenant)
        self._jobs += 1
        job = Job(self._jobs, flow, limits, manner, now)
        low, high = flow.prompt_tokens
        job.prompt = low + int(chance.random() * (high - low + 1))
        length = chance.lognormvariate(-(flow.spread**2) / 2, flow.spread) if flow.spread else 1.0
        job.tokens = max(1, min(flow.max_tokens, round(flow.tokens * length)))
        if self.plan.affinity:
            job.prompt_ids = self._prompt(tenant, int(chance.random() * PROMPTS_A_TENANT))
            job.prompt = len(job.prompt_ids)
        job.gate = int(chance.random() * self.plan.gateways)
        self._ask(job)

    def _again(self, what: tuple[Job, float]) -> None:
        job, now = what
        job.again(now)
        self._ask(job)

    def _prompt(self, tenant: str, number: int) -> list[int]:
        ids = self._prompts.get((tenant, number))
        if ids is None:
            ids = self._prompts[tenant, number] = [self._chance.randrange(100_000) for _ in range(PROMPT_IDS)]
        return ids
