"""What detect counts, for Prometheus on loopback."""

from prometheus_client import Counter, Gauge, Histogram

RECORDS = Counter("healthsync_detect_records_total", "Samples records taken, duplicates included")
READINGS = Counter("healthsync_detect_readings_total", "Readings taken, each once")
DUPLICATES = Counter("healthsync_detect_duplicates_total", "Samples records seen before")
POISON = Counter("healthsync_detect_poison_total", "Samples records set aside", ["reason"])
LATE = Counter(
    "healthsync_detect_late_readings_total",
    "Readings that arrived over a minute after they were taken: a backlog, or a gateway's clock",
)
ALERTS = Counter(
    "healthsync_detect_alerts_total", "Alert events committed", ["kind", "priority", "state"]
)
REFUSED = Counter(
    "healthsync_detect_commands_refused_total", "Records of commands that changed nothing"
)
ABORTS = Counter("healthsync_detect_aborts_total", "Transactions aborted and done again")
BATCH = Histogram(
    "healthsync_detect_batch_seconds",
    "From the first record of a batch in hand to its commit",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
COMMIT = Histogram(
    "healthsync_detect_commit_seconds",
    "From the last message produced to the commit",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
LAG = Gauge("healthsync_detect_lag_records", "Samples records not yet taken, all partitions")
OWNERLESS = Gauge(
    "healthsync_detect_ownerless_partitions", "Partitions that no member of the group has"
)
