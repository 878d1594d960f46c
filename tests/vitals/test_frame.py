"""Frames: sealed once, opened only by the key, the header and the sequence number they had."""

import msgspec
import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from vitals import columns, frame, limits
from vitals.errors import FrameError, FrameForged, FrameMalformed, FrameTooLarge
from vitals.frame import FrameOpener, FrameSealer, Header, Lane
from vitals.reading import Reading, Rejected

KEY = bytes(range(32))
EPOCH = "ab" * 16


def header(**changes: object) -> Header:
    plain = Header(
        version=frame.VERSION,
        edge="edge-1",
        epoch=EPOCH,
        seq=7,
        key_id="0123456789abcdef",
        lane=Lane.LIVE,
        first_ms=1_700_000_000_000,
        last_ms=1_700_000_000_900,
        count=2,
    )
    return msgspec.structs.replace(plain, **changes)


def seal_raw(head: Header, packed: bytes, key: bytes = KEY) -> bytes:
    """A frame whose compressed body the test chose: what only a holder of the key can make."""
    clear_head = msgspec.msgpack.encode(head)
    clear = frame.MAGIC + len(clear_head).to_bytes(2, "big") + clear_head
    return clear + AESGCM(key).encrypt(head.seq.to_bytes(12, "big"), packed, clear)


def split_at(sealed: bytes) -> int:
    return 6 + int.from_bytes(sealed[4:6], "big")


@given(
    st.binary(max_size=2000),
    st.integers(0, limits.EPOCH_FRAMES_MAX),
    st.text(max_size=40),
    st.sampled_from(Lane),
)
def test_what_was_sealed_opens_again(body: bytes, seq: int, edge: str, lane: Lane) -> None:
    head = header(seq=seq, edge=edge, lane=lane.value)
    sealed = FrameSealer(KEY).seal(head, body)
    assert FrameOpener(KEY).open(sealed) == (head, body)
    assert frame.read_header(sealed) == head


def test_every_single_flipped_bit_is_refused() -> None:
    sealed = FrameSealer(KEY).seal(header(), b"heart_rate=78, oxygen=95%")
    opener = FrameOpener(KEY)
    for bit in range(len(sealed) * 8):
        altered = bytearray(sealed)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises((FrameForged, FrameMalformed)):
            opener.open(bytes(altered))


def test_every_cut_and_every_trailing_byte_is_refused() -> None:
    sealed = FrameSealer(KEY).seal(header(), b"body")
    opener = FrameOpener(KEY)
    for wrong in [sealed[:size] for size in range(len(sealed))] + [sealed + b"\x00"]:
        with pytest.raises((FrameForged, FrameMalformed)):
            opener.open(wrong)


@pytest.mark.parametrize(
    "changes", [{"seq": 8}, {"edge": "edge-2"}, {"epoch": "cd" * 16}, {"count": 3}, {"lane": 1}]
)
def test_a_header_of_another_frame_is_refused(changes: dict[str, object]) -> None:
    sealer = FrameSealer(KEY)
    one, other = sealer.seal(header(), b"one"), sealer.seal(header(**changes), b"other")
    for head, body in ((one, other), (other, one)):
        with pytest.raises(FrameForged):
            FrameOpener(KEY).open(head[: split_at(head)] + body[split_at(body) :])


def test_another_key_is_refused_without_saying_more_than_the_frames_name() -> None:
    sealed = FrameSealer(KEY).seal(header(), b"secret body")
    with pytest.raises(FrameForged, match=f"frame 7 of epoch {EPOCH}") as caught:
        FrameOpener(bytes(32)).open(sealed)
    assert "secret" not in str(caught.value)


def test_the_body_is_not_readable_in_the_frame() -> None:
    sealed = FrameSealer(KEY).seal(header(), b"SIM000001 Ada Sample")
    assert b"SIM000001" not in sealed
    assert b"Ada" not in sealed


def test_two_frames_of_one_body_differ_by_their_sequence() -> None:
    sealer = FrameSealer(KEY)
    first, second = sealer.seal(header(seq=1), b"same"), sealer.seal(header(seq=2), b"same")
    assert first[split_at(first) :] != second[split_at(second) :]


def incompressible(size: int) -> bytes:
    """Bytes that zstd cannot shrink: an AES key stream."""
    return AESGCM(bytes(32)).encrypt(bytes(12), bytes(size), None)


def test_a_frame_over_its_limit_is_refused_by_both_sides() -> None:
    with pytest.raises(FrameTooLarge):
        FrameSealer(KEY).seal(header(), incompressible(limits.FRAME_BYTES_MAX))
    with pytest.raises(FrameTooLarge):
        FrameOpener(KEY).open(bytes(limits.FRAME_BYTES_MAX + 1))


def test_a_frame_of_exactly_its_limit_travels() -> None:
    overhead = len(seal_raw(header(), b""))
    body_size = limits.FRAME_BYTES_MAX - overhead
    packed_size = len(zstandard.ZstdCompressor(level=3).compress(incompressible(body_size)))
    body = incompressible(body_size - (packed_size - body_size))
    sealed = FrameSealer(KEY).seal(header(), body)
    assert limits.FRAME_BYTES_MAX - 64 <= len(sealed) <= limits.FRAME_BYTES_MAX
    assert FrameOpener(KEY).open(sealed)[1] == body


