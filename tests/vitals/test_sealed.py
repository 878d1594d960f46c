"""Single sealed values open only where they were sealed, under their key, unaltered."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitals.errors import SealError
from vitals.sealed import KEY_BYTES, OVERHEAD_BYTES, VERSION, Sealer

PLACE = b"latest:0123|heart_rate"
SEALER = Sealer(bytes(range(32)), os.urandom)


@given(st.binary(max_size=500), st.binary(max_size=60))
def test_what_was_sealed_opens_in_its_place(plaintext: bytes, place: bytes) -> None:
    sealed = SEALER.seal(plaintext, place)
    assert len(sealed) == len(plaintext) + OVERHEAD_BYTES
    assert sealed[:1] == VERSION
    assert SEALER.open(sealed, place) == plaintext


@given(st.binary(max_size=20), st.binary(max_size=30), st.binary(max_size=30))
def test_a_value_moved_to_another_place_is_refused(
    plaintext: bytes, place: bytes, elsewhere: bytes
) -> None:
    sealed = SEALER.seal(plaintext, place)
    if place != elsewhere:
        with pytest.raises(SealError):
            SEALER.open(sealed, elsewhere)


def test_the_same_value_seals_differently_each_time() -> None:
    assert SEALER.seal(b"78", PLACE) != SEALER.seal(b"78", PLACE)


def test_every_flipped_bit_is_refused() -> None:
    sealed = SEALER.seal(b"heart_rate=78", PLACE)
    for bit in range(len(sealed) * 8):
        altered = bytearray(sealed)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(SealError):
            SEALER.open(bytes(altered), PLACE)


def test_every_cut_is_refused() -> None:
    sealed = SEALER.seal(b"78", PLACE)
    for size in range(len(sealed)):
        with pytest.raises(SealError):
            SEALER.open(sealed[:size], PLACE)


def test_another_key_is_refused_and_nothing_of_the_value_is_said() -> None:
    with pytest.raises(SealError) as caught:
        Sealer(bytes(32), os.urandom).open(SEALER.seal(b"Ada Sample", PLACE), PLACE)
    assert "Ada" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 16, KEY_BYTES - 1, KEY_BYTES + 1])
def test_a_key_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(SealError, match=f"this one {size}"):
        Sealer(bytes(size), os.urandom)
