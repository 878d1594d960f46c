"""What was stored is there, and what is counted agrees with it."""

import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from edge import epoch_file, spool_read, spool_schema, spool_upkeep
from edge import spool as spool_
from edge.spool import Backlog, Ranges, SpoolFull
from tests.edge.spooling import (
    NOW,
    PLENTY,
    ack,
    ask,
    counters,
    counts_of,
    entry,
    fill,
    handed,
    opened,
    put,
    reject,
    sealed,
    sealing,
    seqs,
    store,
    tell,
)


def test_frames_outlive_the_process_that_stored_them(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, sealed(of, 0), sealed(of, 1))
    spool.close()
    spool = opened(path)
    again = spool.store(of.epoch, [], Counter())
    assert (again.frames_now, again.bytes_now, spool.frames) == (2, 2000, 2)
    backlog = Backlog(path)
    assert backlog.epochs() == [of.epoch]
    assert backlog.lowest() == {of.epoch.epoch: 0}
    assert [held.seq for held in backlog.after(0, backlog.last_id(), PLENTY, 10)] == [0, 1]
    assert [held.seq for held in backlog.after(0, backlog.last_id(), 1, 10)] == [0]
    assert [held.seq for held in backlog.after(0, backlog.last_id(), PLENTY, 1)] == [0]
    assert [held.seq for held in backlog.after(1, backlog.last_id(), PLENTY, 10)] == [1]
    backlog.close()
    spool.close()


def test_commits_are_synchronous_and_journalled(tmp_path: Path) -> None:
    spool = opened(tmp_path / "spool.db")
    for pragma, value in (
        ("journal_mode", "wal"),
        ("synchronous", 2),
        ("auto_vacuum", 2),
        ("secure_delete", 0),
        ("journal_size_limit", 16 << 20),
        ("user_version", 3),
    ):
        assert spool._db.execute(f"PRAGMA {pragma}").fetchone() == (value,), pragma
    spool.close()


def test_a_sequence_number_is_stored_once(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, sealed(of, 0))
    with pytest.raises(sqlite3.IntegrityError):
        put(spool, of, sealed(of, 1), sealed(of, 0))
    assert spool.store(of.epoch, [], Counter()).frames_now == 1
    assert put(spool, of, sealed(of, 2)).frames[0].id == 2  # no id was spent on what was undone
    spool.close()
    assert spool_read.verify(path) == []


def test_acknowledged_frames_go_and_are_counted_with_them(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, *(sealed(of, seq, lane=2 if seq == 3 else 0) for seq in range(6)))
    acks = [Ranges(of.epoch.epoch, [(0, 1), (3, 3)]), Ranges(of.epoch.epoch, [(0, 1)])]
    stored = spool.store(of.epoch, [], Counter(), acks)
    assert (stored.frames_now, stored.bytes_now) == (3, 3000)
    found = counters(path)
    assert (found["frames_acked"], found["readings_acked"], found["rejects_acked"]) == (3, 10, 5)
    assert found["highest_seq"] == 5
    spool.close()
    assert spool_read.verify(path) == []


def test_the_highest_sequence_number_never_falls(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, sealed(of, 9), sealed(of, 7))
    put(spool, of, sealed(of, 8))
    spool.close()
    assert counters(path)["highest_seq"] == 9


def test_ids_go_on_after_everything_was_acknowledged(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    assert put(spool, of, sealed(of, 0)).frames[0].id == 1
    ack(spool, of, (0, 0))
    assert put(spool, of, sealed(of, 1)).frames[0].id == 2
    assert spool.last_id == 2
    spool.close()


def test_an_epoch_is_written_before_its_first_frame_and_a_second_time(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    spool.begin(of.epoch)
    spool.begin(of.epoch)
    assert ask(path, "SELECT epoch FROM epochs") == [(of.epoch.epoch,)]
    assert epoch_file.read(spool_schema.epochs_path(path)) == [of.epoch]
    later = sealing()
    put(spool, later, sealed(later, 0))  # one that nobody began comes with its frame
    size = spool_schema.epochs_path(path).stat().st_size
    put(spool, later, sealed(later, 1))
    assert spool_schema.epochs_path(path).stat().st_size == size  # once is enough
    assert {epoch.epoch for epoch in epoch_file.read(spool_schema.epochs_path(path))} == {
        of.epoch.epoch,
        later.epoch.epoch,
    }
    spool.close()


def test_an_epoch_whose_first_transaction_failed_is_written_with_the_next(tmp_path: Path) -> None:
    path, of, second = tmp_path / "spool.db", sealing(), sealing()
    spool = opened(path)
    put(spool, of, sealed(of, 0))
    with pytest.raises(sqlite3.IntegrityError):
        spool.store(second.epoch, [sealed(second, 0), sealed(second, 0)], Counter())
    put(spool, second, sealed(second, 1))
    assert len(seqs(path)) == 2
    spool.close()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("UPDATE frames SET bytes = zeroblob(1000) WHERE seq = 1", "other bytes"),
        ("UPDATE frames SET crc = crc + 1 WHERE seq = 1", "another checksum"),
        ("UPDATE frames SET seq = 7 WHERE seq = 1", "another number than its header says"),
        ("UPDATE frames SET crc = NULL, bytes = x'00' WHERE seq = 1", "no header at all"),
        (
            """INSERT INTO epochs SELECT printf('%032d', 1), edge, key_id, wrapped, 1 FROM epochs;
            UPDATE frames SET epoch = printf('%032d', 1) WHERE seq = 1""",
            "another epoch than its header says",
        ),
    ],
)
def test_a_frame_that_is_not_what_was_stored_is_passed_over_and_kept_apart(
    tmp_path: Path, change: str, why: str
) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, *(sealed(of, seq) for seq in range(3)))
    spool.close()
    tell(path, change)
    spool, backlog = opened(path), Backlog(path)
    assert [held.seq for held in backlog.after(0, 99, PLENTY, 9)] == [0, 2], why
    assert backlog.unsound == [2]
    stored = spool.store(of.epoch, [], Counter(), (), None, backlog.unsound)
    assert stored.frames_now == 2
    assert counters(path)["frames_unsound"] == 1
    assert counters(path)["readings_unsound"] == 5
    assert ask(path, "SELECT id FROM unsound") == [(2,)]
    backlog.close()
    spool.close()


