"""What ingest counts, for Prometheus on loopback."""

from prometheus_client import Counter, Gauge, Histogram

SESSIONS = Gauge("healthsync_ingest_sessions", "Gateways connected to this process")
FRAMES = Counter("healthsync_ingest_frames_total", "Frames taken from gateways")
READINGS = Counter("healthsync_ingest_readings_total", "Readings written to Kafka")
REJECTS = Counter("healthsync_ingest_rejects_total", "Rejected inputs written to Kafka")
SET_ASIDE = Counter("healthsync_ingest_set_aside_total", "Frames set aside whole", ["reason"])
ACKS = Counter("healthsync_ingest_acks_total", "Frames acknowledged to gateways")
FAILURES = Counter(
    "healthsync_ingest_delivery_failures_total", "Frames that Kafka did not take in time"
)
UNPROVEN = Counter(
    "healthsync_ingest_unproven_total",
    "Records reported delivered without a place in the log; their gateways send them again",
)
REFUSED = Counter("healthsync_ingest_refused_total", "Sessions ended by ingest", ["reason"])
SUPERSEDED = Counter(
    "healthsync_ingest_superseded_total", "Sessions ended by a newer one of the same gateway"
)
PRESENCE = Counter(
    "healthsync_ingest_presence_total", "Times a session, or its end, was told to every partition"
)
PRESENCE_DROPPED = Counter(
    "healthsync_ingest_presence_dropped_total",
    "Times a session could not be told: Kafka was away, or took only a part",
)
WAITING = Gauge(
    "healthsync_ingest_waiting_frames", "Frames that connected gateways said they have stored"
)
SETTINGS = Counter(
    "healthsync_ingest_settings_total", "What became of pushed settings", ["outcome"]
)
IN_FLIGHT = Gauge("healthsync_ingest_in_flight_bytes", "Bytes handed to Kafka and not yet durable")
PRODUCE = Histogram(
    "healthsync_ingest_produce_seconds",
    "From handing a frame's records to Kafka to their delivery",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
