"""Salvaged frames of an epoch in the order of their numbers.

Law: within an epoch ids go up as sequence numbers do. The uplink reads by id and counts on it: a
number below those sent counts as one that the cloud has, and would never arrive. Where an id was
damaged the frame goes between its neighbours, or is kept apart when there is no place.
"""

import sqlite3
from bisect import bisect_left
from typing import Final

from edge import spool_admit, spool_schema
from edge.spool import Spool
from edge.spool_change import Change

AROUND: Final = 32
"""Frames looked at on either side of where the order breaks."""

ROUNDS: Final = 8
"""Times that what is left of disorder is looked at, each for at most `BREAKS` places."""

BREAKS: Final = 1_000

_BREAKS: Final = (
    "SELECT seq FROM (SELECT seq, id, lag(id, 1, 0) OVER (ORDER BY seq) AS before FROM frames"
    " WHERE epoch = ? AND id < ?) WHERE id < before LIMIT ?"
)


def rising(ids: list[int]) -> set[int]:
    """Return the places of a longest part of ``ids`` that rises."""
    tails: list[int] = []
    places: list[int] = []
    before: list[int] = []
    for place, id_ in enumerate(ids):
        at = bisect_left(tails, id_)
        tails[at : at + 1] = [id_]
        places[at : at + 1] = [place]
        before.append(places[at - 1] if at else -1)
    kept: set[int] = set()
    place = places[-1] if places else -1
    while place >= 0:
        kept.add(place)
        place = before[place]
    return kept


def in_order(into: Spool, epoch: str) -> None:
    """Put an epoch's salvaged frames in order; raise sqlite3.Error."""

    def work(db: sqlite3.Connection, change: Change) -> None:
        base = spool_schema.about(db, "base") or 1
        for _ in range(ROUNDS):
            breaks = db.execute(_BREAKS, (epoch, base, BREAKS)).fetchall()
            if not breaks:
                return
            for (seq,) in breaks:
                _mend(into, db, change, epoch, seq, base)
        while breaks := db.execute(_BREAKS, (epoch, base, BREAKS)).fetchall():
            for (seq,) in breaks:
                _apart(into, db, change, epoch, seq)

    into.transact(work)


def _mend(
    into: Spool, db: sqlite3.Connection, change: Change, epoch: str, seq: int, base: int
) -> None:
    where = "FROM frames WHERE epoch = ? AND id < ? AND seq"
    below = db.execute(
        f"SELECT id, seq {where} < ? ORDER BY seq DESC LIMIT ?",
        (epoch, base, seq, AROUND),
    ).fetchall()
    above = db.execute(
        f"SELECT id, seq {where} >= ? ORDER BY seq LIMIT ?",
        (epoch, base, seq, AROUND),
    ).fetchall()
    rows = [*reversed(below), *above]
    kept = rising([id_ for id_, _ in rows])
    last = 0
    for place, (id_, number) in enumerate(rows):
        if place in kept:
            last = id_
            continue
        after = min((rows[at][0] for at in kept if at > place), default=base)
        if last + 1 < after and not spool_admit.there(db, "id = ?", last + 1):
            last += 1
            db.execute("UPDATE frames SET id = ? WHERE id = ?", (last, id_))
        else:
            _apart(into, db, change, epoch, number)


def _apart(into: Spool, db: sqlite3.Connection, change: Change, epoch: str, seq: int) -> None:
    ids = db.execute("SELECT id FROM frames WHERE epoch = ? AND seq = ?", (epoch, seq)).fetchall()
    into.set_apart(db, change, [id_ for (id_,) in ids])
