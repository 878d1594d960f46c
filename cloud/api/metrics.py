"""The REST server's metrics, each named once."""

from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Metrics:
    """Counters of one process."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Register everything."""
        self.request = Histogram(
            "healthsync_api_request_seconds",
            "From request to the end of the answer, streams left out",
            ["route"],
            buckets=BUCKETS_S,
            registry=registry,
        )
        self.answers = Counter(
            "healthsync_api_answers_total", "Answers", ["route", "status"], registry=registry
        )
        self.sse_clients = Gauge(
            "healthsync_api_sse_clients", "Ward stations connected", registry=registry
        )
        self.sse_dropped = Counter(
            "healthsync_api_sse_dropped_total",
            "Ward stations closed for being too slow",
            registry=registry,
        )
        self.live_feed = Gauge(
            "healthsync_api_live_feed", "1 while Redis's live channel is heard", registry=registry
        )
