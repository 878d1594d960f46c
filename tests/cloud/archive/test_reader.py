import io
import threading

import pytest

from cloud.archive.chain import Chain
from cloud.archive.errors import StoreUnavailable
from cloud.archive.parquet import partition_prefix, write
from cloud.archive.ranged import RANGE_BYTES, TAIL_BYTES, ObjectFile
from cloud.archive.reader import FUTURE_MS, Archive
from cloud.records import encode
from tests.cloud.archive.bench import ADA, BOB, DEVICE, NOW, MasterKey, MemoryStore, keys, record
from vitals.reading import Reading


class Bench:
    def __init__(self) -> None:
        self.store, self.master = MemoryStore(), MasterKey()
        self.keys = keys(self.master)
        self.chain = Chain(0, None)
        self.seq = 0
        self.archive = Archive(self.store, self.keys)

    def file(self, *rows: tuple[str, Reading], written_ms: int = NOW) -> None:
        self.chain.take(self.chain.next_offset, encode(record(self.seq, list(rows))), NOW)
        self.seq += 1
        closed = self.chain.close()
        self.store.now_ms = written_ms
        self.store.put(closed.name, write(closed.rows, closed.state, self.keys))
        self.chain.put()

    def times(self, subject: str = ADA, newest: int = 100, **window: int) -> list[int]:
        rows = self.archive.rows(subject, window.get("start"), window.get("end"), None, newest)
        return [reading.time_ms - NOW for _, reading in rows]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def at(offset_ms: int, vital: int = 0, value: float | None = 70.0) -> Reading:
    return Reading(vital, value, NOW + offset_ms, NOW + offset_ms)


def test_readings_come_back_as_they_went_in(bench: Bench) -> None:
    given = Reading(4, 36.9, NOW, NOW + 1, 2, 3, 1, 2)
    gone = Reading(0, None, NOW - 1, NOW, 1)
    bench.file((ADA, given), (ADA, gone), (BOB, at(5)))
    assert bench.archive.rows(ADA, None, None, None, 10) == [(DEVICE, given), (DEVICE, gone)]


def test_newest_first_over_files_whatever_order_they_were_written_in(bench: Bench) -> None:
    bench.file((ADA, at(10)), (ADA, at(40)))
    bench.file((ADA, at(20)), (ADA, at(5)))  # came late
    bench.file((ADA, at(30)))
    assert bench.times() == [40, 30, 20, 10, 5]
    assert bench.times(newest=2) == [40, 30]
    assert bench.times(newest=0) == []


def test_the_range_holds_its_start_and_not_its_end(bench: Bench) -> None:
    bench.file((ADA, at(10)), (ADA, at(20)), (ADA, at(30)))
    assert bench.times(start=NOW + 10, end=NOW + 30) == [20, 10]
    assert bench.times(start=NOW + 30) == [30]
    assert bench.times(end=NOW + 10) == []
    assert bench.times(start=NOW + 30, end=NOW + 30) == []


def test_only_the_vitals_asked_for(bench: Bench) -> None:
    bench.file((ADA, at(1, vital=0)), (ADA, at(2, vital=2)), (ADA, at(3, vital=4)))
    rows = bench.archive.rows(ADA, None, None, {0, 4}, 10)
    assert [reading.vital for _, reading in rows] == [4, 0]
    assert bench.archive.rows(ADA, None, None, frozenset(), 10) == []


def test_another_subject_and_another_partition_give_nothing(bench: Bench) -> None:
    bench.file((ADA, at(1)))
    assert bench.times(subject=BOB) == []
    assert bench.times(subject="00000001" + "0" * 24) == []


def test_files_known_to_hold_nothing_of_it_are_not_read_again(bench: Bench) -> None:
    for offset in range(5):
        bench.file((ADA, at(offset)))
    bench.file((BOB, at(9)))
    assert len(bench.times()) == 5
    reads = bench.store.reads
    bench.archive._tails.clear()  # what was kept of the files themselves
    assert bench.times(subject=BOB) == [9]
    assert bench.store.reads == reads + 1


def test_what_was_fetched_once_is_not_fetched_again(bench: Bench) -> None:
    bench.file((ADA, at(1)))
    bench.times()
    reads = bench.store.reads
    bench.times()
    assert bench.store.reads == reads


def test_a_new_file_is_seen_at_the_next_call(bench: Bench) -> None:
    bench.file((ADA, at(1)))
    assert bench.times() == [1]
    bench.file((ADA, at(2)))
    assert bench.times() == [2, 1]


def test_a_file_written_before_the_range_began_is_not_opened(bench: Bench) -> None:
    bench.file((ADA, at(-3 * FUTURE_MS)), written_ms=NOW - 2 * FUTURE_MS)
    bench.file((ADA, at(1)))
    assert bench.times(start=NOW) == [1]
    assert bench.store.reads == 1


def test_old_files_are_left_alone_once_there_is_enough(bench: Bench) -> None:
    for age in range(30, 0, -1):
        time = -age * 2 * FUTURE_MS
        bench.file((ADA, at(time)), written_ms=NOW + time)
    assert len(bench.times(newest=3)) == 3
    assert bench.store.reads <= 16


def test_counts_are_of_the_newest_file_of_each_partition(bench: Bench) -> None:
    assert bench.archive.counts() == {}
    bench.file((ADA, at(1)), (ADA, at(2)))
    bench.file((BOB, at(3)))
    assert bench.archive.counts() == {("ward-3", "e1"): 3}
    assert bench.archive.entries()[0][0].ranges == [(0, 1)]


def test_a_store_that_is_down_is_told(bench: Bench) -> None:
    bench.file((ADA, at(1)))
    bench.store.down = True
    with pytest.raises(StoreUnavailable):
        bench.times()


def test_many_threads_get_the_same_answer(bench: Bench) -> None:
    for offset in range(20):
        bench.file((ADA, at(offset)))
    found: list[list[int]] = []
    threads = [threading.Thread(target=lambda: found.append(bench.times())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [list(range(19, -1, -1))] * 8


class Bytes:
    def __init__(self, data: bytes) -> None:
        self.data = data
        self.reads: list[tuple[int, int]] = []

    def read(self, key: str, start: int, size: int) -> bytes:
        self.reads.append((start, size))
        assert 0 <= start <= start + size <= len(self.data)
        return self.data[start : start + size]


@pytest.mark.parametrize("size", [1, 1000, TAIL_BYTES, TAIL_BYTES + 1, 3 * RANGE_BYTES])
def test_an_object_reads_like_a_file(size: int) -> None:
    data = bytes(at % 251 for at in range(size))
    plain, file = io.BytesIO(data), ObjectFile(Bytes(data), "k", size)
    for offset, whence, count in (
        (-8, 2, 8),
        (0, 0, 10),
        (size // 2, 0, 700),
        (3, 1, -1),
        (0, 2, 5),
    ):
        try:
            expected_at = plain.seek(offset, whence)
        except ValueError:
            continue
        assert file.seek(offset, whence) == expected_at
        assert file.read(count) == plain.read(count)
        assert file.tell() == plain.tell()


def test_the_end_is_fetched_once() -> None:
    store = Bytes(bytes(TAIL_BYTES * 2))
    file = ObjectFile(store, "k", TAIL_BYTES * 2)
    for _ in range(3):
        file.seek(-100, 2)
        file.read()
    assert store.reads == [(TAIL_BYTES, TAIL_BYTES)]


def test_a_partitions_files_lie_under_its_own_prefix() -> None:
    assert not partition_prefix(10).startswith(partition_prefix(1))
