"""The gate in Prometheus: who waits, how long, who is refused and why, what the buckets hold."""

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from holdfast.domain.tenant import PRIORITY_MIN
from holdfast.gateway.gate import Gate
from holdfast.gateway.gate_view import busiest


class GateCollector(Collector):
    """Shows one worker's gate. Tenants are those of the settings, so their labels are bounded."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def collect(self) -> Iterator[Metric]:
        gate = self._gate
        now = gate.clock.now()
        level, _ = gate.quota.site_state(now)
        total, used = gate.room.total(), gate.room.used()
        kept = gate.headroom.kept("", PRIORITY_MIN, total[0], now)
        for name, words, value in (
            ("holdfast_queue_requests", "Requests that wait for a place.", gate.queue.requests),
            ("holdfast_queue_tokens", "Tokens of work that wait.", gate.queue.work),
            ("holdfast_queue_bytes", "Bytes of request bodies that wait.", gate.queue.bytes),
            ("holdfast_admitted_running", "Answers that were let in and have not ended.", gate.running),
            ("holdfast_drain_tokens_per_second", "Work done a second while somebody waits.", gate.pace.work_per_s(now)),
            ("holdfast_site_bucket_level", "Requests that may come at once now, of all workers.", level),
            ("holdfast_slots", "Slots of all replicas that may take work.", total[0]),
            ("holdfast_slots_used", "Of those, held by this worker.", used[0]),
            ("holdfast_slots_kept", "Of those, kept from tenants that hold their share.", kept),
            ("holdfast_cache_tokens", "Cache places of all replicas that may take work.", total[1]),
            ("holdfast_cache_tokens_held", "Of those, held by this worker.", used[1]),
        ):
            yield GaugeMetricFamily(name, words, value=value)
        waits, rows = gate.waits, []
        for bound, count in waits.histogram.buckets():
            rows.append((bound, count + waits.straight))
        words = "How long those who were let in had waited for it."
        yield HistogramMetricFamily("holdfast_queue_wait_seconds", words, buckets=rows, sum_value=waits.histogram.total)
        yield from self._tenants(now)

    def _tenants(self, now: float) -> Iterator[Metric]:
        gate = self._gate
        waiting = GaugeMetricFamily("holdfast_tenant_waiting", "Requests of a tenant that wait.", labels=["tenant"])
        running = GaugeMetricFamily("holdfast_tenant_running", "Answers that a tenant has running.", labels=["tenant"])
        held = GaugeMetricFamily("holdfast_tenant_cache_tokens", "Cache places a tenant holds.", labels=["tenant"])
        quota = GaugeMetricFamily(
            "holdfast_tenant_quota_used", "Tokens of a tenant's quota that are reserved or used.", labels=["tenant"]
        )
        limit = GaugeMetricFamily(
            "holdfast_tenant_wait_limit_seconds", "The wait that a tenant is allowed at present.", labels=["tenant"]
        )
        admitted = CounterMetricFamily("holdfast_tenant_admitted", "Requests let in, by tenant.", labels=["tenant"])
        work = CounterMetricFamily("holdfast_tenant_work_tokens", "Work done, by tenant.", labels=["tenant"])
        refused = CounterMetricFamily(
            "holdfast_refused", "Requests not let in, by limit and tenant.", labels=["limit", "tenant"]
        )
        for account in busiest(gate.accounts.values()):
            tenant = account.limits.tenant
            waiting.add_metric([tenant], gate.queue.backlog(tenant)[0])
            running.add_metric([tenant], account.running)
            limit.add_metric([tenant], account.codel.limit_s(now))
            held.add_metric([tenant], gate.shares.of(tenant).tokens)
            if account.limits.tokens_per_min:
                quota.add_metric([tenant], gate.quota.state(account.limits, now)[0])
            admitted.add_metric([tenant], account.admitted)
            work.add_metric([tenant], max(0.0, account.served))
            for name, count in account.refused.items():
                refused.add_metric([name, tenant], count)
        yield from (waiting, running, held, quota, limit, admitted, work, refused)
