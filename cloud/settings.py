"""Sections that several cloud services' configuration files share, and their first use."""

from pathlib import Path

import msgspec

from vitals.errors import ConfigError


class Kafka(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach Kafka: TLS with this service's own certificate."""

    bootstrap: str
    ca: Path
    cert: Path
    key: Path


class Redis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach Redis: TLS, one ACL user a service."""

    host: str
    port: int
    ca: Path
    user: str
    password_file: Path


class S3(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach the archive's bucket; ``credentials_file`` holds access and secret key."""

    endpoint: str
    region: str
    bucket: str
    credentials_file: Path
    ca: Path | None = None


class Kms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The key that wraps the archive's data keys."""

    endpoint: str
    region: str
    key_id: str
    credentials_file: Path
    ca: Path | None = None
    """Of an endpoint whose certificate the system does not know; AWS's own needs none."""


class Listen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where to serve: TLS 1.3, only to HAProxy's client certificate."""

    host: str
    port: int
    cert: Path
    key: Path
    client_ca: Path


class Metrics(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where Prometheus text is served on loopback."""

    port: int


def kafka_config(kafka: Kafka) -> dict[str, str | int | bool]:
    """Return what every librdkafka client of ours starts from.

    The broker offers TLS 1.3 with AES-256-GCM only, so that is what is negotiated.
    """
    return {
        "bootstrap.servers": kafka.bootstrap,
        "security.protocol": "SSL",
        "ssl.ca.location": str(kafka.ca),
        "ssl.certificate.location": str(kafka.cert),
        "ssl.key.location": str(kafka.key),
        "ssl.endpoint.identification.algorithm": "https",
        "broker.address.family": "v4",
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1000,
        "log.connection.close": False,
    }


def read_credentials(path: Path) -> tuple[str, str]:
    """Return (access key, secret key) of a two-line file; raise ConfigError."""
    try:
        lines = path.read_text(encoding="ascii").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: credentials cannot be read") from error
    if len(lines) != 2:
        raise ConfigError(f"{path}: two lines are needed, access key and secret key")
    return lines[0], lines[1]


def read_password(path: Path) -> str:
    """Return the first line of a password file; raise ConfigError."""
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: password cannot be read") from error
