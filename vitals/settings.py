"""Settings that the cloud pushes to an edge: signed, for one edge, of one version.

Law: the signature covers the edge's name and the version, so that settings of another edge, or
older ones, are not taken for these. Ed25519 (RFC 8032); nothing here is secret.
"""

import hashlib
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from vitals.errors import SettingsForged
from vitals.session import Settings

DOCUMENT_BYTES_MAX: Final = 256 * 1024
"""A thousand devices and a vendor map are under 100 KiB."""

VERSION_MAX: Final = 2**53

KEY_BYTES: Final = 32
KEY_ID_HEX: Final = 16


def key_id(public: Ed25519PublicKey) -> str:
    """Return the id of a signing key: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:KEY_ID_HEX]


def _covered(edge: str, version: int, document: bytes) -> bytes:
    name = edge.encode()
    head = b"healthsync/settings/1\x00" + len(name).to_bytes(2, "big") + name
    return head + version.to_bytes(8, "big") + document


def sign(edge: str, version: int, document: bytes, private: Ed25519PrivateKey) -> Settings:
    """Return settings for ``edge``; raise ValueError for a version or size out of range."""
    if not 1 <= version <= VERSION_MAX:
        raise ValueError(f"a version is 1 to {VERSION_MAX}")
    if len(document) > DOCUMENT_BYTES_MAX:
        raise ValueError(f"settings of {len(document)} bytes are over {DOCUMENT_BYTES_MAX}")
    signature = private.sign(_covered(edge, version, document))
    return Settings(version, document, key_id(private.public_key()), signature)


def verify(edge: str, settings: Settings, public: Ed25519PublicKey) -> None:
    """Raise SettingsForged unless ``settings`` were signed for ``edge`` by this key."""
    if len(settings.document) > DOCUMENT_BYTES_MAX or not 1 <= settings.version <= VERSION_MAX:
        raise SettingsForged("the settings' size or version is out of range")
    if settings.key != key_id(public):
        raise SettingsForged(f"signed by key {settings.key[:KEY_ID_HEX]}, not this gateway's")
    try:
        public.verify(settings.signature, _covered(edge, settings.version, settings.document))
    except InvalidSignature:
        raise SettingsForged("the settings' signature is not of this gateway's key") from None
