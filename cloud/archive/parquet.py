"""Rows -> one encrypted Parquet file, and back. Pure but for the keys' KMS call.

Columns: subject, device, edge, epoch (text, dictionary), vital (index of vitals.codes), value
(integer of 10**decimals of its vital, null when there is none), time_ms, received_ms (UTC), status,
site, channel, time_source, seq. Sorted by subject, vital, time: equal things lie together, times
are small differences, and zstd sees both.

The footer's key-value metadata holds `FileState` under STATE_KEY: base64 of zstd of msgpack.
The footer is encrypted and authenticated like the rest.
"""

import base64
import io
from array import array
from itertools import accumulate, repeat
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from cloud.archive.envelope import ParquetKeys
from cloud.archive.errors import ArchiveDamaged, ArchiveError
from cloud.archive.ledger import EpochEntry
from cloud.records import SamplesRecord
from vitals.errors import UNREADABLE

STATE_KEY: Final = b"healthsync.state"
FORMAT_VERSION: Final = 1

# Rows of one row group: a query for one subject reads the groups that hold it, not the file.
ROW_GROUP_ROWS: Final = 16_384

# zstd level: written once, read for years; 9 costs 3 µs a row at most.
ZSTD_LEVEL: Final = 9

# Footer state after decompression: 40,000 epochs.
STATE_BYTES_MAX: Final = 16 * 1024 * 1024

SCHEMA: Final = pa.schema(
    [
        pa.field("subject", pa.string(), nullable=False),
        pa.field("device", pa.string(), nullable=False),
        pa.field("vital", pa.int8(), nullable=False),
        pa.field("value", pa.int32()),
        pa.field("time_ms", pa.int64(), nullable=False),
        pa.field("received_ms", pa.int64(), nullable=False),
        pa.field("status", pa.int8(), nullable=False),
        pa.field("site", pa.int8(), nullable=False),
        pa.field("channel", pa.uint16(), nullable=False),
        pa.field("time_source", pa.int8(), nullable=False),
        pa.field("edge", pa.string(), nullable=False),
        pa.field("epoch", pa.string(), nullable=False),
        pa.field("seq", pa.int64(), nullable=False),
    ]
)
_DICTIONARY: Final = ["subject", "device", "vital", "status", "site", "channel", "edge", "epoch"]
_DELTA: Final = dict.fromkeys(("value", "time_ms", "received_ms", "seq"), "DELTA_BINARY_PACKED")


class FileState(msgspec.Struct, frozen=True):
    """What a file says of itself and of its partition up to its end."""

    version: int
    partition: int
    first_offset: int
    """Where the file before ended; also the file's name."""
    next_offset: int
    """Where the next file starts."""
    rows: int
    time_min_ms: int
    time_max_ms: int
    subjects: list[str]
    """Every subject with rows in this file."""
    ledger: list[EpochEntry]
    """The whole partition up to ``next_offset``, not only this file."""


_state_encoder = msgspec.msgpack.Encoder()
_state_decoder = msgspec.msgpack.Decoder(FileState)


class Rows:
    """Rows gathered for one file, as machine integers: about 49 bytes a row."""

    def __init__(self) -> None:
        """Start empty."""
        self._sources: dict[tuple[str, str], int] = {}
        self._epochs: dict[tuple[str, str], int] = {}
        self._ints = {name: array("q") for name in ("time_ms", "received_ms", "seq", "channel")}
        self._bytes = {name: array("b") for name in ("vital", "status", "site", "time_source")}
        self._value = array("i")
        self._no_value = array("b")
        self._source = array("i")
        self._epoch = array("i")

    def __len__(self) -> int:
        return len(self._source)

    def add(self, record: SamplesRecord) -> None:
        """Append the record's rows, which must have passed `vitals.columns.check`."""
        columns = record.columns
        count = len(columns)
        index = [
            self._sources.setdefault((s.subject, s.device), len(self._sources))
            for s in columns.sources
        ]
        epoch = self._epochs.setdefault((record.edge, record.epoch), len(self._epochs))
        self._source.extend(index[at] for at in columns.source)
        self._epoch.extend(repeat(epoch, count))
        self._value.extend(0 if value is None else value for value in columns.value)
        self._no_value.extend(value is None for value in columns.value)
        self._ints["time_ms"].extend(accumulate(columns.time))
        self._ints["received_ms"].extend(accumulate(columns.received))
        self._ints["seq"].extend(repeat(record.seq, count))
        self._bytes["vital"].extend(columns.vital)
        self._ints["channel"].extend(columns.channel or repeat(0, count))
        for name in ("status", "site", "time_source"):
            self._bytes[name].extend(getattr(columns, name) or repeat(0, count))

    def subjects(self) -> list[str]:
        """Return the subjects, sorted."""
        return sorted({subject for subject, _ in self._sources})

    def times_ms(self) -> tuple[int, int]:
        """Return earliest and latest time of measurement."""
        times = self._ints["time_ms"]
        return min(times), max(times)

    def table(self) -> Any:
        """Return the rows as a sorted Arrow table of SCHEMA."""
        numbers = {
            name: np.frombuffer(column, dtype=column.typecode)
            for name, column in (self._ints | self._bytes).items()
        }
        sources = list(self._sources)
        rank_of = {subject: rank for rank, subject in enumerate(self.subjects())}
        ranks = np.array([rank_of[subject] for subject, _ in sources], dtype=np.int32)
        source = np.frombuffer(self._source, dtype=np.int32)
        order = np.lexsort((numbers["time_ms"], numbers["vital"], ranks[source]))
        source = source[order]
        epoch = np.frombuffer(self._epoch, dtype=np.int32)[order]
        no_value = np.frombuffer(self._no_value, dtype=np.int8)[order].astype(bool)
        columns = {
            "subject": _texts([subject for subject, _ in sources], source),
            "device": _texts([device for _, device in sources], source),
            "edge": _texts([edge for edge, _ in self._epochs], epoch),
            "epoch": _texts([name for _, name in self._epochs], epoch),
            "value": pa.array(
                np.frombuffer(self._value, dtype=np.int32)[order], pa.int32(), mask=no_value
            ),
        }
        for name, column in numbers.items():
            columns[name] = pa.array(column[order]).cast(SCHEMA.field(name).type)
        return pa.table([columns[field.name] for field in SCHEMA], schema=SCHEMA)


