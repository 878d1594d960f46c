"""Epochs: a fresh AES-256 key of an edge, wrapped by HPKE to the cloud's public key.

RFC 9180 base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM; ``info`` binds the wrap
to the edge, the epoch and the cloud key it was made for. An edge keeps the epoch key in memory
only: what lies on its disk cannot be opened there, not even by itself after a restart.
"""

import hashlib
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from vitals.errors import EpochError
from vitals.sealed import KEY_BYTES, RandomBytes

EPOCH_HEX: Final = 32
KEY_ID_HEX: Final = 16

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class WrappedEpoch(msgspec.Struct, frozen=True):
    """What an edge stores and sends of an epoch: everything but its key."""

    edge: str
    epoch: str
    """32 hex digits, random."""
    key_id: str
    """Which cloud key opens it."""
    wrapped: bytes
    """HPKE ``enc`` and ciphertext: 32 + 32 + 16 bytes."""
    began_ms: int


def key_id(public: X25519PublicKey) -> str:
    """Return the id of a cloud key: the first 16 hex digits of its SHA-256."""
    raw = public.public_bytes_raw()
    return hashlib.sha256(raw).hexdigest()[:KEY_ID_HEX]


def _info(edge: str, epoch: str, key: str) -> bytes:
    return f"healthsync/epoch/1/{edge}/{epoch}/{key}".encode()


def begin(
    edge: str, public: X25519PublicKey, now_ms: int, random: RandomBytes
) -> tuple[WrappedEpoch, bytes]:
    """Return a new epoch of ``edge`` and its 32-byte key."""
    epoch, key, of = random(EPOCH_HEX // 2).hex(), random(KEY_BYTES), key_id(public)
    wrapped = _SUITE.encrypt(key, public, info=_info(edge, epoch, of))
    return WrappedEpoch(edge, epoch, of, wrapped, now_ms), key


def unwrap(epoch: WrappedEpoch, private: X25519PrivateKey) -> bytes:
    """Return the epoch's key; raise EpochError if it was not made for this key or was altered."""
    if epoch.key_id != key_id(private.public_key()):
        raise EpochError(f"epoch {epoch.epoch} is wrapped to cloud key {epoch.key_id}, not held")
    try:
        key: bytes = _SUITE.decrypt(
            epoch.wrapped, private, info=_info(epoch.edge, epoch.epoch, epoch.key_id)
        )
    except (InvalidTag, ValueError) as error:
        raise EpochError(f"epoch {epoch.epoch} does not unwrap; it was altered") from error
    if len(key) != KEY_BYTES:
        raise EpochError(f"epoch {epoch.epoch} holds a key of {len(key)} bytes, not {KEY_BYTES}")
    return key
