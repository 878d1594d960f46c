"""Damaged files put aside: how they are named, found again, and where their frames will come back.

Law: a file is moved whole, with its journal, and nothing is ever written over. The one that takes
its place leaves room below its own ids for what will be salvaged, and hides that room until all of
it is there: a frame that turned up below the floor of an open session would be taken for one the
cloud already has.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final

from edge.spool_schema import about, garbled, part, reader
from healthsync.runtime import whole

IDS_SPARE: Final = 1_000
"""Room for salvaged frames whose own id is damaged."""

_IDS_A_MS: Final = 1000
"""Ids grow by far less a millisecond: the time of setting aside bounds those of an unreadable
file."""


def pending(path: Path) -> list[Path]:
    """Return the files put aside beside ``path`` and not salvaged yet, oldest first."""
    found = [
        other
        for other in path.parent.glob(f"{path.name}.damaged-*")
        if other.name.rpartition("-")[2].isdigit()
    ]
    return sorted(found, key=_moment)


def _moment(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def set_aside(path: Path, now_ms: int) -> Path:
    """Move a damaged spool with its journal out of the way; return its new name.

    Raises OSError when the directory cannot be written.
    """
    while (aside := part(path, f".damaged-{now_ms}")).exists() or part(aside, "-wal").exists():
        now_ms += 1  # the clock may have been set back: nothing is ever written over
    # After a crash in between, `connect` finds a journal without its database and does the rest.
    for suffix in ("", "-wal"):
        if part(path, suffix).exists():
            part(path, suffix).rename(part(aside, suffix))
    part(path, "-shm").unlink(missing_ok=True)  # an index of the journal, made anew by readers
    if not aside.exists():
        aside.touch()
    whole.sync_folder(path.parent)
    return aside


def ids_of(aside: Path) -> int:
    """Return an id that no frame of a file put aside has passed; 0 when it holds none."""
    try:
        with garbled(), closing(reader(aside)) as db:
            return int(db.execute("SELECT coalesce(max(id), 0) FROM frames").fetchone()[0])
    except sqlite3.Error:
        return (_moment(aside) + 1) * _IDS_A_MS


def reserve(db: sqlite3.Connection, path: Path, last_id: int) -> int:
    """Make room below new ids for the frames of files put aside; return the last id in use.

    Until all of them are salvaged, readers see no frame below: `edge.backlog` has the reason.
    Called when a file is opened for the first time, before any frame of the running epoch.
    """
    room = [ids_of(aside) for aside in pending(path)]
    hidden = about(db, "hidden")
    if hidden and not room:  # salvaged, and the process ended before it could say so
        db.execute("DELETE FROM about WHERE name = 'hidden' OR name LIKE 'offset %'")
    elif any(room) and not hidden:
        last_id += sum(room) + IDS_SPARE
        db.execute("BEGIN IMMEDIATE")
        db.execute("INSERT INTO about VALUES ('hidden', 1)")
        db.execute("UPDATE about SET value = ? WHERE name = 'base'", (last_id + 1,))
        db.execute("COMMIT")
    return last_id
