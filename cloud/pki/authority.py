"""The folder of an authority: a root, an issuing authority below it, and what that signs.

Law: `init` writes the folder and `Issuing.load` reads it; the rest is pure, times are arguments
(aware, UTC). A private key is written 0600, whole or not at all, and never overwritten.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloud.pki import certificates
from cloud.pki.certificates import Issuer, Private, Public, Revocation, key_pem, pem
from healthsync.runtime import whole
from vitals.errors import ConfigError

ROOT_DAYS: Final = 20 * 365
ISSUING_DAYS: Final = 5 * 365
LEAF_DAYS: Final = 30
LIST_LIFE: Final = timedelta(hours=24)
PASSPHRASE_CHARS_MIN: Final = 12


class Issuing:
    """The issuing authority of a folder."""

    def __init__(
        self, certificate: x509.Certificate, key: Private, root: x509.Certificate, root_list: bytes
    ) -> None:
        """Take what `load` read."""
        self.certificate, self.root = certificate, root
        self._issuer, self._root_list = Issuer(certificate.subject, key), root_list

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
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        return certificates.leaf(common_name, public, self._issuer, usages, now, days)

    def lists(self, entries: Iterable[Revocation], number: int, now: datetime) -> bytes:
        """Return the revocation lists of both authorities, PEM, the issuing one's first."""
        mine = certificates.revocation_list(self._issuer, entries, number, now, LIST_LIFE)
        return mine + self._root_list


def init(folder: Path, now: datetime, passphrase: bytes, title: str = "Health Sync") -> Issuing:
    """Make root and issuing authority in an empty ``folder``; raise ConfigError."""
    if len(passphrase) < PASSPHRASE_CHARS_MIN:
        raise ConfigError(f"the root's passphrase has at least {PASSPHRASE_CHARS_MIN} characters")
    if (folder / "issuing.key").exists() or (folder / "root").exists():
        raise ConfigError(f"{folder} holds an authority already; every gateway hangs on it")
    (folder / "root").mkdir(mode=0o700, parents=True)
    folder.chmod(0o700)
    root_key, key = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP256R1())
    itself = Issuer(certificates.named(f"{title} gateway root"), root_key)
    root = certificates.authority(itself.name, root_key.public_key(), itself, 1, now, ROOT_DAYS)
    name = certificates.named(f"{title} gateway issuing")
    issuing = certificates.authority(name, key.public_key(), itself, 0, now, ISSUING_DAYS)
    life = issuing.not_valid_after_utc - now
    root_list = certificates.revocation_list(itself, (), 1, now, life)
    sealed = BestAvailableEncryption(passphrase)
    whole.write(folder / "root" / "root.key", key_pem(root_key, sealed))
    whole.write(folder / "root" / "root.pem", pem(root), mode=0o644)
    whole.write(folder / "root.crl", root_list, mode=0o644)
    whole.write(folder / "issuing.pem", pem(issuing), mode=0o644)
    whole.write(folder / "ca.pem", pem(issuing, root), mode=0o644)
    # Last: without it the folder holds no authority, and `init` says so.
    whole.write(folder / "issuing.key", key_pem(key))
    return Issuing.load(folder)
