"""Lists of revoked certificates (RFC 5280 section 5), checked before they are believed.

Law: sans-IO. A list counts only if one of the authorities signed it, each authority has exactly
one, and no number is lower than before. What is in a list past its time is still revoked.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from vitals.errors import VitalsError

BYTES_MAX: Final = 4 * 1024 * 1024
"""Some 80,000 entries: more than gateways were ever built."""

_END: Final = b"-----END X509 CRL-----"


class ListRefused(VitalsError):
    """The lists are not to be believed; says why and what next."""


class Lists(NamedTuple):
    """Every authority's list, checked."""

    pem: bytes
    serials: frozenset[int]
    """Of all authorities together."""
    numbers: Mapping[str, int]
    """Authority's name (RFC 4514) -> number of its list."""
    next_update: datetime
    """The earliest; aware, UTC."""


def authorities(pem: bytes) -> list[x509.Certificate]:
    """Return the certificates of HAProxy's ``ca-file``; raise ListRefused."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise ListRefused("the authorities' file holds no certificates; see [ca]") from error


def parse(pem: bytes) -> list[x509.CertificateRevocationList]:
    """Return the lists in a file; raise ListRefused."""
    if len(pem) > BYTES_MAX:
        raise ListRefused(f"over {BYTES_MAX} bytes; remove what has run out from the list")
    parts = [part + _END for part in pem.split(_END)[:-1]]
    try:
        return [x509.load_pem_x509_crl(part.lstrip()) for part in parts]
    except ValueError as error:
        raise ListRefused("not a list of revoked certificates in PEM") from error


def check(
    pem: bytes, among: Sequence[x509.Certificate], before: Mapping[str, int] | None = None
) -> Lists:
    """Return the lists if each is signed by its authority and none is older than ``before``."""
    named = {one.subject.rfc4514_string(): one for one in among}
    numbers: dict[str, int] = {}
    serials: set[int] = set()
    next_update: datetime | None = None
    for one in parse(pem):
        name = one.issuer.rfc4514_string()
        number = _checked(one, named.get(name))
        if name in numbers:
            raise ListRefused("two lists of one authority")
        if before is not None and number < before.get(name, 0):
            raise ListRefused(f"list {number} is older than the one in use; is this a replay?")
        numbers[name] = number
        serials.update(entry.serial_number for entry in one)
        until = one.next_update_utc
        if until is None:
            raise ListRefused("a list without a next update")
        next_update = until if next_update is None else min(next_update, until)
    if next_update is None or set(numbers) != set(named):
        raise ListRefused(f"lists of {len(numbers)} authorities of {len(named)}; each needs one")
    return Lists(pem, frozenset(serials), numbers, next_update)


def _checked(one: x509.CertificateRevocationList, issuer: x509.Certificate | None) -> int:
    if issuer is None:
        raise ListRefused("a list of an authority that is not known here; see [ca]")
    try:
        sound = one.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]  # EC or RSA
    except (InvalidSignature, UnsupportedAlgorithm, TypeError, ValueError):
        sound = False
    if not sound:
        raise ListRefused("a list that its authority did not sign")
    try:
        return one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    except (x509.ExtensionNotFound, ValueError) as error:
        raise ListRefused("a list without a number (RFC 5280 section 5.2.3)") from error
