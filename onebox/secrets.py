"""Every key and password of one run: made at its first start, 0600, nowhere in the repository."""

import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from cloud.api.signin import user_entry
from onebox.ca import write_private

SYMMETRIC: Final = ("subject", "identity", "values", "quarantine", "index", "kms-material")
PASSWORDS: Final = (
    "redis-project",
    "redis-api",
    "redis-audit",
    "redis-probe",
    "ward",
    "s3-access",
    "s3-secret",
    "aws-access",
    "aws-secret",
    "pki-root",
)
WARD_USER: Final = "ward"


def cluster_id(draw: Callable[[int], str]) -> bytes:
    """Return a Kafka cluster's id, as ``draw`` gives it: 16 bytes in base64url.

    One that begins with a hyphen is drawn again: Kafka's tools take it for an option.
    """
    while (name := draw(16)).startswith("-"):
        pass
    return name.encode("ascii")


class Secrets:
    """Paths and values of the secrets in one folder."""

    def __init__(self, folder: Path) -> None:
        """Make whatever is missing in ``folder``."""
        self._folder = folder
        for name in SYMMETRIC:
            self._once(f"{name}.key", lambda: secrets.token_bytes(32))
        for name in PASSWORDS:
            self._once(f"{name}.password", lambda: secrets.token_hex(16).encode())
        self._once("hpke.private", _x25519_private)
        private = X25519PrivateKey.from_private_bytes(self.path("hpke.private").read_bytes())
        self._once(
            "hpke.public",
            lambda: private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw),
        )
        self._once("jwt.private.pem", _ed25519_private)
        self._once("jwt.public.pem", lambda: _ed25519_public(self.path("jwt.private.pem")))
        self._once("settings.key", lambda: Ed25519PrivateKey.generate().private_bytes_raw())
        signing = Ed25519PrivateKey.from_private_bytes(self.path("settings.key").read_bytes())
        self._once("settings.pub", signing.public_key().public_bytes_raw)
        self._once("kafka-cluster.id", lambda: cluster_id(secrets.token_urlsafe))
        for service in ("s3", "aws"):
            pair = f"{self.password(f'{service}-access')}\n{self.password(f'{service}-secret')}\n"
            self._once(f"{service}.credentials", pair.encode)
        self._once("users.toml", self._users)

    def _once(self, name: str, make: Callable[[], bytes]) -> None:
        path = self.path(name)
        if not path.exists():
            write_private(path, make())

    def path(self, name: str) -> Path:
        """Return the file of a secret."""
        return self._folder / name

    def password(self, name: str) -> str:
        """Return a password's text."""
        return self.path(f"{name}.password").read_text(encoding="ascii")

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of a password in hex, as a Redis ACL file wants it."""
        return hashlib.sha256(self.password(name).encode()).hexdigest()

    def _users(self) -> bytes:
        salt = secrets.token_bytes(16)
        password = self.password("ward")
        return user_entry(WARD_USER, password, ["*"], "user/*.rs", salt).encode()


def _x25519_private() -> bytes:
    return X25519PrivateKey.generate().private_bytes(
        Encoding.Raw, PrivateFormat.Raw, NoEncryption()
    )


def _ed25519_private() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )


def _ed25519_public(private_pem: Path) -> bytes:
    key = load_pem_private_key(private_pem.read_bytes(), None)
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
