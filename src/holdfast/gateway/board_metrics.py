"""The board in Prometheus: every worker's totals, whichever worker answers the scrape.

Workers share their port, so a scrape reaches any of them, and its own counters are a sample of one. What all have told on the
board is the same from everywhere, at most a tenth of a second old.
"""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from holdfast.domain.board import Board, WorkerView, short_name

SERVING = "serving"


class BoardCollector(Collector):
    """Shows what the living workers tell."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterator[Metric]:
        views = self._board.told()
        yield from _workers(views)
        yield from _replicas(views)


def _workers(views: list[WorkerView]) -> Iterator[Metric]:
    for name, words, values in (
        ("holdfast_worker_running", "Answers that a worker has let in.", [one.running for one in views]),
        ("holdfast_worker_waiting", "Requests that wait in a worker.", [one.waiting for one in views]),
        ("holdfast_worker_waiting_tokens", "Tokens of work that wait.", [one.waiting_tokens for one in views]),
        ("holdfast_worker_wait_seconds", "How long who was let in lately had waited.", [one.wait_s for one in views]),
    ):
        gauge = GaugeMetricFamily(name, words, labels=["worker"])
        for view, number in zip(views, values, strict=True):
            gauge.add_metric([short_name(view.worker)], number)
        yield gauge
    for name, words, totals in (
        ("holdfast_worker_admitted", "Requests that a worker has let in.", [one.admitted for one in views]),
        (
            "holdfast_worker_answers",
            "Answers that ended, well or by an error of ours.",
            [one.answered for one in views],
        ),
        ("holdfast_worker_answers_failed", "Those that ended by an error of ours.", [one.failed for one in views]),
    ):
        counter = CounterMetricFamily(name, words, labels=["worker"])
        for view, total in zip(views, totals, strict=True):
            counter.add_metric([short_name(view.worker)], total)
        yield counter
    refused = CounterMetricFamily(
        "holdfast_worker_refused", "Requests that a worker has refused.", labels=["worker", "limit"]
    )
    for view in views:
        for limit, count in sorted(view.refused.items()):
            refused.add_metric([short_name(view.worker), limit], count)
    yield refused


def _replicas(views: list[WorkerView]) -> Iterator[Metric]:
    running = GaugeMetricFamily("holdfast_replica_running", "Answers on a replica.", labels=["replica", "worker"])
    held = GaugeMetricFamily(
        "holdfast_replica_cache_tokens_held", "Cache places held on a replica.", labels=["replica", "worker"]
    )
    serving = GaugeMetricFamily(
        "holdfast_replica_serves", "Whether a worker gives a replica new work.", labels=["replica", "worker"]
    )
    for view in views:
        worker = short_name(view.worker)
        for one in view.replicas:
            running.add_metric([one.replica, worker], one.running)
            held.add_metric([one.replica, worker], one.held_tokens)
            serving.add_metric([one.replica, worker], float(one.state == SERVING))
    yield from (running, held, serving)
