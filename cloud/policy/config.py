"""The configuration file of ``healthsync cloud policy``: what `operator.toml.j2` renders."""

from pathlib import Path

import msgspec

from cloud.settings import Kafka


class OperatorConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    kafka: Kafka
    subject_key: Path
    """Ingest's, 32 raw bytes: pushing is done where ingest runs, so that it is nowhere else."""
