"""Prometheus metrics: a sink that counts every record once."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.records.explanations import ExplanationWorker
from gateway.records.record import Record
from gateway.tenants.tenants import Tenant
from guard_runtime.guard import Counting, Guard
from guard_runtime.serving.batch_observer import BatchStats

GUARD_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
# OpenTelemetry's GenAI duration buckets
UPSTREAM_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)


DROPPED_NAMES = frozenset(
    {
        "copilot_references",
        "kv_transfer_params",
        "message",
        "prompt_logprobs",
        "prompt_token_ids",
        "text",
        "timings",
        "token_ids",
        "type",
        "x_groq",
    }
)
"""Fields that are counted by name: a provider chooses the others' names, and the number of series must be bounded."""
ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64)


class Mode(StrEnum):
    """Whether the decisions of a policy were carried out."""

    ENFORCED = "enforced"


class Metrics:
    """A sink for records and an observer of guards' batches. Tenants, models and guards come from the configuration
    alone, so the number of series is bounded."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call] # a second series for each counter, of no use
        self.registry = CollectorRegistry()
        self._requests = self._counter("requests", "Requests by how they ended", "tenant", "dialect", "outcome")
        self._decisions = self._counter(
            "decisions", "Decisions taken by rules", "tenant", "direction", "category", "action", "mode"
        )
        self._unread = self._counter("unread_parts", "Pieces of content that no guard read", "reason")
        self._dropped = self._counter("dropped_fields", "Unknown fields taken out of answers", "field")
        self._cache = self._counter("verdict_cache", "Readings by where the verdict came from", "result")
        help_text = "One check of a conversation by all guards"
        self._guard = self._histogram("guard", help_text, GUARD_BUCKETS, "guard", "direction", "result")
        self._upstream = self._histogram("upstream", "The model's provider", UPSTREAM_BUCKETS, "phase")
        waited = "The longest time a passage of a batch waited"
        self._batch_wait = self._histogram("batch_wait", waited, GUARD_BUCKETS, "guard")
        self._batch_run = self._histogram("batch_run", "How long the model took for a batch", GUARD_BUCKETS, "guard")
        rows = Histogram(
            "libragate_batch_rows", "Passages in a batch", ("guard",), buckets=ROW_BUCKETS, registry=self.registry
        )
        self._batch_rows: Callable[[str], Histogram] = cache(rows.labels)
        self._hold = self._histogram("stream_hold", "How long streamed text waited for a guard", GUARD_BUCKETS)
        self._leaked = Counter(
            "libragate_unguarded_characters_total",
            "Streamed characters that left before a guard cleared them; 0 in hold mode",
            registry=self.registry,
        )
        self._policies = _Policies()
        self.registry.register(self._policies)
        self._build = Gauge("libragate_build_info", "What is running", ("version", "guard"), registry=self.registry)
        self._queue = Gauge(
            "libragate_guard_queue_depth", "Checks waiting for a guard", ("guard",), registry=self.registry
        )
        self._work = _Work()
        self.registry.register(self._work)

    def _counter(self, name: str, help_text: str, *labels: str) -> Callable[..., Counter]:
        """A counter's child for given labels, kept: `labels` is the slow part of counting."""
        return cache(Counter(f"libragate_{name}_total", help_text, labels, registry=self.registry).labels)

    def _histogram(self, name: str, help_text: str, buckets: Sequence[float], *labels: str) -> Callable[..., Histogram]:
        """As `_counter`. Without labels there is but one child."""
        histogram = Histogram(f"libragate_{name}_seconds", help_text, labels, buckets=buckets, registry=self.registry)
        return cache(histogram.labels if labels else lambda: histogram)

    def queue(self, guard: str, depth: Callable[[], float]) -> None:
        """Reads a guard's queue depth at every scrape."""
        self._queue.labels(guard).set_function(depth)

    def counts(self, guard: Guard | ExplanationWorker) -> None:
        """Reads what a guard, or the explanation worker, counts of its own work, at every scrape."""
        if isinstance(guard, Counting):
            self._work.guards[guard.name] = guard

    def serving(self, version: str, guard: str) -> None:
        self._build.labels(version, guard).set(1)

    def policies(self, tenants: Callable[[], Iterable[Tenant]]) -> None:
        """Reads the tenants and their policies at every scrape, so that no policy that was replaced is left over."""
        self._policies.tenants = tenants

    def batch_finished(self, guard: str, batch: BatchStats) -> None:
        self._batch_rows(guard).observe(batch.passages)
        self._batch_wait(guard).observe(batch.wait)
        self._batch_run(guard).observe(batch.run)

    def write(self, record: Record) -> None:
        tenant = record.tenant or "none"
        self._requests(tenant, record.dialect, record.outcome).inc()
        for direction, judgement in record.judgements:
            result = "failed" if judgement.failures else "judged"
            self._guard(record.guard, str(direction), result).observe(judgement.seconds)
            for decision in judgement.decisions:
                action = decision.action.name.lower()
                category = decision.category or str(decision.reason)
                self._decisions(tenant, str(direction), category, action, Mode.ENFORCED).inc()
            coverage = judgement.coverage
            for item in coverage.unread:
                self._unread(item.reason).inc()
            self._cache("hit").inc(coverage.cached)
            self._cache("miss").inc(coverage.windows)
        for name in record.dropped_fields:
            self._dropped(name if name in DROPPED_NAMES else "other").inc()
        for stage, phase in (("upstream", "whole"), ("first_event", "first_chunk")):
            if stage in record.seconds:
                self._upstream(phase).observe(record.seconds[stage])
        if "hold" in record.seconds:
            self._hold().observe(record.seconds["hold"])
        self._leaked.inc(record.stats.unguarded if record.stats is not None else 0)

    def page(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)


class _Work(Collector):
    """What guards count of their own work."""

    def __init__(self) -> None:
        self.guards: dict[str, Counting] = {}

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(
            "libragate_guard_work", "What guards count of their own work", labels=("guard", "what")
        )
        for name, guard in self.guards.items():
            for what, count in guard.counts().items():
                family.add_metric((name, what), count)
        yield family


class _Policies(Collector):
    """The policies in force."""

    def __init__(self) -> None:
        self.tenants: Callable[[], Iterable[Tenant]] = tuple

    def collect(self) -> Iterator[GaugeMetricFamily]:
        family = GaugeMetricFamily("libragate_policy_info", "The policies being served", labels=("tenant", "hash"))
        for tenant in self.tenants():
            family.add_metric((tenant.id, tenant.policy.hash), 1)
        yield family
