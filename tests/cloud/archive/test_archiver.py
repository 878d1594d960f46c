import random
from io import StringIO

import pytest

from cloud import records
from cloud.archive.archiver import BACKOFF_MS_MAX, Archiver, newest_state
from cloud.archive.chain import Chain
from cloud.archive.envelope import ParquetKeys
from cloud.archive.errors import ArchiveDamaged
from cloud.archive.parquet import file_name
from healthsync.runtime.log import Log
from tests.cloud.archive.bench import NOW, MasterKey, MemoryStore, keys, record, seqs_in, value

FLUSH_MS = 5_000


class Topic:
    """Kafka as one partition: a list, and where a consumer stands in it."""

    def __init__(self) -> None:
        self.log: list[bytes] = []
        self.at: int | None = None
        self.paused = True
        self.seek_fails = 0

    def hold(self, partition: int) -> None:
        self.paused = True

    def send_on(self, partition: int, offset: int) -> bool:
        if self.seek_fails:
            self.seek_fails -= 1
            return False
        self.at, self.paused = offset, False
        return True

    def poll(self, archiver: Archiver, most: int) -> None:
        while most and not self.paused and self.at is not None and self.at < len(self.log):
            offset, self.at, most = self.at, self.at + 1, most - 1
            archiver.take(0, offset, self.log[offset])


class Bench:
    def __init__(self) -> None:
        self.now_ms = NOW
        self.store, self.master, self.log = MemoryStore(), MasterKey(), StringIO()
        self.keys: ParquetKeys = keys(self.master)
        self.topic = Topic()

    def process(self, topic: Topic | None = None, rows_max: int = 1000) -> Archiver:
        archiver = Archiver(
            self.store,  # type: ignore[arg-type] # the same calls
            self.keys,
            topic or self.topic,
            FLUSH_MS,
            rows_max,
            lambda: self.now_ms,
            Log("archive", lambda: NOW, self.log),
        )
        archiver.assigned(0)
        return archiver

    def fill(self, *seqs: int) -> None:
        self.topic.log += [value(seq) for seq in seqs]

    def archived(self) -> list[int]:
        return seqs_in(self.store, self.keys)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_file_is_put_when_its_time_has_come(bench: Bench) -> None:
    archiver = bench.process()
    bench.fill(0, 1, 2)
    archiver.work()
    bench.topic.poll(archiver, 10)
    assert archiver.work() == {}
    bench.now_ms += FLUSH_MS
    assert archiver.work() == {0: 3}
    assert list(bench.store.objects) == [file_name(0, 0)]
    assert bench.archived() == [0, 1, 2]


def test_a_file_is_put_when_there_are_enough_rows(bench: Bench) -> None:
    archiver = bench.process(rows_max=2)
    bench.fill(0, 1)
    archiver.work()
    bench.topic.poll(archiver, 10)
    assert archiver.work() == {0: 2}


def test_no_rows_make_no_file(bench: Bench) -> None:
    archiver = bench.process()
    archiver.work()
    bench.now_ms += 10 * FLUSH_MS
    assert archiver.work(everything=True) == {}
    assert not bench.store.objects


def test_a_frame_sent_again_is_one_frame_across_files_and_processes(bench: Bench) -> None:
    archiver = bench.process()
    bench.fill(0, 1, 1, 0)
    archiver.work()
    bench.topic.poll(archiver, 10)
    archiver.work(everything=True)
    bench.fill(1, 2)
    second = bench.process()
    second.work()
    bench.topic.poll(second, 10)
    second.work(everything=True)
    assert bench.archived() == [0, 1, 2]
    assert sorted(bench.store.objects) == [file_name(0, 0), file_name(0, 4)]
    state = newest_state(bench.store, bench.keys, 0)  # type: ignore[arg-type]
    assert state is not None
    assert (state.next_offset, state.ledger[0].readings) == (6, 3)


def test_what_was_gathered_and_not_put_is_read_again_after_a_crash(bench: Bench) -> None:
    bench.fill(0, 1, 2)
    first = bench.process()
    first.work()
    bench.topic.poll(first, 2)
    second = bench.process()  # the first is gone
    second.work()
    bench.topic.poll(second, 10)
    second.work(everything=True)
    assert bench.archived() == [0, 1, 2]


def test_while_s3_is_down_the_partition_is_held_and_nothing_is_lost(bench: Bench) -> None:
    archiver = bench.process()
    bench.fill(0, 1)
    archiver.work()
    bench.topic.poll(archiver, 10)
    bench.store.down = True
    bench.now_ms += FLUSH_MS
    assert archiver.work() == {}
    bench.fill(2, 3)
    bench.topic.poll(archiver, 10)
    assert bench.topic.paused
    bench.store.down = False
    assert archiver.work() == {}  # not before the pause is over
    bench.now_ms += BACKOFF_MS_MAX
    assert archiver.work() == {0: 2}
    bench.topic.poll(archiver, 10)
    archiver.work(everything=True)
    assert bench.archived() == [0, 1, 2, 3]


def test_tries_against_a_store_that_is_down_are_few(bench: Bench) -> None:
    archiver = bench.process()
    bench.store.down = True
    for _ in range(600):  # ten minutes
        bench.now_ms += 1000
        archiver.work()
    assert bench.log.getvalue().count("store-down") < 30


