"""The configuration file of ingest: what `ingest.toml.j2` renders."""

from pathlib import Path

import msgspec

from cloud.settings import Kafka, Metrics


class Listen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where HAProxy reaches this process; only HAProxy's certificate is let in."""

    host: str
    port: int
    cert: Path
    key: Path
    client_ca: Path
    client_name: str = "haproxy"
    """Common name that the client's certificate must carry."""


class Keys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Key files, 32 raw bytes each, readable by this service only."""

    subject: Path
    """HMAC of MRNs and device names; no other service holds it."""
    identity: Path
    """Seals the identity topic."""
    quarantine: Path
    """Seals the quarantine topic."""
    hpke_private: Path
    """X25519; opens the epochs of the gateways."""
    hpke_private_older: tuple[Path, ...] = ()
    """Keys that gateways still have epochs of, after a change."""


class IngestConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    listen: Listen
    keys: Keys
    kafka: Kafka
    metrics: Metrics
    settings_folder: Path | None = None
    """Signed settings for gateways, ``<edge>.json`` each (edge/SETTINGS.md); looked at anew."""
    revocation_list: Path | None = None
    """Lists of revoked gateway certificates, PEM, as HAProxy's ``crl-file``; looked at anew."""
