"""Certificates and revocation lists as they are made here (RFC 5280). Pure; keys are arguments.

Every certificate names its own key and its issuer's: OpenSSL's strict checks, which Python 3.13
makes by default, want both.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

BACKDATED: Final = timedelta(minutes=5)
"""Clocks of servers differ; a gateway's own may be far behind, and it knows that."""

Public = ec.EllipticCurvePublicKey
Private = ec.EllipticCurvePrivateKey


class Issuer(NamedTuple):
    """Who signs."""

    name: x509.Name
    key: Private


class Revocation(NamedTuple):
    """An entry of a list."""

    serial: int
    at: datetime


def named(common_name: str) -> x509.Name:
    """Return a name of nothing but a common name."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _builder(
    subject: x509.Name, public: Public, issuer: Issuer, now: datetime, days: float
) -> x509.CertificateBuilder:
    by = issuer.key.public_key()
    begins = now - BACKDATED
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by), critical=False)
    )


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


def authority(
    subject: x509.Name, public: Public, issuer: Issuer, path_length: int, now: datetime, days: float
) -> x509.Certificate:
    """Return an authority's certificate; of a root ``issuer`` is itself."""
    constraints = x509.BasicConstraints(ca=True, path_length=path_length)
    return (
        _builder(subject, public, issuer, now, days)
        .add_extension(constraints, critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .sign(issuer.key, hashes.SHA384())
    )


def leaf(
    common_name: str,
    public: Public,
    issuer: Issuer,
    usages: Sequence[x509.ObjectIdentifier],
    now: datetime,
    days: float,
    hosts: Sequence[x509.GeneralName] = (),
) -> x509.Certificate:
    """Return a certificate of who signs nothing; ``hosts``: a server's names."""
    builder = (
        _builder(named(common_name), public, issuer, now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName(hosts), critical=False)
    return builder.sign(issuer.key, hashes.SHA256())


def revocation_list(
    issuer: Issuer, entries: Iterable[Revocation], number: int, now: datetime, life: timedelta
) -> bytes:
    """Return a list, PEM."""
    by = issuer.key.public_key()
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.name)
        .last_update(now)
        .next_update(now + life)
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(by), critical=False)
    )
    for entry in entries:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(entry.serial)
            .revocation_date(entry.at)
            .build()
        )
    return builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def pem(*certificates: x509.Certificate) -> bytes:
    """Return certificates as PEM."""
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


_OPEN: Final = NoEncryption()


def key_pem(key: Private, sealed: KeySerializationEncryption = _OPEN) -> bytes:
    """Return a private key as PEM."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealed)
