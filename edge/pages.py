"""Frames out of raw pages of an SQLite file: what can be read when SQLite itself cannot.

Law: pure, bytes in, rows out; no page, cell or record can make it raise, loop or take more memory
than one frame. It says what it finds; whether a row is still stored is its caller's to know.

Source: sqlite.org/fileformat2.html, sections 1.3 (header), 1.5 (freelist), 1.6 (b-tree pages) and
2.1 (records).
"""

import re
import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple
from zlib import crc32

from vitals import frame, limits
from vitals.epoch import WrappedEpoch
from vitals.errors import FrameError

MAGIC: Final = b"SQLite format 3\x00"
LEAF: Final = 0x0D
"""First byte of a leaf page of a table with rowids."""

_LEAF_HEADER: Final = 8
_FILE_HEADER: Final = 100
_TRUNK_HEADER: Final = 8
PAYLOAD_BYTES_MAX: Final = limits.FRAME_BYTES_MAX + 4096
"""The largest row of the spool: a frame and its few columns."""

_EPOCH: Final = re.compile(r"[0-9a-f]{32}")
_KEY: Final = re.compile(r"[0-9a-f]{16}")
_FIXED_BYTES: Final = (0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0)
"""Of a column by its kind under 12 (section 2.1): integers, a float, 0, 1."""
_WIDTHS: Final = frozenset({9, 12})
"""Columns of a frame's row: of schema 1, and since schema 2."""
_EPOCH_WIDTH: Final = 5

_OTHER_PAGES: Final = frozenset({b"\x02", b"\x05", b"\x0a"})
"""Interior and index pages hold no frame."""

_RECORD: Final = re.compile(rb"[\x0a-\x12]\x00\x4d(?=[\x00-\x09]{5,6})", re.DOTALL)
"""A frame's record: length of its header, no value (the id), 32 letters, small integers."""

_PREFIX_MAX: Final = 12
"""Bytes of payload size and rowid before it: 3 and 9."""

Fetch = Callable[[int], bytes | None]
"""Page number -> its bytes, or None."""


class Row(NamedTuple):
    """One row of ``frames``."""

    id: int
    epoch: str
    seq: int
    lane: int
    first_ms: int
    last_ms: int
    rows: int
    data: bytes
    crc: int | None = None
    covers_from: int | None = None
    covers_to: int | None = None


def varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at ``at`` and where the next byte is; raise IndexError at the end."""
    value = 0
    for _ in range(8):
        byte = data[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    return value << 8 | data[at], at + 1


def page_size(header: bytes) -> tuple[int, int] | None:
    """Return (page size, usable bytes of a page) of a file's first bytes, or None."""
    if len(header) < _FILE_HEADER or header[:16] != MAGIC:
        return None
    size = int.from_bytes(header[16:18], "big")
    size = 65536 if size == 1 else size
    if size < 512 or size & (size - 1) or size - header[20] < 480:
        return None
    return size, size - header[20]


def local_bytes(size: int, usable: int) -> int:
    """Return how many bytes of a payload lie on the leaf page itself (section 1.6)."""
    most = usable - 35
    if size <= most:
        return size
    least = (usable - 12) * 32 // 255 - 23
    local = least + (size - least) % (usable - 4)
    return local if local <= most else least


def cells(page: bytes, number: int, usable: int, fetch: Fetch) -> Iterator[tuple[int, bytes]]:
    """Yield (rowid, payload) of a leaf page; what is cut or out of bounds is passed over.

    If the page's own list of cells is damaged, cells are found by how a frame's record begins. A
    deleted cell is not: its first bytes are written over (section 1.6, freeblocks).
    """
    if len(page) < usable:
        return
    listed = _pointers(page, _FILE_HEADER if number == 1 else 0, usable)
    whole = listed is not None
    taken: set[int] = set()
    for pointer in listed or ():
        found = _cell(page, pointer, usable, fetch)
        if found is None or values(found[1], max(_WIDTHS)) is None:
            whole = False
            continue
        taken.add(pointer)
        yield found
    if not whole and page[:1] not in _OTHER_PAGES:
        for pointer in _begun(page[:usable]):
            found = None if pointer in taken else _cell(page, pointer, usable, fetch)
            if found is not None:
                yield found


def _pointers(page: bytes, start: int, usable: int) -> tuple[int, ...] | None:
    """Return where a leaf page says that its cells begin, None if it is none."""
    if page[start] != LEAF:
        return None
    count = int.from_bytes(page[start + 3 : start + 5], "big")
    first = start + _LEAF_HEADER
    end = first + 2 * count
    if end > usable:
        return None
    pointers: tuple[int, ...] = struct.unpack_from(f">{count}H", page, first)
    return pointers if all(end <= at < usable for at in pointers) else None


def _begun(page: bytes) -> Iterator[int]:
    """Yield where cells of frames may begin: payload size, rowid, then such a record."""
    for match in _RECORD.finditer(page):
        size = _record_bytes(page, match.start())
        for at in range(max(0, match.start() - _PREFIX_MAX), match.start() - 1):
            said, after = varint(page, at)
            if said == size and varint(page, after)[1] == match.start():
                yield at
                break


