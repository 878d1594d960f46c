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
from cloud.audit.evidence import EpochName, Held, Spooled
from cloud.audit.topics import Counter
from cloud.settings import Redis, read_password
from vitals import topics
from vitals.interval import IntervalSet

PROJECTED: Final = (topics.SAMPLES, topics.ALERTS, topics.IDENTITY)
REDIS_S_MAX: Final = 5.0


def read_spool(edge: str, path: Path) -> dict[EpochName, Spooled]:
    """Return the counters of every epoch in a spool, in one consistent view."""
    known = {field.name for field in msgspec.structs.fields(Spooled)}
    found: dict[EpochName, Spooled] = {}
    uri = f"file:{quote(str(path))}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None, timeout=5)) as db:
            db.execute("BEGIN")
            for epoch, name, value in db.execute("SELECT epoch, name, value FROM counters"):
                entry = found.setdefault(EpochName(edge, epoch), Spooled())
                if name in known:
                    setattr(entry, name, value)
            for epoch, count in db.execute("SELECT epoch, count(*) FROM frames GROUP BY epoch"):
                found.setdefault(EpochName(edge, epoch), Spooled()).frames_waiting = count
    except sqlite3.Error as error:
        raise Unreachable(f"spool of {edge}", type(error).__name__) from error
    return found


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
            held.readings += entry.readings
            held.seen[partition] = IntervalSet(entry.ranges, entry.floor)
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
