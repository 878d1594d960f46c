"""The configuration file of ``healthsync cloud project``."""

from pathlib import Path

import msgspec

from cloud import settings


class Keys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """32-byte key files, readable by this service only."""

    identity: Path
    """Opens the identity topic, seals identities in Redis."""
    values: Path
    """Seals vitals, alerts and the live channel."""
    index: Path
    """Blind index of record numbers."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything project needs to know."""

    kafka: settings.Kafka
    redis: settings.Redis
    keys: Keys
    metrics: settings.Metrics
