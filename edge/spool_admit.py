"""Frames that come back into the spool: out of a damaged file, or from behind a hole in a journal.

Law: a frame comes in under the identity it had (epoch, seq), once, and only if its epoch's key is
there to open it. An original whose readings a folded frame carries does not come in beside it:
the cloud would count its readings twice. Within the caller's transaction.
"""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple
from zlib import crc32

from edge.pages import Row
from edge.spool_change import Change, kind
from vitals.epoch import WrappedEpoch

ID_END: Final = 2**62
"""Beyond every id."""


class Admitted(NamedTuple):
    """What came in and what did not."""

    frames: int
    spooled: dict[str, Counter[str]]
    """Epoch -> what its counters of spooled frames grow by, if nothing counted them yet."""
    refused: list[Row]
    """No key of their epoch, or no id left."""
    astray: int
    """Came in under another id than their own, which was impossible or another frame's."""


def epochs(db: sqlite3.Connection, found: Iterable[WrappedEpoch]) -> None:
    """Insert epochs that are not there."""
    db.executemany(
        "INSERT OR IGNORE INTO epochs VALUES (?, ?, ?, ?, ?)",
        [(one.epoch, one.edge, one.key_id, one.wrapped, one.began_ms) for one in found],
    )


def frames(
    db: sqlite3.Connection,
    change: Change,
    rows: Sequence[Row],
    *,
    offset: int = 0,
    below: int = ID_END,
) -> Admitted:
    """Insert sound rows that are not there, with their ids moved by ``offset``, under ``below``."""
    count = astray = 0
    spooled: defaultdict[str, Counter[str]] = defaultdict(Counter)
    refused: list[Row] = []
    known: dict[str, bool] = {}
    for row in rows:
        if row.epoch not in known:
            found = db.execute("SELECT 1 FROM epochs WHERE epoch = ?", (row.epoch,)).fetchone()
            known[row.epoch] = found is not None
        if not known[row.epoch]:
            refused.append(row)
            continue
        if there(db, "epoch = ? AND seq = ?", row.epoch, row.seq):
            continue
        id_ = row.id + offset
        if not 0 < id_ < below or there(db, "id = ?", id_):
            last = db.execute("SELECT max(id) FROM frames WHERE id < ?", (below,)).fetchone()[0]
            id_ = (last or 0) + 1
            if id_ >= below:
                refused.append(row)
                continue
            astray += 1
        _insert(db, row, id_)
        count += 1
        change.level(row.epoch, row.lane, 1, row.rows, len(row.data))
        names = spooled[row.epoch]
        names["frames_spooled"] += 1
        names[f"{kind(row.lane)}_spooled"] += row.rows
        change.counts[row.epoch]["frames_salvaged"] += 1
        change.counts[row.epoch][f"{kind(row.lane)}_salvaged"] += row.rows
    return Admitted(count, dict(spooled), refused, astray)


def there(db: sqlite3.Connection, where: str, *values: object) -> bool:
    """Tell whether a stored frame is like that; ``where`` is a fixed text."""
    found = db.execute(f"SELECT 1 FROM frames WHERE {where}", values)  # noqa: S608 - two fixed texts
    return found.fetchone() is not None


def _insert(db: sqlite3.Connection, row: Row, id_: int) -> None:
    db.execute(
        "INSERT INTO frames VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            id_,
            row.epoch,
            row.seq,
            row.lane,
            row.first_ms,
            row.last_ms,
            row.rows,
            len(row.data),
            row.data,
            crc32(row.data),
            row.covers_from,
            row.covers_to,
        ),
    )


def uncover(
    db: sqlite3.Connection, change: Change, rows: Iterable[Row]
) -> dict[str, tuple[int, int]]:
    """Take out the originals that folded frames among ``rows``, which are stored, stand for.

    Returns epoch -> (frames, readings) taken out; counting them is the caller's.
    """
    gone: dict[str, tuple[int, int]] = {}
    for row in rows:
        if row.covers_from is None or row.covers_to is None:
            continue
        where = "epoch = ? AND seq BETWEEN ? AND ? AND lane <> 2 AND covers_from IS NULL"
        span = (row.epoch, row.covers_from, row.covers_to)
        for lane, held, readings, size in db.execute(
            f"SELECT lane, count(*), sum(count), sum(size) FROM frames WHERE {where}"  # noqa: S608 - fixed text
            " GROUP BY lane",
            span,
        ).fetchall():
            change.level(row.epoch, lane, -held, -readings, -size)
            before = gone.get(row.epoch, (0, 0))
            gone[row.epoch] = before[0] + held, before[1] + readings
        db.execute(f"DELETE FROM frames WHERE {where}", span)  # noqa: S608 - fixed text
    return gone


def behind_hole(
    db: sqlite3.Connection, change: Change, rows: Sequence[Row], keys: Iterable[WrappedEpoch]
) -> None:
    """Insert what `wal.behind_hole` found; what counted it as spooled is lost with the hole."""
    epochs(db, keys)
    for epoch, counts in frames(db, change, rows).spooled.items():
        change.counts[epoch].update(counts)
    for epoch, (merged, readings) in uncover(db, change, rows).items():
        change.counts[epoch]["frames_merged"] += merged
        change.counts[epoch]["readings_spooled"] -= readings  # the folded frame counts them
