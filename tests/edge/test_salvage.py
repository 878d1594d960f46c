"""A salvage brings everything back once, is seen whole or not at all, and may be cut off."""

import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from edge import (
    merge,
    salvage,
    salvage_end,
    salvage_order,
    spool_read,
    spool_schema,
)
from edge.salvage import recover
from edge.spool import Backlog, open_spool
from edge.spool_aside import pending
from edge.spool_schema import part
from tests.edge.spooling import (
    NOW,
    PAGE,
    PLENTY,
    ack,
    ask,
    counters,
    entry,
    fill,
    filled,
    opened,
    put,
    put_aside,
    recovered,
    sealed,
    sealing,
    seqs,
    store,
    tell,
)


def test_a_sound_file_put_aside_comes_back_whole(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    of = filled(path)
    before = seqs(path), counters(path)
    spool, aside = put_aside(path)
    done = recovered(aside, spool)
    spool.close()
    assert (done.salvaged, done.unsalvageable, done.done) == (295, 0, True)
    assert seqs(path) == before[0]
    found = counters(path, of.epoch.epoch)
    extra = {name: found.pop(name) for name in list(found) if name.endswith("_salvaged")}
    assert found == before[1]
    assert extra == {"frames_salvaged": 295, "readings_salvaged": 1325, "rejects_salvaged": 150}
    assert spool_read.verify(path) == []


def test_a_journal_that_was_not_played_in_is_read_too(tmp_path: Path) -> None:
    live, path = tmp_path / "live.db", tmp_path / "spool.db"
    of = sealing()
    spool = opened(live)
    fill(spool, of, 50)
    for suffix in ("", "-wal"):
        shutil.copy(part(live, suffix), part(path, suffix))
    spool.close()
    spool, aside = put_aside(path)
    assert recovered(aside, spool).salvaged == 50
    spool.close()
    assert not list(tmp_path.glob("*.damaged-*"))
    assert part(path, f".salvaged-{NOW}-wal").stat().st_size > PAGE


def test_a_frame_whose_key_is_lost_stays_and_one_whose_second_copy_is_there_comes(
    tmp_path: Path,
) -> None:
    for second_copy in (False, True):
        path = tmp_path / str(second_copy) / "spool.db"
        path.parent.mkdir()
        of = filled(path, 20)
        tell(path, "DELETE FROM epochs")
        if not second_copy:
            spool_schema.epochs_path(path).unlink()
        spool, aside = put_aside(path)
        done = recovered(aside, spool)
        spool.close()
        assert (done.salvaged, done.unsalvageable) == ((15, 0) if second_copy else (0, 15))
        assert spool_read.verify(path) == []
        found = counters(path, of.epoch.epoch)
        assert found.get("frames_unsalvageable", 0) == done.unsalvageable
        assert part(path, f".salvaged-{NOW}").exists()


def test_the_second_copy_of_a_key_is_believed_before_a_row(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    of = filled(path, 20)
    tell(path, "UPDATE epochs SET wrapped = zeroblob(80)")
    spool, aside = put_aside(path)
    recovered(aside, spool)
    spool.close()
    assert ask(path, "SELECT wrapped FROM epochs") == [(of.epoch.wrapped,)]


def test_nothing_is_seen_before_everything_is_there(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    old = filled(path, 2000)
    spool, aside = put_aside(path)
    of = sealing()
    first = put(spool, of, sealed(of, 0)).frames[0].id
    steps = 0
    during = Backlog(path)
    for progress in recover(aside, spool, 0):
        steps += 1
        if not progress.done:
            assert seqs(path) == [(of.epoch.epoch, 0)]
            backlog = Backlog(path)
            assert list(backlog.lowest()) == [of.epoch.epoch]
            assert backlog.epochs() == [of.epoch]
            backlog.close()
    assert steps > 3
    # A session that was open meanwhile goes on seeing what it saw.
    assert [held.id for held in during.after(0, 1 << 62, PLENTY, 9999)] == [first]
    during.close()
    found = seqs(path)
    assert found == [*((old.epoch.epoch, seq) for seq in range(5, 2000)), (of.epoch.epoch, 0)]
    spool.close()


def test_collection_and_acknowledgements_go_on_between_the_slices(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    old = filled(path, 2000)
    spool, aside = put_aside(path)
    of = sealing()
    for turn, _ in enumerate(recover(aside, spool, 0)):
        put(spool, of, sealed(of, turn))
        ack(spool, old, (100 * turn, 100 * turn + 20))  # what was on the line when it broke
    spool.close()
    assert spool_read.verify(path) == []
    found = counters(path, old.epoch.epoch)
    assert found["frames_acked"] > 5
    assert "frames_lost" not in found


@pytest.mark.parametrize("steps", [0, 1, 2, 3, 99])
def test_a_salvage_that_is_cut_off_is_done_again_and_nothing_comes_twice(
    tmp_path: Path, steps: int
) -> None:
    path = tmp_path / "spool.db"
    filled(path, 2000)
    before = seqs(path)
    spool, aside = put_aside(path)
    for turn, _ in enumerate(recover(aside, spool, 0)):
        if turn >= steps:
            break
    spool.close()
    spool, again = open_spool(path, PLENTY, NOW, refuse_when_full=False)
    assert again is None
    assert (steps == 99) == (not pending(path))
    for left in pending(path):
        recovered(left, spool)
    spool.close()
    assert seqs(path) == before
    assert spool_read.verify(path) == []


def test_a_cut_between_renaming_and_showing_is_made_up_for_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spool.db"
    filled(path, 100)
    before = seqs(path)
    spool, aside = put_aside(path)

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(salvage_end, "_show", cut)
    with pytest.raises(KeyboardInterrupt):
        recovered(aside, spool)
    spool.close()
    assert seqs(path) == []
    opened(path).close()
    assert seqs(path) == before


def test_two_files_with_the_same_ids_come_back_side_by_side(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    first = filled(path, 100)
    one, _ = put_aside(path)
    one.close()
    for suffix in ("", "-wal"):
        part(path, suffix).unlink(missing_ok=True)
    second = filled(tmp_path / "other.db", 60)
    (tmp_path / "other.db").rename(path)
    two, _ = open_spool(path, PLENTY, NOW + 5, refuse_when_full=False, damaged=True)
    spool = two
    assert len(pending(path)) == 2
    for aside in pending(path):
        assert seqs(path) == []
        recovered(aside, spool)
    spool.close()
    found = seqs(path)
    assert sorted(found) == sorted(
        [*((first.epoch.epoch, seq) for seq in range(5, 100))]
        + [(second.epoch.epoch, seq) for seq in range(5, 60)]
    )
    assert ask(path, "SELECT max(id) FROM frames") == [(100 + 60,)]  # no id but its own, moved
    for of in (first, second):
        mine = [seq for epoch, seq in found if epoch == of.epoch.epoch]
        assert mine == sorted(mine)  # in the order of numbers, as floors need it
    assert spool_read.verify(path) == []


def test_a_file_found_at_the_start_beside_a_sound_spool_goes_below_it(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    old = filled(path, 50)
    path.rename(part(path, ".damaged-7"))
    newer = filled(path, 30)
    spool = opened(path)
    assert {epoch for epoch, _ in seqs(path)} == {newer.epoch.epoch}
    recovered(part(path, ".damaged-7"), spool)
    of = sealing()
    put(spool, of, sealed(of, 0))
    spool.close()
    assert {epoch for epoch, _ in seqs(path)} == {each.epoch.epoch for each in (old, newer, of)}
    assert len(seqs(path)) == 45 + 25 + 1
    assert spool_read.verify(path) == []


def test_originals_do_not_come_back_beside_the_frame_that_folded_them(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    fill(spool, of, 40)
    shutil.copy(path, tmp_path / "nothing")
    kept = [ask(path, "SELECT * FROM frames WHERE seq < 20")]
    assert merge.fold(spool, of.epoch.epoch, -1, of.opener(), of.seal_folded, span_ms=0).into == 1
    store(spool, of, entry(1))
    for row in kept[0]:  # as from a page that was not known to be free
        spool._db.execute("INSERT INTO frames VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    spool.close()
    spool, aside = put_aside(path)
    recovered(aside, spool)
    spool.close()
    assert [seq for _, seq in seqs(path)] == [40, 41]
    assert spool_read.verify(path) == []
    found = counters(path, of.epoch.epoch)
    assert (found["readings_spooled"], found["frames_merged"]) == (41, 40)


def test_after_a_salvage_the_oldest_are_those_that_came_back(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    filled(path, 40, size=1000)
    spool, aside = open_spool(path, 60_000, NOW, refuse_when_full=False, damaged=True)
    assert aside is not None
    of = sealing()
    for first in range(0, 80, 10):
        put(spool, of, *(sealed(of, first + seq) for seq in range(10)))
    recovered(aside, spool)
    put(spool, of, sealed(of, 80))
    spool.close()
    left = [seq for epoch, seq in seqs(path) if epoch == of.epoch.epoch]
    assert left == list(range(21, 81))


@pytest.mark.parametrize(
    ("ids", "sorted_to"),
    [
        ([10, 20, 30, 40, 50], [10, 20, 30, 40, 50]),
        ([10, 90, 30, 40, 50], [10, 11, 30, 40, 50]),
        ([90, 20, 30, 40, 50], [1, 20, 30, 40, 50]),
        ([10, 20, 30, 40, 5], [10, 20, 30, 40, 41]),
        ([10, 11, 12, 99, 13], [10, 11, 12, None, 13]),
        ([10, 90, 91, 40, 50], [10, 11, 12, 40, 50]),
        ([10, 90, 91, 92, 13], [10, None, None, None, 13]),
        ([50, 40, 30, 20, 10], None),
        ([10, 20, 30, 899, 5], [10, 20, 30, 899, None]),
    ],
)
def test_salvaged_frames_go_up_in_number_as_in_id(
    tmp_path: Path, ids: list[int], sorted_to: list[int | None] | None
) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, *(sealed(of, seq) for seq in range(5)))
    spool.close()
    tell(path, "UPDATE frames SET id = id + 1000; UPDATE about SET value = 900 WHERE name = 'base'")
    for seq, id_ in enumerate(ids):
        tell(path, f"UPDATE frames SET id = {id_} WHERE seq = {seq}")  # noqa: S608 - numbers
    spool = opened(path)
    salvage_order.in_order(spool, of.epoch.epoch)
    spool.close()
    found = {seq: id_ for id_, seq in ask(path, "SELECT id, seq FROM frames")}
    left = [found[seq] for seq in sorted(found)]
    assert left == sorted(left)
    assert left[-1] < 900
    if sorted_to is None or None in sorted_to:
        assert len(left) >= 2  # some order, whichever keeps the most
    else:
        assert [found.get(seq) for seq in range(5)] == sorted_to
    assert spool_read.verify(path) == []


def test_counters_that_are_gone_are_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    of = filled(path, 100)
    tell(path, "DROP TABLE counters; DROP TABLE levels")
    spool, aside = put_aside(path)
    recovered(aside, spool)
    spool.close()
    assert spool_read.verify(path) == []
    found = counters(path, of.epoch.epoch)
    assert found["frames_spooled"] == 95
    assert found["readings_spooled"] + found["rejects_spooled"] == 5 * 95


def test_salvage_waits_while_the_disk_has_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spool.db"
    filled(path, 20)
    spool, aside = put_aside(path)
    free = iter([10, 10, 100, *([100] * 50)])
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=next(free)))
    seen = list(recover(aside, spool, 100))
    assert [progress.waiting for progress in seen[:3]] == [True, True, False]
    assert seen[-1].done
    spool.close()
    assert len(seqs(path)) == 15


def test_what_is_no_spool_is_kept_for_ever_and_salvaged_files_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spool.db"
    for number, content in enumerate([b"somebody's notes " * 99, b"", b"x"]):
        part(path, f".damaged-{number}").write_bytes(content)
    spool = opened(path)
    for aside in pending(path):
        recovered(aside, spool)
    assert len(list(tmp_path.glob("spool.db.unknown-*"))) == 3
    for number in range(4):
        made = tmp_path / "made.db"
        filled(made, 10)
        made.rename(part(path, f".damaged-{100 + number}"))
        (tmp_path / "made.db.epochs").unlink()
        spool.close()
        spool = opened(path)
        recovered(pending(path)[0], spool)
    names = sorted(file.name for file in tmp_path.glob("spool.db.salvaged-*[0-9]"))
    assert names == ["spool.db.salvaged-102", "spool.db.salvaged-103"]
    monkeypatch.setattr(salvage_end, "KEPT_BYTES", 0)
    salvage_end.tidy(path)
    assert not list(tmp_path.glob("spool.db.salvaged-*"))
    spool.close()
    assert len(list(tmp_path.glob("spool.db.unknown-*"))) == 3
    assert len(seqs(path)) == 4 * 5


def test_broken_frames_are_named_up_to_a_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(salvage, "BROKEN_NAMED", 3)
    path = tmp_path / "spool.db"
    filled(path, 30)
    tell(path, "UPDATE frames SET bytes = zeroblob(300)")
    spool, aside = put_aside(path)
    assert recovered(aside, spool).unsalvageable == 3
    spool.close()


def test_an_error_of_the_new_spools_disk_is_told_and_the_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "spool.db"
    filled(path, 30)
    spool, aside = put_aside(path)

    def full(_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(spool, "transact", full)
    with pytest.raises(sqlite3.OperationalError):
        recovered(aside, spool)
    monkeypatch.undo()
    assert pending(path) == [aside]
    assert recovered(aside, spool).salvaged == 25
    assert spool.store(sealing().epoch, [], Counter()).frames_now == 25
    spool.close()
