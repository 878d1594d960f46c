"""Kafka topics and their shape, written once (design §6)."""

import hashlib
from typing import Final, NamedTuple


class Topic(NamedTuple):
    """One topic: partitions, retention in milliseconds (-1: none) and whether it is compacted."""

    name: str
    partitions: int
    retention_ms: int
    compact: bool


DAY_MS: Final = 86_400_000
SUBJECT_PARTITIONS: Final = 8

# The largest batch a topic takes, compressed or not; producers make theirs half as large at most.
MESSAGE_BYTES_MAX: Final = 8 * 1024 * 1024

SAMPLES: Final = Topic("samples", SUBJECT_PARTITIONS, 7 * DAY_MS, compact=False)
FHIR: Final = Topic("fhir", SUBJECT_PARTITIONS, 7 * DAY_MS, compact=False)
ALERTS: Final = Topic("alerts", SUBJECT_PARTITIONS, 30 * DAY_MS, compact=True)
IDENTITY: Final = Topic("identity", SUBJECT_PARTITIONS, -1, compact=True)
QUARANTINE: Final = Topic("quarantine", 1, 28 * DAY_MS, compact=False)
COMMANDS: Final = Topic("commands", SUBJECT_PARTITIONS, 28 * DAY_MS, compact=False)
POISON: Final = Topic("poison", SUBJECT_PARTITIONS, 28 * DAY_MS, compact=False)
STATE: Final = Topic("state", SUBJECT_PARTITIONS, -1, compact=True)
UNDELIVERED: Final = Topic("undelivered", SUBJECT_PARTITIONS, 28 * DAY_MS, compact=False)

ALL: Final = (
    SAMPLES,
    FHIR,
    ALERTS,
    IDENTITY,
    QUARANTINE,
    COMMANDS,
    POISON,
    STATE,
    UNDELIVERED,
)


def home_of(edge: str) -> int:
    """Return the partition that speaks for a gateway."""
    return hashlib.sha256(edge.encode()).digest()[0] % SUBJECT_PARTITIONS


def partition_of(subject: str) -> int:
    """Return the partition of a subject (32 hex digits of an HMAC: its head is uniform)."""
    return int(subject[:8], 16) % SUBJECT_PARTITIONS
