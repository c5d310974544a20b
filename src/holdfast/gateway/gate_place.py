"""What the gate keeps: one place for each request that it let in or holds back, one account for each tenant."""

import asyncio
from collections import deque
from dataclasses import dataclass, field
from math import exp

from msgspec import Struct

from holdfast.domain.fault import EngineLost, EngineRefused, Fault, NoReplica
from holdfast.domain.request import Finish, Generation
from holdfast.domain.tenant import Limits
from holdfast.gateway.metrics import TTFT_S, Histogram
from holdfast.policy.admission import Queue
from holdfast.policy.codel import CoDel
from holdfast.policy.memory_shares import Held

WAITS_KEPT = 128
WAITS_FRESH_S = 2.0  # waits that are older say nothing about now
AWAY_S = 1.0
LEARN_ALL, LEARN_S = 256, 0.005
WORTH_OUT = 2  # a token that is made costs as much as two that are read (VTC, OSDI'24)
OURS = (EngineLost, EngineRefused, NoReplica)  # faults that are not the client's


class Place(Struct, eq=False):
    """One request at the gate. Times are the Clock's seconds, the rest is in tokens.

    `work` is what it is charged until its end, `hold` the cache places that are counted for it, `reserved` what its quota was
    charged. `made` counts its own tokens only, not those that were delivered before it came.
    """

    generation: Generation
    account: "Account"
    since: float
    prompt: int
    uncached: int
    expected: int
    work: int
    hold: int
    reserved: int = 0
    ticket: int = 0
    turn: "asyncio.Future[None] | None" = None
    verdict: Queue | None = None
    began: float = -1.0  # when it was let in; below 0: not yet
    charged: bool = False  # in the fair queue
    made: int = 0
    finish: Finish | None = None
    fault: Fault | None = None

    def done(self) -> tuple[int, int]:
        """Work that was done for it, and tokens that its quota pays: nothing for a fault of ours before its first token.

        A continued answer's prompt was paid by whoever began it.
        """
        if not self.made and isinstance(self.fault, OURS):
            return 0, 0
        asked = self.generation
        return self.uncached + WORTH_OUT * self.made, self.made + (0 if asked.urgent else len(asked.prompt_ids))


@dataclass(slots=True, eq=False)  # and no Struct: written often
class Account:
    """One tenant in this worker. Totals since its start; `served` is the work that fairness counts."""

    limits: Limits
    held: Held
    bound: bool  # whether it has limits of its own, or others are guaranteed some of what there is
    codel: CoDel
    running: int = 0
    reserved: int = 0  # tokens of its quota that are reserved and not settled yet
    served: float = 0.0
    admitted: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    learnt_at: float = float("-inf")

    def count(self, limit: str) -> None:
        """One of its requests was refused by that limit."""
        self.refused[limit] = self.refused.get(limit, 0) + 1

    def learns(self, now: float) -> bool:
        """Whether an answer of it that ends now is to be learnt from: its first ones, then 200 a second at most."""
        if self.admitted > LEARN_ALL and now - self.learnt_at <= LEARN_S:
            return False
        self.learnt_at = now
        return True


class Waits:
    """How long those who were let in had waited."""

    __slots__ = ("_last_at", "_latest", "histogram", "straight")

    def __init__(self) -> None:
        self.histogram = Histogram(TTFT_S)
        self.straight = 0  # those who did not wait at all
        self._latest: deque[float] = deque(maxlen=WAITS_KEPT)
        self._last_at = float("-inf")

    def add(self, seconds: float, now: float, tells: bool = True) -> None:
        """One who stood in the queue. `tells`: and would not have, were there enough for everybody's share."""
        self.histogram.observe(seconds)
        if not tells:
            return
        if now - self._last_at > WAITS_FRESH_S:
            self._latest.clear()
        self._latest.append(seconds)
        self._last_at = now

    def none(self, pressed: bool) -> None:
        """One who did not. `pressed`: others did, lately."""
        self.straight += 1
        if pressed:
            self._latest.append(0.0)

    def middle_s(self, now: float) -> float:
        """The larger half's least, of late; 0 when nobody waited of late."""
        if now - self._last_at > WAITS_FRESH_S or not self._latest:
            return 0.0
        return sorted(self._latest)[len(self._latest) // 2]


class Away:
    """How many were turned away for lack of room within the last second, smoothly forgotten."""

    __slots__ = ("_at", "_count")

    def __init__(self) -> None:
        self._count, self._at = 0.0, 0.0

    def add(self, now: float) -> None:
        self._count, self._at = self.of(now) + 1.0, now

    def of(self, now: float) -> float:
        return self._count * exp(-max(0.0, now - self._at) / AWAY_S)
