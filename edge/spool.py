"""The spool: sealed frames on disk until the cloud has them, and the counts that prove it.

Law: what `store` returned from is on the disk (WAL, synchronous=FULL); frames and the counters
that speak of them change in one transaction; nothing but sealed frames and counts is written.
A damaged file never blocks a start: it is moved aside, whole, and reported.

Counters, per epoch: ``received_lines``, ``received_messages``, ``readings_spooled``,
``rejected``, ``rejects_spooled``, ``ignored_observations``, ``frames_spooled``,
``frames_acked``, ``readings_acked``, ``rejects_acked``, ``frames_dropped``,
``readings_dropped``, ``rejects_dropped``, ``refused_inputs`` (answered, never kept) and
``highest_seq``. At any moment, per epoch: spooled = acked + dropped + still in ``frames``.
"""

import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from edge.seal import Sealed
from vitals.epoch import WrappedEpoch
from vitals.frame import Lane

SCHEMA_VERSION: Final = 1
_SCHEMA: Final = """
CREATE TABLE epochs (
  epoch TEXT PRIMARY KEY, edge TEXT NOT NULL, key_id TEXT NOT NULL,
  wrapped BLOB NOT NULL, began_ms INTEGER NOT NULL
) STRICT;
CREATE TABLE frames (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
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
EPOCHS_KEPT: Final = 2000
"""Finished epochs whose counters stay for an audit: years of daily starts."""

CHECK_S_MAX: Final = 5.0
"""Of checking at start; a gateway must take data again soon after the power is back."""

_DAMAGE: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_CODE_MASK: Final = 0xFF  # the primary result code of an extended one (sqlite.org/rescode.html)


class SpoolFull(Exception):
    """The quota is reached and the policy is to refuse new input."""


class Held(NamedTuple):
    """One stored frame. ``id`` grows with every frame of every epoch."""

    id: int
    epoch: str
    seq: int
    data: bytes


class Ranges(NamedTuple):
    """Inclusive ranges of an epoch that the cloud has."""

    epoch: str
    ranges: Sequence[tuple[int, int]]


class Stored(NamedTuple):
    """What one transaction did."""

    frames: list[Held]
    frames_now: int
    bytes_now: int
    dropped: int


def is_damage(error: sqlite3.Error) -> bool:
    """Tell a file that is broken from one that is full, locked or on a failing disk."""
    return getattr(error, "sqlite_errorcode", 0) & _CODE_MASK in _DAMAGE


def _connect(path: Path) -> sqlite3.Connection:
    # One thread at a time uses it: the committer's worker.
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        db.execute("PRAGMA journal_size_limit=16777216")
        db.execute("PRAGMA wal_autocheckpoint=1000")
        _quick_check(db)
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            # A newer gateway wrote it: set aside whole, as a damaged one is.
            raise sqlite3.DatabaseError(f"schema {version} is not known here")  # noqa: TRY301
    except BaseException:
        db.close()
        raise
    return db


def _quick_check(db: sqlite3.Connection) -> None:
    """Look for damage, for a bounded time: a full spool on a card takes minutes to read."""
    ends = time.monotonic() + CHECK_S_MAX
    db.set_progress_handler(lambda: int(time.monotonic() > ends), 10_000)
    try:
        sound = db.execute("PRAGMA quick_check(1)").fetchone() == ("ok",)
    except sqlite3.OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) != sqlite3.SQLITE_INTERRUPT:
            raise
        sound = True  # so far; damage met later is handled when it is met
    finally:
        db.set_progress_handler(None, 0)
    if not sound:
        raise sqlite3.DatabaseError("quick_check found damage")


def set_aside(path: Path, now_ms: int) -> Path:
    """Move a damaged spool with its journal out of the way; return its new name."""
    aside = path.with_name(f"{path.name}.damaged-{now_ms}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    return aside


class Spool:
    """The file, open. Not for two threads at once, except `backlog`'s own connection."""

    def __init__(self, path: Path, bytes_max: int, *, refuse_when_full: bool) -> None:
        """Open or create; raise sqlite3.Error (see `is_damage`). Use `open_spool` to recover."""
        self.path = path
        self._bytes_max = bytes_max
        self._refuse = refuse_when_full
        self._db = _connect(path)
        self._frames, self._bytes = self._db.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM frames"
        ).fetchone()
        self._prune()

    def close(self) -> None:
        """Close the file; what was stored stays."""
        self._db.close()

    def _prune(self) -> None:
        stale = (
            "(SELECT epoch FROM epochs WHERE epoch NOT IN (SELECT epoch FROM frames)"
            " ORDER BY began_ms DESC LIMIT -1 OFFSET ?)"
        )
        for table in ("counters", "epochs"):
            self._db.execute(
                f"DELETE FROM {table} WHERE epoch IN {stale}",  # noqa: S608 - two fixed names
                (EPOCHS_KEPT,),
            )

    def begin(self, epoch: WrappedEpoch) -> None:
        """Store an epoch, durably, before its first frame."""
        self._db.execute(
            "INSERT OR IGNORE INTO epochs VALUES (?, ?, ?, ?, ?)",
            (epoch.epoch, epoch.edge, epoch.key_id, epoch.wrapped, epoch.began_ms),
        )

    def store(
        self,
        epoch: WrappedEpoch,
        frames: Sequence[Sealed],
        counts: Counter[str],
        acks: Iterable[Ranges] = (),
    ) -> Stored:
        """Store frames, counts of ``epoch`` and acknowledgements in one durable transaction.

        Raises SpoolFull (nothing of ``frames`` is kept; acknowledgements are not either: call
        again with them alone) or sqlite3.Error (nothing happened).
        """
        before = self._frames, self._bytes
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for acked in acks:
                self._delete_ranges(acked)
            dropped = self._make_room(sum(len(frame.data) for frame in frames))
            held = [self._insert(frame) for frame in frames]
            if frames:
                self.begin(epoch)
            self._count(epoch.epoch, counts)
            if frames:
                self._db.execute(
                    "INSERT INTO counters VALUES (?, 'highest_seq', ?)"
                    " ON CONFLICT DO UPDATE SET value = excluded.value",
                    (epoch.epoch, frames[-1].seq),
                )
            self._db.execute("COMMIT")
        except BaseException:
            self._frames, self._bytes = before
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return Stored(held, self._frames, self._bytes, dropped)

    def _insert(self, frame: Sealed) -> Held:
        size = len(frame.data)
        done = self._db.execute(
            "INSERT INTO frames (epoch, seq, lane, first_ms, last_ms, count, size, bytes)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                frame.epoch,
                frame.seq,
                frame.lane,
                frame.first_ms,
                frame.last_ms,
                frame.count,
                size,
                frame.data,
            ),
        )
        self._frames += 1
        self._bytes += size
        return Held(done.lastrowid or 0, frame.epoch, frame.seq, frame.data)

    def _count(self, epoch: str, counts: Counter[str]) -> None:
        self._db.executemany(
            "INSERT INTO counters VALUES (?, ?, ?)"
            " ON CONFLICT DO UPDATE SET value = value + excluded.value",
            [(epoch, name, value) for name, value in counts.items() if value],
        )

    def _delete_ranges(self, acked: Ranges) -> None:
        counts: Counter[str] = Counter()
        for low, high in acked.ranges:
            for lane, frames, rows, size in self._db.execute(
                "SELECT lane, count(*), sum(count), sum(size) FROM frames"
                " WHERE epoch = ? AND seq BETWEEN ? AND ? GROUP BY lane",
                (acked.epoch, low, high),
            ):
                self._gone(counts, "acked", lane, frames, rows, size)
            self._db.execute(
                "DELETE FROM frames WHERE epoch = ? AND seq BETWEEN ? AND ?",
                (acked.epoch, low, high),
            )
        self._count(acked.epoch, counts)

    def _gone(
        self, counts: Counter[str], how: str, lane: int, frames: int, rows: int, size: int
    ) -> None:
        counts[f"frames_{how}"] += frames
        counts[f"{'rejects' if lane == Lane.QUARANTINE else 'readings'}_{how}"] += rows
        self._frames -= frames
        self._bytes -= size

    def _make_room(self, wanted: int) -> int:
        """Drop the oldest frames until ``wanted`` bytes fit; return how many were dropped."""
        if not wanted or self._bytes + wanted <= self._bytes_max:
            return 0
        if self._refuse:
            raise SpoolFull
        dropped = 0
        doomed = self._db.execute("SELECT id, epoch, lane, count, size FROM frames ORDER BY id")
        rows = []
        space = self._bytes + wanted - self._bytes_max
        for row in doomed:
            rows.append(row)
            space -= row[4]
            if space <= 0:
                break
        doomed.close()
        for id_, epoch, lane, count, size in rows:
            counts: Counter[str] = Counter()
            self._db.execute("DELETE FROM frames WHERE id = ?", (id_,))
            self._gone(counts, "dropped", lane, 1, count, size)
            self._count(epoch, counts)
            dropped += 1
        return dropped


