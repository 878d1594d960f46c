"""The root, the issuing authority, and what they sign.

Law: pure but for `init` and `Issuing.load`, which write and read the folder; times are arguments
(aware, UTC). A private key is written 0600, whole or not at all, and never overwritten.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from healthsync.runtime import whole
from vitals.errors import ConfigError

ROOT_DAYS: Final = 20 * 365
ISSUING_DAYS: Final = 5 * 365
LEAF_DAYS: Final = 30
BACKDATED: Final = timedelta(minutes=5)
"""Clocks of servers differ; a gateway's own may be far behind, and it knows that."""

LIST_LIFE: Final = timedelta(hours=24)
PASSPHRASE_CHARS_MIN: Final = 12

Public = ec.EllipticCurvePublicKey
Private = ec.EllipticCurvePrivateKey


class Revocation(NamedTuple):
    """An entry of a list."""

    serial: int
    at: datetime


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, issuer: x509.Name, public: Public, by: Public, begins: datetime, days: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        not authority, False, False, False, False, authority, authority, False, False
    )


def _authority(
    builder: x509.CertificateBuilder, path_length: int, key: Private
) -> x509.Certificate:
    constraints = x509.BasicConstraints(ca=True, path_length=path_length)
    return (
        builder.add_extension(constraints, critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .sign(key, hashes.SHA384())
    )


def _revocation_list(
    issuer: x509.Certificate,
    key: Private,
    entries: Iterable[Revocation],
    number: int,
    now: datetime,
    life: timedelta,
) -> bytes:
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now)
        .next_update(now + life)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
    )
    for entry in entries:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(entry.serial)
            .revocation_date(entry.at)
            .build()
        )
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)


class Issuing:
    """The issuing authority of a folder."""

    def __init__(
        self, certificate: x509.Certificate, key: Private, root: x509.Certificate, root_list: bytes
    ) -> None:
        """Take what `load` read."""
        self.certificate, self.root = certificate, root
        self._key, self._root_list = key, root_list

    @classmethod
    def load(cls, folder: Path) -> "Issuing":
        """Read the folder; raise ConfigError."""
        try:
            key = load_pem_private_key((folder / "issuing.key").read_bytes(), None)
            issuing, root = x509.load_pem_x509_certificates((folder / "ca.pem").read_bytes())
            root_list = (folder / "root.crl").read_bytes()
        except (OSError, ValueError, TypeError) as error:
            kind = type(error).__name__
            raise ConfigError(
                f"{folder} holds no authority ({kind}); make one with healthsync cloud pki init"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ConfigError(f"{folder}/issuing.key is no EC key")
        return cls(issuing, key, root, root_list)

    def issue(
        self, common_name: str, public: Public, now: datetime, days: float = LEAF_DAYS
    ) -> x509.Certificate:
        """Return a gateway's certificate: for TLS clients only, from a little before ``now``."""
        usage = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        issuer, by = self.certificate.subject, self._key.public_key()
        return (
            _builder(_name(common_name), issuer, public, by, now - BACKDATED, days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(usage, critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def lists(self, entries: Iterable[Revocation], number: int, now: datetime) -> bytes:
        """Return the revocation lists of both authorities, PEM, the issuing one's first."""
        mine = _revocation_list(self.certificate, self._key, entries, number, now, LIST_LIFE)
        return mine + self._root_list

    def chain(self) -> bytes:
        """Return issuing authority and root, PEM: HAProxy's ``ca-file``."""
        return pem(self.certificate, self.root)


def init(folder: Path, now: datetime, passphrase: bytes, title: str = "Health Sync") -> Issuing:
    """Make root and issuing authority in an empty ``folder``; raise ConfigError."""
    if len(passphrase) < PASSPHRASE_CHARS_MIN:
        raise ConfigError(f"the root's passphrase has at least {PASSPHRASE_CHARS_MIN} characters")
    if (folder / "issuing.key").exists() or (folder / "root").exists():
        raise ConfigError(f"{folder} holds an authority already; every gateway hangs on it")
    (folder / "root").mkdir(mode=0o700, parents=True)
    folder.chmod(0o700)
    root_key, key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP256R1())
    name, by = _name(f"{title} gateway root"), root_key.public_key()
    begins = now - BACKDATED
    root = _authority(_builder(name, name, by, by, begins, ROOT_DAYS), 1, root_key)
    issuing = _authority(
        _builder(
            _name(f"{title} gateway issuing"), name, key.public_key(), by, begins, ISSUING_DAYS
        ),
        0,
        root_key,
    )
    life = issuing.not_valid_after_utc - now
    sealed = BestAvailableEncryption(passphrase)
    whole.write(folder / "root" / "root.key", key_pem(root_key, sealed))
    whole.write(folder / "root" / "root.pem", pem(root), mode=0o644)
    whole.write(folder / "root.crl", _revocation_list(root, root_key, (), 1, now, life), mode=0o644)
    whole.write(folder / "issuing.pem", pem(issuing), mode=0o644)
    whole.write(folder / "ca.pem", pem(issuing, root), mode=0o644)
    # Last: without it the folder holds no authority, and `init` says so.
    whole.write(folder / "issuing.key", key_pem(key))
    return Issuing.load(folder)


def pem(*certificates: x509.Certificate) -> bytes:
    """Return certificates as PEM."""
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


_OPEN: Final = NoEncryption()


def key_pem(key: Private, sealed: KeySerializationEncryption = _OPEN) -> bytes:
    """Return a private key as PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed)
