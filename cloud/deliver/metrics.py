"""What deliver counts, for Prometheus on loopback."""

from prometheus_client import Counter, Gauge, Histogram

BUNDLES = Counter("healthsync_deliver_bundles_total", "Records of fhir dealt with to the end")
RESOURCES = Counter("healthsync_deliver_resources_total", "Resources that the server has stored")
UNDELIVERED = Counter(
    "healthsync_deliver_undelivered_total", "Dead letters acknowledged by Kafka", ["reason"]
)
RETRIES = Counter("healthsync_deliver_retries_total", "Requests to be made again", ["reason"])
TOKENS = Counter("healthsync_deliver_tokens_total", "Access tokens had")
REQUEST = Histogram(
    "healthsync_deliver_request_seconds",
    "From a request's first byte to its answer's last",
    ["method"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
LAG = Gauge("healthsync_deliver_lag_records", "Records of fhir not yet dealt with, our partitions")
OLDEST = Gauge(
    "healthsync_deliver_oldest_seconds",
    "Age of the oldest record being dealt with; near the topic's retention records are lost",
)
EXPIRED = Counter(
    "healthsync_deliver_expired_records_total",
    "Records that Kafka's retention removed before they were delivered",
)
