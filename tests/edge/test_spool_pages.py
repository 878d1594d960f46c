"""Pages and journals are read as SQLite writes them; noise never makes the readers raise."""

import os
import random
import shutil
import sqlite3
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import epoch_file, pages, spool_read, wal
from edge.pages import Row, as_epoch, as_row, cells, page_size, sound, values, varint
from edge.wreck import Wreck
from tests.edge.spooling import ask, entry, fill, opened, put, reject, sealed, sealing, store
from vitals.epoch import WrappedEpoch

PAGE = 4096


def test_varints_are_read_as_the_format_says() -> None:
    # sqlite.org/fileformat2.html section 1.6: seven bits a byte, all eight of the ninth.
    for data, value in (
        (b"\x00", 0),
        (b"\x7f", 127),
        (b"\x81\x00", 128),
        (b"\x82\x2c", 300),
        (b"\x81\x80\x00", 16384),
        (b"\xff" * 9, 2**64 - 1),
        (b"\xff" * 8 + b"\x7f", 2**64 - 129),
    ):
        assert varint(b"." + data + b"!", 1) == (value, 1 + len(data))
    with pytest.raises(IndexError):
        varint(b"\x80", 0)


def test_a_header_tells_the_size_of_a_page() -> None:
    def header(size: int, reserved: int = 0) -> bytes:
        return pages.MAGIC + struct.pack(">H", size) + b"\x02\x02" + bytes([reserved]) + bytes(79)

    assert page_size(header(4096)) == (4096, 4096)
    assert page_size(header(1)) == (65536, 65536)
    assert page_size(header(4096, 32)) == (4096, 4064)
    for bad in (b"", header(4095), header(256), header(512, 33), b"x" * 100, header(4096)[:99]):
        assert page_size(bad) is None


@pytest.mark.parametrize("page_bytes", [512, 1024, 4096, 65536])
def test_every_frame_that_sqlite_wrote_is_read_back_from_pages(
    tmp_path: Path, page_bytes: int
) -> None:
    path = tmp_path / "some.db"
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA page_size={page_bytes}")
    db.execute("CREATE TABLE frames (id INTEGER PRIMARY KEY, epoch, seq, lane, a, b, c, d, e BLOB)")
    noise = random.Random(page_bytes)
    # Around every border of what stays on the page, and far over it.
    sizes = [*range(page_bytes - 160, page_bytes + 40, 7), 0, 1, 3 * page_bytes, 100_000, 1 << 20]
    rows = []
    for number, size in enumerate(sizes):
        id_ = noise.choice([number + 1, 2**40 + number, 300 * number + 9000])
        seq = noise.choice([0, 1, 127, 128, 2**31])
        rows.append((id_, "a" * 32, seq, number % 3, -5, 2**47, 0, size, noise.randbytes(size)))
    db.executemany("INSERT OR REPLACE INTO frames VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    there = [
        Row(*row)
        for row in db.execute("SELECT id, epoch, seq, lane, a, b, c, e FROM frames ORDER BY id")
    ]
    db.close()
    with Wreck(path) as wreck:
        found = [row for number in range(1, wreck.pages + 1) for row in wreck.records(number)]
    assert sorted(found) == there  # type: ignore[type-var]  # rows alone: there are no epochs


def _page(tmp_path: Path) -> tuple[bytes, list[Row]]:
    """Return the page with the most frames of a spool, and what is on it."""
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, *(sealed(of, seq, size=200) for seq in range(60)))
    spool.close()
    data = path.read_bytes()
    best: tuple[bytes, list[Row]] = b"", []
    for at in range(PAGE, len(data), PAGE):
        page = data[at : at + PAGE]
        rows = [one for one in pages.records(page, 2, PAGE, _nothing) if isinstance(one, Row)]
        if len(rows) > len(best[1]):
            best = page, rows
    assert len(best[1]) > 8
    return best


def _nothing(_: int) -> bytes | None:
    return None


def _found(page: bytes) -> list[Row]:
    return [one for one in pages.records(page, 2, PAGE, _nothing) if isinstance(one, Row)]


def test_a_page_with_a_damaged_head_gives_its_cells_all_the_same(tmp_path: Path) -> None:
    page, rows = _page(tmp_path)
    head = 8 + 2 * len(rows)
    for spoilt in (
        b"\x77" + os.urandom(head - 1) + page[head:],
        b"\x0d" + b"\xff" * (head - 1) + page[head:],
        bytes(head) + page[head:],
        page[:8] + b"\xff\xff" + page[10:],  # one pointer out of bounds
    ):
        assert sorted(_found(spoilt)) == sorted(rows)
    assert _found(b"\x05" + page[1:]) == []  # a page that says it is an interior one


