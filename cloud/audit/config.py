"""The configuration file of the audit: what `audit.toml.j2` renders."""

from pathlib import Path

import msgspec

from cloud.settings import S3, Kafka, Kms, Redis


class Edge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One gateway's spool, where this machine can read it."""

    id: str
    spool: Path


class AuditConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    kafka: Kafka
    redis: Redis
    s3: S3
    kms: Kms
    edge: list[Edge] = []
