"""Counts per device on disk, without the devices' names.

Law: a name may be anything that a device or a person typed, so it never reaches the disk: a row's
key is a salted hash, and who knows a name can find its row, nobody the name of a row but by
guessing. The salt lies in the same file. Bounded: the least recently heard go first.
"""

import hashlib
import sqlite3
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

DEVICES_MAX: Final = 20_000
"""Rows kept, as many as `edge.devices` remembers: made-up names push out the oldest."""

SLACK: Final = 1_000
"""Rows over the bound before the oldest are looked for, which reads them all."""

HASH_BYTES: Final = 8
"""16 hex digits: two of 20,000 devices share one once in 90 billion files."""


class DeviceCounts(NamedTuple):
    """What came from one device since the last call; `last_ms` is the time of the newest."""

    inputs: int
    readings: int
    rejects: int
    last_ms: int


def hashed(salt: bytes, name: str) -> str:
    """Return the key of a device's row: 16 hex digits of BLAKE2b under the file's salt."""
    data = name.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=HASH_BYTES, salt=salt).hexdigest()


def write(db: sqlite3.Connection, heard: Iterable[tuple[str, DeviceCounts]]) -> None:
    """Add counts to the rows of named devices, within the caller's transaction."""
    salt = bytes(db.execute("SELECT value FROM about WHERE name = 'salt'").fetchone()[0])
    db.executemany(
        "INSERT INTO devices VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
        " inputs = inputs + excluded.inputs, readings = readings + excluded.readings,"
        " rejects = rejects + excluded.rejects, last_ms = max(last_ms, excluded.last_ms)",
        ((hashed(salt, name), *counts) for name, counts in heard),
    )
    count = db.execute("SELECT count(*) FROM devices").fetchone()[0]
    if count > DEVICES_MAX + SLACK:
        db.execute(
            "DELETE FROM devices WHERE device IN"
            " (SELECT device FROM devices ORDER BY last_ms LIMIT ?)",
            (count - DEVICES_MAX,),
        )


def read(db: sqlite3.Connection, names: Mapping[str, str] | None = None) -> dict[str, DeviceCounts]:
    """Return counts by hash, or of given names (name -> any label) by label."""
    rows = {row[0]: DeviceCounts(*row[1:]) for row in db.execute("SELECT * FROM devices")}
    if names is None:
        return rows
    salt = bytes(db.execute("SELECT value FROM about WHERE name = 'salt'").fetchone()[0])
    keys = {label: hashed(salt, name) for name, label in names.items()}
    return {label: rows[key] for label, key in keys.items() if key in rows}
