"""Wrapped epoch keys, written a second time: one damaged page must not lock away a whole backlog.

Law: a frame is worth nothing without its epoch's wrapped key, and all keys of a spool fit on one
page of its file. So they also lie in this small file, appended and synced when an epoch begins,
read only when the spool itself was damaged. It holds nothing that the spool does not.

A record: 4 bytes ``HSE1``, 2 bytes length, 4 bytes CRC-32 (both big-endian), then the epoch as
msgpack. A cut or damaged record costs itself alone: readers look for the next mark.
"""

import os
import zlib
from pathlib import Path
from typing import Final

import msgspec

from healthsync.runtime import whole
from vitals.epoch import WrappedEpoch
from vitals.errors import UNREADABLE

SUFFIX: Final = ".epochs"
MARK: Final = b"HSE1"
_HEAD: Final = len(MARK) + 6
MODE: Final = 0o640

KEPT: Final = 2000
"""Epochs that stay when the file is rewritten, the newest: a year of one each four hours."""

BYTES_MAX: Final = 1024 * 1024
"""Over this it is rewritten; 2,000 records of about 260 bytes are half of it."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(WrappedEpoch)


def _record(epoch: WrappedEpoch) -> bytes:
    body = _encoder.encode(epoch)
    return MARK + len(body).to_bytes(2, "big") + zlib.crc32(body).to_bytes(4, "big") + body


def parse(data: bytes) -> list[WrappedEpoch]:
    """Return every whole record, each epoch once, in the order written."""
    found: dict[str, WrappedEpoch] = {}
    at = data.find(MARK)
    while at >= 0:
        size = int.from_bytes(data[at + 4 : at + 6], "big")
        body = data[at + _HEAD : at + _HEAD + size]
        step = 1
        if zlib.crc32(body).to_bytes(4, "big") == data[at + 6 : at + _HEAD]:
            try:
                epoch = _decoder.decode(body)
            except UNREADABLE:
                pass
            else:
                found.setdefault(epoch.epoch, epoch)
                step = _HEAD + size
        at = data.find(MARK, at + step)
    return list(found.values())


def read(path: Path) -> list[WrappedEpoch]:
    """Return the epochs in the file; nothing when it cannot be read."""
    try:
        with path.open("rb") as file:
            return parse(file.read(4 * BYTES_MAX))
    except OSError:
        return []


def add(path: Path, epoch: WrappedEpoch) -> bool:
    """Append an epoch durably; return False when the disk does not take it (the spool has it)."""
    try:
        if path.exists() and path.stat().st_size > BYTES_MAX:
            _rewrite(path, read(path)[-KEPT:])
        _append(path, epoch)
    except OSError:
        return False
    return True


def _append(path: Path, epoch: WrappedEpoch) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, MODE)
    with open(handle, "wb") as file:  # noqa: PTH123 - a descriptor, opened with its mode
        file.write(_record(epoch))
        file.flush()
        os.fsync(handle)


def _rewrite(path: Path, epochs: list[WrappedEpoch]) -> None:
    whole.write(path, b"".join(map(_record, epochs)), mode=MODE)
