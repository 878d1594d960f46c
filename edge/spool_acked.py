"""Which sequence numbers the cloud acknowledged, per epoch, as merged ranges in the spool's file.

Law: a range is written in the transaction that deletes its frames. It says what the cloud said:
nothing is taken back, and what is forgotten for want of room is counted. Frames sent in order cost
one row an epoch; a hole stays where frames were folded or dropped.
"""

import sqlite3
from collections.abc import Iterable
from typing import Final

from edge.spool_change import Change
from vitals import limits

ACKED_RANGES_MAX: Final = 1024
"""Ranges of one epoch. A fold a minute leaves 240 holes in the four hours an epoch lasts."""

FORGOTTEN: Final = "acked_forgotten"
"""Counter of frames whose range went for want of room: they are compared by total alone."""


def note(db: sqlite3.Connection, change: Change, epoch: str, low: int, high: int) -> None:
    """Add ``low``..``high`` within the caller's transaction, merged with what it touches."""
    touched: list[int] = []
    rows = db.execute(
        "SELECT first, last FROM acked WHERE epoch = ? AND first <= ? ORDER BY first DESC",
        (epoch, high + 1),
    )
    for first, last in rows:
        if last < low - 1:
            break
        touched.append(first)
        low, high = min(low, first), max(high, last)
    rows.close()
    for first in touched:
        if first != low:
            db.execute("DELETE FROM acked WHERE epoch = ? AND first = ?", (epoch, first))
    db.execute(
        "INSERT INTO acked VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET last = excluded.last",
        (epoch, low, high),
    )
    if not touched:
        _bound(db, change, epoch)


def _bound(db: sqlite3.Connection, change: Change, epoch: str) -> None:
    """Forget the lowest ranges beyond the cap."""
    held = db.execute("SELECT count(*) FROM acked WHERE epoch = ?", (epoch,)).fetchone()[0]
    if held <= ACKED_RANGES_MAX:
        return
    for first, last in db.execute(
        "SELECT first, last FROM acked WHERE epoch = ? ORDER BY first LIMIT ?",
        (epoch, held - ACKED_RANGES_MAX),
    ).fetchall():
        db.execute("DELETE FROM acked WHERE epoch = ? AND first = ?", (epoch, first))
        change.counts[epoch][FORGOTTEN] += last - first + 1


def carry(db: sqlite3.Connection, change: Change, ranges: Iterable[tuple[str, int, int]]) -> None:
    """Take over the ranges of a damaged file; those that make no sense are passed over."""
    for epoch, first, last in ranges:
        if 0 <= first <= last <= limits.EPOCH_FRAMES_MAX:
            note(db, change, epoch, first, last)
