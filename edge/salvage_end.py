"""How a salvage is brought to its end: the counts made whole, the file renamed, readers let in.

Law: in this order, each step durable before the next, so that a power cut at any point leads on:
a file that is still called damaged is salvaged again (nothing comes in twice), and when none is,
readers see everything. Per epoch, what is neither here nor accounted for is counted as lost.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from edge import spool_admit
from edge.pages import Row
from edge.spool import Spool
from edge.spool_aside import pending
from edge.spool_change import READINGS, REJECTS, Change, kind
from edge.spool_schema import part
from healthsync.runtime import whole

KEPT: Final = 2
KEPT_BYTES: Final = 512 * 1024 * 1024
"""Salvaged files that stay for whoever wants to look: the newest two, of at most so many bytes.
A file that was never a spool, or of which nothing can be recognised, is renamed and never removed.
"""

_OF_A_FILE: Final = ("_salvaged", "_unsalvageable")
"""Endings of counters that tell of one file, not of an epoch's life: not carried over."""

_GONE: Final = ("acked", "dropped", "unsound")


def carry(into: Spool, counters: Iterable[tuple[Any, ...]]) -> set[str]:
    """Take over a damaged file's counters where there are none yet; return their epochs."""
    kept = [
        row
        for row in counters
        if [type(value) for value in row] == [str, str, int] and not row[1].endswith(_OF_A_FILE)
    ]

    def work(db: sqlite3.Connection, _change: Change) -> None:
        db.executemany("INSERT OR IGNORE INTO counters VALUES (?, ?, ?)", kept)

    into.transact(work)
    return {row[0] for row in kept}


def finish(
    into: Spool,
    aside: Path,
    epochs: Iterable[str],
    broken: Iterable[tuple[str, int]],
    *,
    recognised: bool,
) -> None:
    """End the salvage of one file; raise sqlite3.Error or OSError, then call it again."""
    into.transact(_uncover)
    into.transact(lambda db, _change: _account(db, set(epochs), list(broken)))
    _rename(aside, "salvaged" if recognised else "unknown")
    tidy(into.path)
    if not pending(into.path):
        into.transact(_show)


def _show(db: sqlite3.Connection, _change: Change) -> None:
    db.execute("DELETE FROM about WHERE name = 'hidden' OR name LIKE 'offset %'")


def _uncover(db: sqlite3.Connection, change: Change) -> None:
    """Take out originals that came back beside the folded frame that stands for them."""
    folded = [
        Row(*row)
        for row in db.execute(
            "SELECT id, epoch, seq, lane, first_ms, last_ms, count, x'',"
            " crc, covers_from, covers_to FROM frames WHERE covers_from IS NOT NULL AND id <"
            " (SELECT value FROM about WHERE name = 'base')"
        )
    ]
    spool_admit.uncover(db, change, folded)


def _account(db: sqlite3.Connection, epochs: set[str], broken: list[tuple[str, int]]) -> None:
    missing = [
        epoch
        for epoch, seq in broken
        if not db.execute(
            "SELECT 1 FROM frames WHERE epoch = ? AND seq = ?", (epoch, seq)
        ).fetchone()
    ]
    for epoch in epochs | set(missing):
        have = dict(db.execute("SELECT name, value FROM counters WHERE epoch = ?", (epoch,)))
        new = {"frames_unsalvageable": missing.count(epoch)}
        for what, stored in _stored(db, epoch).items():
            gone = sum(have.get(f"{what}_{how}", 0) for how in _GONE)
            gone += have.get("frames_merged", 0) if what == "frames" else 0
            spooled = have.get(f"{what}_spooled", 0)
            lost = spooled - gone - stored
            # Less than nothing lost: what was gone has come back, or its counters are gone.
            new[f"{what}_lost"] = max(lost, 0)
            new[f"{what}_spooled"] = spooled - min(lost, 0)
        db.executemany(
            "INSERT INTO counters VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET value ="
            " excluded.value",
            [(epoch, name, value) for name, value in new.items() if value or name in have],
        )


def _stored(db: sqlite3.Connection, epoch: str) -> Counter[str]:
    stored = Counter({"frames": 0, READINGS: 0, REJECTS: 0})
    for lane, frames, rows in db.execute(
        "SELECT lane, frames, rows FROM levels WHERE epoch = ?", (epoch,)
    ):
        stored["frames"] += frames
        stored[kind(lane)] += rows
    return stored


def _rename(aside: Path, word: str) -> None:
    name = aside.name.replace(".damaged-", f".{word}-")
    # The journal first: while the database is still called damaged, all of it is done again.
    for suffix in ("-wal", ""):
        if part(aside, suffix).exists():
            part(aside, suffix).rename(aside.with_name(name + suffix))
    part(aside, "-shm").unlink(missing_ok=True)
    whole.sync_folder(aside.parent)


def tidy(path: Path) -> None:
    """Remove salvaged files that are too many or too large, the oldest first."""
    found = sorted(
        path.parent.glob(f"{path.name}.salvaged-*[0-9]"),
        key=lambda file: int(file.name.rpartition("-")[2]),
        reverse=True,
    )
    size = 0
    for place, file in enumerate(found):
        parts = [one for one in (file, part(file, "-wal")) if one.exists()]
        size += sum(one.stat().st_size for one in parts)
        if place >= KEPT or size > KEPT_BYTES:
            for one in parts:
                one.unlink()
