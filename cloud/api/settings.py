"""The configuration file of ``healthsync cloud api``."""

from pathlib import Path

import msgspec

from cloud import settings


class Jwt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ed25519 in PEM: the public half checks every token, the private one signs sessions."""

    public: Path
    private: Path


class Keys(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """32-byte key files, readable by this service only; the same as project's."""

    identity: Path
    values: Path
    index: Path


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything the REST server needs to know."""

    public_url: str
    """Scheme, host and port that clients see, without a path: ``https://vitals.example``."""
    users_file: Path
    listen: settings.Listen
    jwt: Jwt
    redis: settings.Redis
    s3: settings.S3
    kms: settings.Kms
    keys: Keys
    metrics: settings.Metrics
