"""One partition's chain of files: what is taken, when a file is due, what follows it. No I/O.

States of a `Chain`::

    gathering --close()--> closed (a file waits to be put) --put()--> gathering, after that file
        any   --adopt(state of a file that is there)------> gathering, after that file

Law: offsets only go forward from ``next_offset``; the state in a file covers every record before
its ``next_offset``, so whoever continues from the newest file misses none and takes none twice.
"""

from typing import NamedTuple

from cloud import records
from cloud.archive.ledger import Ledger
from cloud.archive.parquet import FORMAT_VERSION, FileState, Rows, file_name
from vitals import limits
from vitals.columns import check
from vitals.errors import UNREADABLE, FrameMalformed


class Taken(NamedTuple):
    """What became of one Kafka record."""

    readings: int = 0
    duplicate: bool = False
    refused: bool = False


class Closed(NamedTuple):
    """A file that waits to be put."""

    name: str
    rows: Rows
    state: FileState


class Chain:
    """The partition as one archive process sees it."""

    def __init__(self, partition: int, newest: FileState | None) -> None:
        """Continue after ``newest``, the state of the partition's newest file, if there is one."""
        self.partition = partition
        self.closed: Closed | None = None
        self.adopt(newest)

    def adopt(self, newest: FileState | None) -> None:
        """Forget what was gathered and continue after ``newest``."""
        self.first_offset = self.next_offset = newest.next_offset if newest else 0
        self._ledger = Ledger(newest.ledger if newest else None)
        self._rows = Rows()
        self._since_ms: int | None = None
        self.closed = None

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, offset: int, value: bytes | None, now_ms: int) -> Taken:
        """Take the Kafka record at ``offset``; one that was passed already changes nothing.

        A record that is no samples record (a defect of its writer) is counted and passed: it
        must not stop the archive, and it stays in Kafka for who looks into it.
        """
        if offset < self.next_offset or self.closed is not None:
            return Taken(duplicate=True)
        self.next_offset = offset + 1
        try:
            record = records.decode_samples(value or b"")
            check(record.columns)
            if not 0 <= record.seq <= limits.EPOCH_FRAMES_MAX:
                raise FrameMalformed("a sequence number is out of range")  # noqa: TRY301
        except (*UNREADABLE, FrameMalformed):
            return Taken(refused=True)
        if not self._ledger.take(record):
            return Taken(duplicate=True)
        self._rows.add(record)
        if self._since_ms is None:
            self._since_ms = now_ms
        return Taken(readings=len(record.columns))

    def due(self, now_ms: int, flush_ms: int, rows_max: int) -> bool:
        """Return whether what is gathered should become a file now."""
        if self._since_ms is None or not len(self._rows):
            return False
        return len(self._rows) >= rows_max or now_ms - self._since_ms >= flush_ms

    def close(self) -> Closed:
        """Close what is gathered as the next file; until it is put nothing more is taken."""
        if self.closed is None:
            earliest, latest = self._rows.times_ms()
            state = FileState(
                FORMAT_VERSION,
                self.partition,
                self.first_offset,
                self.next_offset,
                len(self._rows),
                earliest,
                latest,
                self._rows.subjects(),
                self._ledger.entries(),
            )
            name = file_name(self.partition, self.first_offset)
            self.closed = Closed(name, self._rows, state)
        return self.closed

    def put(self) -> None:
        """Go on after the closed file, which is in the store now."""
        if self.closed is not None:
            self.first_offset = self.closed.state.next_offset
            self._rows = Rows()
            self._since_ms = None
            self.closed = None
