"""A certificate authority made for the occasion: the services' one.

A gateway's certificate is no service's and the other way round: HAProxy's uplink port trusts the
gateways' authority only (`cloud.pki`), everything behind it this one only. Keys are EC P-256, made
here, 0600, never in the repository.
"""

import ipaddress
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloud.pki import certificates
from cloud.pki.certificates import Issuer, Private, key_pem, pem

DAYS: Final = 30
_HOSTS: Final = (
    x509.DNSName("localhost"),
    x509.IPAddress(ipaddress.IPv4Address("127.0.0.1")),
)


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    temporary = path.with_suffix(path.suffix + ".new")
    temporary.touch(mode=0o600)
    temporary.write_bytes(data)
    temporary.replace(path)


class Authority:
    """A self-signed authority in ``<folder>/<name>-ca.pem`` and ``-ca.key``."""

    def __init__(self, folder: Path, name: str, now: datetime) -> None:
        """Load the authority, or make it on the first run."""
        self._folder = folder
        self._now = now
        self.ca_file = folder / f"{name}-ca.pem"
        key_file = folder / f"{name}-ca.key"
        if self.ca_file.exists():
            key = load_pem_private_key(key_file.read_bytes(), None)
            if not isinstance(key, ec.EllipticCurvePrivateKey):
                raise TypeError(f"{key_file} does not hold an EC key")
            self._key = key
            self._certificate = x509.load_pem_x509_certificate(self.ca_file.read_bytes())
            return
        self._key = ec.generate_private_key(ec.SECP256R1())
        itself = Issuer(certificates.named(f"Health Sync one-box {name} CA"), self._key)
        self._certificate = certificates.authority(
            itself.name, self._key.public_key(), itself, 0, now, DAYS
        )
        write_private(key_file, key_pem(self._key))
        self.ca_file.write_bytes(pem(self._certificate))

    def issue(self, common_name: str, *, server: bool) -> "Issued":
        """Return the certificate of ``common_name``, made on the first run."""
        issued = Issued(self._folder, common_name)
        if issued.bundle.exists():
            return issued
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if server:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        certificate = certificates.leaf(
            common_name,
            key.public_key(),
            Issuer(self._certificate.subject, self._key),
            usages,
            self._now,
            DAYS,
            _HOSTS if server else (),
        )
        issued.write(key, certificate)
        return issued


class Issued:
    """Paths of one certificate: ``cert`` and ``key`` apart, ``bundle`` with both."""

    def __init__(self, folder: Path, common_name: str) -> None:
        """Name the files of ``common_name``."""
        self.cert = folder / f"{common_name}.pem"
        self.key = folder / f"{common_name}.key"
        self.bundle = folder / f"{common_name}.bundle.pem"

    def write(self, key: Private, *chain: x509.Certificate) -> None:
        """Write all three; ``chain``: the certificate and who issued it, if that is no root."""
        write_private(self.key, key_pem(key))
        self.cert.write_bytes(pem(*chain))
        write_private(self.bundle, key_pem(key) + pem(*chain))
