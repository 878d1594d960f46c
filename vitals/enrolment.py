"""What a gateway and its authority agree on beyond EST itself (RFC 7030).

edge/ENROL.md and cloud/pki/README.md are the two sides. Pure.
"""

import re
from typing import Final

EDGE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,62}")
"""Of a gateway (``edge_id``): becomes part of Kafka keys, host names and FHIR ids."""

PATH: Final = "/.well-known/est/"

BODY_BYTES_MAX: Final = 16 * 1024
"""Of one request; a P-384 request in base64 is under 1 KiB."""

PROOF_MARK: Final = b"healthsync-renewal-1\n"
"""What the old key signs begins with it, so that it signs nothing else."""

CODES: Final = frozenset(
    {
        "token-refused",  # all that is said outside of a token that is not good
        "token-unknown",
        "token-used",
        "token-expired",
        "token-name",
        "csr-malformed",
        "csr-name",
        "csr-key",
        "csr-signature",
        "certificate-unknown",
        "certificate-revoked",
        "grace-over",
        "proof-wrong",
        "too-many",
    }
)
"""Why the authority refuses: the first word of its answer."""


def proof(digest: bytes) -> bytes:
    """Return what the old key signs (ECDSA, SHA-256); ``digest``: SHA-256 of the request's DER."""
    return PROOF_MARK + digest
