"""Reads what is not Kafka for the audit: the gateways' spools, Redis, the archive.

Law: read-only everywhere. A spool is opened with ``mode=ro``; a running gateway is not disturbed
(WAL: readers never block the writer).
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec
import redis

from cloud.archive.errors import ArchiveError
from cloud.archive.reader import Archive
from cloud.audit.errors import Unreachable
from cloud.audit.evidence import EpochName, Held, Part, Spooled
from cloud.audit.since import FrameName
from cloud.audit.topics import Counter
from cloud.audit.trace import InSpool
from cloud.settings import Redis, read_password
from vitals import topics
from vitals.interval import IntervalSet
from vitals.tally import Tally

PROJECTED: Final = (topics.SAMPLES, topics.ALERTS, topics.IDENTITY)
REDIS_S_MAX: Final = 5.0

WAITING_NAMED_MAX: Final = 200_000
"""Stored frames whose numbers are read, a tenth of a second each round; with more, only their
count is."""


def read_spool(edge: str, path: Path) -> dict[EpochName, Spooled]:
    """Return the counters of every epoch in a spool, in one consistent view."""
    known = {field.name for field in msgspec.structs.fields(Spooled) if field.type is int}
    found: dict[EpochName, Spooled] = {}
    uri = f"file:{quote(str(path))}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5)) as db:
            db.execute("BEGIN")
            for epoch, name, value in db.execute("SELECT epoch, name, value FROM counters"):
                entry = found.setdefault(EpochName(edge, epoch), Spooled())
                if name in known:
                    setattr(entry, name, value)
                elif ":" in name:
                    entry.split[name] = value
            _stored(db, edge, found)
    except sqlite3.Error as error:
        raise Unreachable(f"spool of {edge}", type(error).__name__) from error
    return found


def find_in_spool(path: Path, name: FrameName) -> InSpool:
    """Return what a spool says; raises Unreachable."""
    uri, key = f"file:{quote(str(path))}?mode=ro", (name.epoch.epoch, name.seq)
    try:
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5)) as db:
            db.execute("BEGIN")
            row = db.execute("SELECT count FROM frames WHERE epoch = ? AND seq = ?", key).fetchone()
            if row:
                return InSpool("stored", row[0])
            for state, query in (
                (
                    "acknowledged",
                    "SELECT 1 FROM acked WHERE epoch = ?1 AND ?2 BETWEEN first AND last",
                ),
                ("unsound", "SELECT 1 FROM unsound WHERE epoch = ?1 AND seq = ?2"),
            ):
                if db.execute(query, key).fetchone():
                    return InSpool(state)
    except sqlite3.Error as error:
        raise Unreachable(f"spool of {name.epoch.edge}", type(error).__name__) from error
    return InSpool("not here")


def _stored(db: sqlite3.Connection, edge: str, found: dict[EpochName, Spooled]) -> None:
    """Add what lies in the spool, what was acknowledged, and when each epoch began."""
    total = 0
    for epoch, count in db.execute("SELECT epoch, count(*) FROM frames GROUP BY epoch"):
        found.setdefault(EpochName(edge, epoch), Spooled()).frames_waiting = count
        total += count
    if total <= WAITING_NAMED_MAX:
        for entry in found.values():
            entry.waiting = IntervalSet()
        for epoch, seq in db.execute("SELECT epoch, seq FROM frames ORDER BY epoch, seq"):
            waiting = found[EpochName(edge, epoch)].waiting
            if waiting is not None:
                waiting.add(seq)
    # A spool that no gateway of today has opened yet has no such table.
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'acked'").fetchone():
        for epoch, first, last in db.execute("SELECT epoch, first, last FROM acked"):
            found.setdefault(EpochName(edge, epoch), Spooled()).acked.add_range(first, last)
    for epoch, began_ms in db.execute("SELECT epoch, began_ms FROM epochs"):
        if (name := EpochName(edge, epoch)) in found:
            found[name].began_ms = began_ms


def read_archive(archive: Archive) -> dict[EpochName, Held]:
    """Return what the newest files say of every epoch; raises Unreachable."""
    found: dict[EpochName, Held] = {}
    try:
        entries = archive.entries()
    except ArchiveError as error:
        raise Unreachable("archive", str(error)) from error
    for partition, ledger in entries.items():
        for entry in ledger:
            held = found.setdefault(EpochName(entry.edge, entry.epoch), Held())
            held.parts[partition] = Part(
                IntervalSet(entry.ranges, entry.floor),
                Tally(entry.records, entry.readings, entry.sums or (0, 0, 0)),
                entry.again,
                summed=entry.sums is not None,
            )
    return found


def connect_redis(settings: Redis) -> Any:
    """Return a client; nothing is called yet."""
    return redis.Redis(
        host=settings.host,
        port=settings.port,
        ssl=True,
        ssl_ca_certs=str(settings.ca),
        username=settings.user,
        password=read_password(settings.password_file),
        socket_timeout=REDIS_S_MAX,
        socket_connect_timeout=REDIS_S_MAX,
        protocol=2,
    )


def project_lag(client: Any, count: Counter) -> dict[str, int]:
    """Return topic -> records project has not written yet; raises Unreachable.

    ``offsets:project`` holds ``topic/partition`` -> next offset, written with the data.
    """
    try:
        stored = client.hgetall("offsets:project")
    except redis.RedisError as error:
        raise Unreachable("redis", type(error).__name__) from error
    offsets = {key.decode(): int(value) for key, value in stored.items()}
    return {
        topic.name: count(
            topic, {p: offsets.get(f"{topic.name}/{p}", 0) for p in range(topic.partitions)}
        )
        for topic in PROJECTED
    }
