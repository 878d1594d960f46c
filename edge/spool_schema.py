"""The spool's file: its tables, how it is opened, upgraded and judged, and how it is put aside.

Law: opening costs the same however much is stored. A file of an older schema is upgraded in place,
in constant time, and never put aside for its age; a shipped migration is never edited. What is
damaged, foreign or of a newer gateway raises an error for which `is_damage` is true; everything
else (full, read-only, locked) is the disk's state and may pass.

Sources: sqlite.org/pragma.html, sqlite.org/wal.html, sqlite.org/rescode.html.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from edge import epoch_file, wal
from edge.pages import Row

SCHEMA_VERSION: Final = 3
_TABLES_1: Final = """
CREATE TABLE epochs (
  epoch TEXT PRIMARY KEY, edge TEXT NOT NULL, key_id TEXT NOT NULL,
  wrapped BLOB NOT NULL, began_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE frames (
  id INTEGER PRIMARY KEY,
  epoch TEXT NOT NULL, seq INTEGER NOT NULL, lane INTEGER NOT NULL,
  first_ms INTEGER NOT NULL, last_ms INTEGER NOT NULL,
  count INTEGER NOT NULL, size INTEGER NOT NULL, bytes BLOB NOT NULL,
  UNIQUE (epoch, seq)
) STRICT;
CREATE TABLE counters (
  epoch TEXT NOT NULL, name TEXT NOT NULL, value INTEGER NOT NULL,
  PRIMARY KEY (epoch, name)
) STRICT, WITHOUT ROWID;
"""
# Adding a nullable column and empty tables touches no stored frame: constant time.
_TO_2: Final = """
ALTER TABLE frames ADD COLUMN crc INTEGER;
ALTER TABLE frames ADD COLUMN covers_from INTEGER;
ALTER TABLE frames ADD COLUMN covers_to INTEGER;
CREATE TABLE levels (
  epoch TEXT NOT NULL, lane INTEGER NOT NULL,
  frames INTEGER NOT NULL, rows INTEGER NOT NULL, bytes INTEGER NOT NULL,
  PRIMARY KEY (epoch, lane)
) STRICT, WITHOUT ROWID;
CREATE TABLE unsound (
  id INTEGER PRIMARY KEY, epoch TEXT NOT NULL, seq INTEGER NOT NULL, bytes BLOB NOT NULL
) STRICT;
CREATE TABLE devices (
  device TEXT PRIMARY KEY, inputs INTEGER NOT NULL, readings INTEGER NOT NULL,
  rejects INTEGER NOT NULL, last_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE about (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO about VALUES ('salt', randomblob(16));
"""
# One empty table: constant time.
_TO_3: Final = """
CREATE TABLE acked (
  epoch TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL,
  PRIMARY KEY (epoch, first)
) STRICT, WITHOUT ROWID;
"""
# The oldest refused input is found without passing over readings. Only in files made new:
# building it in an upgraded one would read all of it.
_NEW: Final = """
CREATE INDEX refused ON frames (lane) WHERE lane = 2;
INSERT INTO about VALUES ('base', 1);
"""

_SHAPE: Final = {
    "epochs": "epoch, edge, key_id, wrapped, began_ms",
    "frames": "id, epoch, seq, lane, first_ms, last_ms, count, size, bytes,"
    " crc, covers_from, covers_to",
    "counters": "epoch, name, value",
    "levels": "epoch, lane, frames, rows, bytes",
    "unsound": "id, epoch, seq, bytes",
    "devices": "device, inputs, readings, rejects, last_ms",
    "about": "name, value",
    "acked": "epoch, first, last",
}

CHECK_S_MAX: Final = 0.5
"""Of looking for damage after an unclean stop; a gateway must take data again at once, and what
is not found now is handled when it is met."""

JOURNAL_BYTES_MAX: Final = 16 * 1024 * 1024
"""The journal is cut back to this after a checkpoint; a long reader may let it grow for a while."""

CACHE_KIB: Final = 512
"""Of pages kept in memory; a commit touches seven. SQLite's 2 MB would be filled and never read."""

BUSY_S_MAX: Final = 10.0
"""Wait for another process that holds the file, such as a checkpoint by a technician's sqlite3."""

WAL_HEADER_BYTES: Final = 32
PAGE_BYTES_MIN: Final = 512
_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_CODE_MASK: Final = 0xFF  # the primary result code of an extended one (sqlite.org/rescode.html)


def is_damage(error: sqlite3.Error) -> bool:
    """Tell a file that is broken from one that is full, locked or on a failing disk."""
    return getattr(error, "sqlite_errorcode", 0) & _CODE_MASK in _DAMAGE


def damage(text: str) -> sqlite3.DatabaseError:
    """Return an error for which `is_damage` is true: the file cannot be used as it is."""
    error = sqlite3.DatabaseError(text)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    error.sqlite_errorname = "SQLITE_CORRUPT"
    return error


@contextmanager
def garbled() -> Iterator[None]:
    """Turn what Python raises when SQLite's own message quotes damaged text into damage."""
    try:
        yield
    except UnicodeDecodeError as error:
        raise damage("the schema is damaged") from error


def part(path: Path, suffix: str) -> Path:
    """Return a companion of the database file, such as its journal ``-wal``."""
    return path.with_name(path.name + suffix)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def connect(path: Path) -> tuple[sqlite3.Connection, list[Row]]:
    """Open or create the spool for writing; raise sqlite3.Error: see `is_damage`.

    Beside the connection: frames that a hole in the journal keeps from SQLite. They are nowhere
    else, and the next transaction writes over them.
    """
    journal = _size(part(path, "-wal"))
    _refuse_stub(path)
    # One thread at a time uses it: the committer's worker.
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_S_MAX)
    db.text_factory = _text
    behind: list[Row] = []
    try:
        with garbled():
            _configure(db)
            if journal:
                # A clean stop leaves no journal: only then is there reason to look.
                db.execute("SELECT count(*) FROM sqlite_master").fetchone()  # reads the journal in
                behind = wal.behind_hole(path)
                _quick_check(db)
            _adopt(db)
    except BaseException:
        db.close()
        raise
    return db, behind


def _refuse_stub(path: Path) -> None:
    """Keep SQLite from what it would take for a new database: it would delete the journal."""
    size = _size(path)
    if 0 < size < PAGE_BYTES_MIN:
        raise damage("the file is too short for a database")
    if not size and _size(part(path, "-wal")) > WAL_HEADER_BYTES:
        raise damage("the database is empty and its journal is not")


def _configure(db: sqlite3.Connection) -> None:
    db.execute("PRAGMA auto_vacuum=INCREMENTAL")  # of a file without tables; ignored later
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute(f"PRAGMA journal_size_limit={JOURNAL_BYTES_MAX}")
    db.execute("PRAGMA wal_autocheckpoint=1000")
    db.execute(f"PRAGMA cache_size=-{CACHE_KIB}")
    # Frames are sealed: overwriting deleted ones protects nobody and wears the card.
    db.execute("PRAGMA secure_delete=OFF")


def _adopt(db: sqlite3.Connection) -> None:
    version = db.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise damage(f"schema {version} is of a newer gateway")
    if version == 0:
        if db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            raise damage("the file is another program's database")
        _script(db, _TABLES_1 + _TO_2 + _TO_3 + _NEW)
    elif version == 1:
        # Frames stored before are not in `levels` yet; `Spool` counts them slice by slice.
        mark = (
            "INSERT INTO about VALUES ('base', 1), ('uncounted_from', 0),"
            " ('uncounted_to', (SELECT coalesce(max(id), 0) FROM frames));"
        )
        _script(db, _TO_2 + _TO_3 + mark)
    elif version == 2:
        _script(db, _TO_3)
    check_shape(db)


def _script(db: sqlite3.Connection, text: str) -> None:
    try:
        db.executescript(f"BEGIN IMMEDIATE; {text} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def check_shape(db: sqlite3.Connection) -> None:
    """Raise (see `is_damage`) unless every table is as it should be; reads no row but two."""
    try:
        for table, columns in _SHAPE.items():
            db.execute(f"SELECT {columns} FROM {table} LIMIT 0")  # noqa: S608 - fixed names
        # Both ends of the table: cheap, and what a cut file has lost.
        db.execute("SELECT min(id) FROM frames").fetchone()
        db.execute("SELECT max(id) FROM frames").fetchone()
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_ERROR:
            raise damage("a table of the spool is missing or has another shape") from error
        raise


def _quick_check(db: sqlite3.Connection) -> None:
    """Look for damage, for a bounded time: a full spool on a card takes minutes to read."""
    over = threading.Event()

    def stop() -> None:
        over.set()
        db.interrupt()

    # A progress handler would not do: before SQLite 3.41 the check is one step, however long.
    timer = threading.Timer(CHECK_S_MAX, stop)
    timer.start()
    try:
        sound = db.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_INTERRUPT:
            raise
        sound = True
    finally:
        timer.cancel()
        timer.join()
    # What is said after the interruption is about pages that were not looked at.
    if not sound and not over.is_set():
        raise damage("quick_check found damage")


def reader(path: Path) -> sqlite3.Connection:
    """Open a spool, running or put aside, for reading alone; raise sqlite3.Error."""
    _refuse_stub(path)
    db = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_S_MAX,
    )
    db.text_factory = _text
    return db


def _text(data: bytes) -> str:
    """Read text that may be damaged: one bad letter in one row is no reason to read no other."""
    return data.decode("utf-8", "replace")


def about(db: sqlite3.Connection, name: str) -> int | None:
    """Return a number that the file says of itself, or None."""
    row = db.execute("SELECT value FROM about WHERE name = ?", (name,)).fetchone()
    return None if row is None else int(row[0])


def epochs_path(path: Path) -> Path:
    """Return the second place where wrapped epoch keys are kept."""
    return part(path, epoch_file.SUFFIX)