def test_kms_being_down_holds_the_partition_too(bench: Bench) -> None:
    archiver = bench.process()
    bench.fill(0)
    archiver.work()
    bench.topic.poll(archiver, 10)
    bench.master.down = True
    bench.now_ms += FLUSH_MS
    assert archiver.work() == {}
    assert bench.topic.paused
    bench.master.down = False
    bench.now_ms += BACKOFF_MS_MAX
    assert archiver.work() == {0: 1}


def test_a_put_whose_answer_was_lost_is_recognised(bench: Bench) -> None:
    archiver = bench.process()
    bench.fill(0, 1)
    archiver.work()
    bench.topic.poll(archiver, 10)
    bench.store.lose_answers = 1
    bench.now_ms += FLUSH_MS
    archiver.work()
    bench.fill(2)
    bench.now_ms += BACKOFF_MS_MAX
    assert archiver.work() == {0: 2}
    bench.topic.poll(archiver, 10)
    archiver.work(everything=True)
    assert bench.archived() == [0, 1, 2]


def test_of_two_processes_with_one_partition_the_second_continues_from_the_firsts_file(
    bench: Bench,
) -> None:
    other = Topic()
    other.log = bench.topic.log
    first, second = bench.process(), bench.process(other)
    bench.fill(0, 1)
    for archiver, topic in ((first, bench.topic), (second, other)):
        archiver.work()
        topic.poll(archiver, 10)
    bench.fill(2)
    other.poll(second, 10)  # gathered one more than the first
    assert first.work(everything=True) == {0: 2}
    assert second.work(everything=True) == {0: 2}
    assert other.at == 2
    other.poll(second, 10)
    assert second.work(everything=True) == {0: 3}
    assert bench.archived() == [0, 1, 2]


def test_a_seek_that_is_not_possible_yet_is_tried_again(bench: Bench) -> None:
    bench.fill(0)
    bench.topic.seek_fails = 2
    archiver = bench.process()
    for _ in range(3):
        archiver.work()
        bench.topic.poll(archiver, 10)
    archiver.work(everything=True)
    assert bench.archived() == [0]


def test_a_revoked_partition_is_dropped(bench: Bench) -> None:
    archiver = bench.process()
    bench.fill(0)
    archiver.work()
    bench.topic.poll(archiver, 10)
    archiver.revoked(0)
    assert archiver.work(everything=True) == {}
    archiver.take(0, 1, value(1))
    assert not bench.store.objects


def test_a_record_that_is_no_record_is_passed_and_told(bench: Bench) -> None:
    archiver = bench.process()
    bad = record(1)
    bad.columns.value = [2**40]
    bench.topic.log += [b"junk", records.encode(bad), records.encode(record(2**63))]
    bench.fill(2)
    archiver.work()
    bench.topic.poll(archiver, 10)
    assert archiver.work(everything=True) == {0: 4}
    assert bench.archived() == [2]
    assert bench.log.getvalue().count("record-refused") == 3


def test_nothing_is_written_after_a_newest_file_that_cannot_be_read(bench: Bench) -> None:
    bench.store.put(file_name(0, 0), b"not parquet")
    with pytest.raises(ArchiveDamaged):
        bench.process().work()


def test_an_offset_passed_already_is_not_taken_again() -> None:
    chain = Chain(0, None)
    chain.take(5, value(0), NOW)
    assert chain.take(5, value(1), NOW).duplicate
    assert chain.take(4, value(1), NOW).duplicate
    assert chain.next_offset == 6


@pytest.mark.parametrize("seed", range(15))
def test_whatever_fails_in_whatever_order_every_frame_is_archived_once(seed: int) -> None:
    chance = random.Random(seed)
    bench = Bench()
    frames = [chance.randrange(80) for _ in range(200)]  # many are sent again
    topics = [Topic(), Topic()]
    for topic in topics:
        topic.log = bench.topic.log
    processes = [bench.process(topic, rows_max=20) for topic in topics]
    for _ in range(400):
        if frames and chance.random() < 0.6:
            bench.fill(frames.pop())
        which = chance.randrange(2)
        bench.now_ms += chance.randrange(3_000)
        match chance.randrange(12):
            case 0:
                bench.store.down = True
            case 1 | 2 | 3:
                bench.store.down = False
            case 4:
                bench.store.lose_answers = 1
            case 5:  # killed, and started again
                topics[which] = Topic()
                topics[which].log = bench.topic.log
                processes[which] = bench.process(topics[which], rows_max=20)
            case 6:
                topics[which].seek_fails = 1
        topics[which].poll(processes[which], chance.randrange(8))
        processes[which].work()
    bench.fill(*frames)
    bench.store.down, bench.store.lose_answers = False, 0
    for _ in range(40):
        bench.now_ms += BACKOFF_MS_MAX
        for topic, process in zip(topics, processes, strict=True):
            topic.poll(process, 1000)
            process.work()
    sent = [records.decode_samples(data).seq for data in bench.topic.log]
    assert sorted(bench.archived()) == sorted(set(sent))
    state = newest_state(bench.store, bench.keys, 0)  # type: ignore[arg-type]
    assert state is not None
    assert state.ledger[0].readings == len(set(sent))
