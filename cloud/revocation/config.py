"""The configuration file of `healthsync cloud pull-crl`: what `pull-crl.toml.j2` renders."""

from pathlib import Path
from typing import Annotated

import msgspec

from cloud.settings import Metrics


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the authority gives its lists: HTTPS with a service's certificate."""

    host: str
    port: int
    ca: Path
    cert: Path
    key: Path
    tls_name: str = "localhost"
    path: str = "/crl"


class PullConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    source: Source
    metrics: Metrics
    ca: Path
    """HAProxy's ``ca-file``: root and issuing authority."""
    file: Path
    """HAProxy's ``crl-file``; ingest reads it too."""
    haproxy_socket: str = ""
    """Path of its runtime socket or ``abns@NAME``; empty: HAProxy is not told."""
    every_s: Annotated[float, msgspec.Meta(ge=1, le=60)] = 20.0
