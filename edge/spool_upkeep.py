"""What keeps a spool's file in shape, a bounded bit in each transaction or start.

Law: none of it costs more the more is stored. An upgraded file's frames are counted slice by
slice, epochs that nobody needs are forgotten, free pages go back to the file system.
"""

import sqlite3
from typing import Final

from edge.spool_change import Change, Stock
from edge.spool_schema import is_damage

EPOCHS_KEPT: Final = 2000
"""Finished epochs whose counters stay for an audit: years of daily starts."""

SETTLE_FRAMES: Final = 20_000
"""Frames of an upgraded file that one transaction counts: some 20 ms of reading."""

SETTLE_AT_START: Final = 200_000
"""Frames of an upgraded file that are counted before the start goes on: under a second."""

VACUUM_PAGES: Final = 64
"""Free pages given back to the file system by one transaction: 256 KiB, some ms."""

VACUUM_FREE_MIN: Final = 1024
"""Free pages that stay for the next frames (4 MiB): a file that breathes is not cut each time."""


def settle(db: sqlite3.Connection, change: Change, stock: Stock, most: int) -> None:
    """Count the next frames of an upgraded file into the levels."""
    after, to = stock.uncounted
    if not to:
        return
    newest = 0
    for epoch, lane, frames, rows, size, last in db.execute(
        "SELECT epoch, lane, count(*), sum(count), sum(size), max(id) FROM"
        " (SELECT id, epoch, lane, count, size FROM frames"
        " WHERE id > ? AND id <= ? ORDER BY id LIMIT ?) GROUP BY epoch, lane",
        (after, to, most),
    ):
        change.level(epoch, lane, frames, rows, size)
        newest = max(newest, last)
    # Ids have gaps, so only an empty slice says that it is done.
    stock.uncounted = (newest, to) if newest else (0, 0)
    if newest:
        db.execute("UPDATE about SET value = ? WHERE name = 'uncounted_from'", (newest,))
    else:
        db.execute("DELETE FROM about WHERE name IN ('uncounted_from', 'uncounted_to')")


def prune(db: sqlite3.Connection, stock: Stock) -> None:
    """Forget finished epochs beyond the newest; raise sqlite3.Error for damage alone."""
    if stock.uncounted != (0, 0):
        return  # what has frames is not known yet
    stale = (
        "(SELECT epoch FROM epochs WHERE epoch NOT IN"
        " (SELECT epoch FROM levels WHERE frames > 0)"
        " ORDER BY began_ms DESC LIMIT -1 OFFSET ?)"
    )
    try:
        for table in ("counters", "levels", "acked", "epochs"):
            db.execute(
                f"DELETE FROM {table} WHERE epoch IN {stale}",  # noqa: S608 - fixed names
                (EPOCHS_KEPT,),
            )
    except sqlite3.Error as error:
        if is_damage(error):
            raise  # a full or read-only disk does not stop the start; pruning can wait


def vacuum(db: sqlite3.Connection) -> None:
    """Give free pages back once most of the file is free."""
    free = db.execute("PRAGMA freelist_count").fetchone()[0]
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    if free > max(VACUUM_FREE_MIN, pages // 2):
        for _ in range(VACUUM_PAGES):  # Python takes one step of a statement that has no columns
            db.execute("PRAGMA incremental_vacuum(1)")
