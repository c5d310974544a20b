"""The picture of a run: what became of the requests of each second, and how long they took, percentile by percentile."""

from math import log10
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from holdfast.drill.load_report import TITLES, Report

COLOURS = {"good": "#2a7f62", "refused": "#d9a441", "lost": "#b3392f"}


def plot(report: Report, path: Path) -> None:
    """Write it; the file's ending says in which format.

    Raises:
        ValueError: matplotlib does not know the ending.
    """
    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    seconds = report.by_second[: max(1, round(report.seconds))]
    rows = {name: [getattr(one, name) for one in [*seconds, *seconds[-1:]]] for name in COLOURS}
    left.stackplot(
        range(len(seconds) + 1), *rows.values(), labels=list(rows), colors=list(COLOURS.values()), step="post"
    )
    left.set_xlabel("seconds")
    left.set_ylabel("requests a second, by when they were due")
    left.set_title(report.verdict(), fontsize=8, wrap=True)
    left.legend(loc="upper left", fontsize=8)
    for name, curve in report.curves_ms.items():
        if report.times_ms[name]["count"]:
            # p99.9 lies as far from p99 as p99 from p90: the place of a percentile is how rare it is
            places = [-log10(max(1e-5, 1 - percentile / 100)) for percentile, _ in curve]
            right.plot(places, [max(0.01, value) for _, value in curve], label=TITLES[name], marker=".")
    right.set_xticks([0, 1, 2, 3, 4, 5], ["min", "p90", "p99", "p99.9", "p99.99", "max"])
    right.set_yscale("log")
    right.set_ylabel("milliseconds from when it was due")
    right.grid(visible=True, alpha=0.3)
    if right.lines:
        right.legend(fontsize=8)
    figure.savefig(path)
