"""Whose a certificate is, when it begins and ends, read from the file that HAProxy uses.

Law: reads the first certificate of the file (HAProxy's order: the leaf first) and nothing else of
it; the private key beside it is neither parsed nor kept.
"""

from pathlib import Path
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.x509.oid import NameOID

FILE_BYTES_MAX: Final = 256 * 1024
"""A leaf, its chain and its key are under 20 KiB; more is another kind of file."""

DAY_MS: Final = 86_400_000
_BEGIN: Final = b"-----BEGIN CERTIFICATE-----"
_END: Final = b"-----END CERTIFICATE-----"


class Validity(NamedTuple):
    """From when until when, in milliseconds of UTC, and whose."""

    begins_ms: int
    ends_ms: int
    subject: str = ""
    """Its common name."""
    serial: str = ""
    """Hex."""
    placeholder: bool = False
    """Self-signed: no authority knows it (ENROL.md)."""

    def days_left(self, now_ms: int) -> float:
        """Return the days until it ends; negative when it has ended."""
        return (self.ends_ms - now_ms) / DAY_MS


def serial_hex(number: int) -> str:
    """Return a serial in whole bytes of hex, as OpenSSL and HAProxy write it."""
    return number.to_bytes((number.bit_length() + 7) // 8 or 1, "big").hex().upper()


def read(path: Path) -> Validity:
    """Return the validity of the first certificate; raise OSError or ValueError."""
    with path.open("rb") as file:
        raw = file.read(FILE_BYTES_MAX)
    begin = raw.find(_BEGIN)
    end = raw.find(_END, begin)
    if begin < 0 or end < 0:
        raise ValueError("no PEM certificate in it")
    leaf = x509.load_pem_x509_certificate(raw[begin : end + len(_END)])
    return Validity(
        int(leaf.not_valid_before_utc.timestamp() * 1000),
        int(leaf.not_valid_after_utc.timestamp() * 1000),
        " ".join(
            str(one.value) for one in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        ),
        serial_hex(leaf.serial_number),
        leaf.issuer == leaf.subject,
    )
