"""History from the archive: the readings of a subject, and what the archive holds of each epoch.

Law: files never change, so what was learned of one is kept; a query opens only files that can
hold an answer. Thread-safe. Raises cloud.archive.errors.

Which files can: those of the subject's partition whose footer names the subject and whose times
overlap. A file not opened yet is passed when S3 wrote it before the time asked for: a reading is
written after it was measured, and no device time is accepted further ahead than FUTURE_MS.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, Protocol

import pyarrow as pa
import pyarrow.compute as pc

from cloud.archive.envelope import ParquetKeys, parquet_keys
from cloud.archive.ledger import EpochEntry
from cloud.archive.parquet import (
    FileState,
    first_offset_of,
    open_file,
    partition_prefix,
    read_state,
)
from cloud.archive.ranged import TAIL_BYTES, ObjectFile
from cloud.archive.store import CONNECTIONS_MAX, Listed, Store
from cloud.settings import S3, Kms
from healthsync.runtime.clock import now_ms
from vitals.codes import VITALS, decimal_scale
from vitals.reading import Reading
from vitals.topics import SUBJECT_PARTITIONS, partition_of

# A file's times lie at most this long after S3 wrote it: limits.FUTURE_MS_MAX of a device, and
# the rest for clocks of gateway and store that disagree.
FUTURE_MS: Final = 3_600_000

# Files opened side by side for one query.
AT_ONCE: Final = 8

# Ends of files kept, in bytes: with small files, whole files.
KEPT_BYTES_MAX: Final = 64 * 1024 * 1024

# After every time the archive can hold.
TIME_MS_END: Final = 2**62

_SCALE: Final = tuple(decimal_scale(vital) for vital in VITALS)
_COLUMNS: Final = (
    "subject",
    "device",
    "vital",
    "value",
    "time_ms",
    "received_ms",
    "status",
    "site",
    "channel",
    "time_source",
)

assert AT_ONCE <= CONNECTIONS_MAX  # noqa: S101


class Objects(Protocol):
    """What the reader needs of `Store`."""

    def listing(self, prefix: str, after: str = "") -> Iterable[Listed]:
        """List a prefix after a name."""
        ...

    def read(self, key: str, start: int, size: int) -> bytes:
        """Return a part of an object."""
        ...


class _Partition:
    """Files known of one partition, in the order of their offsets."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.files: list[Listed] = []


