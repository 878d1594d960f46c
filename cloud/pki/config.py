"""The configuration file of `healthsync cloud est`: what `est.toml.j2` renders."""

from pathlib import Path
from typing import Annotated

import msgspec

from cloud.pki.authority import LEAF_DAYS
from cloud.pki.desk import GRACE_DAYS
from cloud.settings import Listen, Metrics


class EstConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    listen: Listen
    metrics: Metrics
    folder: Path
    """Of `healthsync cloud pki init`."""
    leaf_days: Annotated[float, msgspec.Meta(ge=1, le=366)] = LEAF_DAYS
    grace_days: Annotated[float, msgspec.Meta(ge=0, le=366)] = GRACE_DAYS
