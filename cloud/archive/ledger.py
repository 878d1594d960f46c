"""Which frames a partition of the archive holds, and how many readings of each epoch. Pure.

Law: a record (edge, epoch, seq) of one partition is taken once for ever. What the gateway says is
acknowledged below (its floor) counts as seen, so that holes do not pile up.
"""

import msgspec

from cloud.records import SamplesRecord
from vitals.interval import IntervalSet


class EpochEntry(msgspec.Struct, frozen=True, array_like=True):
    """One epoch as stored in a file's footer."""

    edge: str
    epoch: str
    floor: int
    ranges: list[tuple[int, int]]
    readings: int
    records: int


class _Epoch:
    __slots__ = ("readings", "records", "seen")

    def __init__(self, seen: IntervalSet, readings: int, records: int) -> None:
        self.seen = seen
        self.readings = readings
        self.records = records


class Ledger:
    """Per (edge, epoch): frames seen and readings taken, of one partition."""

    def __init__(self, entries: list[EpochEntry] | None = None) -> None:
        """Continue from what the newest file says."""
        self._epochs = {
            (e.edge, e.epoch): _Epoch(IntervalSet(e.ranges, e.floor), e.readings, e.records)
            for e in entries or []
        }

    def take(self, record: SamplesRecord) -> bool:
        """Note the record; return False if it was taken before."""
        key = (record.edge, record.epoch)
        epoch = self._epochs.get(key)
        if epoch is None:
            epoch = self._epochs[key] = _Epoch(IntervalSet(), 0, 0)
        fresh = epoch.seen.add(record.seq)
        epoch.seen.raise_floor(min(record.floor, record.seq))
        if fresh:
            epoch.readings += len(record.columns)
            epoch.records += 1
        return fresh

    def entries(self) -> list[EpochEntry]:
        """Return everything, in a fixed order."""
        return [
            EpochEntry(edge, epoch, e.seen.floor, list(e.seen), e.readings, e.records)
            for (edge, epoch), e in sorted(self._epochs.items())
        ]