def _record_bytes(page: bytes, at: int) -> int:
    """Return the size of a record by its own header, 0 if that is cut."""
    end = at + page[at]
    size, at = page[at], at + 1
    try:
        while at < end:
            kind, at = varint(page, at)
            size += (kind - 12) // 2 if kind >= 12 else _FIXED_BYTES[kind]
    except IndexError:
        return 0
    return size


def _cell(page: bytes, at: int, usable: int, fetch: Fetch) -> tuple[int, bytes] | None:
    try:
        size, at = varint(page, at)
        rowid, at = varint(page, at)
    except IndexError:
        return None
    local = local_bytes(size, usable)
    if size > PAYLOAD_BYTES_MAX or at + local > usable:
        return None
    payload = page[at : at + local]
    if local < size:
        rest = _overflow(page[at + local : at + local + 4], size - local, usable, fetch)
        if rest is None:
            return None
        payload += rest
    return rowid, payload


def _overflow(pointer: bytes, size: int, usable: int, fetch: Fetch) -> bytes | None:
    parts = []
    number = int.from_bytes(pointer, "big")
    while size > 0:
        page = fetch(number) if number else None
        if page is None:
            return None
        part = page[4 : min(usable, 4 + size)]
        if not part:
            return None
        parts.append(part)
        size -= len(part)  # grows less each time: a ring of pages ends as well
        number = int.from_bytes(page[:4], "big")
    return b"".join(parts)


def values(payload: bytes, most: int) -> list[object] | None:
    """Return a record's columns, None if it is none or has over ``most`` (section 2.1)."""
    try:
        end, at = varint(payload, 0)
        kinds = []
        while at < end:
            kind, at = varint(payload, at)
            kinds.append(kind)
            if len(kinds) > most:
                return None
    except IndexError:
        return None
    found: list[object] = []
    at = end
    for kind in kinds:
        size, value = _value(payload, at, kind)
        at += size
        if size < 0 or at > len(payload):
            return None
        found.append(value)
    return found if at == len(payload) else None


def _value(payload: bytes, at: int, kind: int) -> tuple[int, object]:
    if kind >= 12:
        size = (kind - 12) // 2
        data = payload[at : at + size]
        return size, data if kind % 2 == 0 else data.decode("utf-8", "replace")
    if 1 <= kind <= 6:
        size = _FIXED_BYTES[kind]
        return size, int.from_bytes(payload[at : at + size], "big", signed=True)
    if kind in (8, 9):
        return 0, kind - 8
    return (0, None) if kind == 0 else (-1, None)


def as_row(rowid: int, columns: list[object]) -> Row | None:
    """Return the row of ``frames`` that a record is by its shape, or None."""
    if len(columns) not in _WIDTHS:
        return None
    _, epoch, *numbers, data = columns[:9]
    if not isinstance(epoch, str) or not isinstance(data, bytes) or not _EPOCH.fullmatch(epoch):
        return None
    extra = columns[9:]
    if not all(isinstance(number, int) for number in numbers) or not all(
        number is None or isinstance(number, int) for number in extra
    ):
        return None
    seq, lane, first_ms, last_ms, count, _size = numbers
    return Row(rowid, epoch, seq, lane, first_ms, last_ms, count, data, *extra)  # type: ignore[arg-type]  # looked at just above


def sound(row: Row) -> bool:
    """Tell whether the frame is what was stored: its checksum, and its own header, say so.

    A row of schema 1 has no checksum; then the header and the frame's shape have to do.
    """
    if row.crc is not None and crc32(row.data) != row.crc:
        return False
    try:
        header = frame.read_header(row.data)
    except FrameError:
        return False
    return row[1:7] == (
        header.epoch,
        header.seq,
        header.lane,
        header.first_ms,
        header.last_ms,
        header.count,
    )


def as_epoch(columns: list[object]) -> WrappedEpoch | None:
    """Return the row of ``epochs`` that a record is by its shape, or None."""
    if len(columns) != _EPOCH_WIDTH:
        return None
    epoch, edge, key_id, wrapped, began_ms = columns
    if (
        isinstance(epoch, str)
        and isinstance(edge, str)
        and isinstance(key_id, str)
        and isinstance(wrapped, bytes)
        and isinstance(began_ms, int)
        and _EPOCH.fullmatch(epoch)
        and _KEY.fullmatch(key_id)
    ):
        return WrappedEpoch(edge, epoch, key_id, wrapped, began_ms)
    return None


def records(page: bytes, number: int, usable: int, fetch: Fetch) -> Iterator[Row | WrappedEpoch]:
    """Yield the frames and epochs on one page, by their shape alone: see `sound`."""
    for rowid, payload in cells(page, number, usable, fetch):
        columns = values(payload, max(_WIDTHS))
        if columns is not None:
            found = as_row(rowid, columns) or as_epoch(columns)
            if found is not None:
                yield found


def free_pages(first: bytes, usable: int, pages: int, fetch: Fetch) -> set[int]:
    """Return the pages on the freelist, as far as its chain can be followed (section 1.5)."""
    free: set[int] = set()
    trunk = int.from_bytes(first[32:36], "big")
    while 0 < trunk <= pages and trunk not in free:
        free.add(trunk)
        page = fetch(trunk)
        if page is None:
            break
        trunk, count = struct.unpack_from(">II", page)
        if count > (usable - _TRUNK_HEADER) // 4:
            break
        free.update(struct.unpack_from(f">{count}I", page, _TRUNK_HEADER))
    return free
