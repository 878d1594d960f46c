"""What gives way when the spool is full: quotas by bytes and by age, one for refused input.

Law: refused input never pushes out a reading, nor takes more than its own quota: there its oldest
goes first, whatever the policy for readings is. Work is bounded in every transaction; a quota that
was lowered is reached over several. Everything dropped is counted, by epoch and by why.
"""

import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from edge.seal import Sealed
from edge.spool_change import Change, Stock
from vitals import limits
from vitals.frame import Lane

DROP_FRAMES_MAX: Final = 2_000
"""Dropped in one transaction: some 10 ms of work."""

AGE_LOOK_MS: Final = 1_000
"""Age is looked at once a second: nobody counts days in less."""

_Row = tuple[int, str, int, int, int]
"""id, epoch, lane, count, size of a frame to drop."""


class SpoolFull(Exception):
    """The quota is reached and the policy is to refuse new input."""


class Quota(NamedTuple):
    """What the spool may hold."""

    bytes_max: int
    """Of frames of readings."""
    quarantine_bytes_max: int = limits.QUARANTINE_BYTES_MAX
    """Of frames of refused input."""
    age_ms_max: int | None = None
    """Older frames are dropped, unless ``refuse``; None keeps every age."""
    refuse: bool = False
    """Refuse new readings when full, instead of dropping the oldest."""


class Dropped(NamedTuple):
    """Frames that gave way in one transaction."""

    readings: int = 0
    """For bytes."""
    quarantine: int = 0
    """For bytes."""
    aged: int = 0
    """Of any lane."""


class Keeper:
    """Holds the spool to its quota; ``quota`` may be replaced at any time."""

    def __init__(self, quota: Quota, monotonic: Callable[[], float] = time.monotonic) -> None:
        """``monotonic`` tells for how many seconds this start has run."""
        self.quota = quota
        self._monotonic, self._began_s = monotonic, monotonic()
        self._old_id: int | None = None
        self._after = {False: 0, True: 0}
        self._looked_ms = 0

    def opened(self, newest_id: int) -> None:
        """Note what was stored already when the file was opened; the first call counts."""
        if self._old_id is None:
            self._old_id = newest_id
        self.rewind()

    def rewind(self) -> None:
        """Look for the oldest frames from the beginning again: some came in, or back, below."""
        self._after = {False: 0, True: 0}

    def make_room(
        self,
        db: sqlite3.Connection,
        change: Change,
        stock: Stock,
        frames: Sequence[Sealed],
        now_ms: int | None,
    ) -> Dropped:
        """Drop what must go for ``frames`` to come in; raise SpoolFull, or sqlite3.Error."""
        if now_ms is None and frames:
            now_ms = max(frame.last_ms for frame in frames)
        aged = 0 if now_ms is None else self._drop_old(db, change, stock, now_ms)
        wanted = {False: 0, True: 0}
        for frame in frames:
            wanted[frame.lane == Lane.QUARANTINE] += len(frame.data)
        most = {False: self.quota.bytes_max, True: self.quota.quarantine_bytes_max}
        gone = {False: 0, True: 0}
        for refused, size in wanted.items():
            held = stock.bytes_of(quarantine=refused) + change.bytes_of(quarantine=refused)
            if size and held + size > most[refused]:
                if self.quota.refuse and not refused:
                    raise SpoolFull
                space = held + size - most[refused]
                gone[refused] = self._drop(db, change, stock, space, refused=refused)
        return Dropped(gone[False], gone[True], aged)

    def _drop(
        self, db: sqlite3.Connection, change: Change, stock: Stock, space: int, *, refused: bool
    ) -> int:
        # Where it stopped is remembered: the other kind's frames are not passed over again.
        rows = db.execute(
            "SELECT id, epoch, lane, count, size FROM frames"  # noqa: S608 - one of two signs
            f" WHERE lane {'=' if refused else '<>'} 2 AND id > ? ORDER BY id LIMIT ?",
            (self._after[refused], DROP_FRAMES_MAX),
        )
        doomed: list[_Row] = []
        for row in rows:
            doomed.append(row)
            space -= row[4]
            if space <= 0:
                break
        rows.close()
        _drop(db, change, stock, doomed, "bytes")
        if doomed:
            self._after[refused] = doomed[-1][0]
        return len(doomed)

    def _drop_old(self, db: sqlite3.Connection, change: Change, stock: Stock, now_ms: int) -> int:
        """Drop from the oldest on what is over the age.

        What this start stored itself is spared until the start itself is that old: a clock that
        is set (a gateway without a battery wakes in the past) makes nothing of it old.
        """
        most = self.quota.age_ms_max
        if most is None or self.quota.refuse or 0 <= now_ms - self._looked_ms < AGE_LOOK_MS:
            return 0
        spare = (self._monotonic() - self._began_s) * 1000 < most
        doomed: list[_Row] = []
        for *row, last_ms in db.execute(
            "SELECT id, epoch, lane, count, size, last_ms FROM frames WHERE id <= ?"
            " ORDER BY id LIMIT ?",
            (self._old_id if spare else limits.EPOCH_FRAMES_MAX << 20, DROP_FRAMES_MAX),
        ).fetchall():
            if last_ms >= now_ms - most:
                break
            doomed.append((row[0], row[1], row[2], row[3], row[4]))
        _drop(db, change, stock, doomed, "age")
        if len(doomed) < DROP_FRAMES_MAX:
            self._looked_ms = now_ms
        return len(doomed)


def _drop(
    db: sqlite3.Connection, change: Change, stock: Stock, rows: Iterable[_Row], why: str
) -> None:
    after, to = stock.uncounted
    for id_, epoch, lane, count, size in rows:
        db.execute("DELETE FROM frames WHERE id = ?", (id_,))
        change.gone(epoch, lane, "dropped", 1, count, why)
        if not after < id_ <= to:
            change.level(epoch, lane, -1, -count, -size)
