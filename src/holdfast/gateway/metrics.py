"""Counters of the front door: plain numbers on the hot path, Prometheus families only when somebody scrapes."""

from bisect import bisect_left
from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from holdfast.domain.fault import Fault
from holdfast.policy.error_rate import is_ours

TTFT_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
GAP_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
PAUSE_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Histogram:
    """Counts by upper bound, in seconds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative, as Prometheus wants them."""
        rows: list[tuple[str, float]] = []
        running = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            running += count
            rows.append(("+Inf" if bound == float("inf") else str(bound), float(running)))
        return rows


class Tally:
    """All numbers of one worker's door."""

    __slots__ = (
        "answers", "answers_failed", "buffers_cut", "by_refusal", "by_status", "cut", "gap_s", "in_flight", "mistakes",
        "moves", "pause_s", "replayed", "resumed", "stalled", "streams", "tokens_cached", "tokens_in", "tokens_out", "ttft_s",
    )  # fmt: skip

    def __init__(self) -> None:
        self.by_status: dict[int, int] = {}
        self.by_refusal: dict[str, int] = {}
        self.tokens_in = self.tokens_out = self.tokens_cached = 0
        self.in_flight = self.streams = self.moves = 0
        self.cut = self.stalled = self.mistakes = 0
        self.answers = self.answers_failed = 0  # that ended, well or by an error of ours; and the latter
        self.resumed = self.replayed = self.buffers_cut = 0
        self.ttft_s = Histogram(TTFT_S)
        self.gap_s = Histogram(GAP_S)
        self.pause_s = Histogram(PAUSE_S)

    def failed(self, fault: Fault) -> None:
        """An answer ended in a fault."""
        if is_ours(fault):
            self.answers += 1
            self.answers_failed += 1

    def answered(self, status: int) -> None:
        self.by_status[status] = self.by_status.get(status, 0) + 1

    def refused(self, code: str) -> None:
        self.by_refusal[code] = self.by_refusal.get(code, 0) + 1


class DoorCollector(Collector):
    """Shows a Tally to Prometheus."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally

    def collect(self) -> Iterator[Metric]:
        tally = self._tally
        requests = CounterMetricFamily("holdfast_requests", "Answers by HTTP status.", labels=["status"])
        for status, count in sorted(tally.by_status.items()):
            requests.add_metric([str(status)], count)
        yield requests
        refusals = CounterMetricFamily("holdfast_refusals", "Requests refused, by error code.", labels=["code"])
        for code, count in sorted(tally.by_refusal.items()):
            refusals.add_metric([code], count)
        yield refusals
        for name, words, value in (
            ("holdfast_prompt_tokens", "Prompt tokens of accepted requests.", tally.tokens_in),
            ("holdfast_prompt_tokens_cached", "Prompt tokens that an engine had in its cache.", tally.tokens_cached),
            ("holdfast_completion_tokens", "Tokens received from replicas for clients.", tally.tokens_out),
            ("holdfast_answer_moves", "How often answers changed replicas.", tally.moves),
            ("holdfast_answers_cut", "Streams that ended in an error event.", tally.cut),
            ("holdfast_clients_stalled", "Connections cut because the client did not read.", tally.stalled),
            (
                "holdfast_clients_cut",
                "Connections cut because all unread bytes together were too many.",
                tally.buffers_cut,
            ),
            ("holdfast_answers_resumed", "Answers that were asked for again after a lost connection.", tally.resumed),
            ("holdfast_answers_replayed", "Requests with an Idempotency-Key whose answer was there.", tally.replayed),
            ("holdfast_answers", "Answers that ended, well or by an error of ours.", tally.answers),
            ("holdfast_answers_failed", "Those of them that ended by an error of ours.", tally.answers_failed),
            ("holdfast_door_mistakes", "Handlers that failed unexpectedly.", tally.mistakes),
        ):
            yield CounterMetricFamily(name, words, value=value)
        yield GaugeMetricFamily("holdfast_requests_in_flight", "Requests being answered.", value=tally.in_flight)
        yield GaugeMetricFamily("holdfast_streams_open", "Streams being answered.", value=tally.streams)
        for name, words, histogram in (
            ("holdfast_ttft_seconds", "From the whole request to the first token.", tally.ttft_s),
            ("holdfast_inter_token_seconds", "Between two batches of tokens of one answer.", tally.gap_s),
            ("holdfast_pause_seconds", "The gap that a client saw when its answer moved.", tally.pause_s),
        ):
            yield HistogramMetricFamily(name, words, buckets=histogram.buckets(), sum_value=histogram.total)
