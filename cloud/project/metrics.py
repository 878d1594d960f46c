"""Project's metrics, each named once."""

from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from cloud.project.batch import Batch
from cloud.project.writer import Written

BUCKETS_S: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

# Older than this is backlog, not latency.
LIVE_MS_MAX: Final = 60_000


class Metrics:
    """Counters of one process."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register everything."""
        self.records = Counter(
            "healthsync_project_records_total", "Records written", ["topic"], registry=registry
        )
        self.refused = Counter(
            "healthsync_project_refused_total",
            "Records that cannot be read",
            ["topic"],
            registry=registry,
        )
        self.readings = Counter(
            "healthsync_project_readings_total", "Readings written", registry=registry
        )
        self.latency = Histogram(
            "healthsync_project_latency_seconds",
            "From receipt on the gateway to Redis, newest readings",
            buckets=BUCKETS_S,
            registry=registry,
        )
        self.lag = Gauge(
            "healthsync_project_lag_records", "Records in Kafka not yet written", registry=registry
        )
        self.redis_errors = Counter(
            "healthsync_project_redis_errors_total",
            "Failures that led back to the offsets in Redis",
            registry=registry,
        )

    def wrote(self, batch: Batch, written: Written, now_ms: int) -> None:
        """Count one write."""
        for topic, count in batch.records.items():
            self.records.labels(topic).inc(count)
        for topic, count in batch.refused.items():
            self.refused.labels(topic).inc(count)
        self.readings.inc(batch.readings)
        for received_ms in written.fresh_received_ms:
            age_ms = max(0, now_ms - received_ms)
            if age_ms <= LIVE_MS_MAX:
                self.latency.observe(age_ms / 1000)
