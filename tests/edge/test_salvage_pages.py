"""Whatever is damaged, the rest comes out, in order, and nothing that was not stored."""

import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from edge import (
    pages,
    remains,
    spool_admit,
    spool_read,
    spool_schema,
)
from edge.pages import Row
from edge.spool_change import Change
from tests.edge.spooling import (
    NOW,
    PAGE,
    ack,
    ask,
    counters,
    entry,
    filled,
    handed,
    leaves,
    opened,
    put,
    put_aside,
    recovered,
    reject,
    sealed,
    sealing,
    seqs,
    spoil,
    store,
    tell,
)
from tests.edge.test_spool_upgrade import old_spool


def test_damaged_pages_cost_what_lay_on_them_and_it_is_counted_as_lost(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    of = filled(path)
    before = set(seqs(path))
    found_on = leaves(path)
    with path.open("r+b") as file:
        for page in found_on[3:6]:
            file.seek(page * PAGE)
            file.write(random.Random(1).randbytes(PAGE))
    spool, aside = put_aside(path)
    done = recovered(aside, spool)
    spool.close()
    after = set(seqs(path))
    assert after < before
    assert 0 < len(before - after) <= 3 * 16
    found = counters(path, of.epoch.epoch)
    assert found["frames_lost"] == len(before - after)
    assert done.salvaged == len(after)
    lost = found.get("readings_lost", 0) + found.get("rejects_lost", 0)
    assert lost == 5 * len(before - after)
    assert spool_read.verify(path) == []


def test_cells_of_a_page_whose_head_is_gone_are_found_by_their_shape(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    filled(path)
    before = set(seqs(path))
    spoil(path, leaves(path)[3:6], random.Random(2))
    spool, aside = put_aside(path)
    recovered(aside, spool)
    spool.close()
    assert len(before - set(seqs(path))) <= 3 * 2


def test_frames_that_go_on_over_other_pages_are_put_together(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, *(sealed(of, seq, size=20_000) for seq in range(20)))
    spool.close()
    before = {one.data for one in handed(path)}
    path.write_bytes(bytes(100) + path.read_bytes()[100:])  # SQLite answers nothing at all
    spool, aside = put_aside(path)
    assert recovered(aside, spool).salvaged == 20
    spool.close()
    assert {one.data for one in handed(path)} == before


def test_a_broken_frame_in_a_sound_table_stays_in_the_file_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "spool.db"
    of = filled(path)
    tell(path, "UPDATE frames SET bytes = zeroblob(300) WHERE seq IN (20, 21)")
    spool, aside = put_aside(path)
    done = recovered(aside, spool)
    spool.close()
    assert (done.salvaged, done.unsalvageable) == (293, 2)
    found = counters(path, of.epoch.epoch)
    assert (found["frames_unsalvageable"], found["frames_lost"]) == (2, 2)
    assert not {20, 21} & {seq for _, seq in seqs(path)}


def test_what_was_deleted_does_not_come_back_from_free_pages(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, *(sealed(of, seq, size=1500) for seq in range(200)))
    ack(spool, of, (0, 99))
    spool.close()
    # SQLite cannot find the table any more; the list of free pages is whole.
    tell(path, "PRAGMA writable_schema=ON; DELETE FROM sqlite_master WHERE name = 'frames'")
    spool, aside = put_aside(path)
    done = recovered(aside, spool)
    spool.close()
    assert {seq for _, seq in seqs(path)} == set(range(100, 200))
    assert done.salvaged == 100


def test_what_was_deleted_outside_of_the_damage_does_not_come_back(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, *(sealed(of, seq, size=1500) for seq in range(400)))
    ack(spool, of, (0, 99), (300, 310))
    spool.close()
    data = bytearray(path.read_bytes())
    data[32:40] = bytes(8)  # no list of free pages
    for at in range(0, len(data), PAGE):
        if data[at] == 0x0D and b"HSF1" in data[at : at + PAGE]:
            rows = pages.records(bytes(data[at : at + PAGE]), 2, PAGE, _no_page)
            if 200 in [row.id for row in rows if isinstance(row, Row)]:
                data[at : at + 200] = bytes(200)
    path.write_bytes(data)
    spool, aside = put_aside(path)
    recovered(aside, spool)
    spool.close()
    assert {seq for _, seq in seqs(path)} <= {*range(100, 300), *range(311, 400)}
    assert len(seqs(path)) > 280


def _no_page(_: int) -> bytes | None:
    return None


def test_an_id_that_went_astray_hides_no_frame(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, *(sealed(of, seq, size=300) for seq in range(120)))
    spool.close()
    data = bytearray(path.read_bytes())
    # The id of row 20 stands in one byte before its record, which begins as every frame's does.
    begun = [match.start() for match in pages._RECORD.finditer(bytes(data))]
    (at,) = [at for at in begun if data[at - 1] == 20]
    data[at - 1] = 127
    path.write_bytes(data)
    spool, aside = put_aside(path)
    recovered(aside, spool)
    spool.close()
    assert [seq for _, seq in seqs(path)] == list(range(120))


def test_a_key_that_lies_behind_its_frames_is_found_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remains, "SLICE_PAGES", 2)
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, *(sealed(of, seq, size=300) for seq in range(60)))
    for number in range(80):
        spool.begin(sealing(NOW + number).epoch)
    spool.close()
    tell(path, """UPDATE epochs SET rowid = 999 WHERE rowid = 1""")
    spool_schema.epochs_path(path).unlink()
    data = path.read_bytes()
    assert data.rindex(of.epoch.wrapped) > data.rindex(b"HSF1")
    path.write_bytes(bytes(100) + data[100:])  # SQLite answers nothing at all
    spool, aside = put_aside(path)
    assert recovered(aside, spool).salvaged == 60
    spool.close()