def _texts(values: list[str], index: Any) -> Any:
    return pa.array(values, pa.string()).take(pa.array(index))


def encode_state(state: FileState) -> bytes:
    """Return the state as it stands in the footer."""
    packed = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(_state_encoder.encode(state))
    return base64.b64encode(packed)


def decode_state(value: bytes) -> FileState:
    """Return the state of a footer; raise ArchiveDamaged."""
    try:
        packed = zstandard.ZstdDecompressor().decompress(
            base64.b64decode(value, validate=True), max_output_size=STATE_BYTES_MAX
        )
        state = _state_decoder.decode(packed)
    except (ValueError, zstandard.ZstdError, *UNREADABLE) as error:
        raise ArchiveDamaged("a file's footer holds no readable state") from error
    if state.version != FORMAT_VERSION:
        raise ArchiveDamaged(f"archive format {state.version} is not known here; update")
    return state


def write(rows: Rows, state: FileState, keys: ParquetKeys) -> bytes:
    """Return the encrypted file; raises cloud.archive.errors when KMS does."""
    table = rows.table()
    out = io.BytesIO()
    with pq.ParquetWriter(
        out,
        SCHEMA,
        compression="zstd",
        compression_level=ZSTD_LEVEL,
        use_dictionary=_DICTIONARY,
        column_encoding=_DELTA,
        data_page_version="2.0",
        store_schema=False,
        encryption_properties=keys.encryption(),
    ) as writer:
        writer.write_table(table, row_group_size=ROW_GROUP_ROWS)
        writer.add_key_value_metadata({STATE_KEY: encode_state(state)})
    return out.getvalue()


def open_file(source: Any, keys: ParquetKeys) -> Any:
    """Return a pyarrow ParquetFile of bytes or a file object; raise ArchiveDamaged."""
    try:
        return pq.ParquetFile(source, decryption_properties=keys.decryption())
    except ArchiveError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise ArchiveDamaged("a file does not open: damaged, or under another key") from error


def read_state(file: Any, name: str, first_offset: int) -> FileState:
    """Return the state of an opened file, which must be the one its name says."""
    value = (file.metadata.metadata or {}).get(STATE_KEY)
    if value is None:
        raise ArchiveDamaged(f"{name}: the footer holds no state; not written by us")
    state = decode_state(value)
    if file_name(state.partition, state.first_offset) != name or (
        state.first_offset != first_offset
    ):
        raise ArchiveDamaged(f"{name}: the file says it is another; it was moved")
    return state


PREFIX: Final = "samples/v1/"


def partition_prefix(partition: int) -> str:
    """Return what every file name of a partition begins with."""
    return f"{PREFIX}p={partition}/"


def file_name(partition: int, first_offset: int) -> str:
    """Return the one name of the file that starts at ``first_offset``."""
    return f"{partition_prefix(partition)}{first_offset:020d}.parquet"


def first_offset_of(name: str) -> int:
    """Return the offset in a file's name; raise ArchiveDamaged if it is no name of ours."""
    stem = name.rpartition("/")[2].removesuffix(".parquet")
    if len(stem) != 20 or not stem.isdigit():
        raise ArchiveDamaged(f"{name}: not a name of the archive")
    return int(stem)
