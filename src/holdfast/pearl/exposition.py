"""What a replica tells about itself over plain HTTP: /metrics in Prometheus' text format and /health as JSON."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec
from msgspec import Struct
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

from holdfast.domain.release import Release
from holdfast.domain.replica import Load

_JSON = msgspec.json.Encoder()


@dataclass
class Tally:
    """Counters since boot. Plain integers that the loop adds to; only a scrape turns them into metrics."""

    tokens: int = 0
    prefill_tokens: int = 0
    cached_tokens: int = 0
    accepted: int = 0
    finished: int = 0
    aborted: int = 0
    refused: int = 0
    failed: int = 0
    step_s: float = 0.0
    batch_size: int = 0
    connections: int = 0
    connections_cut: int = 0


class Identity(Struct, frozen=True, kw_only=True):
    """Who this process is; the same in Welcome, metrics and /health."""

    replica: str
    boot: str
    pid: int
    release: Release


class Exposition(Collector):
    """Reads the tally and the load at the moment of a scrape. `complaint` is empty while the replica may take traffic."""

    def __init__(self, who: Identity, tally: Tally, load: Callable[[], Load], complaint: Callable[[], str]) -> None:
        self._who = who
        self._tally = tally
        self._load = load
        self._complaint = complaint
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """All metrics, each with its help text; names start with holdfast_replica_."""
        who, tally, load = self._who, self._tally, self._load()
        info = InfoMetricFamily("holdfast_replica", "What runs here")
        info.add_metric(
            [],
            {
                "replica": who.replica,
                "boot": who.boot,
                "model": who.release.model,
                "engine": who.release.engine,
                "version": who.release.version,
                "digest": who.release.digest,
            },
        )
        yield info
        counters: list[tuple[str, str, float]] = [
            ("steps", "Engine steps since boot", load.step),
            ("step_seconds", "Seconds spent inside engine steps", tally.step_s),
            ("generated_tokens", "Tokens generated", tally.tokens),
            ("prefill_tokens", "Prompt tokens read, those found in the cache not counted", tally.prefill_tokens),
            ("cached_prompt_tokens", "Prompt tokens found in the cache", tally.cached_tokens),
            ("accepted", "Attempts taken", tally.accepted),
            ("finished", "Attempts that ended with a finish", tally.finished),
            ("aborted", "Attempts dropped because their gateway said so or went away", tally.aborted),
            ("refused", "Attempts refused: full, draining, or wrong", tally.refused),
            ("failed", "Attempts that failed inside the engine", tally.failed),
            ("connections_cut", "Connections closed for garbage or for not reading", tally.connections_cut),
        ]
        for name, text, value in counters:
            yield CounterMetricFamily(f"holdfast_replica_{name}", text, value)
        complaint = self._complaint()
        gauges: list[tuple[str, str, float]] = [
            ("up", "1 while the replica may take traffic", 0 if complaint else 1),
            ("draining", "1 while it finishes what it has and takes nothing new", int(load.draining)),
            ("running", "Attempts in a slot", load.running),
            ("queue_depth", "Attempts that wait for a slot", load.queued),
            ("slots", "Attempts that can run at once", load.slots),
            ("cache_tokens", "Token places in use", load.cache_tokens),
            ("cache_tokens_max", "Token places there are", load.cache_tokens_max),
            ("batch_size", "Attempts that the last step made something for", tally.batch_size),
            ("connections", "Gateway connections", tally.connections),
        ]
        for name, text, value in gauges:
            yield GaugeMetricFamily(f"holdfast_replica_{name}", text, value)

    def answer(self, target: str) -> bytes:
        """The whole HTTP/1.1 answer to a GET of `target`; the connection closes after it."""
        path = target.partition("?")[0]
        if path == "/metrics":
            return _http("200 OK", CONTENT_TYPE_LATEST, generate_latest(self._registry))
        if path == "/health":
            complaint = self._complaint()
            body = _JSON.encode(
                {
                    "ready": not complaint,
                    "why": complaint,
                    "replica": self._who.replica,
                    "model": self._who.release.model,
                    "boot": self._who.boot,
                    "pid": self._who.pid,
                    "load": msgspec.structs.asdict(self._load()),
                }
            )
            return _http("503 Service Unavailable" if complaint else "200 OK", "application/json", body)
        return _http("404 Not Found", "text/plain", b"there is /metrics and /health\n")


def _http(status: str, content_type: str, body: bytes) -> bytes:
    head = (
        f"HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body
