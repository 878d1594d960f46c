"""EST (RFC 7030) as a gateway speaks it: requests, proofs, answers and how they are judged.

Law: pure, no I/O, no clock. Nothing of an answer is believed: the leaf is the one of our own key,
bears our own name, ends in the future and leads to a root that was known before. What is wrong
becomes one of three errors: `Declined` (the authority said no), `NotNow` (the same again, later),
`NotTrusted` (this peer or answer is not the authority's).
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, pkcs7
from cryptography.x509.oid import NameOID
from cryptography.x509.verification import (
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from vitals import enrolment
from vitals.errors import VitalsError

CERTIFICATES_MAX: Final = 8
"""In one answer: leaf, issuing authorities, root."""

CHAIN_MAX: Final = 4
"""Certificates below the root."""

CODE: Final = re.compile(rb"[a-z][a-z-]{1,39}")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

NEXT: Final = {
    "token-refused": "it is used up, has expired or is for another gateway;"
    " ask the operators for a new enrolment file",
    "token-unknown": "ask the operators for a new enrolment file",
    "token-used": "ask the operators for a new enrolment file",
    "token-expired": "ask the operators for a new enrolment file",
    "token-name": "ask the operators for an enrolment file of this edge_id",
    "csr-malformed": "report it: the two sides' versions do not fit",
    "csr-name": "edge_id must be the name that the authority knows",
    "csr-key": "report it: the two sides' versions do not fit",
    "csr-signature": "report it: the two sides' versions do not fit",
    "certificate-unknown": "the authority did not issue it; ask for an enrolment file",
    "certificate-revoked": "ask the operators why; then enrol anew",
    "grace-over": "it ended too long ago; ask for an enrolment file and enrol anew",
    "proof-wrong": "key and certificate do not belong together; enrol anew",
    "too-many": "wait; it is tried again",
}
"""Every code of the authority with what a technician does next."""

FINAL: Final = frozenset(
    {"certificate-unknown", "certificate-revoked", "grace-over", "proof-wrong"}
)
"""Codes after which a certificate will never be renewed."""


class EstError(VitalsError):
    """What went wrong: a ``code`` for log and status, and what to do next."""

    def __init__(self, code: str, step: str, retry_s: float | None = None) -> None:
        """``retry_s``: what the authority asked to wait."""
        super().__init__(f"{code}: {step}")
        self.code, self.step, self.retry_s = code, step, retry_s


class Declined(EstError):
    """The authority understood and said no."""


class NotNow(EstError):
    """Not reachable, busy, or waiting for an operator: the same again, later."""


class Pending(NotNow):
    """An operator has to approve (202)."""


class NotTrusted(EstError):
    """The peer or its answer is not the authority's; nothing of it is kept."""


def make_key() -> ec.EllipticCurvePrivateKey:
    """Return a fresh P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def make_request(name: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    """Return a PKCS#10 request in DER for the gateway ``name``."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    return request.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def to_body(der: bytes) -> bytes:
    """Return DER as EST carries it: base64 in lines (RFC 7030 section 4.2.1)."""
    return base64.encodebytes(der)


def prove(request: bytes, old: ec.EllipticCurvePrivateKey) -> bytes:
    """Return the old key's signature over a request in DER: who asks held the old certificate."""
    return old.sign(enrolment.proof(hashlib.sha256(request).digest()), ec.ECDSA(hashes.SHA256()))


def fingerprint(public: object) -> str:
    """Return SHA-256 of a public key's SubjectPublicKeyInfo, in hex: what an operator approves."""
    return hashlib.sha256(spki(public)).hexdigest()


def spki(public: object) -> bytes:
    """Return a public key as SubjectPublicKeyInfo in DER."""
    if not isinstance(public, ec.EllipticCurvePublicKey):
        raise NotTrusted("answer-other-key", "the certificate's key is no EC key; report it")
    return public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def read_certificates(body: bytes) -> list[x509.Certificate]:
    """Return the certificates of a certs-only answer, in no order; raise NotTrusted."""
    try:
        der = base64.b64decode(b"".join(body.split()), validate=True)
        found = pkcs7.load_der_pkcs7_certificates(der)
    except (ValueError, binascii.Error, UnsupportedAlgorithm, TypeError) as error:
        step = "the answer is no PKCS#7 of certificates; is this the EST server?"
        raise NotTrusted("answer-garbage", step) from error
    if not 1 <= len(found) <= CERTIFICATES_MAX:
        step = f"the answer has {len(found)} certificates, not 1 to {CERTIFICATES_MAX}; report it"
        raise NotTrusted("answer-garbage", step)
    return found