def test_a_deleted_cell_is_not_found(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, *(sealed(of, seq, size=200) for seq in range(10)))
    spool._db.execute("DELETE FROM frames WHERE seq IN (2, 3, 7)")
    spool.close()
    data = path.read_bytes()
    spoilt = bytes(40)  # the list of cells is gone: only their shape is left
    seqs = [
        row.seq
        for at in range(PAGE, len(data), PAGE)
        for row in _found(spoilt + data[at + 40 : at + PAGE])
    ]
    assert sorted(seqs) == [0, 1, 4, 5, 6, 8, 9]


def test_a_ring_of_overflow_pages_and_a_cut_one_give_nothing(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    put(spool, of, sealed(of, 0, size=20_000))
    spool.close()
    data = path.read_bytes()
    leaf = next(
        data[at : at + PAGE]
        for at in range(PAGE, len(data), PAGE)
        if data[at] == 0x0D and b"HSF1" in data[at : at + PAGE]
    )

    def ring(number: int) -> bytes:
        return number.to_bytes(4, "big") + b"x" * (PAGE - 4)

    (row,) = [as_row(at, values(data, 12) or []) for at, data in cells(leaf, 2, PAGE, ring)]
    assert row is not None
    assert len(row.data) == 20_000
    assert not sound(row)
    for fetch in (_nothing, lambda _: b"", lambda _: bytes(PAGE)):
        assert list(cells(leaf, 2, PAGE, fetch)) == []


@settings(max_examples=400, deadline=None)
@given(st.binary(min_size=512, max_size=512), st.booleans())
def test_noise_is_no_page(noise: bytes, leaf: bool) -> None:
    page = b"\x0d" + noise[1:] if leaf else noise
    for number in (1, 2):
        list(pages.records(page, number, 512, lambda _: page))
    pages.free_pages(page, 512, 1000, lambda _: page)
    page_size(page)


@given(st.binary(max_size=80))
def test_noise_is_no_record(noise: bytes) -> None:
    found = values(noise, 12)
    if found is not None:
        as_row(1, found)
        as_epoch(found)


def test_a_ring_in_the_list_of_free_pages_ends() -> None:
    first = bytes(32) + (5).to_bytes(4, "big") + bytes(476)
    trunk = (5).to_bytes(4, "big") + (2).to_bytes(4, "big") + struct.pack(">II", 8, 9) + bytes(496)
    assert pages.free_pages(first, 512, 100, lambda _: trunk) == {5, 8, 9}
    assert pages.free_pages(first, 512, 4, lambda _: trunk) == set()
    assert pages.free_pages(first, 512, 100, _nothing) == {5}
    many = trunk[:4] + (127).to_bytes(4, "big") + trunk[8:]
    assert pages.free_pages(first, 512, 100, lambda _: many) == {5}


def test_only_a_frames_shape_is_a_frame() -> None:
    good: list[object] = [None, "a" * 32, 1, 0, 2, 3, 4, 1, b"x"]
    assert as_row(7, good) == Row(7, "a" * 32, 1, 0, 2, 3, 4, b"x")
    assert as_row(7, [*good, 5, None, 6]) == Row(7, "a" * 32, 1, 0, 2, 3, 4, b"x", 5, None, 6)
    for at, value in ((1, "A" * 32), (1, b"a" * 32), (1, "a" * 31), (2, None), (2, "1"), (8, "x")):
        assert as_row(7, [*good[:at], value, *good[at + 1 :]]) is None
    assert as_row(7, [*good, 5, "6", 7]) is None
    assert as_row(7, good[:8]) is None
    epoch: list[object] = ["a" * 32, "ward-1", "b" * 16, b"w", 5]
    assert as_epoch(epoch) == WrappedEpoch("ward-1", "a" * 32, "b" * 16, b"w", 5)
    for at, wrong in ((0, "a"), (1, 1), (2, "b"), (3, "w"), (4, None)):
        assert as_epoch([*epoch[:at], wrong, *epoch[at + 1 :]]) is None


@pytest.mark.parametrize("field", range(1, 7))
def test_a_row_that_says_other_than_its_frame_is_not_sound(field: int) -> None:
    of = sealing()
    made = sealed(of, 3, count=2)
    row = Row(1, made.epoch, 3, 0, made.first_ms, made.last_ms, 2, made.data)
    assert sound(row)
    columns: list[Any] = list(row)
    columns[field] = "f" * 32 if field == 1 else 1 << 40
    assert not sound(Row(*columns))


# -- the journal --------------------------------------------------------------------------------


def _journal(tmp_path: Path, count: int = 12) -> Path:
    """Return a copy of a spool whose journal holds ``count`` transactions."""
    live, path, of = tmp_path / "live.db", tmp_path / "spool.db", sealing()
    spool = opened(live)
    fill(spool, of, 3)
    spool._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for number in range(count):
        store(spool, of, entry(number), *([reject(9000)] if number == 4 else []))
    for suffix in ("", "-wal"):
        shutil.copy(f"{live}{suffix}", f"{path}{suffix}")
    spool.close()
    return path


def _images(path: Path) -> list[wal.Image]:
    with path.with_name("spool.db-wal").open("rb") as log:
        of = wal.shape(log.read(32), PAGE, log.read(24))
        assert of is not None
        return wal.whole(log, of)


def test_a_sound_journal_is_whole_and_ends_with_its_last_commit(tmp_path: Path) -> None:
    path = _journal(tmp_path)
    images = _images(path)
    size = path.with_name("spool.db-wal").stat().st_size
    assert len(images) == (size - 32) // (24 + PAGE)
    assert images[-1].commit
    assert [image.number for image in images] == list(range(1, len(images) + 1))
    with path.with_name("spool.db-wal").open("ab") as file:  # begun, never committed
        data = path.with_name("spool.db-wal").read_bytes()
        file.write(data[32 : 32 + 24 + PAGE])
    assert _images(path) == images


def test_behind_a_hole_the_chain_is_taken_up_again(tmp_path: Path) -> None:
    path = _journal(tmp_path)
    images = _images(path)
    log = path.with_name("spool.db-wal")
    for hole in (0, 5, len(images) - 2):
        data = bytearray(log.read_bytes())
        at = images[hole].at + 1000
        data[at] ^= 1
        log.write_bytes(data)
        assert [image.number for image in _images(path)] == [
            image.number for image in images if image is not images[hole]
        ]
        data[at] ^= 1
        log.write_bytes(data)


def test_a_journal_with_a_damaged_head_is_read_by_its_first_frame(tmp_path: Path) -> None:
    path = _journal(tmp_path)
    images = _images(path)
    log = path.with_name("spool.db-wal")
    log.write_bytes(os.urandom(32) + log.read_bytes()[32:])
    assert _images(path) == images
    with Wreck(path) as wreck:
        assert wreck.pages >= max(image.page for image in images)


def test_frames_of_an_older_journal_are_not_taken_for_new_ones(tmp_path: Path) -> None:
    path = _journal(tmp_path)
    log = path.with_name("spool.db-wal")
    data = bytearray(log.read_bytes())
    images = _images(path)
    for image in images[10:]:  # as written before the journal was begun anew
        data[image.at - 16 : image.at - 8] = b"old salt"
    log.write_bytes(data)
    last = max(image.number for image in images[:10] if image.commit)
    assert [image.number for image in _images(path)] == list(range(1, last + 1))


def test_what_a_hole_hid_is_in_the_spool_after_opening(tmp_path: Path) -> None:
    path = _journal(tmp_path)
    images = _images(path)
    log = path.with_name("spool.db-wal")
    data = bytearray(log.read_bytes())
    data[images[2].at + 50 : images[2].at + 99] = os.urandom(49)
    log.write_bytes(data)
    spool = opened(path)
    assert spool.behind_hole >= 12
    assert spool.frames == 3 + 13
    assert spool_read.verify(path) == []
    later = sealing()
    put(spool, later, sealed(later, 0))
    spool.close()
    assert ask(path, "SELECT count(*) FROM frames") == [(17,)]
    again = opened(path)
    assert again.behind_hole == 0
    again.close()


def test_after_a_plain_cut_nothing_is_found_behind_a_hole(tmp_path: Path) -> None:
    path = _journal(tmp_path)
    log = path.with_name("spool.db-wal")
    os.truncate(log, log.stat().st_size - 5000)
    spool = opened(path)
    assert spool.behind_hole == 0
    spool.close()


# -- keys, a second time ------------------------------------------------------------------------


def test_keys_written_a_second_time_are_read_back_each_once(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    made = [sealing().epoch for _ in range(3)]
    for epoch in [*made, made[0]]:
        assert epoch_file.add(path, epoch)
    assert epoch_file.read(path) == made
    assert path.stat().st_mode & 0o777 == epoch_file.MODE


def test_a_damaged_record_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    made = [sealing().epoch for _ in range(5)]
    for epoch in made:
        epoch_file.add(path, epoch)
    data = path.read_bytes()
    size = len(data) // 5
    for at in range(size, 2 * size):
        spoilt = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        assert epoch_file.parse(spoilt) == [made[0], *made[2:]]
    assert epoch_file.parse(b"HSE1noise" + data[: 3 * size - 9] + data[3 * size :]) == [
        *(made[0], made[1], made[3], made[4])
    ]
    assert epoch_file.parse(os.urandom(999)) == []


def test_the_second_file_stays_within_its_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epoch_file, "BYTES_MAX", 2000)
    monkeypatch.setattr(epoch_file, "KEPT", 4)
    path = tmp_path / "keys"
    made = [sealing().epoch for _ in range(30)]
    for epoch in made:
        epoch_file.add(path, epoch)
    assert path.stat().st_size < 2500
    found = epoch_file.read(path)
    assert len(found) >= 4
    assert found == made[-len(found) :]


def test_a_disk_that_takes_no_second_copy_is_told(tmp_path: Path) -> None:
    assert not epoch_file.add(tmp_path / "missing" / "keys", sealing().epoch)
    assert epoch_file.read(tmp_path / "missing" / "keys") == []
