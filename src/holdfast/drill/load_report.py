"""What a load has found, to read and to keep."""

from msgspec import Struct
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from holdfast.drill.load_plan import Plan
from holdfast.drill.load_tally import ERRORED, GAVE_UP, GOOD, LATE, REFUSED, Second, Tally

LAG_MS_MAX = 20.0  # a generator that is later than this is itself overloaded
FILLING_S = 3  # longer runs leave their beginning out, while the queues and slots fill
CURVE = (0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.99, 100.0)
TITLES = {
    "ttft": "first token",
    "latency": "whole answer",
    "gap": "from event to event",
    "refusal": "refusal",
    "lag": "our own lateness",
}
Numbers = dict[str, float]


class ClientReport(Struct, frozen=True):
    """One tenant."""

    name: str
    counts: dict[str, int]
    ttft_ms: Numbers
    latency_ms: Numbers


class Report(Struct, frozen=True, kw_only=True):
    """One run. Times in milliseconds, each from when its request was due; rates by the length of the schedule."""

    plan: Plan
    seconds: float
    counts: dict[str, int]
    offered_s: float
    goodput_s: float  # good answers, by when they were asked
    steady_goodput_s: float  # good answers, by when they ended, while the schedule lasted and without its first tenth
    refusals: dict[str, int]  # and errors, by status and limit; of all attempts
    times_ms: dict[str, Numbers]
    curves_ms: dict[str, list[tuple[float, float]]]
    clients: list[ClientReport]
    by_second: list[Second]
    processes: int
    cpu_s: float
    connections: int

    @property
    def lag_ms(self) -> float:
        """The p99 of how late requests went out."""
        return self.times_ms["lag"].get("p99", 0.0)

    def verdict(self) -> str:
        """One sentence."""
        counts, total = self.counts, max(1, self.counts["offered"])
        lost = counts[LATE] + counts[ERRORED] + counts[GAVE_UP]
        own = f"; the load itself was late by {self.lag_ms:.0f} ms (p99): give it more processes" if self.late else ""
        return (
            f"{counts[GOOD] / total:.1%} of {total} requests were answered well, {counts[REFUSED] / total:.1%} refused, "
            f"{lost / total:.1%} late or lost{own}"
        )

    @property
    def late(self) -> bool:
        """Whether the generator could not keep its own schedule."""
        return self.lag_ms > LAG_MS_MAX


def report_of(plan: Plan, tally: Tally, processes: int) -> Report:
    """Sum up."""
    seconds = plan.seconds
    last = max(1, int(seconds))
    first = max(1, last // 10) if last > FILLING_S else 0
    by_second = tally.seconds[int(plan.warm_s) :]
    middle = by_second[first:last]
    times = {name: tally.percentiles_ms(name) for name in TITLES}
    curves: dict[str, list[tuple[float, float]]] = {
        name: [(one, tally.times[name].get_value_at_percentile(one) / 1000) for one in CURVE]
        for name in ("ttft", "latency", "refusal")
        if name in tally.times
    }
    clients = [
        ClientReport(name, counts, tally.percentiles_ms(f"ttft {name}"), tally.percentiles_ms(f"latency {name}"))
        for name, counts in sorted(tally.clients.items())
    ]
    return Report(
        plan=plan,
        seconds=seconds,
        counts=tally.counts,
        offered_s=tally.counts["offered"] / seconds,
        goodput_s=tally.counts[GOOD] / seconds,
        steady_goodput_s=sum(one.ended_good for one in middle) / max(1, len(middle)),
        refusals=dict(sorted(tally.reasons.items(), key=lambda pair: -pair[1])),
        times_ms=times,
        curves_ms=curves,
        clients=clients,
        by_second=by_second,
        processes=processes,
        cpu_s=round(tally.cpu_s, 3),
        connections=tally.connections,
    )


def drawn(report: Report) -> RenderableType:
    """For a terminal."""
    what = "first token" if report.plan.stream else "whole answer"
    counts = Table(show_header=True, title=f"times: {what}", title_justify="left")
    for column in ("tenant", "offered", "good", "late", "refused", "errors", "gave up", "p50 / p99 ms"):
        counts.add_column(column, justify="left" if column == "tenant" else "right")
    whole = ClientReport("all", report.counts, report.times_ms["ttft"], report.times_ms["latency"])
    for one in [*(report.clients if len(report.clients) > 1 else ()), whole]:
        words = [str(one.counts.get(word, 0)) for word in ("offered", GOOD, LATE, REFUSED, ERRORED, GAVE_UP)]
        found = one.ttft_ms if report.plan.stream else one.latency_ms
        counts.add_row(one.name, *words, f"{found.get('p50', 0):.1f} / {found.get('p99', 0):.1f}")
    times = Table(show_header=True)
    for column in ("milliseconds", "p50", "p90", "p99", "p99.9", "max", "count"):
        times.add_column(column, justify="left" if column == "milliseconds" else "right")
    for name, title in TITLES.items():
        found = report.times_ms[name]
        if found["count"]:
            cells = [f"{found[key]:.1f}" for key in ("p50", "p90", "p99", "p99.9", "max")]
            times.add_row(title, *cells, f"{found['count']:.0f}")
    parts: list[RenderableType] = [counts, times]
    if report.refusals:
        reasons = Table(show_header=True)
        reasons.add_column("refused or failed because of")
        reasons.add_column("attempts", justify="right")
        for reason, count in report.refusals.items():
            reasons.add_row(reason, str(count))
        parts.append(reasons)
    under_way = f"{report.steady_goodput_s:.1f}/s once it was under way"
    rates = f"offered {report.offered_s:.1f}/s, goodput {report.goodput_s:.1f}/s ({under_way})"
    parts.append(Text(f"{rates};\n{report.cpu_s:.1f} s of processor time in {report.processes} processes"))
    parts.append(Text(report.verdict(), style="bold red" if report.late else "bold"))
    return Group(*parts)