def test_a_frame_whose_id_is_impossible_gets_another_while_there_is_room(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    spool.begin(of.epoch)
    made = [sealed(of, seq) for seq in range(4)]
    rows = [Row(7 + one.seq, one.epoch, one.seq, 0, NOW, NOW, 5, one.data) for one in made]

    def work(db: sqlite3.Connection, change: Change) -> None:
        first = spool_admit.frames(
            db, change, [rows[0], rows[1]._replace(id=-5)], offset=2, below=12
        )
        assert (first.frames, first.refused, first.astray) == (2, [], 1)
        again = spool_admit.frames(
            db, change, [rows[0], rows[2]._replace(id=7)], offset=2, below=12
        )
        assert (again.frames, again.refused, again.astray) == (1, [], 1)
        full = spool_admit.frames(db, change, [rows[3]], offset=2, below=12)
        assert (full.frames, full.refused) == (0, [rows[3]])

    spool.transact(work)
    assert ask(path, "SELECT id, seq FROM frames") == [(9, 0), (10, 1), (11, 2)]
    assert ask(path, "SELECT frames, rows, bytes FROM levels") == [(3, 15, 3000)]
    spool.close()


def test_a_table_that_answers_to_the_end_but_too_little_is_read_page_by_page(
    tmp_path: Path,
) -> None:
    path = tmp_path / "spool.db"
    filled(path, 200)
    before = set(seqs(path))
    root = ask(path, "SELECT rootpage FROM sqlite_master WHERE name = 'frames'")[0][0] - 1
    data = bytearray(path.read_bytes())
    assert data[root * PAGE] == 0x05
    count = int.from_bytes(data[root * PAGE + 3 : root * PAGE + 5], "big")
    data[root * PAGE + 3 : root * PAGE + 5] = (count // 2).to_bytes(2, "big")
    path.write_bytes(data)
    assert 50 < len(seqs(path)) < len(before)  # half of its leaves are passed over in silence
    spool, aside = put_aside(path)
    recovered(aside, spool)
    spool.close()
    assert set(seqs(path)) == before


def test_a_file_of_the_first_schema_is_salvaged_by_its_frames_own_shape(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    old_spool(path, of, 30)
    tell(path, "UPDATE frames SET bytes = zeroblob(1000) WHERE seq = 3")
    spool, aside = put_aside(path)
    done = recovered(aside, spool)
    spool.close()
    assert (done.salvaged, done.unsalvageable) == (29, 1)
    assert ask(path, "SELECT count(*) FROM frames WHERE crc IS NULL") == [(0,)]


@pytest.mark.parametrize("seed", range(12))
def test_no_damage_makes_it_fail_or_hand_out_what_was_not_stored(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "spool.db"
    of = sealing()
    spool = opened(path)
    for number in range(60):
        store(spool, of, entry(number), *([reject(6000)] if number % 9 == 0 else []))
    spool.close()
    data = {one.data for one in handed(path)}
    noise = random.Random(seed)
    spoilt = bytearray(path.read_bytes())
    harm: list[Callable[[], None]] = [
        lambda: spoilt.__setitem__(noise.randrange(len(spoilt)), noise.randrange(256)),
        lambda: spoilt.__setitem__(
            slice(at := noise.randrange(len(spoilt) - 999), at + 99), noise.randbytes(99)
        ),
        lambda: spoilt.__delitem__(slice(noise.randrange(len(spoilt) // 2, len(spoilt)), None)),
    ]
    for _ in range(40):
        noise.choices(harm, [40, 10, 1])[0]()
    path.write_bytes(spoilt)
    spool, aside = put_aside(path)
    done = recovered(aside, spool)
    spool.close()
    found = handed(path)
    assert {one.data for one in found} <= data
    assert len({(one.epoch, one.seq) for one in found}) == len(found) == done.salvaged
    assert spool_read.verify(path) == []
