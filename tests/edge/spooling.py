"""Spools for tests: real sealed frames, and what a file says once it is closed."""

import os
import random
import sqlite3
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from edge import spool_schema
from edge.entry import Entry, accepted, rejection
from edge.refusal import Reason, Refused
from edge.salvage import Progress, recover
from edge.seal import Sealed, Sealing
from edge.spool import Backlog, Held, Ranges, Spool, Stored, open_spool
from vitals.columns import Source
from vitals.frame import MAGIC, Header, Lane
from vitals.reading import Reading

NOW = 1_795_428_000_000
PRIVATE = X25519PrivateKey.generate()
PLENTY = 1 << 30
PAGE = 4096


def sealing(now_ms: int = NOW) -> Sealing:
    return Sealing("ward-1", PRIVATE.public_key(), now_ms)


def sealed(
    of: Sealing, seq: int, lane: int = 0, size: int = 1000, count: int = 5, at_ms: int = NOW
) -> Sealed:
    """Return a frame of exactly ``size`` bytes: a true header, and noise where the body is."""
    named = of.epoch
    header = msgspec.msgpack.encode(
        Header(1, named.edge, named.epoch, seq, named.key_id, lane, at_ms, at_ms, count)
    )
    data = MAGIC + len(header).to_bytes(2, "big") + header
    data += os.urandom(size - len(data))
    return Sealed(named.epoch, seq, lane, at_ms, at_ms, count, data)


def put(spool: Spool, of: Sealing, *frames: Sealed, now_ms: int | None = None) -> Stored:
    """Store frames made by `sealed`, counted as the committer does."""
    return spool.store(of.epoch, list(frames), counts_of(list(frames)), (), now_ms)


def entry(value: float = 78, device: str = "bed-1", at_ms: int = NOW) -> Entry:
    return accepted(Source(device), (Reading(0, value, at_ms, at_ms),), None)


def reject(size: int = 100, at_ms: int = NOW) -> Entry:
    refused = Refused(Reason.BAD_NUMBER, "heart_rate", "write a decimal number")
    raw = os.urandom(size)
    return Entry(None, (), (rejection(refused, "bed-1", raw, size, at_ms),), size)


def opened(path: Path, bytes_max: int = PLENTY, **changes: Any) -> Spool:
    return Spool(path, bytes_max, refuse_when_full=changes.pop("refuse", False), **changes)


def counts_of(frames: list[Sealed]) -> Counter[str]:
    counts: Counter[str] = Counter(frames_spooled=len(frames))
    for frame in frames:
        counts["rejects_spooled" if frame.lane == Lane.QUARANTINE else "readings_spooled"] += (
            frame.count
        )
    return counts


def store(spool: Spool, of: Sealing, *entries: Entry, now_ms: int | None = None) -> Stored:
    frames = of.seal(list(entries), NOW)
    return spool.store(of.epoch, frames, counts_of(frames), (), now_ms)


def fill(spool: Spool, of: Sealing, count: int, size: int = 0) -> list[Held]:
    """Store ``count`` frames of one reading each, or of ``size`` bytes of refused input."""
    held: list[Held] = []
    for number in range(count):
        one = reject(size) if size else entry(60 + number % 60, at_ms=NOW + number)
        held += store(spool, of, one).frames
    return held


def ack(spool: Spool, of: Sealing, *ranges: tuple[int, int]) -> Stored:
    return spool.store(of.epoch, [], Counter(), [Ranges(of.epoch.epoch, list(ranges))])


def handed(path: Path) -> list[Held]:
    """Return what the uplink would be handed, in its order."""
    backlog = Backlog(path)
    try:
        return backlog.after(0, 1 << 62, 1 << 40, 1 << 30)
    finally:
        backlog.close()


def seqs(path: Path) -> list[tuple[str, int]]:
    """Return (epoch, seq) of what the uplink would be handed, in its order."""
    return [(one.epoch, one.seq) for one in handed(path)]


def counters(path: Path, epoch: str | None = None) -> dict[str, int]:
    """Return the counters that are not 0, of one epoch or summed over all."""
    query = "SELECT name, sum(value) FROM counters WHERE epoch = ? OR ? GROUP BY name"
    return {name: value for name, value in ask(path, query, epoch, epoch is None) if value}


def ask(path: Path, query: str, *values: object) -> list[Any]:
    db = spool_schema.reader(path)
    try:
        return db.execute(query, values).fetchall()
    finally:
        db.close()


def tell(path: Path, text: str) -> None:
    """Change a closed file behind the spool's back."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.executescript(text)
    finally:
        db.close()


def filled(path: Path, count: int = 300, size: int = 300) -> Sealing:
    """Make a closed spool of ``count`` frames, each tenth of refused input, five acknowledged."""
    of = sealing()
    spool = opened(path)
    made = [sealed(of, seq, lane=2 if seq % 10 == 9 else 0, size=size) for seq in range(count)]
    for first in range(0, count, 100):
        put(spool, of, *made[first : first + 100])
    ack(spool, of, (0, 4))
    spool.close()
    return of


def spoil(path: Path, pages: list[int], noise: random.Random, first: int = 0) -> None:
    """Write a sector of noise over each of some pages (from 0)."""
    with path.open("r+b") as file:
        for page in pages:
            file.seek(page * PAGE + first)
            file.write(noise.randbytes(512))


def put_aside(path: Path, **changes: Any) -> tuple[Spool, Path]:
    spool, aside = open_spool(path, PLENTY, NOW, refuse_when_full=False, damaged=True, **changes)
    assert aside is not None
    return spool, aside


def recovered(aside: Path, into: Spool) -> Progress:
    return list(recover(aside, into, 0))[-1]


def leaves(path: Path) -> list[int]:
    """Return the pages (from 0) that hold frames."""
    data = path.read_bytes()
    return [
        number
        for number in range(1, len(data) // PAGE)
        if data[number * PAGE] == 0x0D and b"HSF1" in data[number * PAGE : (number + 1) * PAGE]
    ]
