"""What a load has seen: counts, and histograms of constant relative error (HdrHistogram), which can be added up over processes.

Every time is taken from the moment at which a request was due, not from when it was sent: a server that stalls is charged for
all requests that were due meanwhile ("coordinated omission" would charge it for one). Who gave up is entered with the time
that it had waited by then, for that long it was at least.
"""

from typing import Any

from hdrh.histogram import HdrHistogram
from msgspec import Struct, field

from holdfast.drill.load_line import Asked

LONGEST_US = 3_600_000_000
DIGITS = 3
GOOD, LATE, REFUSED, ERRORED, GAVE_UP = "good", "late", "refused", "errored", "gave_up"
WORDS = (GOOD, LATE, REFUSED, ERRORED, GAVE_UP)
PERCENTILES = (50.0, 90.0, 99.0, 99.9)


def histogram() -> Any:
    """An empty one, in microseconds up to an hour, with three digits."""
    return HdrHistogram(1, LONGEST_US, DIGITS)


def decoded(text: str) -> Any:
    """A histogram that was encoded."""
    return HdrHistogram.decode(text.encode())


class Second(Struct):
    """What became of the requests that were due in one second, and how many good answers ended in it."""

    offered: int = 0
    good: int = 0
    refused: int = 0
    lost: int = 0
    ended_good: int = 0

    def add(self, other: "Second") -> None:
        """Count another one in."""
        self.offered += other.offered
        self.good += other.good
        self.refused += other.refused
        self.lost += other.lost
        self.ended_good += other.ended_good


class Sheet(Struct):
    """A tally that can be sent: histograms are encoded. `counts` has the WORDS, `offered`, and `attempts`."""

    counts: dict[str, int] = {}
    reasons: dict[str, int] = {}
    clients: dict[str, dict[str, int]] = {}
    times: dict[str, str] = {}
    seconds: list[Second] = []
    cpu_s: float = 0.0
    connections: int = 0


class Tally(Struct):
    """`times`: latency, ttft, gap, refusal, lag; and for each tenant `ttft NAME` and `latency NAME`."""

    stream: bool = True  # whether a first token is seen before the last
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(("offered", "attempts", *WORDS), 0))
    reasons: dict[str, int] = field(default_factory=dict)
    clients: dict[str, dict[str, int]] = field(default_factory=dict)
    times: dict[str, Any] = field(default_factory=dict)
    seconds: list[Second] = field(default_factory=list)
    cpu_s: float = 0.0
    connections: int = 0  # that were opened

    def time(self, name: str, seconds: float) -> None:
        """Enter one."""
        found = self.times.get(name)
        if found is None:
            found = self.times[name] = histogram()
        found.record_value(min(LONGEST_US, max(1, int(seconds * 1e6))))

    def second(self, at: float) -> Second:
        """The second that holds a moment of the schedule; those after its end count as longer schedules would."""
        place = max(0, int(at))
        while len(self.seconds) <= place:
            self.seconds.append(Second())
        return self.seconds[place]

    def offer(self, at: float, client: str) -> None:
        """A request was due."""
        self.counts["offered"] += 1
        self.second(at).offered += 1
        mine = self.clients.get(client)
        if mine is None:
            mine = self.clients[client] = dict.fromkeys(("offered", *WORDS), 0)
        mine["offered"] += 1

    def attempt(self, asked: Asked) -> None:
        """One attempt has ended, whatever comes after it."""
        self.counts["attempts"] += 1
        if asked.reason:
            self.reasons[asked.reason] = self.reasons.get(asked.reason, 0) + 1
        if asked.refused:
            self.time("refusal", asked.ended - asked.intended)

    def end(self, asked: Asked, word: str, client: str, began: float) -> None:
        """A request is over, all its attempts included. `began`: the Clock's seconds at the beginning of the schedule."""
        self.counts[word] += 1
        self.clients[client][word] += 1
        second = self.second(asked.first_due - began)
        if word == GOOD:
            second.good += 1
            self.second(asked.ended - began).ended_good += 1
        elif word == REFUSED:
            second.refused += 1
        else:
            second.lost += 1
        if word in (GOOD, LATE, GAVE_UP):
            took = asked.ended - asked.first_due
            self.time("latency", took)
            self.time(f"latency {client}", took)
            if self.stream:
                waited = asked.first - asked.first_due if asked.first else took
                self.time("ttft", waited)
                self.time(f"ttft {client}", waited)

    def sheet(self) -> Sheet:
        """Ready to be sent."""
        return Sheet(
            counts=self.counts,
            reasons=self.reasons,
            clients=self.clients,
            times={name: one.encode().decode() for name, one in self.times.items()},
            seconds=self.seconds,
            cpu_s=self.cpu_s,
            connections=self.connections,
        )

    def add(self, sheet: Sheet) -> None:
        """Count in what another process has seen."""
        _add(self.counts, sheet.counts)
        _add(self.reasons, sheet.reasons)
        for name, counts in sheet.clients.items():
            _add(self.clients.setdefault(name, {}), counts)
        for name, text in sheet.times.items():
            if name in self.times:
                self.times[name].add(decoded(text))
            else:
                self.times[name] = decoded(text)
        for place, one in enumerate(sheet.seconds):
            self.second(place).add(one)
        self.cpu_s += sheet.cpu_s
        self.connections += sheet.connections

    def percentiles_ms(self, name: str) -> dict[str, float]:
        """p50 to p99.9, the largest, and how many there were; nothing but the count when there were none."""
        found = self.times.get(name)
        if found is None or not found.get_total_count():
            return {"count": 0}
        told = {f"p{one:g}": found.get_value_at_percentile(one) / 1000 for one in PERCENTILES}
        return {**told, "max": found.get_max_value() / 1000, "count": found.get_total_count()}


def _add(into: dict[str, int], more: dict[str, int]) -> None:
    for name, count in more.items():
        into[name] = into.get(name, 0) + count