def test_a_body_of_exactly_its_limit_opens() -> None:
    sealed = FrameSealer(KEY).seal(header(), bytes(limits.FRAME_BODY_BYTES_MAX))
    assert len(FrameOpener(KEY).open(sealed)[1]) == limits.FRAME_BODY_BYTES_MAX


def test_a_zip_bomb_is_refused_before_it_inflates() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(limits.FRAME_BODY_BYTES_MAX + 1))
    with pytest.raises(FrameTooLarge):
        FrameOpener(KEY).open(seal_raw(header(), bomb))


def test_a_zip_bomb_that_hides_its_size_is_refused() -> None:
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    bomb = compressor.compress(bytes(limits.FRAME_BODY_BYTES_MAX * 2)) + compressor.flush()
    with pytest.raises(FrameError):
        FrameOpener(KEY).open(seal_raw(header(), bomb))


def test_a_zip_bomb_that_lies_about_its_size_is_refused() -> None:
    honest = zstandard.ZstdCompressor(write_checksum=False).compress(bytes(200_000))
    # bytes 5..8 of a zstd frame with a 4-byte content size field (RFC 8878 §3.1.1.1.4)
    assert honest[4] >> 6 == 2
    lying = honest[:5] + (1000).to_bytes(4, "little") + honest[9:]
    with pytest.raises(FrameMalformed):
        FrameOpener(KEY).open(seal_raw(header(), lying))


@pytest.mark.parametrize("packed", [b"", b"x", b"not zstd at all", b"\x28\xb5\x2f\xfd"])
def test_a_body_that_is_not_compressed_is_refused(packed: bytes) -> None:
    with pytest.raises(FrameMalformed):
        FrameOpener(KEY).open(seal_raw(header(), packed))


def test_a_version_of_the_future_says_what_to_do() -> None:
    with pytest.raises(FrameMalformed, match=r"version 2.*update the cloud"):
        FrameOpener(KEY).open(seal_raw(header(version=2), b""))


def test_a_header_may_grow_at_its_end() -> None:
    grown = msgspec.msgpack.encode([*msgspec.structs.astuple(header()), "new", 1])
    clear = frame.MAGIC + len(grown).to_bytes(2, "big") + grown
    assert frame.read_header(clear) == header()


def test_a_header_over_its_limit_is_refused() -> None:
    with pytest.raises(FrameMalformed):
        frame.read_header(seal_raw(header(edge="x" * limits.FRAME_HEADER_BYTES_MAX), b""))


def test_a_sequence_number_past_the_epochs_end_is_refused() -> None:
    edge = limits.EPOCH_FRAMES_MAX
    assert frame.read_header(seal_raw(header(seq=edge), b"")).seq == edge
    with pytest.raises(FrameMalformed, match="sequence"):
        frame.read_header(seal_raw(header(seq=edge + 1), b""))


@given(st.binary(max_size=120))
def test_any_bytes_are_refused_by_name(raw: bytes) -> None:
    for bytes_in in (raw, frame.MAGIC + raw, frame.MAGIC + b"\x00\x10" + raw):
        with pytest.raises(FrameError):
            FrameOpener(KEY).open(bytes_in)


def test_readings_go_through_a_frame() -> None:
    packed = columns.pack([columns.Source("bed-01")], [(0, Reading(0, 78.0, 1000, 1001))])
    sealed = FrameSealer(KEY).seal(header(), columns.encode(packed))
    assert frame.read_readings(FrameOpener(KEY).open(sealed)[1]) == packed


def test_rejected_input_goes_through_a_frame_whole() -> None:
    rejects = [Rejected("unit", "temperature", "use C or F", "bed-01", b"\xff\x00raw", 1000, 5)]
    sealed = FrameSealer(KEY).seal(header(lane=2), frame.write_rejects(rejects))
    assert frame.read_rejects(FrameOpener(KEY).open(sealed)[1]) == rejects


@pytest.mark.parametrize("raw", [b"", b"\x80", b"\x91\x80", b"\xdd\xff\xff\xff\xff", b"\xff"])
def test_bytes_that_are_no_list_of_rejects_are_refused(raw: bytes) -> None:
    with pytest.raises(FrameMalformed):
        frame.read_rejects(raw)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (header(edge="x" * limits.FRAME_HEADER_BYTES_MAX), b""),
        (header(edge="x" * 70_000), b""),
        (header(), bytes(limits.FRAME_BODY_BYTES_MAX + 1)),
    ],
)
def test_nothing_is_sealed_that_would_never_open(head: Header, body: bytes) -> None:
    with pytest.raises(FrameTooLarge):
        FrameSealer(KEY).seal(head, body)


@pytest.mark.parametrize("seq", [-1, limits.EPOCH_FRAMES_MAX + 1])
def test_no_sequence_number_is_sealed_that_would_never_open(seq: int) -> None:
    with pytest.raises(FrameMalformed):
        FrameSealer(KEY).seal(header(seq=seq), b"")


@pytest.mark.parametrize(
    "raw", [b"\x91" * 5000, b"\x92\x01" + b"\x91" * 100_000, b"\x92\x01\xa2\xff\xfe"]
)
def test_nesting_without_end_and_bad_text_are_refused(raw: bytes) -> None:
    size = len(raw[: limits.FRAME_HEADER_BYTES_MAX])
    head = frame.MAGIC + size.to_bytes(2, "big") + raw
    for read in (frame.read_rejects, frame.read_readings):
        with pytest.raises(FrameMalformed):
            read(raw)
    with pytest.raises(FrameMalformed):
        frame.read_header(head)
