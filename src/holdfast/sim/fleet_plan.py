"""What a simulated fleet is made of, and what happens to it: replicas, flows of requests, outages. Times in virtual seconds.

A flow is a stream of wishes, Poisson in time, from some tenants in equal parts. A wish is tried until it is granted, until the
client's patience is over, or until it gives up. What a client does after a refusal or a time-out is the whole difference
between a bad minute and a collapse, so it is part of the flow: it gives up, it obeys Retry-After, or it hammers.
"""

from enum import Enum
from math import inf

from msgspec import Struct

from holdfast.domain.tenant import Limits
from holdfast.policy.admission import Admission
from holdfast.policy.ladder import Rules


class Manner(Enum):
    """What a client does when it gets nothing. HAMMERS comes back after HAMMER_S, whatever it was told."""

    GIVES_UP = "gives up"
    OBEYS = "obeys"
    HAMMERS = "hammers"


HAMMER_S = 0.1


class Flow(Struct, frozen=True, kw_only=True):
    """`obeys` and `hammers` are shares of the wishes, the rest gives up at once. `tokens` is the mean length of an answer."""

    name: str
    tenants: tuple[str, ...]
    per_s: float
    start_s: float = 0.0
    end_s: float = inf
    prompt_tokens: tuple[int, int] = (32, 96)
    tokens: float = 64.0
    spread: float = 0.4  # of the logarithm of the length; 0: all are alike
    max_tokens: int = 512
    deadline_s: float = 5.0
    obeys: float = 0.0
    hammers: float = 0.0
    tries_max: int = 5


class Outage(Struct, frozen=True):
    """A share of the replicas dies at once, with all that they do, and is back empty at `back_s`."""

    at_s: float
    share: float
    back_s: float = inf


class Illness(Struct, frozen=True):
    """Some replicas end a share of their answers in an error, for a while."""

    at_s: float
    until_s: float
    replicas: int
    share: float


class Engines(Struct, frozen=True, kw_only=True):
    """All replicas alike. A full batch steps in `step_s`, an empty one in `batch_cost` of it less; prompts are read one after
    another."""

    replicas: int = 3
    slots: int = 8
    tokens_max: int = 0  # places in the cache; 0: only slots count
    step_s: float = 0.02
    batch_cost: float = 0.5
    read_per_s: float = 20_000.0  # prompt tokens

    def capacity_per_s(self, tokens: float, prompt_tokens: float = 0.0) -> float:
        """Answers of so many tokens a second that all of them can make, prompts not being in anybody's cache."""
        return self.replicas * self.slots / (tokens * self.step_s + prompt_tokens / self.read_per_s)


class Plan(Struct, frozen=True, kw_only=True):
    """One run. `gateways` share the replicas as workers of one machine do. `limits` names tenants that are not like all."""

    seed: int = 0
    seconds: float = 10.0
    gateways: int = 1
    engines: Engines = Engines()
    flows: tuple[Flow, ...] = ()
    outages: tuple[Outage, ...] = ()
    illness: Illness | None = None
    limits: tuple[Limits, ...] = ()
    admission: Admission = Admission()
    expected_tokens: int = 64
    throttle_factor: float = 2.0
    throttle_s: float = 120.0
    ladder: Rules | None = None
    short_tokens: int = 512  # the ladder's first rung
    affinity: bool = False
    slow_start_s: float = 10.0
    bin_s: float = 0.1  # of the report


class Job:
    """One try of one wish, and what has become of it."""

    __slots__ = (
        "asked_at",
        "began",
        "charged",
        "client",
        "deadline",
        "delivered",
        "expected",
        "first_at",
        "flow",
        "gate",
        "hold",
        "id",
        "limits",
        "manner",
        "moved",
        "prompt",
        "prompt_ids",
        "replica",
        "reserved",
        "shown_at",
        "stamp",
        "start_at",
        "step_s",
        "ticket",
        "tokens",
        "tries",
        "uncached",
        "work",
    )

    def __init__(self, number: int, flow: Flow, limits: Limits, manner: Manner, now: float) -> None:
        self.id = str(number)
        self.flow = flow
        self.limits = limits
        self.client = f"{limits.tenant}/{manner.value}"
        self.manner = manner
        self.first_at = now  # the wish
        self.tries = 0
        self.prompt = self.tokens = 0
        self.prompt_ids: list[int] = []
        self.gate = self.stamp = 0  # events of an earlier stamp are void
        self.again(now)

    def again(self, now: float) -> None:
        """The next try begins."""
        self.asked_at = now
        self.deadline = now + self.flow.deadline_s
        self.tries += 1
        self.stamp += 1
        self.ticket = self.moved = self.delivered = 0
        self.began = self.shown_at = -1.0
        self.start_at = self.step_s = 0.0
        self.charged = False
        self.work = self.hold = self.expected = self.uncached = self.reserved = 0
        self.replica = ""
