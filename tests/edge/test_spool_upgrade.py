"""A spool of the first schema goes on being used: nothing is put aside for its age."""

import sqlite3
import zlib
from collections import Counter
from pathlib import Path

import pytest

from edge import spool_read, spool_schema, spool_upkeep
from edge.pages import Row, sound
from edge.remains import Remains
from edge.seal import Sealing
from edge.spool import open_spool
from tests.edge.spooling import (
    NOW,
    PLENTY,
    ack,
    ask,
    counters,
    opened,
    put,
    sealed,
    sealing,
    seqs,
    tell,
)

# As it was shipped: AUTOINCREMENT, no checksum, no levels. Never edited.
SCHEMA_1 = """
PRAGMA journal_mode=WAL;
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
PRAGMA user_version=1;
"""


def old_spool(path: Path, of: Sealing, count: int) -> None:
    db = sqlite3.connect(path, isolation_level=None)
    db.executescript(SCHEMA_1)
    epoch = of.epoch
    db.execute(
        "INSERT INTO epochs VALUES (?, ?, ?, ?, ?)",
        (epoch.epoch, epoch.edge, epoch.key_id, epoch.wrapped, epoch.began_ms),
    )
    for seq in range(count):
        frame = sealed(of, seq, lane=2 if seq % 5 == 4 else 0)
        db.execute(
            "INSERT INTO frames (epoch, seq, lane, first_ms, last_ms, count, size, bytes)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (*(epoch.epoch, seq, frame.lane, NOW, NOW, 5, 1000), frame.data),
        )
    rejects = count // 5
    for name, value in (
        ("frames_spooled", count + 2),
        ("frames_acked", 2),
        ("readings_spooled", 5 * (count - rejects) + 10),
        ("readings_acked", 10),
        ("rejects_spooled", 5 * rejects),
    ):
        db.execute("INSERT INTO counters VALUES (?, ?, ?)", (epoch.epoch, name, value))
    db.close()


def test_an_old_file_is_upgraded_where_it_lies(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    old_spool(path, of, 10)
    spool, aside = open_spool(path, PLENTY, NOW, refuse_when_full=False)
    assert aside is None
    assert spool.store(of.epoch, [], Counter())[1:3] == (10, 10_000)
    ack(spool, of, (0, 3))
    stored = put(spool, of, sealed(of, 10))
    assert stored.frames[0].id == 11
    assert (stored.frames_now, stored.bytes_now) == (7, 7000)
    spool.close()
    assert ask(path, "SELECT name FROM about ORDER BY name") == [("base",), ("salt",)]
    assert spool_read.verify(path) == []
    assert ask(path, "PRAGMA user_version") == [(3,)]
    assert len(seqs(path)) == 7
    assert counters(path)["frames_acked"] == 6
    assert ask(path, "SELECT first, last FROM acked") == [(0, 3)]


def test_a_file_of_the_second_schema_gains_the_acknowledged_ranges(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, *(sealed(of, seq) for seq in range(6)))
    ack(spool, of, (0, 1))
    spool.close()
    tell(path, "DROP TABLE acked; PRAGMA user_version=2;")  # as it was shipped
    root = ask(path, "SELECT rootpage FROM sqlite_master WHERE name = 'frames'")
    spool, aside = open_spool(path, PLENTY, NOW, refuse_when_full=False)
    assert aside is None
    ack(spool, of, (2, 3))
    spool.close()
    assert ask(path, "PRAGMA user_version") == [(3,)]
    assert ask(path, "SELECT rootpage FROM sqlite_master WHERE name = 'frames'") == root
    assert ask(path, "SELECT first, last FROM acked") == [(2, 3)]
    assert counters(path)["frames_acked"] == 4
    assert spool_read.verify(path) == []


def test_upgrading_reads_no_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_upkeep, "SETTLE_AT_START", 1)
    path, of = tmp_path / "spool.db", sealing()
    old_spool(path, of, 30)
    before = ask(path, "SELECT rootpage FROM sqlite_master WHERE name = 'frames'")
    spool = opened(path)
    assert ask(path, "SELECT rootpage FROM sqlite_master WHERE name = 'frames'") == before
    assert ask(path, "SELECT count(*) FROM frames WHERE crc IS NOT NULL") == [(0,)]
    spool.close()


