"""Pseudonyms: keyed hashes that stand for a patient or a device downstream of ingest."""

import hashlib
import hmac
from typing import Final

SUBJECT_HEX: Final = 32


def _mac(key: bytes, *parts: str) -> str:
    message = b"".join(len(p.encode()).to_bytes(4, "big") + p.encode() for p in parts)
    return hmac.new(key, message, hashlib.sha256).hexdigest()[:SUBJECT_HEX]


def patient_subject(key: bytes, mrn: str) -> str:
    """Return the subject of a medical record number: 128 bits of HMAC-SHA256, 32 hex digits."""
    return _mac(key, "mrn", mrn.strip())


def device_subject(key: bytes, edge: str, device: str) -> str:
    """Return the subject of a device that no patient is associated with yet."""
    return _mac(key, "unassociated", edge, device)


def device_id(key: bytes, edge: str, device: str) -> str:
    """Return the pseudonymous id of a device, stable over patients."""
    return _mac(key, "device", edge, device)


def blind_index(key: bytes, mrn: str) -> str:
    """Return the look-up handle of an MRN under the index key (never the subject key)."""
    return _mac(key, "index", mrn.strip())


def text_mark(key: bytes, text: str) -> str:
    """Return what stands for a person's words where they must not: proves them, tells nothing."""
    return _mac(key, "text", text)
