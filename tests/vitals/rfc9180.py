"""RFC 9180 base mode for DHKEM(X25519, HKDF-SHA256) and HKDF-SHA256, from primitives.

A second writing of §4 and §5, checked against the published vectors, so that `vitals.epoch` is
judged by something other than the library it calls.
"""

import hashlib
import hmac
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEM_ID = 0x0020
KDF_ID = 0x0001
AES_128_GCM = 0x0001
AES_256_GCM = 0x0002
KEY_BYTES = {AES_128_GCM: 16, AES_256_GCM: 32}


class Context(NamedTuple):
    """What both sides hold after setup."""

    shared_secret: bytes
    key: bytes
    base_nonce: bytes

    def nonce(self, sequence: int) -> bytes:
        """§5.2 ComputeNonce."""
        return bytes(
            a ^ b for a, b in zip(self.base_nonce, sequence.to_bytes(12, "big"), strict=True)
        )

    def seal(self, sequence: int, plaintext: bytes, aad: bytes = b"") -> bytes:
        return AESGCM(self.key).encrypt(self.nonce(sequence), plaintext, aad)

    def open(self, sequence: int, ciphertext: bytes, aad: bytes = b"") -> bytes:
        return AESGCM(self.key).decrypt(self.nonce(sequence), ciphertext, aad)


def _extract(salt: bytes, ikm: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), ikm, hashlib.sha256)


def _expand(prk: bytes, info: bytes, size: int) -> bytes:
    out, block = b"", b""
    for counter in range(1, 2 + size // 32):
        block = hmac.digest(prk, block + info + bytes([counter]), hashlib.sha256)
        out += block
    return out[:size]


def _labeled_extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return _extract(salt, b"HPKE-v1" + suite + label + ikm)


def _labeled_expand(suite: bytes, prk: bytes, label: bytes, info: bytes, size: int) -> bytes:
    return _expand(prk, size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, size)


_KEM_SUITE = b"KEM" + KEM_ID.to_bytes(2, "big")


def derive_private(ikm: bytes) -> X25519PrivateKey:
    """§7.1.3 DeriveKeyPair for X25519."""
    prk = _labeled_extract(_KEM_SUITE, b"", b"dkp_prk", ikm)
    return X25519PrivateKey.from_private_bytes(_labeled_expand(_KEM_SUITE, prk, b"sk", b"", 32))


def _shared_secret(dh: bytes, enc: bytes, recipient: bytes) -> bytes:
    prk = _labeled_extract(_KEM_SUITE, b"", b"eae_prk", dh)
    return _labeled_expand(_KEM_SUITE, prk, b"shared_secret", enc + recipient, 32)


def _schedule(shared_secret: bytes, info: bytes, aead_id: int) -> Context:
    suite = b"HPKE" + b"".join(i.to_bytes(2, "big") for i in (KEM_ID, KDF_ID, aead_id))
    context = (
        b"\x00"
        + _labeled_extract(suite, b"", b"psk_id_hash", b"")
        + _labeled_extract(suite, b"", b"info_hash", info)
    )
    secret = _labeled_extract(suite, shared_secret, b"secret", b"")
    return Context(
        shared_secret,
        _labeled_expand(suite, secret, b"key", context, KEY_BYTES[aead_id]),
        _labeled_expand(suite, secret, b"base_nonce", context, 12),
    )


def setup_sender(
    ephemeral: X25519PrivateKey, recipient: X25519PublicKey, info: bytes, aead_id: int
) -> tuple[bytes, Context]:
    """§5.1.1 SetupBaseS with the ephemeral key given; return (enc, context)."""
    enc = ephemeral.public_key().public_bytes_raw()
    dh = ephemeral.exchange(recipient)
    return enc, _schedule(_shared_secret(dh, enc, recipient.public_bytes_raw()), info, aead_id)


def setup_receiver(enc: bytes, recipient: X25519PrivateKey, info: bytes, aead_id: int) -> Context:
    """§5.1.1 SetupBaseR."""
    dh = recipient.exchange(X25519PublicKey.from_public_bytes(enc))
    public = recipient.public_key().public_bytes_raw()
    return _schedule(_shared_secret(dh, enc, public), info, aead_id)
