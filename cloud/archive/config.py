"""The configuration file of archive: what `archive.toml.j2` renders."""

from typing import Annotated

import msgspec

from cloud.settings import S3, Kafka, Kms, Metrics


class ArchiveConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    kafka: Kafka
    s3: S3
    kms: Kms
    metrics: Metrics
    flush_s: Annotated[float, msgspec.Meta(gt=0, le=3600)]
    """A partition's readings become a file after this long..."""
    rows_max: Annotated[int, msgspec.Meta(ge=1, le=2_000_000)] = 200_000
    """...or when there are this many."""
    sse_kms: bool = False
    """Ask the server for SSE-KMS as well (AWS); the file itself is always encrypted."""
