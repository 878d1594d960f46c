"""The write-ahead log of an SQLite file, read as bytes: which page images in it are whole.

Law: reads, never writes. SQLite stops at the first frame of the log whose checksum is wrong and
forgets what follows, though one bad sector says nothing of the transactions behind it that were
promised. Each frame's checksum goes on from the one before, which is written in that one's header:
so the chain can be taken up again behind a hole, and whole transactions there can be told.

Source: sqlite.org/fileformat2.html section 4, sqlite.org/walformat.html section 2.1.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from edge import pages
from edge.pages import Row

HEADER_BYTES: Final = 32
FRAME_HEADER_BYTES: Final = 24
_MAGICS: Final = {0x377F0682: "<", 0x377F0683: ">"}
_INDEX_MAX_FRAME: Final = 16
"""Offset of mxFrame in the wal-index header, in the machine's own byte order."""

TAIL_FRAMES_MAX: Final = 4096
"""Page images looked at behind a hole: the whole of a journal of usual size, half a second."""


class Image(NamedTuple):
    """One page image in the log."""

    number: int
    """From 1, as SQLite counts them."""
    page: int
    commit: bool
    """It ends a transaction."""
    at: int
    """Where its bytes begin in the file."""


class Shape(NamedTuple):
    """What the log's header says."""

    page_bytes: int
    salts: bytes
    order: str
    """Of the bytes in the checksum's words."""
    guessed: bool = False
    """The header is damaged: the first frame's checksum follows from nothing."""


def shape(header: bytes, page_bytes: int, first_frame: bytes) -> Shape | None:
    """Return the log's shape; of a damaged header what the database and the first frame tell."""
    if len(header) == HEADER_BYTES:
        magic, _, size = struct.unpack_from(">III", header)
        order = _MAGICS.get(magic)
        if order is not None and _sum(header[:24], order, (0, 0)) == _sums(header, 24):
            return Shape(size, header[16:24], order)
    if page_bytes and len(first_frame) == FRAME_HEADER_BYTES:
        return Shape(page_bytes, first_frame[8:16], "<", guessed=True)
    return None


def _sums(data: bytes, at: int) -> tuple[int, int]:
    first, second = struct.unpack_from(">II", data, at)
    return first, second


def _sum(data: bytes, order: str, seed: tuple[int, int]) -> tuple[int, int]:
    """Return the log's checksum of ``data`` going on from ``seed`` (section 4.2)."""
    one, two = seed
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        one = (one + even + two) & 0xFFFFFFFF
        two = (two + odd + one) & 0xFFFFFFFF
    return one, two


def whole(file: BinaryIO, of: Shape, after: int = 0, most: int | None = None) -> list[Image]:
    """Return the whole page images of complete transactions, from frame ``after`` + 1 on.

    Goes past damaged frames. An image counts when its checksum follows from what is written in
    the header before it; what comes after the last one that ends a transaction was never promised.
    """
    found: list[Image] = []
    complete = 0
    for image, good in _images(file, of, after, most):
        if good:
            found.append(image)
            if image.commit:
                complete = len(found)
    return found[:complete]


def _images(
    file: BinaryIO, of: Shape, after: int, most: int | None
) -> Iterator[tuple[Image, bool]]:
    stride = FRAME_HEADER_BYTES + of.page_bytes
    at = HEADER_BYTES + after * stride
    file.seek(at - (FRAME_HEADER_BYTES + of.page_bytes if after else HEADER_BYTES))
    before = file.read(stride if after else HEADER_BYTES)
    seed = _sums(before, 16 if after else 24) if len(before) >= FRAME_HEADER_BYTES else (0, 0)
    index = after
    while most is None or index - after < most:
        data = file.read(stride)
        index += 1
        if len(data) < stride:
            return
        if data[8:16] == of.salts:
            page, size = struct.unpack_from(">II", data)
            sums = _sum(data[:8] + data[FRAME_HEADER_BYTES:], of.order, seed)
            good = page > 0 and (sums == _sums(data, 16) or (of.guessed and index == 1))
            yield Image(index, page, size > 0, at + FRAME_HEADER_BYTES), good
        seed = _sums(data, 16)
        at += stride


def _last_frame(path: Path) -> int | None:
    """Return how many frames of the log SQLite took in, from its index; None if not known."""
    try:
        with path.with_name(path.name + "-shm").open("rb") as file:
            header = file.read(_INDEX_MAX_FRAME + 4)
    except OSError:
        return None
    return struct.unpack_from("=I", header, _INDEX_MAX_FRAME)[0] if len(header) >= 20 else None


def behind_hole(path: Path) -> list[Row]:
    """Return the frames in complete transactions behind a hole in the journal of an open spool.

    SQLite has just taken the journal in and nothing was written since. Usually there is nothing:
    the journal ends where SQLite stopped, or in a transaction that the power cut.
    """
    known = _last_frame(path)
    if known is None:
        return []
    try:
        with path.open("rb") as database, path.with_name(path.name + "-wal").open("rb") as log:
            return _behind(database, log, known)
    except OSError:
        return []


def _behind(database: BinaryIO, log: BinaryIO, known: int) -> list[Row]:
    sizes = pages.page_size(database.read(100))
    of = shape(log.read(HEADER_BYTES), sizes[0] if sizes else 0, log.read(FRAME_HEADER_BYTES))
    if sizes is None or of is None or of.page_bytes != sizes[0]:
        return []
    newest = {image.page: image.at for image in whole(log, of, known, TAIL_FRAMES_MAX)}
    if not newest:
        return []

    def fetch(number: int) -> bytes | None:
        # A frame that is new behind the hole has all of its pages there.
        file, offset = log, newest.get(number)
        if offset is None:
            file, offset = database, (number - 1) * sizes[0]
        file.seek(offset)
        page = file.read(sizes[0])
        return page if len(page) == sizes[0] else None

    rows: dict[tuple[str, int], Row] = {}
    for number in newest:
        page = fetch(number)
        for row in pages.records(page, number, sizes[1], fetch) if page else ():
            if isinstance(row, Row) and row.crc is not None and pages.sound(row):
                rows[row.epoch, row.seq] = row
    return sorted(rows.values())