class Backlog:
    """A reader of stored frames, for the uplink: its own connection, read-only."""

    def __init__(self, path: Path) -> None:
        """Open the spool for reading; raise sqlite3.Error."""
        self._db = sqlite3.connect(
            f"file:{path}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )

    def close(self) -> None:
        """Close it."""
        self._db.close()

    def last_id(self) -> int:
        """Return the id of the newest frame, or 0."""
        return int(self._db.execute("SELECT coalesce(max(id), 0) FROM frames").fetchone()[0])

    def epochs(self) -> list[WrappedEpoch]:
        """Return the epochs that have frames, oldest first."""
        rows = self._db.execute(
            "SELECT edge, epoch, key_id, wrapped, began_ms FROM epochs"
            " WHERE epoch IN (SELECT DISTINCT epoch FROM frames) ORDER BY began_ms"
        )
        return [WrappedEpoch(*row) for row in rows]

    def lowest(self) -> dict[str, int]:
        """Return the lowest stored sequence number of each epoch that has frames."""
        return dict(self._db.execute("SELECT epoch, min(seq) FROM frames GROUP BY epoch"))

    def after(self, id_: int, last_id: int, bytes_max: int, count_max: int) -> list[Held]:
        """Return frames of ids in (``id_``, ``last_id``], oldest first; at least one if any."""
        found: list[Held] = []
        size = 0
        for row in self._db.execute(
            "SELECT id, epoch, seq, bytes FROM frames WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
            (id_, last_id, count_max),
        ):
            held = Held(*row)
            size += len(held.data)
            if found and size > bytes_max:
                break
            found.append(held)
        return found


def open_spool(
    path: Path, bytes_max: int, now_ms: int, *, refuse_when_full: bool
) -> tuple[Spool, Path | None]:
    """Return the spool, and where a damaged one was set aside (None: it was sound)."""
    try:
        return Spool(path, bytes_max, refuse_when_full=refuse_when_full), None
    except sqlite3.OperationalError as error:
        if not is_damage(error):
            raise
    except sqlite3.DatabaseError:
        pass
    aside = set_aside(path, now_ms)
    return Spool(path, bytes_max, refuse_when_full=refuse_when_full), aside
