"""The configuration file of the CloudWatch feed: what `cloudwatch.toml.j2` renders."""

from pathlib import Path
from typing import Annotated

import msgspec

from cloud.settings import Metrics


class CloudWatch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the numbers go; ``credentials_file`` holds access and secret key."""

    endpoint: str
    region: str
    credentials_file: Path
    namespace: str = "HealthSync"
    ca: Path | None = None
    """Of an endpoint whose certificate the system does not know."""


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One service's Prometheus page on loopback."""

    name: str
    port: int


class CloudWatchConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    cloudwatch: CloudWatch
    metrics: Metrics
    target: list[Target]
    every_s: Annotated[float, msgspec.Meta(ge=1, le=300)] = 10.0
