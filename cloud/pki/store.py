"""What the authority remembers: one SQLite file, used by command and service at once.

Law: every change is one transaction that takes the write lock at its beginning, with
synchronous=FULL: what was answered is on the disk.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

BUSY_S: Final = 5.0
FAILURES_KEPT: Final = 10_000

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS tokens (
  hash BLOB PRIMARY KEY, name TEXT NOT NULL, made_ms INTEGER NOT NULL,
  expires_ms INTEGER NOT NULL, used_ms INTEGER, csr BLOB, serial TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS issued (
  serial TEXT PRIMARY KEY, name TEXT NOT NULL, not_before_ms INTEGER NOT NULL,
  not_after_ms INTEGER NOT NULL, der BLOB NOT NULL, csr BLOB NOT NULL, how TEXT NOT NULL,
  at_ms INTEGER NOT NULL, nth INTEGER NOT NULL, revoked_ms INTEGER);
CREATE INDEX IF NOT EXISTS issued_name ON issued (name, nth);
CREATE TABLE IF NOT EXISTS pending (
  name TEXT PRIMARY KEY, csr BLOB NOT NULL, fingerprint TEXT NOT NULL, old_serial TEXT NOT NULL,
  asked_ms INTEGER NOT NULL, approved_ms INTEGER) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failures (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, address TEXT NOT NULL, at_ms INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS failures_who ON failures (name, address, at_ms);
CREATE TABLE IF NOT EXISTS lists (
  number INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, revoked INTEGER NOT NULL, pem BLOB NOT NULL);
"""


class Token(NamedTuple):
    """A token, without itself."""

    name: str
    expires_ms: int
    used_ms: int | None
    csr: bytes | None
    serial: str | None


class Issued(NamedTuple):
    """A certificate that was given out."""

    serial: str
    """Lower-case hex."""
    name: str
    not_before_ms: int
    not_after_ms: int
    der: bytes
    csr: bytes
    how: str
    revoked_ms: int | None


class Waiter(NamedTuple):
    """A request that waits for an operator."""

    name: str
    csr: bytes
    fingerprint: str
    old_serial: str
    asked_ms: int
    approved_ms: int | None


_ISSUED: Final = "serial, name, not_before_ms, not_after_ms, der, csr, how, revoked_ms"
_WAITER: Final = "name, csr, fingerprint, old_serial, asked_ms, approved_ms"


