"""Which frames a partition of the archive holds, and how many readings of each epoch. Pure.

Law: a record (edge, epoch, seq) of one partition is taken once for ever. What the gateway says is
acknowledged below (its floor) counts as seen, so that holes do not pile up.
"""

import msgspec

from cloud.records import SamplesRecord
from vitals.interval import IntervalSet
from vitals.tally import Sums, Tally


class EpochEntry(msgspec.Struct, frozen=True, array_like=True):
    """One epoch as stored in a file's footer."""

    edge: str
    epoch: str
    floor: int
    ranges: list[tuple[int, int]]
    readings: int
    records: int
    again: int = 0
    """Records that had been taken before, up to this file's end."""
    sums: Sums | None = None
    """Of `vitals.tally` over the records taken; None: begun by a version that kept none."""


class _Epoch:
    __slots__ = ("again", "seen", "summed", "tally")

    def __init__(self, entry: EpochEntry) -> None:
        self.seen = IntervalSet(entry.ranges, entry.floor)
        self.tally = Tally(entry.records, entry.readings, entry.sums or (0, 0, 0))
        self.again = entry.again
        self.summed = entry.sums is not None

    def entry(self, edge: str, epoch: str) -> EpochEntry:
        return EpochEntry(
            edge,
            epoch,
            self.seen.floor,
            list(self.seen),
            self.tally.readings,
            self.tally.frames,
            self.again,
            self.tally.sums if self.summed else None,
        )


class Ledger:
    """Per (edge, epoch): frames seen and readings taken, of one partition."""

    def __init__(self, entries: list[EpochEntry] | None = None) -> None:
        """Continue from what the newest file says."""
        self._epochs = {(e.edge, e.epoch): _Epoch(e) for e in entries or []}

    def take(self, record: SamplesRecord) -> bool:
        """Note the record; return False if it was taken before."""
        key = (record.edge, record.epoch)
        epoch = self._epochs.get(key)
        if epoch is None:
            new = EpochEntry(*key, 0, [], 0, 0, 0, (0, 0, 0))
            epoch = self._epochs[key] = _Epoch(new)
        fresh = epoch.seen.add(record.seq)
        epoch.seen.raise_floor(min(record.floor, record.seq))
        if fresh:
            epoch.tally.add(record.seq, len(record.columns))
        else:
            epoch.again += 1
        return fresh

    def entries(self) -> list[EpochEntry]:
        """Return everything, in a fixed order."""
        return [one.entry(*name) for name, one in sorted(self._epochs.items())]