def common_name(name: x509.Name) -> str:
    """Return the one common name, empty when there is none or several."""
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if len(found) == 1 else ""


def self_signed(certificate: x509.Certificate) -> bool:
    """Tell whether a certificate is its own issuer: a root, or a gateway's placeholder."""
    return certificate.issuer == certificate.subject


def accept(
    answer: Sequence[x509.Certificate],
    name: str,
    public: ec.EllipticCurvePublicKey,
    known: Sequence[x509.Certificate],
    now_ms: int,
) -> list[x509.Certificate]:
    """Return the checked chain, the leaf of ``public`` first, without the root.

    ``known``: the authority's certificates from before; the self-signed ones of them are the
    anchors. Raises NotTrusted.
    """
    leaves = [one for one in answer if spki(one.public_key()) == spki(public)]
    if len(leaves) != 1:
        step = "no certificate in the answer is of the key that was sent; report it"
        raise NotTrusted("answer-other-key", step)
    leaf = leaves[0]
    if common_name(leaf.subject) != name:
        step = "the certificate bears another gateway's name; report it"
        raise NotTrusted("answer-other-name", step)
    if self_signed(leaf):
        raise NotTrusted("answer-other-authority", "the certificate is self-signed; report it")
    anchors = [one for one in known if self_signed(one)]
    between = [one for one in (*answer, *known) if one is not leaf and not self_signed(one)]
    at = possible_time([leaf, *between, *anchors], now_ms)
    ensure_not_ended([leaf], now_ms)
    policy = PolicyBuilder().extension_policies(
        ca_policy=ExtensionPolicy.webpki_defaults_ca(), ee_policy=ExtensionPolicy.permit_all()
    )
    try:
        verifier = policy.store(Store(anchors)).time(at).max_chain_depth(CHAIN_MAX)
        chain = verifier.build_client_verifier().verify(leaf, between).chain
    except (VerificationError, ValueError) as error:
        step = "the certificate does not lead to the authority that is known; report it"
        raise NotTrusted("answer-other-authority", step) from error
    return [one for one in chain if not self_signed(one)]


def possible_time(certificates: Sequence[x509.Certificate], now_ms: int) -> datetime:
    """Return the earliest time, not before now, at which all of them have begun.

    A gateway's clock is a lower bound (ENROL.md): "not yet valid" says that it is behind.
    """
    begun = [one.not_valid_before_utc for one in certificates]
    return max([*begun, moment(now_ms)])


def ensure_not_ended(certificates: Sequence[x509.Certificate], now_ms: int) -> None:
    """Raise NotTrusted when one of them has ended."""
    now = moment(now_ms)
    if any(one.not_valid_after_utc <= now for one in certificates):
        step = "a certificate of the other side has ended; its operators must renew it"
        raise NotTrusted("certificate-ended", f"{step}, unless this clock is ahead")


def moment(ms: int) -> datetime:
    """Return milliseconds of UTC since 1970 as a time."""
    return _EPOCH + timedelta(milliseconds=ms)


RETRY_S_MIN: Final = 10.0
RETRY_S_MAX: Final = 3600.0
"""What is taken of a Retry-After."""


def retry_after_s(value: bytes | None) -> float | None:
    """Return the seconds of a Retry-After header within bounds; None when there are none."""
    if value is None or not value.isdigit() or len(value) > 9:
        return None
    return min(RETRY_S_MAX, max(RETRY_S_MIN, float(value)))


def outcome(status: int, retry_after: bytes | None, body: bytes) -> None:
    """Return when an answer's status is 200; raise what another one means."""
    retry_s = retry_after_s(retry_after)
    match = CODE.match(body)
    said = match[0].decode() if match else ""
    code = said if said in NEXT else f"http-{status}"
    if status == 200:
        return
    if status == 202:
        raise Pending("awaiting-approval", "an operator has to approve it", retry_s)
    if status == 429:
        raise NotNow("too-many", NEXT["too-many"], retry_s)
    if status >= 500 or status in {404, 408}:
        # 404: a cloud that does not know this path yet.
        raise NotNow(f"http-{status}", "the authority can not answer now; look there", retry_s)
    step = NEXT.get(code, "the authority does not take it; report it")
    if status == 401 and code == f"http-{status}":
        code, step = "token-refused", NEXT["token-refused"]
    raise Declined(code, step)
