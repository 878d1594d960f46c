"""Epoch keys: HPKE as published, bound to edge, epoch and cloud key."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from tests.vitals import rfc9180
from vitals import epoch
from vitals.errors import EpochError

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "data" / "hpke_rfc9180.json").read_text(encoding="utf-8")
)
PRIVATE = X25519PrivateKey.from_private_bytes(bytes(range(32)))


def fixed_random(size: int, /) -> bytes:
    return bytes([size]) * size


def info_of(wrapped: epoch.WrappedEpoch) -> bytes:
    return f"healthsync/epoch/1/{wrapped.edge}/{wrapped.epoch}/{wrapped.key_id}".encode()


def test_the_independent_construction_reproduces_rfc_9180_appendix_a1() -> None:
    vector = VECTORS["a1"]
    ephemeral = rfc9180.derive_private(bytes.fromhex(vector["ikmE"]))
    assert ephemeral.private_bytes_raw().hex() == vector["skEm"]
    recipient = X25519PublicKey.from_public_bytes(bytes.fromhex(vector["pkRm"]))
    enc, context = rfc9180.setup_sender(
        ephemeral, recipient, bytes.fromhex(vector["info"]), rfc9180.AES_128_GCM
    )
    assert enc.hex() == vector["pkEm"]
    assert context.shared_secret.hex() == vector["shared_secret"]
    assert context.key.hex() == vector["key"]
    assert context.base_nonce.hex() == vector["base_nonce"]
    for one in vector["encryptions"]:
        sealed = context.seal(one["sequence"], bytes.fromhex(one["pt"]), bytes.fromhex(one["aad"]))
        assert sealed.hex() == one["ct"]
    private = X25519PrivateKey.from_private_bytes(bytes.fromhex(vector["skRm"]))
    assert context == rfc9180.setup_receiver(
        enc, private, bytes.fromhex(vector["info"]), rfc9180.AES_128_GCM
    )


def test_the_independent_construction_reproduces_the_published_aes_256_gcm_vector() -> None:
    vector = VECTORS["aes256"]
    ephemeral = rfc9180.derive_private(bytes.fromhex(vector["ikmE"]))
    recipient = X25519PublicKey.from_public_bytes(bytes.fromhex(vector["pkRm"]))
    enc, context = rfc9180.setup_sender(
        ephemeral, recipient, bytes.fromhex(vector["info"]), rfc9180.AES_256_GCM
    )
    assert enc.hex() == vector["enc"]
    stream = hashlib.shake_128().digest(2000 * 256)
    at = 0

    def draw() -> bytes:
        nonlocal at
        size = stream[at]
        drawn = stream[at + 1 : at + 1 + size]
        at += 1 + size
        return drawn

    seen = hashlib.shake_128()
    for sequence in range(1000):
        aad, plaintext = draw(), draw()
        seen.update(context.seal(sequence, plaintext, aad))
    assert seen.hexdigest(16) == vector["encryptions_accumulated"]


def test_a_wrapped_epoch_opens_by_the_independent_construction() -> None:
    wrapped, key = epoch.begin("edge-1", PRIVATE.public_key(), 1_700_000_000_000, os.urandom)
    enc, ciphertext = wrapped.wrapped[:32], wrapped.wrapped[32:]
    context = rfc9180.setup_receiver(enc, PRIVATE, info_of(wrapped), rfc9180.AES_256_GCM)
    assert context.open(0, ciphertext) == key


def test_an_epoch_wrapped_by_the_independent_construction_unwraps() -> None:
    wrapped, _ = epoch.begin("edge-1", PRIVATE.public_key(), 0, fixed_random)
    enc, context = rfc9180.setup_sender(
        X25519PrivateKey.generate(), PRIVATE.public_key(), info_of(wrapped), rfc9180.AES_256_GCM
    )
    foreign = msgspec.structs.replace(wrapped, wrapped=enc + context.seal(0, b"k" * 32))
    assert epoch.unwrap(foreign, PRIVATE) == b"k" * 32


def test_begin_takes_epoch_and_key_from_the_random_source() -> None:
    wrapped, key = epoch.begin("edge-1", PRIVATE.public_key(), 42, fixed_random)
    assert wrapped.epoch == "10" * 16
    assert key == b" " * 32
    assert (wrapped.edge, wrapped.began_ms) == ("edge-1", 42)
    assert len(wrapped.wrapped) == 32 + 32 + 16
    assert (
        wrapped.key_id == hashlib.sha256(PRIVATE.public_key().public_bytes_raw()).hexdigest()[:16]
    )
    assert epoch.unwrap(wrapped, PRIVATE) == key


def test_two_wraps_of_one_key_differ() -> None:
    first, _ = epoch.begin("edge-1", PRIVATE.public_key(), 0, fixed_random)
    second, _ = epoch.begin("edge-1", PRIVATE.public_key(), 0, fixed_random)
    assert first.wrapped != second.wrapped


def test_the_key_is_nowhere_in_what_is_stored() -> None:
    wrapped, key = epoch.begin("edge-1", PRIVATE.public_key(), 0, os.urandom)
    assert key not in msgspec.msgpack.encode(wrapped)


@pytest.mark.parametrize(
    ("field", "value"), [("edge", "edge-2"), ("epoch", "00" * 16), ("key_id", "0" * 16)]
)
def test_an_epoch_given_to_another_edge_epoch_or_key_is_refused(field: str, value: str) -> None:
    wrapped, _ = epoch.begin("edge-1", PRIVATE.public_key(), 0, os.urandom)
    with pytest.raises(EpochError):
        epoch.unwrap(msgspec.structs.replace(wrapped, **{field: value}), PRIVATE)


def test_an_epoch_for_another_cloud_key_names_the_key_it_needs() -> None:
    wrapped, _ = epoch.begin("edge-1", PRIVATE.public_key(), 0, os.urandom)
    with pytest.raises(EpochError, match=wrapped.key_id):
        epoch.unwrap(wrapped, X25519PrivateKey.generate())


def test_another_private_key_under_a_forged_key_id_does_not_open_it() -> None:
    wrapped, _ = epoch.begin("edge-1", PRIVATE.public_key(), 0, os.urandom)
    other = X25519PrivateKey.generate()
    forged = msgspec.structs.replace(wrapped, key_id=epoch.key_id(other.public_key()))
    with pytest.raises(EpochError):
        epoch.unwrap(forged, other)


def test_every_altered_byte_of_the_wrap_is_refused() -> None:
    wrapped, _ = epoch.begin("edge-1", PRIVATE.public_key(), 0, os.urandom)
    for at in range(len(wrapped.wrapped)):
        altered = bytearray(wrapped.wrapped)
        altered[at] ^= 1
        with pytest.raises(EpochError):
            epoch.unwrap(msgspec.structs.replace(wrapped, wrapped=bytes(altered)), PRIVATE)


@pytest.mark.parametrize("raw", [b"", b"x", bytes(32), bytes(80), b"\xff" * 80])
def test_a_wrap_that_is_none_is_refused(raw: bytes) -> None:
    wrapped, _ = epoch.begin("edge-1", PRIVATE.public_key(), 0, os.urandom)
    with pytest.raises(EpochError):
        epoch.unwrap(msgspec.structs.replace(wrapped, wrapped=raw), PRIVATE)


def test_a_wrapped_key_of_another_length_is_refused() -> None:
    wrapped, _ = epoch.begin("edge-1", PRIVATE.public_key(), 0, os.urandom)
    enc, context = rfc9180.setup_sender(
        X25519PrivateKey.generate(), PRIVATE.public_key(), info_of(wrapped), rfc9180.AES_256_GCM
    )
    short = msgspec.structs.replace(wrapped, wrapped=enc + context.seal(0, b"k" * 16))
    with pytest.raises(EpochError, match="16 bytes"):
        epoch.unwrap(short, PRIVATE)
