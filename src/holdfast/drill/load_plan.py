"""What `holdfast load` is to send, as words and as a plan: when each request is due, whose it is, and how long.

The whole schedule is drawn before the first request goes out, from one seed, so that two runs offer exactly the same. Nothing
that the server does can move it: that is what makes the loop open.
"""

from array import array
from itertools import accumulate
from math import exp
from random import Random
from typing import Literal

from msgspec import Struct

TOKENS_MAX = 1_000_000
Arrival = Literal["poisson", "constant"]


class Lengths(Struct, frozen=True):
    """How long prompts or answers are. fixed: `low`. uniform: `low` to `high`. lognormal: median `low`, sigma `spread`."""

    kind: str = "fixed"
    low: int = 16
    high: int = 16
    spread: float = 0.0

    def draw(self, random: Random) -> int:
        """One length, at least 1."""
        if self.kind == "uniform":
            return random.randint(self.low, self.high)
        if self.kind == "lognormal":
            return min(TOKENS_MAX, max(1, round(self.low * exp(random.gauss(0.0, self.spread)))))
        return self.low


class Client(Struct, frozen=True):
    """One of the tenants who ask: its API key (empty: none is sent) and its share of the requests."""

    name: str = "default"
    key: str = ""
    weight: float = 1.0


class Phase(Struct, frozen=True):
    """So many requests a second for so many seconds."""

    rate: float
    seconds: float


class Plan(Struct, frozen=True, kw_only=True):
    """One run. `deadline_s` is what an answer must keep to count as good (0: none); `patience_s` is when the client hangs up."""

    url: str
    phases: tuple[Phase, ...]
    model: str = ""
    arrival: Arrival = "poisson"
    clients: tuple[Client, ...] = (Client(),)
    prompt: Lengths = Lengths(low=32, high=32)
    output: Lengths = Lengths(low=32, high=32)
    deadline_s: float = 0.0
    patience_s: float = 60.0
    tell_deadline: bool = True  # send it as x-holdfast-deadline-s
    stream: bool = True
    full_length: bool = True  # ask for answers of exactly their length (ignore_eos), which not every server understands
    retries: int = 0
    obey: bool = True  # wait as long as Retry-After says before a retry
    connections_max: int = 10_000  # of one process
    pool: int = 0  # connections that are open before the first request, as a client's pool would have them
    source: str = ""  # the address that connections come from, where one address has not ports enough
    warm_s: float = 0.0  # what is due within the first so many seconds is asked, and not counted
    seed: int = 1

    @property
    def seconds(self) -> float:
        """The length of the schedule that is counted."""
        return max(0.0, sum(phase.seconds for phase in self.phases) - self.warm_s)


class Due(Struct):
    """One request of the schedule. `at`: seconds since its beginning."""

    at: float
    number: int
    client: int
    prompt_tokens: int
    output_tokens: int


def arrivals(phases: tuple[Phase, ...], arrival: Arrival, random: Random) -> "array[float]":
    """When requests are due, in seconds, ascending.

    constant: evenly spaced. poisson: a Poisson process of which the number of arrivals in each phase is known, rate times
    seconds; two runs with different seeds so offer the same amount, which they would miss by a few per cent otherwise.
    """
    due: array[float] = array("d")
    begins = 0.0
    for phase in phases:
        count = round(phase.rate * phase.seconds)
        if arrival == "constant":
            due.extend(begins + number / phase.rate for number in range(count))
        elif count:
            sums = list(accumulate(random.expovariate(1.0) for _ in range(count + 1)))
            due.extend(begins + phase.seconds * one / sums[-1] for one in sums[:-1])
        begins += phase.seconds
    return due


def schedule(plan: Plan) -> list[Due]:
    """Every request of a run, in the order in which they are due."""
    random = Random(f"load {plan.seed}")
    bounds = list(accumulate(client.weight for client in plan.clients))
    made = []
    for number, at in enumerate(arrivals(plan.phases, plan.arrival, random)):
        drawn = random.random() * bounds[-1]
        client = next(place for place, bound in enumerate(bounds) if drawn < bound or place == len(bounds) - 1)
        made.append(Due(at, number, client, plan.prompt.draw(random), plan.output.draw(random)))
    return made


def lengths_of(text: str) -> Lengths:
    """Read `128`, `16-512` or `lognormal:128:0.8` (the median, and the sigma of the logarithm).

    Raises:
        ValueError: it is none of these.
    """
    kind, *numbers = text.split(":")
    try:
        if kind == "lognormal":
            median, spread = numbers
            found = Lengths("lognormal", int(median), int(median), float(spread))
        elif numbers:
            raise ValueError(text)
        else:
            low, dash, high = text.partition("-")
            found = Lengths("uniform" if dash else "fixed", int(low), int(high if dash else low))
    except ValueError as error:
        raise ValueError(f"{text!r} is no length: write 128, 16-512, or lognormal:128:0.8") from error
    if not 0 < found.low <= found.high <= TOKENS_MAX or not 0 <= found.spread <= 5:
        raise ValueError(f"{text!r}: lengths go from 1 to {TOKENS_MAX}, a sigma from 0 to 5")
    return found


def clients_of(text: str) -> tuple[Client, ...]:
    """Read `acme:key-1:3,beta:key-2`: name, API key, and the share of the requests (1 unless said).

    Raises:
        ValueError: with what is wrong.
    """
    found = []
    for word in text.split(","):
        name, key, weight = (*word.strip().split(":"), "", "")[:3]
        try:
            share = float(weight or "1")
        except ValueError as error:
            raise ValueError(f"{word!r}: the share of the requests, {weight!r}, is no number") from error
        if not name or word.count(":") > 2 or not share > 0:
            raise ValueError(f"{word!r} is no tenant: write NAME:KEY or NAME:KEY:SHARE with a share above 0")
        found.append(Client(name, key, share))
    return tuple(found)


def phases_of(text: str, seconds: float) -> tuple[Phase, ...]:
    """Read `100`, or `200:60,50:30`: requests a second, and for how many seconds (else `seconds`).

    Raises:
        ValueError: with what is wrong.
    """
    found = []
    for word in text.split(","):
        rate, colon, length = word.partition(":")
        try:
            phase = Phase(float(rate), float(length) if colon else seconds)
        except ValueError as error:
            raise ValueError(f"{word!r} is no rate: write 100, or 200:60,50:30 for one after the other") from error
        if not 0 <= phase.rate <= 1e6 or not 0 < phase.seconds <= 86_400:
            raise ValueError(f"{word!r}: rates go to 1,000,000 a second, and a phase to a day")
        found.append(phase)
    return tuple(found)
