"""Counts per device are kept without a device's name, and in bounded room."""

import sqlite3
from pathlib import Path

import pytest

from edge import spool_devices
from edge.spool_devices import DeviceCounts, hashed, read
from tests.edge.spooling import NOW, ask, opened


def test_counts_add_up_over_calls_and_starts(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    for turn in range(2):
        spool = opened(path)
        spool.note_devices(
            [
                ("bed-1", DeviceCounts(2, 10, 1, NOW - turn)),
                ("bed-2", DeviceCounts(0, 0, 3, NOW + turn)),
            ]
        )
        spool.note_devices([])
        spool.close()
    db = sqlite3.connect(path)
    found = read(db, {"bed-1": "one", "bed-2": "two", "bed-3": "three"})
    assert found == {"one": DeviceCounts(4, 20, 2, NOW), "two": DeviceCounts(0, 0, 6, NOW + 1)}
    assert sorted(read(db).values()) == sorted(found.values())
    db.close()


def test_no_name_reaches_the_disk_and_two_files_hash_it_differently(tmp_path: Path) -> None:
    keys = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.db"
        spool = opened(path)
        spool.note_devices([("Ada Canary \ud800", DeviceCounts(1, 1, 0, NOW))])
        for part in tmp_path.glob(f"{name}.db*"):
            assert b"Canary" not in part.read_bytes()
        spool.close()
        assert b"Canary" not in path.read_bytes()
        keys += [key for (key,) in ask(path, "SELECT device FROM devices")]
    assert len(set(keys)) == 2
    assert all(len(key) == 16 and int(key, 16) >= 0 for key in keys)
    assert hashed(b"salt", "x") != hashed(b"tlas", "x")


def test_beyond_the_bound_those_heard_longest_ago_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_devices, "DEVICES_MAX", 5)
    monkeypatch.setattr(spool_devices, "SLACK", 2)
    path = tmp_path / "spool.db"
    spool = opened(path)
    for number in range(7):
        spool.note_devices([(str(number), DeviceCounts(1, 1, 0, NOW + number))])
    assert ask(path, "SELECT count(*) FROM devices") == [(7,)]
    spool.note_devices([("7", DeviceCounts(1, 1, 0, NOW + 7))])
    assert [at for (at,) in ask(path, "SELECT last_ms FROM devices ORDER BY last_ms")] == [
        NOW + number for number in range(3, 8)
    ]
    spool.close()
