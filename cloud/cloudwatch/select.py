"""A Prometheus page -> the few numbers that go to CloudWatch. Pure.

Law: a name that is not in `ALLOWED` does not leave; labels are summed away, so that no label's
value ever leaves either.
"""

import math
from typing import Final, NamedTuple

from prometheus_client.parser import text_string_to_metric_families


class Rule(NamedTuple):
    """How one metric is sent: ``counter`` as its increase since the last look, else as it is."""

    unit: str
    counter: bool


_COUNT: Final = Rule("Count", counter=True)
_NOW: Final = Rule("Count", counter=False)
_BYTES_NOW: Final = Rule("Bytes", counter=False)

ALLOWED: Final = {
    "healthsync_edge_lines_total": _COUNT,
    "healthsync_edge_messages_total": _COUNT,
    "healthsync_edge_readings_total": _COUNT,
    "healthsync_edge_rejected_total": _COUNT,
    "healthsync_edge_refused_inputs_total": _COUNT,
    "healthsync_edge_dropped_frames_total": _COUNT,
    "healthsync_edge_frames_acked_total": _COUNT,
    "healthsync_edge_spool_frames": _NOW,
    "healthsync_edge_spool_bytes": _BYTES_NOW,
    "healthsync_edge_connections": _NOW,
    "healthsync_edge_devices": _NOW,
    "healthsync_edge_link_up": _NOW,
    "healthsync_ingest_sessions": _NOW,
    "healthsync_ingest_frames_total": _COUNT,
    "healthsync_ingest_readings_total": _COUNT,
    "healthsync_ingest_rejects_total": _COUNT,
    "healthsync_ingest_set_aside_total": _COUNT,
    "healthsync_ingest_delivery_failures_total": _COUNT,
    "healthsync_ingest_in_flight_bytes": _BYTES_NOW,
    "healthsync_detect_readings_total": _COUNT,
    "healthsync_detect_duplicates_total": _COUNT,
    "healthsync_detect_poison_total": _COUNT,
    "healthsync_detect_alerts_total": _COUNT,
    "healthsync_detect_aborts_total": _COUNT,
    "healthsync_detect_lag_records": _NOW,
    "healthsync_detect_ownerless_partitions": _NOW,
    "healthsync_project_readings_total": _COUNT,
    "healthsync_project_refused_total": _COUNT,
    "healthsync_project_redis_errors_total": _COUNT,
    "healthsync_project_lag_records": _NOW,
    "healthsync_archive_rows_total": _COUNT,
    "healthsync_archive_files_total": _COUNT,
    "healthsync_archive_bytes_total": Rule("Bytes", counter=True),
    "healthsync_archive_refused_total": _COUNT,
    "healthsync_archive_store_errors_total": _COUNT,
    "healthsync_archive_lag_records": _NOW,
    "healthsync_api_answers_total": _COUNT,
    "healthsync_api_sse_clients": _NOW,
    "healthsync_api_sse_dropped_total": _COUNT,
}


class Number(NamedTuple):
    """One value for CloudWatch."""

    service: str
    name: str
    value: float
    unit: str
    at_ms: int


def sums(page: str) -> dict[str, float]:
    """Return the allowed metrics of a page, summed over their labels; raise ValueError."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name in ALLOWED and math.isfinite(sample.value):
                found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


class Increases:
    """Remembers counters between looks; a restarted service counts from zero again."""

    def __init__(self) -> None:
        """Remember nothing."""
        self._last: dict[tuple[str, str], float] = {}

    def numbers(self, service: str, page: str, at_ms: int) -> list[Number]:
        """Return what to send of one service's page; raise ValueError if it is no such page.

        A counter seen for the first time gives nothing: when it began is not known.
        """
        out = []
        for name, value in sums(page).items():
            rule, key = ALLOWED[name], (service, name)
            sent = value
            if rule.counter:
                last = self._last.get(key)
                self._last[key] = value
                if last is None:
                    continue
                sent = value - last if value >= last else value
            out.append(Number(service, name, sent, rule.unit, at_ms))
        return out
