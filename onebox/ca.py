"""A certificate authority made for the occasion: the services' one.

A gateway's certificate is no service's and the other way round: HAProxy's uplink port trusts the
gateways' authority only (`cloud.pki`), everything behind it this one only. Keys are EC P-256, made
here, 0600, never in the repository.
"""

import ipaddress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

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


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


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
        subject = _name(f"Health Sync one-box {name} CA")
        self._certificate = (
            self._builder(subject, subject, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        write_private(key_file, _key_pem(self._key))
        self.ca_file.write_bytes(self._certificate.public_bytes(Encoding.PEM))

    def _builder(
        self, subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._now - timedelta(minutes=5))
            .not_valid_after(self._now + timedelta(days=DAYS))
            # OpenSSL's strict checks, which Python 3.13 makes by default, want both (RFC 5280).
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
        )

    def issue(self, common_name: str, *, server: bool) -> "Issued":
        """Return the certificate of ``common_name``, made on the first run."""
        issued = Issued(self._folder, common_name)
        if issued.bundle.exists():
            return issued
        key = ec.generate_private_key(ec.SECP256R1())
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if server:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        builder = (
            self._builder(_name(common_name), self._certificate.subject, key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        )
        if server:
            builder = builder.add_extension(x509.SubjectAlternativeName(_HOSTS), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM)
        write_private(issued.key, _key_pem(key))
        issued.cert.write_bytes(certificate)
        write_private(issued.bundle, _key_pem(key) + certificate)
        return issued


class Issued:
    """Paths of one certificate: ``cert`` and ``key`` apart, ``bundle`` with both."""

    def __init__(self, folder: Path, common_name: str) -> None:
        """Name the files of ``common_name``."""
        self.cert = folder / f"{common_name}.pem"
        self.key = folder / f"{common_name}.key"
        self.bundle = folder / f"{common_name}.bundle.pem"
