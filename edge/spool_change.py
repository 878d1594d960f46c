"""What one transaction of the spool does to its counts, and the counts as they are in memory.

Law: memory follows the disk. A `Change` is gathered while the transaction is open, written with
it, and taken over by the `Stock` only after the commit; a transaction that fails changes neither.
"""

import sqlite3
from collections import Counter, defaultdict
from functools import cache
from itertools import chain
from typing import Final

from vitals.frame import Lane

ROWS_A_STATEMENT: Final = 8
"""Counters written together; a commit of lines moves four. One statement is kept for each size."""

HIGHEST: Final = "highest_seq"
"""The one counter that is no sum."""

_LEVEL: Final = (
    "INSERT INTO levels VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
    " frames = frames + excluded.frames, rows = rows + excluded.rows,"
    " bytes = bytes + excluded.bytes"
)

READINGS: Final = "readings"
REJECTS: Final = "rejects"


def kind(lane: int) -> str:
    """Return what the frames of a lane hold, as counters name it."""
    return REJECTS if lane == Lane.QUARANTINE else READINGS


@cache
def _counting(rows: int) -> str:
    values = ", ".join(["(?, ?, ?)"] * rows)
    return (
        f"INSERT INTO counters VALUES {values} ON CONFLICT DO UPDATE SET value ="  # noqa: S608
        f" CASE name WHEN '{HIGHEST}' THEN max(value, excluded.value)"
        " ELSE value + excluded.value END"
    )


class Change:
    """Counters per epoch to add to, levels per epoch and lane to move."""

    __slots__ = ("_levels", "counts", "freed", "highest")

    def __init__(self) -> None:
        """Start with nothing."""
        self.counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.highest: dict[str, int] = {}
        """Epoch -> highest sequence number stored."""
        self._levels: dict[tuple[str, int], list[int]] = {}
        self.freed = False
        """Some frame left the file."""

    def level(self, epoch: str, lane: int, frames: int, rows: int, size: int) -> None:
        """Move what is stored of an epoch and lane by so many frames, their rows and bytes."""
        level = self._levels.setdefault((epoch, lane), [0, 0, 0])
        level[0] += frames
        level[1] += rows
        level[2] += size

    def gone(
        self, epoch: str, lane: int, how: str, frames: int, rows: int, why: str | None = None
    ) -> None:
        """Count frames that left: ``how`` is acked, dropped, unsound; ``why`` splits it."""
        self.freed = True
        counts = self.counts[epoch]
        for name in (how, f"{how}:{why}") if why else (how,):
            counts[f"frames_{name}"] += frames
            counts[f"{kind(lane)}_{name}"] += rows

    def bytes_of(self, *, quarantine: bool) -> int:
        """Return by how much the bytes of readings, or of refused input, move."""
        return sum(
            size
            for (_, lane), (_, _, size) in self._levels.items()
            if (lane == Lane.QUARANTINE) == quarantine
        )

    def by_lane(self) -> list[tuple[int, int, int]]:
        """Return (lane, frames, bytes) moved."""
        return [(lane, frames, size) for (_, lane), (frames, _, size) in self._levels.items()]

    def write(self, db: sqlite3.Connection) -> None:
        """Add it to what is on the disk, within the caller's transaction."""
        rows = [
            (epoch, name, value)
            for epoch, counts in self.counts.items()
            for name, value in counts.items()
            if value
        ]
        rows += [(epoch, HIGHEST, seq) for epoch, seq in self.highest.items()]
        # A few rows a statement: to bind and step each by itself took a tenth of a commit.
        for at in range(0, len(rows), ROWS_A_STATEMENT):
            some = rows[at : at + ROWS_A_STATEMENT]
            db.execute(_counting(len(some)), list(chain.from_iterable(some)))
        for key, level in self._levels.items():
            if any(level):
                db.execute(_LEVEL, (*key, *level))


class Stock:
    """How much is stored, in memory: frames and bytes by lane."""

    __slots__ = ("_levels", "uncounted")

    def __init__(self, db: sqlite3.Connection) -> None:
        """Read the levels on disk: a few rows an epoch, however many frames there are."""
        rows = db.execute("SELECT lane, sum(frames), sum(bytes) FROM levels GROUP BY lane")
        self._levels = {lane: [frames, size] for lane, frames, size in rows}
        self.uncounted = (0, 0)
        """(after, to): ids of an upgraded file that the levels do not know yet."""

    def take(self, change: Change) -> None:
        """Take over what was committed."""
        for lane, frames, size in change.by_lane():
            level = self._levels.setdefault(lane, [0, 0])
            level[0] += frames
            level[1] += size

    def bytes_of(self, *, quarantine: bool) -> int:
        """Return the bytes of readings' frames, or of refused input's."""
        return sum(
            level[1]
            for lane, level in self._levels.items()
            if (lane == Lane.QUARANTINE) == quarantine
        )

    def total(self) -> tuple[int, int]:
        """Return all frames and all their bytes."""
        levels = list(self._levels.values())
        return sum(level[0] for level in levels), sum(level[1] for level in levels)