def test_a_frame_without_its_epochs_key_is_not_handed_out(tmp_path: Path) -> None:
    path, of, other = tmp_path / "spool.db", sealing(), sealing()
    spool = opened(path)
    put(spool, of, sealed(of, 0))
    put(spool, other, sealed(other, 0))
    spool.close()
    tell(path, "DELETE FROM epochs WHERE rowid = 1")
    assert [held.epoch for held in handed(path)] == [other.epoch.epoch]
    backlog = Backlog(path)
    assert list(backlog.lowest()) == [other.epoch.epoch]
    backlog.close()


def test_of_frames_kept_apart_the_oldest_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_, "UNSOUND_KEPT", 2)
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, *(sealed(of, seq) for seq in range(5)))
    spool.store(of.epoch, [], Counter(), (), None, [1, 2, 3, 4, 99])
    assert ask(path, "SELECT id FROM unsound") == [(3,), (4,)]
    assert counters(path)["frames_unsound"] == 4
    spool.close()
    assert spool_read.verify(path) == []


def test_a_transaction_without_rows_changes_counters_alone(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    spool.store(of.epoch, [], Counter({"received_lines": 2, "rejected:bad-unit": 0}))
    spool.store(of.epoch, [], Counter({"received_lines": 3}))
    assert ask(path, "SELECT name, value FROM counters") == [("received_lines", 5)]
    spool.close()


def test_finished_epochs_are_forgotten_beyond_a_bound_but_never_with_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_upkeep, "EPOCHS_KEPT", 2)
    path = tmp_path / "spool.db"
    spool = opened(path)
    made = [sealing(NOW + number) for number in range(5)]
    for of in made:
        put(spool, of, sealed(of, 0))
        if of is not made[0]:
            ack(spool, of, (0, 0))
    spool.close()
    opened(path).close()
    kept = {of.epoch.epoch for of in (made[0], made[3], made[4])}
    for table in ("epochs", "counters", "levels"):
        found = ask(path, "SELECT epoch FROM " + table)  # noqa: S608 - three fixed names
        assert {row[0] for row in found} == kept, table
    assert len(handed(path)) == 1


def test_the_file_shrinks_again_when_a_backlog_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_upkeep, "VACUUM_FREE_MIN", 32)
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    for first in range(0, 400, 20):
        put(spool, of, *(sealed(of, first + seq, size=8000) for seq in range(20)))
    ack(spool, of, (0, 150))
    assert ask(path, "PRAGMA page_count")[0][0] > 800  # under half of it is free: left alone
    ack(spool, of, (151, 398))
    for seq in range(400, 420):
        put(spool, of, sealed(of, seq))
        ack(spool, of, (seq, seq))
    spool._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert path.stat().st_size < 100 * 4096
    spool.close()
    assert spool_read.verify(path) == []


def test_one_transaction_gives_back_a_bounded_number_of_pages(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    for first in range(0, 400, 20):
        put(spool, of, *(sealed(of, first + seq, size=20_000) for seq in range(20)))
    before = ask(path, "PRAGMA page_count")[0][0]
    ack(spool, of, (0, 399))
    assert before - ask(path, "PRAGMA page_count")[0][0] == spool_upkeep.VACUUM_PAGES
    spool.close()


def test_what_was_refused_for_room_is_not_half_stored(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path, 1500, refuse=True)
    put(spool, of, sealed(of, 0))
    with pytest.raises(SpoolFull):
        put(spool, of, sealed(of, 1), sealed(of, 2, lane=2))
    spool.close()
    assert [seq for _, seq in seqs(path)] == [0]
    assert spool_read.verify(path) == []


def test_stored_frames_are_counted_by_the_real_way_of_sealing_too(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    stored = store(spool, of, entry(1), reject(), entry(2))
    assert [held.seq for held in stored.frames] == [0, 1]
    fill(spool, of, 3)
    spool.close()
    assert counters(path) == counts_of([]) + Counter(
        frames_spooled=5, readings_spooled=5, rejects_spooled=1, highest_seq=4
    )
