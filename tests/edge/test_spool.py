"""What was stored is there, what is counted agrees with it, damage never stops a start."""

import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from edge.seal import Sealed, Sealing
from edge.spool import Backlog, Ranges, Spool, SpoolFull, Stored, open_spool
from tests.edge.gateway import NOW, PRIVATE

PLENTY = 1 << 30


def _sealing() -> Sealing:
    return Sealing("ward-1", PRIVATE.public_key(), NOW)


def _frame(of: Sealing, seq: int, lane: int = 0, size: int = 1000, count: int = 5) -> Sealed:
    return Sealed(of.epoch.epoch, seq, lane, NOW, NOW, count, bytes(size))


def _counters(path: Path) -> dict[str, int]:
    with sqlite3.connect(path) as db:
        found = dict(db.execute("SELECT name, sum(value) FROM counters GROUP BY name"))
    db.close()
    return found


def _store(spool: Spool, of: Sealing, *frames: Sealed) -> Stored:
    counts: Counter[str] = Counter(frames_spooled=len(frames))
    counts["readings_spooled"] = sum(frame.count for frame in frames)
    return spool.store(of.epoch, list(frames), counts)


def test_frames_outlive_the_process_that_stored_them(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", _sealing()
    spool = Spool(path, PLENTY, refuse_when_full=False)
    _store(spool, of, _frame(of, 0), _frame(of, 1))
    spool.close()
    spool = Spool(path, PLENTY, refuse_when_full=False)
    again = spool.store(of.epoch, [], Counter())
    assert (again.frames_now, again.bytes_now) == (2, 2000)
    backlog = Backlog(path)
    assert backlog.epochs() == [of.epoch]
    assert backlog.lowest() == {of.epoch.epoch: 0}
    assert [held.seq for held in backlog.after(0, backlog.last_id(), PLENTY, 10)] == [0, 1]
    assert [held.seq for held in backlog.after(0, backlog.last_id(), 1, 10)] == [0]
    backlog.close()
    spool.close()


def test_commits_are_synchronous_and_journalled(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db", PLENTY, refuse_when_full=False)
    assert spool._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert spool._db.execute("PRAGMA synchronous").fetchone() == (2,)
    spool.close()


def test_a_sequence_number_is_stored_once(tmp_path: Path) -> None:
    spool, of = Spool(tmp_path / "spool.db", PLENTY, refuse_when_full=False), _sealing()
    _store(spool, of, _frame(of, 0))
    with pytest.raises(sqlite3.IntegrityError):
        _store(spool, of, _frame(of, 1), _frame(of, 0))
    assert spool.store(of.epoch, [], Counter()).frames_now == 1
    spool.close()


def test_acknowledged_frames_go_and_are_counted_with_them(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", _sealing()
    spool = Spool(path, PLENTY, refuse_when_full=False)
    _store(spool, of, *(_frame(of, seq, lane=2 if seq == 3 else 0) for seq in range(6)))
    acks = [Ranges(of.epoch.epoch, [(0, 1), (3, 3)]), Ranges(of.epoch.epoch, [(0, 1)])]
    stored = spool.store(of.epoch, [], Counter(), acks)
    assert (stored.frames_now, stored.bytes_now) == (3, 3000)
    counters = _counters(path)
    assert counters["frames_acked"] == 3
    assert counters["readings_acked"] == 10
    assert counters["rejects_acked"] == 5
    assert counters["highest_seq"] == 5
    spool.close()


def test_over_the_quota_the_oldest_go_and_are_counted(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", _sealing()
    spool = Spool(path, 3500, refuse_when_full=False)
    for seq in range(3):
        assert _store(spool, of, _frame(of, seq)).dropped == 0
    assert _store(spool, of, _frame(of, 3), _frame(of, 4)).dropped == 2
    backlog = Backlog(path)
    assert [held.seq for held in backlog.after(0, 99, PLENTY, 99)] == [2, 3, 4]
    backlog.close()
    counters = _counters(path)
    assert (counters["frames_dropped"], counters["readings_dropped"]) == (2, 10)
    assert counters["frames_spooled"] == counters["frames_dropped"] + 3
    spool.close()


def test_over_the_quota_new_input_is_refused_if_the_policy_says_so(tmp_path: Path) -> None:
    spool, of = Spool(tmp_path / "spool.db", 1500, refuse_when_full=True), _sealing()
    _store(spool, of, _frame(of, 0))
    with pytest.raises(SpoolFull):
        _store(spool, of, _frame(of, 1))
    acks = [Ranges(of.epoch.epoch, [(0, 0)])]
    assert spool.store(of.epoch, [_frame(of, 2)], Counter(), acks).frames_now == 1
    spool.close()


@pytest.mark.parametrize("damage", [b"not a database at all" * 400, b"SQLite format 3\x00" * 300])
def test_a_damaged_file_is_set_aside_and_the_start_goes_on(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "spool.db"
    path.write_bytes(damage)
    spool, aside = open_spool(path, PLENTY, NOW, refuse_when_full=False)
    assert aside == tmp_path / f"spool.db.damaged-{NOW}"
    assert aside.read_bytes() == damage
    of = _sealing()
    assert _store(spool, of, _frame(of, 0)).frames_now == 1
    spool.close()


def test_pages_overwritten_in_the_middle_are_found_at_the_start(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", _sealing()
    spool = Spool(path, PLENTY, refuse_when_full=False)
    for seq in range(200):
        _store(spool, of, _frame(of, seq))
    spool.close()
    data = bytearray(path.read_bytes())
    for page in range(4096, len(data), 8192):
        data[page : page + 64] = b"\xa5" * 64
    path.write_bytes(data)
    spool, aside = open_spool(path, PLENTY, NOW, refuse_when_full=False)
    assert aside is not None
    assert spool.store(of.epoch, [], Counter()).frames_now == 0
    spool.close()


def test_a_sound_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    Spool(path, PLENTY, refuse_when_full=False).close()
    spool, aside = open_spool(path, PLENTY, NOW, refuse_when_full=False)
    assert aside is None
    spool.close()
