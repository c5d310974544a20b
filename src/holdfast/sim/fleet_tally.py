"""What came of it: counts in bins of time, waits, shares, and what the decisions cost. All that the plots are drawn from."""

from collections import Counter

from msgspec import Struct, field


class Bin(Struct):
    """One span of time. Tries count when they are made, answers when they end, `good` within their deadline."""

    asked: int = 0
    wishes: int = 0
    refused: int = 0
    good: int = 0
    late: int = 0  # were let in, and not complete in time
    good_of_asked: int = 0  # tries made in this bin that were answered in time
    fulfilled: int = 0  # wishes of this bin that were answered in time, by whichever try
    running: int = 0
    waiting: int = 0
    slots: int = 0
    rung: int = 0
    wait_s_p50: float = 0.0
    wait_s_p99: float = 0.0


class Costs(Struct):
    """Microseconds of single decisions, by what they decided. Empty without a stopwatch."""

    let_in: list[float] = field(default_factory=list)
    queued: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)  # settlement, and who goes next
    picked: list[float] = field(default_factory=list)  # the choice of a replica


class Report(Struct):
    """The whole run. `served` is work by tenant, `moves` counts answers that had to leave a replica."""

    bin_s: float
    bins: list[Bin]
    costs: Costs
    refusals: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    first_tokens: dict[str, list[float]] = field(default_factory=dict)  # seconds, by flow
    flows: dict[str, Counter[str]] = field(default_factory=dict)
    asked_by: dict[str, list[int]] = field(default_factory=dict)  # tries in each bin, by flow
    good_by: dict[str, list[int]] = field(default_factory=dict)  # of those, the ones that were answered in time
    moves: int = 0
    steps_of_ladder: list[str] = field(default_factory=list)
    events: int = 0

    def within(self, start_s: float, end_s: float) -> list[Bin]:
        """The bins of a span of time."""
        return self.bins[round(start_s / self.bin_s) : round(end_s / self.bin_s)]

    def goodput(self, start_s: float, end_s: float) -> float:
        """Answers a second that were complete in time."""
        return sum(one.good for one in self.within(start_s, end_s)) / (end_s - start_s)

    def good_share(self, start_s: float, end_s: float) -> float:
        """Of the tries made in that time, those that were answered in time."""
        bins = self.within(start_s, end_s)
        return sum(one.good_of_asked for one in bins) / max(1, sum(one.asked for one in bins))

    def good_share_of(self, flow: str, start_s: float, end_s: float) -> float:
        """The same of one flow."""
        span = slice(round(start_s / self.bin_s), round(end_s / self.bin_s))
        return sum(self.good_by[flow][span]) / max(1, sum(self.asked_by[flow][span]))


def quantile(values: list[float], share: float) -> float:
    """The value that a share of them does not exceed; 0 of none."""
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