class Change:
    """One transaction; made by `Store.change`."""

    def __init__(self, db: sqlite3.Connection) -> None:
        """Take a connection inside a transaction."""
        self._db = db

    def add_token(self, digest: bytes, name: str, now_ms: int, expires_ms: int) -> None:
        """Remember a token by its hash."""
        self._db.execute(
            "INSERT INTO tokens (hash, name, made_ms, expires_ms) VALUES (?, ?, ?, ?)",
            (digest, name, now_ms, expires_ms),
        )

    def token(self, digest: bytes) -> Token | None:
        """Return a token by its hash."""
        row = self._db.execute(
            "SELECT name, expires_ms, used_ms, csr, serial FROM tokens WHERE hash = ?", (digest,)
        ).fetchone()
        return None if row is None else Token(*row)

    def spend(self, digest: bytes, now_ms: int, csr: bytes, serial: str) -> None:
        """Mark a token as used."""
        self._db.execute(
            "UPDATE tokens SET used_ms = ?, csr = ?, serial = ? WHERE hash = ?",
            (now_ms, csr, serial, digest),
        )

    def record(self, one: Issued, now_ms: int) -> None:
        """Remember a certificate; it is the newest of its name."""
        self._db.execute(
            "INSERT INTO issued (serial, name, not_before_ms, not_after_ms, der, csr, how, at_ms,"
            " nth) SELECT ?, ?, ?, ?, ?, ?, ?, ?, coalesce(max(nth), 0) + 1 FROM issued"
            " WHERE name = ?",
            (*one[:7], now_ms, one.name),
        )

    def issued(self, serial: str) -> Issued | None:
        """Return a certificate by its number."""
        row = self._db.execute(
            f"SELECT {_ISSUED} FROM issued WHERE serial = ?",  # noqa: S608 - fixed text
            (serial,),
        ).fetchone()
        return None if row is None else Issued(*row)

    def of(self, name: str) -> list[Issued]:
        """Return every certificate of a gateway, the newest first."""
        rows = self._db.execute(
            f"SELECT {_ISSUED} FROM issued WHERE name = ? ORDER BY nth DESC",  # noqa: S608
            (name,),
        )
        return [Issued(*row) for row in rows]

    def issued_since(self, name: str, since_ms: int) -> int:
        """Return how many certificates a gateway was given since."""
        row = self._db.execute(
            "SELECT count(*) FROM issued WHERE name = ? AND at_ms > ?", (name, since_ms)
        ).fetchone()
        return int(row[0])

    def all_issued(self) -> list[Issued]:
        """Return every certificate, by gateway, the newest first."""
        rows = self._db.execute(f"SELECT {_ISSUED} FROM issued ORDER BY name, nth DESC")  # noqa: S608
        return [Issued(*row) for row in rows]

    def revoke(self, serial: str, now_ms: int) -> bool:
        """Revoke one; return False if it was or is not there."""
        done = self._db.execute(
            "UPDATE issued SET revoked_ms = ? WHERE serial = ? AND revoked_ms IS NULL",
            (now_ms, serial),
        )
        return done.rowcount == 1

    def forget(self, name: str) -> None:
        """Drop unused tokens and what waits of a gateway."""
        self._db.execute("DELETE FROM tokens WHERE name = ? AND used_ms IS NULL", (name,))
        self._db.execute("DELETE FROM pending WHERE name = ?", (name,))

    def revoked(self, after_ms: int) -> list[Issued]:
        """Return what is revoked and does not end before ``after_ms``."""
        rows = self._db.execute(
            f"SELECT {_ISSUED} FROM issued WHERE revoked_ms IS NOT NULL AND not_after_ms > ?"  # noqa: S608
            " ORDER BY serial",
            (after_ms,),
        )
        return [Issued(*row) for row in rows]

    def waiter(self, name: str) -> Waiter | None:
        """Return what waits of a gateway."""
        row = self._db.execute(
            f"SELECT {_WAITER} FROM pending WHERE name = ?",  # noqa: S608 - fixed text
            (name,),
        ).fetchone()
        return None if row is None else Waiter(*row)

    def waiters(self) -> list[Waiter]:
        """Return all that waits, the oldest first."""
        rows = self._db.execute(f"SELECT {_WAITER} FROM pending ORDER BY asked_ms, name")  # noqa: S608
        return [Waiter(*row) for row in rows]

    def wait(self, one: Waiter) -> None:
        """Remember a request in place of an older one of its gateway."""
        self._db.execute("INSERT OR REPLACE INTO pending VALUES (?, ?, ?, ?, ?, ?)", one)

    def served(self, name: str) -> None:
        """Drop a request that got its certificate."""
        self._db.execute("DELETE FROM pending WHERE name = ?", (name,))

    def failed(self, name: str, address: str, now_ms: int) -> None:
        """Count a failure."""
        self._db.execute(
            "INSERT INTO failures (name, address, at_ms) VALUES (?, ?, ?)", (name, address, now_ms)
        )
        self._db.execute(
            "DELETE FROM failures WHERE id <= (SELECT max(id) FROM failures) - ?", (FAILURES_KEPT,)
        )

    def failures(self, name: str, address: str, since_ms: int) -> tuple[int, int]:
        """Return how many there were since, and when the first of them was."""
        row = self._db.execute(
            "SELECT count(*), coalesce(min(at_ms), 0) FROM failures"
            " WHERE name = ? AND address = ? AND at_ms > ?",
            (name, address, since_ms),
        ).fetchone()
        return int(row[0]), int(row[1])

    def last_list(self) -> tuple[int, int, int, bytes] | None:
        """Return number, time, how many were revoked, and PEM of the newest list."""
        row = self._db.execute(
            "SELECT number, at_ms, revoked, pem FROM lists ORDER BY number DESC LIMIT 1"
        ).fetchone()
        return None if row is None else (row[0], row[1], row[2], row[3])

    def keep_list(self, number: int, now_ms: int, revoked: int, pem: bytes) -> None:
        """Remember a list; older ones are not needed."""
        self._db.execute("DELETE FROM lists")
        self._db.execute("INSERT INTO lists VALUES (?, ?, ?, ?)", (number, now_ms, revoked, pem))


class Store:
    """The file. One connection a call: calls are few, and come from several threads."""

    def __init__(self, path: Path) -> None:
        """Make the file if it is not there; raise sqlite3.Error or OSError."""
        self._path = path
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.close(descriptor)
        with contextlib.closing(self._connect()) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(_SCHEMA)

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
        db.execute("PRAGMA synchronous = FULL")
        return db

    @contextlib.contextmanager
    def change(self) -> Iterator[Change]:
        """One transaction: committed at the end, nothing of it left after an error."""
        with contextlib.closing(self._connect()) as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield Change(db)
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")
