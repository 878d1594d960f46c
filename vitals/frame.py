"""Frames: what an edge seals, stores and sends. Sealed once, opened only by the cloud.

Layout, all integers big-endian::

    4 bytes  magic "HSF1"
    2 bytes  length of the header
    header   msgpack array, see Header; in clear, authenticated
    rest     AES-256-GCM(zstd(body)), 16-byte tag at the end

The key is the epoch's; the nonce is the sequence number in 12 bytes, so one epoch never seals two
frames of one seq; the associated data is everything before the ciphertext.
"""

from enum import IntEnum
from typing import Final

import msgspec
import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from vitals import columns as columns_
from vitals import limits
from vitals.errors import UNREADABLE, FrameForged, FrameMalformed, FrameTooLarge
from vitals.reading import Rejected

MAGIC: Final = b"HSF1"
_PREFIX: Final = len(MAGIC) + 2


class Lane(IntEnum):
    """What a frame holds and how it is queued."""

    LIVE = 0
    """Readings as they arrive."""
    BACKLOG = 1
    """Readings that were already old when the device handed them over."""
    QUARANTINE = 2
    """Rejected input."""


class Header(msgspec.Struct, frozen=True, array_like=True):
    """The clear, authenticated part. Fields only grow, at the end, with defaults."""

    version: int
    edge: str
    epoch: str
    seq: int
    key_id: str
    lane: int
    first_ms: int
    """Earliest time of receipt inside."""
    last_ms: int
    """Latest time of receipt inside."""
    count: int
    """Readings inside, or rejected inputs in the quarantine lane."""


VERSION: Final = 1
_header_encoder = msgspec.msgpack.Encoder()
_header_decoder = msgspec.msgpack.Decoder(Header)
_rejects_decoder = msgspec.msgpack.Decoder(list[Rejected])


class FrameSealer:
    """Seals bodies under one epoch key. Holds the compressor, so keep one for an epoch."""

    __slots__ = ("_aead", "_zstd")

    def __init__(self, key: bytes) -> None:
        """Take the epoch's 32-byte key."""
        self._aead = AESGCM(key)
        self._zstd = zstandard.ZstdCompressor(level=3, write_checksum=False)

    def seal(self, header: Header, body: bytes) -> bytes:
        """Return the frame; raise FrameTooLarge or FrameMalformed for what would never open."""
        head = _header_encoder.encode(header)
        if len(head) > limits.FRAME_HEADER_BYTES_MAX or len(body) > limits.FRAME_BODY_BYTES_MAX:
            raise FrameTooLarge(
                f"header of {len(head)} or body of {len(body)} bytes is over its limit;"
                " close frames sooner"
            )
        if not 0 <= header.seq <= limits.EPOCH_FRAMES_MAX:
            raise FrameMalformed("the sequence number is out of range; begin a new epoch")
        clear = MAGIC + len(head).to_bytes(2, "big") + head
        nonce = header.seq.to_bytes(12, "big")
        frame = clear + self._aead.encrypt(nonce, self._zstd.compress(body), clear)
        if len(frame) > limits.FRAME_BYTES_MAX:
            raise FrameTooLarge(
                f"frame of {len(frame)} bytes is over {limits.FRAME_BYTES_MAX}; close frames sooner"
            )
        return frame


def read_header(frame: bytes) -> Header:
    """Return the clear header, unverified; raise FrameMalformed or FrameTooLarge."""
    if len(frame) > limits.FRAME_BYTES_MAX:
        raise FrameTooLarge(f"frame of {len(frame)} bytes is over {limits.FRAME_BYTES_MAX}")
    if frame[: len(MAGIC)] != MAGIC or len(frame) < _PREFIX:
        raise FrameMalformed("not a frame: the magic is missing")
    size = int.from_bytes(frame[len(MAGIC) : _PREFIX], "big")
    if size > limits.FRAME_HEADER_BYTES_MAX or len(frame) < _PREFIX + size:
        raise FrameMalformed("the frame's header is cut or over its limit")
    try:
        header = _header_decoder.decode(frame[_PREFIX : _PREFIX + size])
    except UNREADABLE as error:
        raise FrameMalformed("the frame's header does not parse") from error
    if header.version != VERSION:
        raise FrameMalformed(f"frame version {header.version} is not known here; update the cloud")
    if not 0 <= header.seq <= limits.EPOCH_FRAMES_MAX:
        raise FrameMalformed("the frame's sequence number is out of range")
    return header


class FrameOpener:
    """Opens frames of one epoch."""

    __slots__ = ("_aead",)

    def __init__(self, key: bytes) -> None:
        """Take the epoch's 32-byte key."""
        self._aead = AESGCM(key)

    def open(self, frame: bytes) -> tuple[Header, bytes]:
        """Return header and body; raise FrameMalformed, FrameForged or FrameTooLarge."""
        header = read_header(frame)
        split = _PREFIX + int.from_bytes(frame[len(MAGIC) : _PREFIX], "big")
        try:
            packed = self._aead.decrypt(
                header.seq.to_bytes(12, "big"), frame[split:], frame[:split]
            )
        except (InvalidTag, ValueError):
            raise FrameForged(
                f"frame {header.seq} of epoch {header.epoch} does not open: altered, or sealed"
                " under another key"
            ) from None
        return header, _inflate(packed)


def _inflate(packed: bytes) -> bytes:
    try:
        size = zstandard.frame_content_size(packed)
        if not 0 <= size <= limits.FRAME_BODY_BYTES_MAX:
            raise FrameTooLarge(f"a frame's body is over {limits.FRAME_BODY_BYTES_MAX} bytes")
        return zstandard.ZstdDecompressor().decompress(packed)
    except zstandard.ZstdError as error:
        raise FrameMalformed("the frame's body does not decompress") from error


def read_readings(body: bytes) -> columns_.Columns:
    """Return the columns of a LIVE or BACKLOG body; raise FrameMalformed."""
    return columns_.decode(body)


def read_rejects(body: bytes) -> list[Rejected]:
    """Return the entries of a QUARANTINE body; raise FrameMalformed."""
    try:
        return _rejects_decoder.decode(body)
    except UNREADABLE as error:
        raise FrameMalformed("the body is not a list of rejected inputs") from error


def write_rejects(rejects: list[Rejected]) -> bytes:
    """Return the body of a QUARANTINE frame."""
    return _header_encoder.encode(rejects)
