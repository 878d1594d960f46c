"""A dead gateway's backlog in one file, to be carried to the cloud by hand. Still sealed.

Law: what is written is what was stored, frame by frame, with the wrapped keys that open it in the
cloud and nowhere else. Never writes over a file, is readable by its owner alone, and is read back
before it is called written.

The file is a row of records, each 4 bytes of length (big-endian) and a msgpack array::

    ["healthsync-spool", 1, made_ms]
    ["epoch", edge, epoch, key_id, wrapped, began_ms]   before the first frame that needs it
    ["frame", crc32, bytes]                             the frame as it travels
    ["end", epochs, frames, bytes of frames]            without it the file is cut
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple
from zlib import crc32

import msgspec

from edge import pages
from edge.remains import Remains
from healthsync.runtime import whole
from vitals import limits
from vitals.epoch import WrappedEpoch
from vitals.errors import UNREADABLE

MAGIC: Final = "healthsync-spool"
VERSION: Final = 1
MODE: Final = 0o600
_LENGTH_BYTES: Final = 4
RECORD_BYTES_MAX: Final = limits.FRAME_BYTES_MAX + 4096
"""A frame and the few bytes around it; a reader takes no more."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Any])


class Exported(NamedTuple):
    """What is in the file."""

    epochs: int
    frames: int
    bytes: int
    left_out: int
    """Frames of the spool that are broken or have no key."""


class ExportError(Exception):
    """The file does not hold what was written, or is none."""


def export(path: Path, to: Path, now_ms: int, keys_of: Path | None = None) -> Exported:
    """Write what can be read of the spool at ``path``; raise OSError or ExportError.

    Works on a damaged file, on one put aside, and beside a running gateway. ``keys_of`` is the
    spool whose second copy of the keys is used as well. What could not be written whole is removed.
    """
    with closing(Remains(path)) as remains:
        remains.second_keys(keys_of or path)
        handle = os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE)
        try:
            with open(handle, "wb") as file:  # noqa: PTH123 - a descriptor, opened with its mode
                written = _write(remains, file, now_ms)
                file.flush()
                os.fsync(handle)
            whole.sync_folder(to.parent)
            if _count(to) != written[:3]:
                raise ExportError(f"{to}: what was written does not read back; is the disk sound?")  # noqa: TRY301 - removed below
        except BaseException:
            to.unlink(missing_ok=True)
            raise
    return written


def _put(file: BinaryIO, *record: Any) -> None:
    data = _encoder.encode(record)
    file.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)


def _write(remains: Remains, file: BinaryIO, now_ms: int) -> Exported:
    _put(file, MAGIC, VERSION, now_ms)
    told: set[str] = set()
    locked: Counter[str] = Counter()
    frames = size = broken = 0
    for turn in range(2):
        late = locked.keys() & remains.epochs.keys()
        if turn and not late:
            break  # page by page a key may turn up behind its frames: then once more, for those
        for rows in remains.slices():
            for row in rows:
                if turn and row.epoch not in late:
                    continue
                if not pages.sound(row):
                    broken += not turn
                    continue
                epoch = remains.epochs.get(row.epoch)
                if epoch is None:
                    locked[row.epoch] += 1
                    continue
                if row.epoch not in told:
                    told.add(row.epoch)
                    locked.pop(row.epoch, None)
                    _put(file, "epoch", *_fields(epoch))
                _put(file, "frame", crc32(row.data), row.data)
                frames += 1
                size += len(row.data)
    _put(file, "end", len(told), frames, size)
    return Exported(len(told), frames, size, broken + sum(locked.values()))


def _fields(epoch: WrappedEpoch) -> tuple[Any, ...]:
    return epoch.edge, epoch.epoch, epoch.key_id, epoch.wrapped, epoch.began_ms


def _count(path: Path) -> tuple[int, int, int]:
    epochs = frames = size = 0
    for item in read(path):
        if isinstance(item, WrappedEpoch):
            epochs += 1
        else:
            frames += 1
            size += len(item)
    return epochs, frames, size


def read(path: Path) -> Iterator[WrappedEpoch | bytes]:
    """Yield epochs and frames as they stand in the file; raise ExportError or OSError.

    An error at the end takes nothing back: what was yielded is sound by itself.
    """
    counts = [0, 0, 0]
    with path.open("rb") as file:
        if (record := _record(file))[:2] != [MAGIC, VERSION]:
            raise ExportError(f"{path}: is no export of a spool, or of a newer version")
        while (record := _record(file))[:1] != ["end"]:
            match record:
                case ["epoch", str(), str(), str(), bytes(), int()]:
                    counts[0] += 1
                    yield WrappedEpoch(*record[1:])
                case ["frame", int(crc), bytes(data)] if crc == crc32(data):
                    counts[1] += 1
                    counts[2] += len(data)
                    yield data
                case _:
                    raise ExportError(f"{path}: a record is damaged; export again")
        if record[1:] != counts or file.read(1):
            raise ExportError(f"{path}: the end does not fit the content; export again")


def _record(file: BinaryIO) -> list[Any]:
    size = int.from_bytes(file.read(_LENGTH_BYTES), "big")
    data = file.read(size) if 0 < size <= RECORD_BYTES_MAX else b""
    if not data or len(data) < size:
        raise ExportError("the file is cut or no export; export again")
    try:
        return _decoder.decode(data)
    except UNREADABLE as error:
        raise ExportError("a record is damaged; export again") from error
