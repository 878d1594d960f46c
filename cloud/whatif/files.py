"""The archive's encrypted Parquet, in its bucket or copied to a folder, into a `Ward`.

Law: files are opened by the archive's own reader, under its keys. A reading arrives when its
gateway received it. What the archive does not hold is not replayed: alarms that devices raised
themselves, the presence of gateways, commands.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cloud.archive.envelope import ParquetKeys, parquet_keys
from cloud.archive.errors import ArchiveDamaged
from cloud.archive.parquet import open_file, partition_prefix
from cloud.archive.ranged import ObjectFile
from cloud.archive.reader import FUTURE_MS
from cloud.archive.store import Listed, Store
from cloud.settings import S3, Kms
from cloud.whatif.errors import DataWrong
from cloud.whatif.ward import NO_VALUE, Origin, Ward
from healthsync.runtime.clock import now_ms
from vitals.codes import VITALS, Site, Status
from vitals.columns import CHANNEL_MAX, TIME_MS_MAX
from vitals.topics import SUBJECT_PARTITIONS

SUFFIX: Final = ".parquet"

_NUMBERS: Final = {
    "time": "time_ms",
    "arrival": "received_ms",
    "vital": "vital",
    "status": "status",
    "site": "site",
    "channel": "channel",
}
_COLUMNS: Final = (*_NUMBERS.values(), "value", "subject", "device", "edge")
_HIGHEST: Final = {
    "time_ms": TIME_MS_MAX,
    "received_ms": TIME_MS_MAX,
    "vital": len(VITALS) - 1,
    "status": int(max(Status)),
    "site": int(max(Site)),
    "channel": CHANNEL_MAX,
}


class Objects(Protocol):
    """What is needed of `cloud.archive.store.Store`."""

    def listing(self, prefix: str, after: str = "") -> Iterable[Listed]:
        """List a prefix after a name."""
        ...

    def read(self, key: str, start: int, size: int) -> bytes:
        """Return a part of an object."""
        ...


def keys_of(kms: Kms) -> ParquetKeys:
    """Return the archive's keys; nothing is called yet."""
    return parquet_keys(kms, os.urandom, now_ms)


def read_bucket(store: Objects, keys: ParquetKeys, ward: Ward) -> None:
    """Take the whole archive within the ward's time; raise cloud.archive.errors."""
    for partition in range(SUBJECT_PARTITIONS):
        for listed in store.listing(partition_prefix(partition)):
            # A reading is written after it was measured.
            if listed.modified_ms + FUTURE_MS >= ward.start_ms:
                source = ObjectFile(store, listed.key, listed.size)
                _take(open_file(source, keys), listed.key, ward)


def read_store(s3: S3, keys: ParquetKeys, ward: Ward) -> None:
    """Take the bucket as configured."""
    read_bucket(Store(s3), keys, ward)


def read_file(path: Path, keys: ParquetKeys, ward: Ward) -> None:
    """Take one file of the archive that was copied here; raise ArchiveDamaged."""
    with path.open("rb") as source:
        _take(open_file(source, keys), str(path), ward)


def in_folder(folder: Path) -> list[Path]:
    """Return the files of an archive copied to a folder, by name."""
    return sorted(path for path in folder.rglob(f"*{SUFFIX}") if path.is_file())


def _take(file: Any, name: str, ward: Ward) -> None:
    missing = [column for column in _COLUMNS if column not in file.schema_arrow.names]
    if missing:
        raise DataWrong(f"{name}: has no column {missing[0]}; give files of the archive")
    for group in range(file.metadata.num_row_groups):
        try:
            table = file.read_row_group(group, columns=list(_COLUMNS), use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise ArchiveDamaged(f"{name}: row group {group} does not read") from error
        time = table["time_ms"]
        asked = pc.and_(pc.greater_equal(time, ward.start_ms), pc.less(time, ward.end_ms))
        _add(table.filter(asked), name, ward)


def _add(table: Any, name: str, ward: Ward) -> None:
    if not table.num_rows:
        return
    columns = {short: _numbers(table, long, name) for short, long in _NUMBERS.items()}
    columns["value"] = pc.fill_null(table["value"], NO_VALUE).to_numpy()
    subjects, subject = _coded(table["subject"])
    devices, device = _coded(table["device"])
    edges, edge = _coded(table["edge"])
    pairs, pair = np.unique(device.astype(np.int64) * len(edges) + edge, return_inverse=True)
    sources = [
        ward.source(Origin(devices[number // len(edges)], edges[number % len(edges)]))
        for number in pairs.tolist()
    ]
    columns["source"] = np.array(sources, dtype=np.int32)[pair]
    ward.counted(table.num_rows)
    for code, who in enumerate(subjects):
        mine = subject == code
        ward.bed(who, who).extend({short: column[mine] for short, column in columns.items()})


def _numbers(table: Any, column: str, name: str) -> Any:
    numbers = table[column].to_numpy()
    low = 1 if column.endswith("_ms") else 0
    if table[column].null_count or not low <= numbers.min() <= numbers.max() <= _HIGHEST[column]:
        raise DataWrong(f"{name}: {column} is out of range; give files of this release's archive")
    return numbers


def _coded(column: Any) -> tuple[list[str], Any]:
    coded = column.combine_chunks().dictionary_encode()
    return coded.dictionary.to_pylist(), coded.indices.to_numpy()
