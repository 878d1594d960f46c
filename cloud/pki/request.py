"""A gateway's request (PKCS#10), checked before anything is made of it. Pure."""

import base64
import binascii
import hashlib
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from cloud.pki.errors import Refused
from vitals.enrolment import EDGE_NAME

_CURVES: Final = (ec.SECP256R1, ec.SECP384R1)


class Request(NamedTuple):
    """What a gateway asks a certificate for."""

    name: str
    public: ec.EllipticCurvePublicKey
    digest: bytes
    """SHA-256 of its DER: which request it is."""
    fingerprint: str
    """SHA-256 of the key's SubjectPublicKeyInfo, hex: what an operator compares."""


def decode(body: bytes) -> bytes:
    """Return the DER in a body of base64; raise Refused."""
    try:
        return base64.b64decode(b"".join(body.split()), validate=True)
    except (ValueError, binascii.Error) as error:
        raise Refused("csr-malformed", "send PKCS#10 in base64 (RFC 7030)") from error


def read(der: bytes) -> Request:
    """Return a request whose signature holds; raise Refused."""
    try:
        found = x509.load_der_x509_csr(der)
        names = found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        public = found.public_key()
        sound = found.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise Refused("csr-malformed", "send a PKCS#10 request in DER") from error
    if not isinstance(public, ec.EllipticCurvePublicKey) or not isinstance(public.curve, _CURVES):
        raise Refused("csr-key", "make an EC key on P-256 or P-384")
    if not sound:
        raise Refused("csr-signature", "sign the request with its own key")
    name = str(names[0].value) if len(names) == 1 else ""
    if not EDGE_NAME.fullmatch(name):
        raise Refused("csr-name", "give one common name: the gateway's")
    spki = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return Request(name, public, hashlib.sha256(der).digest(), hashlib.sha256(spki).hexdigest())