def test_a_large_old_file_is_counted_bit_by_bit_and_right_whatever_happens_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_upkeep, "SETTLE_AT_START", 7)
    monkeypatch.setattr(spool_upkeep, "SETTLE_FRAMES", 6)
    path, of = tmp_path / "spool.db", sealing()
    old_spool(path, of, 40)
    spool = opened(path, 33_000)
    assert spool.frames == 7
    assert ask(path, "SELECT sum(frames) FROM levels") == [(7,)]
    assert spool_read.read(path, NOW)["frames"] == 40
    assert spool_read.verify(path) == []
    ack(spool, of, (3, 3), (11, 12), (39, 39))  # counted, and not counted yet
    assert spool_read.verify(path) == []
    spool.store(of.epoch, [], Counter(), (), None, [21, 2])
    assert spool_read.verify(path) == []
    spool.close()
    spool = opened(path, 33_000)  # a start in the middle goes on where the last one was
    for seq in range(40, 50):
        put(spool, of, sealed(of, seq))
        assert spool_read.verify(path) == []
    assert spool.frames == ask(path, "SELECT count(*) FROM frames")[0][0]
    assert ask(path, "SELECT name FROM about ORDER BY name") == [("base",), ("salt",)]
    spool.close()


def test_epochs_are_not_forgotten_before_the_counting_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_upkeep, "SETTLE_AT_START", 1)
    monkeypatch.setattr(spool_upkeep, "EPOCHS_KEPT", 0)
    path, of = tmp_path / "spool.db", sealing()
    old_spool(path, of, 3)
    tell(path, "INSERT INTO epochs SELECT printf('%032d', 1), edge, key_id, wrapped, 1 FROM epochs")
    tell(path, "UPDATE frames SET epoch = printf('%032d', 1) WHERE seq = 2")
    opened(path).close()
    assert ask(path, "SELECT count(*) FROM epochs") == [(2,)]


def test_frames_that_are_not_counted_yet_may_be_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_upkeep, "SETTLE_AT_START", 3)
    monkeypatch.setattr(spool_upkeep, "SETTLE_FRAMES", 3)
    path, of = tmp_path / "spool.db", sealing()
    old_spool(path, of, 40)
    spool = opened(path, 10)
    for seq in range(40, 60):
        put(spool, of, sealed(of, seq))
        assert spool_read.verify(path) == []
    assert spool.frames == ask(path, "SELECT count(*) FROM frames")[0][0]
    spool.close()


def test_an_upgrade_that_is_cut_off_has_not_begun(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    old_spool(path, of, 3)
    db = sqlite3.connect(path, isolation_level=None)
    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        spool_schema._script(db, f"{spool_schema._TO_2}; INSERT INTO nowhere VALUES (1);")  # noqa: S608 - nothing from outside
    assert not db.in_transaction
    db.close()
    assert ask(path, "PRAGMA user_version") == [(1,)]
    spool = opened(path)
    assert spool.frames == 3
    spool.close()


def test_a_file_that_nobody_upgraded_is_read_as_it_is(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    old_spool(path, of, 5)
    found = spool_read.read(path, NOW)
    assert (found["frames"], found["bytes"], found["oldest_s"]) == (5, 5000, 0.0)
    assert found["lanes"]["quarantine"] == {"frames": 1, "bytes": 1000}
    assert spool_read.verify(path) == []
    remains = Remains(path)
    rows = [row for rows in remains.slices() for row in rows]
    remains.close()
    assert not remains.damaged
    assert [row.crc for row in rows] == [None] * 5
    assert all(sound(row) for row in rows)
    assert not sound(Row(*rows[0][:7], b"x" + rows[0].data[1:]))
    assert not sound(rows[0]._replace(crc=zlib.crc32(b"")))
