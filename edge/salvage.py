"""Good frames out of a damaged spool, into the one that took its place.

Law: start is never blocked, so this runs beside collection, in slices of bounded work. What comes
out has its checksum and its own header's word, or does not come out. A file put aside is removed
only after all that could be read of it lies in the new spool, durably; what could not stays in it
and is counted. Readers see what was salvaged when all of it is there (`edge.backlog` says why). A
frame that comes back although the cloud has it is no harm: the cloud knows it by (epoch, seq).
"""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from edge import pages, salvage_end, salvage_order, spool_acked, spool_admit, spool_schema
from edge.pages import Row
from edge.remains import Remains
from edge.spool import Spool
from edge.spool_change import Change

FREE_BYTES_MIN: Final = 64 * 1024 * 1024
"""Room on the disk that salvage leaves to what is coming in now."""

BROKEN_NAMED: Final = 10_000
"""Broken frames remembered one by one, so that a good copy found later takes them off the count."""


class Progress(NamedTuple):
    """How far a salvage is."""

    salvaged: int
    """Frames that came into the new spool by now."""
    unsalvageable: int
    """Frames recognised that could not: broken, or without their epoch's key."""
    waiting: bool = False
    """The disk has no room for more now; the next step tries again."""
    done: bool = False


def recover(aside: Path, into: Spool, free_bytes_min: int = FREE_BYTES_MIN) -> Iterator[Progress]:
    """Salvage one file of `spool_aside.pending`, a slice for each step, in the caller's thread.

    Between two steps the other calls of ``into`` are free to run. Raises sqlite3.Error or OSError
    of the disk that ``into`` is on; begin again later, nothing comes in twice. Ends by renaming
    the file, and by showing readers what came in if it was the last.
    """
    return _Salvage(aside, into, free_bytes_min).run()


class _Salvage:
    def __init__(self, aside: Path, into: Spool, free_bytes_min: int) -> None:
        self._aside, self._into, self._free_min = aside, into, free_bytes_min
        self._base, self._offset = 1, 0
        self._salvaged = self._astray = 0
        self._broken: set[tuple[str, int]] = set()
        self._locked: set[tuple[str, int]] = set()
        self._epochs: set[str] = set()

    def run(self) -> Iterator[Progress]:
        self._begin()
        remains = Remains(self._aside, still=True)
        try:
            remains.second_keys(self._into.path)
            self._epochs |= salvage_end.carry(self._into, remains.counters())
            acked = remains.acked()
            self._into.transact(lambda db, change: spool_acked.carry(db, change, acked))
            known = -1
            # Page by page a key may turn up behind the frames that need it: then once more.
            while known < len(remains.epochs) and (known < 0 or self._locked):
                known = len(remains.epochs)
                self._locked.clear()
                for rows in remains.slices():
                    yield from self._take(remains, rows)
            if remains.damaged or self._astray:
                for epoch in sorted(self._epochs):
                    salvage_order.in_order(self._into, epoch)
                    yield self._progress()
            recognised = bool(remains.query("SELECT epoch FROM epochs LIMIT 1") or self._epochs)
        finally:
            remains.close()
        broken = self._broken | self._locked
        salvage_end.finish(self._into, self._aside, self._epochs, broken, recognised=recognised)
        yield self._progress()._replace(done=True)

    def _progress(self) -> Progress:
        return Progress(self._salvaged, len(self._broken | self._locked))

    def _begin(self) -> None:
        name = f"offset {self._aside.name}"

        def work(db: sqlite3.Connection, _change: Change) -> None:
            self._base = spool_schema.about(db, "base") or 1
            # Two files put aside may use the same ids: the second's go above the first's.
            db.execute(
                "INSERT OR IGNORE INTO about"
                " SELECT ?, coalesce(max(id), 0) FROM frames WHERE id < ?",
                (name, self._base),
            )
            self._offset = spool_schema.about(db, name) or 0

        self._into.transact(work)

    def _take(self, remains: Remains, rows: list[Row]) -> Iterator[Progress]:
        good: list[Row] = []
        for row in rows:
            self._epochs.add(row.epoch)
            if pages.sound(row):
                good.append(row)
            elif len(self._broken) < BROKEN_NAMED:
                self._broken.add((row.epoch, row.seq))
        while good and shutil.disk_usage(self._into.path.parent).free < self._free_min:
            yield self._progress()._replace(waiting=True)

        def work(db: sqlite3.Connection, change: Change) -> None:
            needed = {row.epoch for row in good}
            found = [epoch for name, epoch in remains.epochs.items() if name in needed]
            spool_admit.epochs(db, found)
            admitted = spool_admit.frames(db, change, good, offset=self._offset, below=self._base)
            for row in admitted.refused[:BROKEN_NAMED]:
                self._locked.add((row.epoch, row.seq))
            self._salvaged += admitted.frames
            self._astray += admitted.astray

        if good:
            self._into.transact(work)
            self._into.came_below()
        yield self._progress()
