"""Every metric of the gateway, by name (Prometheus; ``healthsync_edge_<what>_<unit>``).

Law: labels come from closed sets; no device, patient or address is ever a label.
"""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram, Info

LINES: Final = Counter("healthsync_edge_lines", "Lines received, good and rejected")
MESSAGES: Final = Counter("healthsync_edge_messages", "HL7 messages received, good and rejected")
READINGS: Final = Counter("healthsync_edge_readings", "Readings made durable")
REJECTED: Final = Counter("healthsync_edge_rejected", "Rejected inputs, quarantined", ["reason"])
IGNORED: Final = Counter("healthsync_edge_ignored_observations", "OBX of codes not known here")
REFUSED: Final = Counter("healthsync_edge_refused_inputs", "Inputs answered as not kept")
DROPPED: Final = Counter("healthsync_edge_dropped_frames", "Frames dropped by the spool's quota")
SPOOL_FRAMES: Final = Gauge("healthsync_edge_spool_frames", "Frames the cloud does not have yet")
SPOOL_BYTES: Final = Gauge("healthsync_edge_spool_bytes", "Bytes of those frames")
COMMIT_SECONDS: Final = Histogram(
    "healthsync_edge_commit_seconds",
    "Sealing and committing one batch, fsync included",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
CONNECTIONS: Final = Gauge("healthsync_edge_connections", "Open device connections")
CONNECTIONS_REFUSED: Final = Counter(
    "healthsync_edge_connections_refused", "Connections over the limit"
)
STRANGERS_REFUSED: Final = Counter(
    "healthsync_edge_strangers_refused", "Connections of callers that are not listed"
)
HELD_BYTES: Final = Gauge(
    "healthsync_edge_held_bytes", "Unfinished lines and messages in memory, all connections"
)
HELD_ENDED: Final = Counter(
    "healthsync_edge_held_ended", "Connections ended because of what all of them held together"
)
IMPLAUSIBLE: Final = Counter(
    "healthsync_edge_implausible", "Inputs with a number that no vital sign can have"
)
ALERTS: Final = Counter("healthsync_edge_device_alerts", "Alarms of devices made durable")
DEVICES: Final = Gauge("healthsync_edge_devices", "Devices heard within the last 5 minutes")
DEVICE_SKEW_MAX_MS: Final = Gauge(
    "healthsync_edge_device_skew_max_ms",
    "Largest absolute skew of the clocks of devices heard within the last 5 minutes",
)
LINK_UP: Final = Gauge("healthsync_edge_link_up", "1 while a session with ingest is open")
SESSIONS: Final = Counter("healthsync_edge_sessions", "Sessions opened with ingest")
FRAMES_SENT: Final = Counter("healthsync_edge_frames_sent", "Frames sent", ["lane"])
FRAMES_ACKED: Final = Counter("healthsync_edge_frames_acked", "Frames the cloud acknowledged")
IN_FLIGHT: Final = Gauge("healthsync_edge_frames_in_flight", "Frames sent, not acknowledged yet")
LIVE_SECONDS: Final = Histogram(
    "healthsync_edge_live_seconds",
    "From commit of a live frame to the cloud's acknowledgement",
    buckets=(0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.2, 0.5, 1, 2, 5),
)
LATE_FRAMES: Final = Gauge(
    "healthsync_edge_late_frames", "Frames sent from the disk that are not acknowledged yet"
)
LATE_ETA_S: Final = Gauge(
    "healthsync_edge_late_eta_seconds", "Until none of them is left, -1 when not known"
)
LATE_WINDOW_BYTES: Final = Gauge(
    "healthsync_edge_late_window_bytes", "Late bytes that may be on their way at once"
)
WITHHELD: Final = Gauge(
    "healthsync_edge_withheld_epochs", "Epochs that wait for the cloud to have their key"
)
CLOCK_OFFSET_MS: Final = Gauge(
    "healthsync_edge_clock_offset_ms", "The cloud's clock minus this one's"
)
CERTIFICATE_EXPIRES: Final = Gauge(
    "healthsync_edge_certificate_expires_seconds",
    "Until the link's certificate ends, negative when it has; absent when there is none",
    ["certificate"],
)
EPOCH: Final = Info("healthsync_edge_epoch", "The running epoch")