class Archive:
    """Reads the archive; make one a process with `open_archive` and share it."""

    def __init__(self, store: Objects, keys: ParquetKeys) -> None:
        """``store`` and ``keys`` must be thread-safe (ours are)."""
        self._store = store
        self._keys = keys
        self._partitions = [_Partition() for _ in range(SUBJECT_PARTITIONS)]
        self._lock = threading.Lock()
        self._states: dict[str, FileState] = {}
        self._tails: OrderedDict[str, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="archive")

    def close(self) -> None:
        """Let the threads go."""
        self._pool.shutdown()

    def rows(
        self,
        subject: str,
        start_ms: int | None,
        end_ms: int | None,
        vitals: Collection[int] | None,
        newest: int,
    ) -> list[tuple[str, Reading]]:
        """Return (device pseudonym, reading) of a subject, newest first, at most ``newest``.

        ``start_ms <= time_ms < end_ms``, None is unbounded; ``vitals`` are indices of
        vitals.codes, None for all.
        """
        start_ms = 0 if start_ms is None else start_ms
        end_ms = TIME_MS_END if end_ms is None else end_ms
        if newest <= 0 or end_ms <= start_ms or (vitals is not None and not vitals):
            return []
        files = self._files(partition_of(subject))
        waiting = [
            listed
            for listed in reversed(files)
            if self._can_hold(listed, subject, start_ms, end_ms)
        ]
        found: list[tuple[str, Reading]] = []
        while waiting:
            if len(found) >= newest:
                # what is left was written too early to hold anything newer than what we have
                oldest_ms = found[newest - 1][1].time_ms
                waiting = [f for f in waiting if f.modified_ms + FUTURE_MS >= oldest_ms]
            batch, waiting = waiting[:AT_ONCE], waiting[AT_ONCE:]
            for rows in self._pool.map(
                lambda listed: self._rows(listed, subject, start_ms, end_ms, vitals), batch
            ):
                found += rows
            found.sort(key=lambda row: (row[1].time_ms, row[1].received_ms), reverse=True)
            del found[newest:]
        return found

    def entries(self) -> dict[int, list[EpochEntry]]:
        """Return partition -> what it holds of each epoch, of the newest files."""
        found: dict[int, list[EpochEntry]] = {}
        for partition in range(SUBJECT_PARTITIONS):
            files = self._files(partition)
            if files:
                found[partition] = self._state(files[-1]).ledger
        return found

    def counts(self) -> dict[tuple[str, str], int]:
        """Return (edge, epoch) -> distinct readings in the archive."""
        counts: dict[tuple[str, str], int] = {}
        for ledger in self.entries().values():
            for entry in ledger:
                key = (entry.edge, entry.epoch)
                counts[key] = counts.get(key, 0) + entry.readings
        return counts

    def find(self, partition: int, offset: int, edge: str, epoch: str, seq: int) -> tuple[str, int]:
        """Return the file that covers a Kafka offset, and how many rows of a frame are in it.

        ("", 0): no file covers it yet. Reads three columns of the file.
        """
        for listed in reversed(self._files(partition)):
            if first_offset_of(listed.key) > offset:
                continue
            file, state = self._open(listed)
            if offset >= state.next_offset:
                break
            table = file.read(columns=["edge", "epoch", "seq"], use_threads=False)
            same = pc.and_(pc.equal(table["edge"], edge), pc.equal(table["epoch"], epoch))
            return listed.key, pc.sum(pc.and_(same, pc.equal(table["seq"], seq))).as_py() or 0
        return "", 0

    def _files(self, partition: int) -> list[Listed]:
        """Return a partition's files; lists only what is newer than what is known."""
        known = self._partitions[partition]
        with known.lock:
            after = known.files[-1].key if known.files else ""
            known.files.extend(self._store.listing(partition_prefix(partition), after))
            return list(known.files)

    def _can_hold(self, listed: Listed, subject: str, start_ms: int, end_ms: int) -> bool:
        state = self._states.get(listed.key)
        if state is None:
            return listed.modified_ms + FUTURE_MS >= start_ms
        return (
            state.time_min_ms < end_ms
            and state.time_max_ms >= start_ms
            and subject in state.subjects
        )

    def _open(self, listed: Listed) -> tuple[Any, FileState]:
        with self._lock:
            tail = self._tails.get(listed.key, b"")
            if tail:
                self._tails.move_to_end(listed.key)
        source = ObjectFile(self._store, listed.key, listed.size, tail)
        file = open_file(source, self._keys)
        state = self._states.get(listed.key)
        if state is None:
            state = read_state(file, listed.key, first_offset_of(listed.key))
        with self._lock:
            self._states[listed.key] = state
            if listed.key not in self._tails:
                self._tails[listed.key] = source.tail
                self._kept_bytes += len(source.tail)
            while self._kept_bytes > KEPT_BYTES_MAX:
                _key, dropped = self._tails.popitem(last=False)
                self._kept_bytes -= len(dropped)
        return file, state

    def _state(self, listed: Listed) -> FileState:
        state = self._states.get(listed.key)
        return state if state is not None else self._open(listed)[1]

    def _rows(
        self,
        listed: Listed,
        subject: str,
        start_ms: int,
        end_ms: int,
        vitals: Collection[int] | None,
    ) -> list[tuple[str, Reading]]:
        file, _state = self._open(listed)
        if not self._can_hold(listed, subject, start_ms, end_ms):
            return []
        found: list[tuple[str, Reading]] = []
        for group in range(file.metadata.num_row_groups):
            statistics = file.metadata.row_group(group).column(0).statistics
            if statistics is not None and not statistics.min <= subject <= statistics.max:
                continue
            table = file.read_row_group(group, columns=list(_COLUMNS), use_threads=False)
            found += _readings(table, subject, start_ms, end_ms, vitals)
        return found


def _readings(
    table: Any, subject: str, start_ms: int, end_ms: int, vitals: Collection[int] | None
) -> list[tuple[str, Reading]]:
    time = table["time_ms"]
    mask = pc.and_(
        pc.equal(table["subject"], subject),
        pc.and_(pc.greater_equal(time, start_ms), pc.less(time, end_ms)),
    )
    if vitals is not None:
        wanted = pa.array(sorted(vitals), pa.int8())
        mask = pc.and_(mask, pc.is_in(table["vital"], value_set=wanted))
    picked = table.filter(mask).drop_columns(["subject"]).to_pydict()
    return [
        (
            device,
            Reading(
                vital,
                None if value is None else value / _SCALE[vital],
                time_ms,
                received_ms,
                status,
                site,
                channel,
                time_source,
            ),
        )
        for device, vital, value, time_ms, received_ms, status, site, channel, time_source in zip(
            *(picked[name] for name in _COLUMNS[1:]), strict=True
        )
    ]


def open_archive(s3: S3, kms: Kms) -> Archive:
    """Return the archive as configured; nothing is called yet."""
    return Archive(Store(s3), parquet_keys(kms, os.urandom, now_ms))


assert TAIL_BYTES < KEPT_BYTES_MAX  # noqa: S101
