"""Single values sealed at rest: AES-256-GCM, a random nonce, the place as associated data.

Layout: 1 version byte (0x01) · 12 nonce bytes · ciphertext · 16 tag bytes. The associated data
names the place (a Redis key and field, a topic and key), so that a value moved elsewhere does
not open. Random 96-bit nonces are good for 2**32 values a key (NIST SP 800-38D §8.3).
"""

from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vitals.errors import SealError

VERSION: Final = b"\x01"
KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
OVERHEAD_BYTES: Final = 1 + NONCE_BYTES + 16


class RandomBytes(Protocol):
    """A source of cryptographic randomness, such as ``os.urandom``."""

    def __call__(self, size: int, /) -> bytes:
        """Return ``size`` random bytes."""
        ...


class Sealer:
    """Seals and opens values under one 32-byte key."""

    __slots__ = ("_aead", "_random")

    def __init__(self, key: bytes, random: RandomBytes) -> None:
        """Take a 32-byte key and a source of random nonces."""
        if len(key) != KEY_BYTES:
            raise SealError(f"a sealing key has {KEY_BYTES} bytes, this one {len(key)}")
        self._aead = AESGCM(key)
        self._random = random

    def seal(self, plaintext: bytes, place: bytes) -> bytes:
        """Return ``plaintext`` sealed to ``place``."""
        nonce = self._random(NONCE_BYTES)
        return VERSION + nonce + self._aead.encrypt(nonce, plaintext, place)

    def open(self, sealed: bytes, place: bytes) -> bytes:
        """Return the plaintext; raise SealError if it was altered or sealed for another place."""
        if len(sealed) < OVERHEAD_BYTES or sealed[:1] != VERSION:
            raise SealError("not a sealed value of a known version; was it written by us?")
        nonce, body = sealed[1 : 1 + NONCE_BYTES], sealed[1 + NONCE_BYTES :]
        try:
            return self._aead.decrypt(nonce, body, place)
        except InvalidTag:
            raise SealError(
                "a sealed value does not open: altered, moved, or sealed under another key"
            ) from None
