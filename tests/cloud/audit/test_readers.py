from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from cloud import records
from cloud.archive.ledger import EpochEntry
from cloud.audit import others
from cloud.audit import topics as topics_
from cloud.audit.errors import Unreachable
from cloud.audit.evidence import EpochName, Spooled
from cloud.audit.others import find_in_spool, project_lag, read_archive, read_spool
from cloud.audit.since import FrameName
from cloud.audit.topics import (
    Dedupe,
    DetectReader,
    PoisonReader,
    QuarantineReader,
    SamplesReader,
    dedupe_of,
)
from cloud.audit.trace import InSpool
from cloud.settings import Kafka
from tests.cloud.detect.turns import Log
from tests.edge.spooling import NOW as SPOOL_NOW
from tests.edge.spooling import ack, opened, put, sealed, sealing, tell
from vitals.columns import Source, pack
from vitals.interval import IntervalSet
from vitals.reading import Reading
from vitals.tally import Tally
from vitals.topics import Topic

E1 = "1" * 32
NAME = EpochName("ward-3", E1)
NOW = 1_780_000_000_000
KAFKA = Kafka("nowhere", Path("ca"), Path("cert"), Path("key"))


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    path = tmp_path / "a b.db"  # a name that must be quoted in a URI
    of = sealing()
    spool = opened(path)
    put(spool, of, *(sealed(of, seq, lane=2 if seq == 1 else 0) for seq in range(6)))
    ack(spool, of, (0, 1), (3, 3))
    dropped = Counter({"frames_sent": 4, "readings_sent": 15, "rejected:bad-number": 2})
    spool.store(of.epoch, [], dropped)
    spool.close()
    for table in ("epochs", "counters", "frames", "acked"):
        tell(path, f"UPDATE {table} SET epoch = '{E1}'")  # noqa: S608 - fixed text
    return path


def test_a_spool_gives_its_counters_and_what_is_in_it(spool: Path) -> None:
    found = read_spool("ward-3", spool)
    assert found == {
        NAME: Spooled(
            readings_spooled=25,
            readings_acked=10,
            rejects_spooled=5,
            rejects_acked=5,
            frames_spooled=6,
            frames_acked=3,
            frames_sent=4,
            readings_sent=15,
            highest_seq=5,
            frames_waiting=3,
            split={"rejected:bad-number": 2},
            began_ms=SPOOL_NOW,
            acked=IntervalSet([(0, 1), (3, 3)]),
            waiting=IntervalSet([(2, 2), (4, 5)]),
        )
    }
    assert found[NAME].by_number
    assert found[NAME].split_of("rejected") == {"bad-number": 2}


def test_a_spool_of_an_older_gateway_is_known_by_its_totals(spool: Path) -> None:
    tell(spool, "DROP TABLE acked")
    found = read_spool("ward-3", spool)[NAME]
    assert (found.frames_acked, list(found.acked), found.by_number) == (3, [], False)


def test_more_stored_frames_than_the_cap_are_counted_and_not_named(
    spool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(others, "WAITING_NAMED_MAX", 3)
    assert read_spool("ward-3", spool)[NAME].waiting is not None
    monkeypatch.setattr(others, "WAITING_NAMED_MAX", 2)
    found = read_spool("ward-3", spool)[NAME]
    assert (found.frames_waiting, found.waiting) == (3, None)


@pytest.mark.parametrize(
    ("seq", "expected"),
    [(0, InSpool("acknowledged")), (2, InSpool("stored", 5)), (9, InSpool("not here"))],
)
def test_a_frame_is_found_in_the_spool(spool: Path, seq: int, expected: InSpool) -> None:
    assert find_in_spool(spool, FrameName(NAME, seq)) == expected


def test_a_frame_that_failed_its_checksum_is_found(spool: Path) -> None:
    tell(spool, f"INSERT INTO unsound VALUES (99, '{E1}', 9, x'00')")  # noqa: S608 - fixed text
    assert find_in_spool(spool, FrameName(NAME, 9)) == InSpool("unsound")


def test_the_names_of_the_counters_are_those_the_gateway_writes() -> None:
    import edge.spool

    words = (edge.spool.__doc__ or "").replace("`", " ").split()
    for field in msgspec.structs.fields(Spooled):
        if field.type is int and field.name not in ("frames_waiting", "began_ms"):
            assert field.name in words


def test_a_spool_that_is_not_there_is_unreachable_and_not_made(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match="spool of ward-3"):
        read_spool("ward-3", tmp_path / "none.db")
    assert not list(tmp_path.iterdir())


class Message:
    def __init__(
        self,
        key: str,
        value: bytes | None,
        partition: int = 0,
        headers: list[tuple[str, bytes]] | None = None,
    ) -> None:
        self._all = (key.encode(), value, partition, headers)

    def key(self) -> bytes:
        return self._all[0]

    def value(self) -> bytes | None:
        return self._all[1]

    def partition(self) -> int:
        return self._all[2]

    def headers(self) -> list[tuple[str, bytes]] | None:
        return self._all[3]

    def timestamp(self) -> tuple[int, int]:
        return 1, NOW

    def offset(self) -> int:
        return 40 + self._all[2]


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """Messages the next `new` of any reader yields."""
    messages: list[Message] = []

    class Reader:
        trimmed = False

        def __init__(self, kafka: Kafka, topic: Topic, starts: Any = None) -> None:
            pass

        def new(self) -> Iterator[Message]:
            yield from list(messages)
            messages.clear()

    monkeypatch.setattr(topics_, "TopicReader", Reader)
    return messages


def sample(
    seq: int, rows: int, *, value: float = 1.0, floor: int = 0, whole: int | None = None
) -> bytes:
    columns = pack([Source("d", "s")], [(0, Reading(0, value, NOW, NOW))] * rows)
    return records.encode(
        records.SamplesRecord("ward-3", E1, seq, floor, NOW - floor, columns, whole)
    )


def test_samples_are_counted_distinct_by_partition_and_seq(topic: list[Message]) -> None:
    reader = SamplesReader(KAFKA)
    topic += [Message("k", sample(0, 3), 1), Message("k", sample(0, 2), 2)]
    topic += [Message("k", sample(0, 3), 1), Message("k", b"junk", 1)]
    held = reader.read()[NAME]
    assert (held.readings, held.again, held.records) == (5, 1, 3)
    assert held.newest_ms == NOW
    assert not any(part.altered for part in held.parts.values())
    topic += [Message("k", sample(1, 4), 1)]
    assert reader.read()[NAME].readings == 9


def test_a_record_that_came_again_with_another_content_is_told(topic: list[Message]) -> None:
    reader = SamplesReader(KAFKA)
    topic += [Message("k", sample(0, 3), 1), Message("k", sample(1, 3), 1)]
    topic += [Message("k", sample(1, 3, value=2.0), 1), Message("k", sample(0, 3, floor=1), 1)]
    part = reader.read()[NAME].parts[1]
    assert (list(part.altered), part.again) == ([(1, 1)], 2)


def test_a_frame_is_whole_when_its_records_add_up(topic: list[Message]) -> None:
    reader = SamplesReader(KAFKA)
    topic += [Message("k", sample(0, 3, whole=5), 1), Message("k", sample(1, 1, whole=1), 1)]
    assert reader.read()[NAME].incomplete == {0: 2}
    topic += [Message("k", sample(0, 2, whole=5), 2), Message("k", sample(0, 2, whole=5), 2)]
    assert reader.read()[NAME].incomplete == {}
    topic += [Message("k", sample(1, 4, whole=1), 3)]
    assert reader.read()[NAME].incomplete == {1: -4}


def test_detect_is_read_from_the_latest_value_of_each_dedupe_key(topic: list[Message]) -> None:
    def value(readings: int, high: int) -> bytes:
        return msgspec.msgpack.encode(Dedupe(1, [(1, high)], readings, high))

    reader = DetectReader(KAFKA)
    key = f"2/dedupe/ward-3/{E1}"
    topic += [Message(key, value(5, 3)), Message(key, value(9, 4)), Message("2/level/x", b"?")]
    topic += [Message(f"3/dedupe/ward-3/{E1}", value(1, 1))]
    held = reader.read()[NAME]
    assert held.readings == 10
    assert list(held.parts[2].seen) == [(1, 4)]
    assert 0 in held.parts[2].seen  # below the floor
    topic += [Message(f"3/dedupe/ward-3/{E1}", None)]
    assert reader.read()[NAME].readings == 9


def test_what_else_detect_keeps_is_passed_over(topic: list[Message]) -> None:
    written = [(key.decode(), value) for key, value in Log(3).state]
    assert {key.split("/")[1] for key, _ in written} == {"turn", "chunk", "marks"}
    reader = DetectReader(KAFKA)
    key = f"3/dedupe/ward-3/{E1}"
    topic += [Message(key, msgspec.msgpack.encode(Dedupe(0, [(0, 1)], 7, 2)), 3)]
    topic += [Message(key, value, 3) for key, value in written]
    assert reader.read()[NAME].readings == 7
    topic += [Message(key, None, 3) for key, _ in written]
    assert list(reader.read()) == [NAME]


def test_poison_is_counted_by_its_reason_and_never_repeats_another_word(
    topic: list[Message],
) -> None:
    reader = PoisonReader(KAFKA)
    keys = ("1/40/malformed", "1/41/malformed", "2/9/subject", "M000123 Ada", "", "1/2/Ada Ng")
    topic += [Message(key, b"?") for key in keys]
    assert reader.read() == {"malformed": 2, "subject": 1, "unknown": 3}
    topic += [Message("1/42/range", b"?")]
    assert reader.read() == {"malformed": 2, "range": 1, "subject": 1, "unknown": 3}


@pytest.mark.parametrize(("since_ms", "count"), [(NOW, 1), (NOW + 1, 0)])
def test_poison_from_before_a_time_is_left_out(
    topic: list[Message], since_ms: int, count: int
) -> None:
    topic += [Message("1/40/malformed", b"?")]
    assert sum(PoisonReader(KAFKA, since_ms).read().values()) == count


def test_detects_state_of_an_unknown_shape_is_said() -> None:
    with pytest.raises(msgspec.DecodeError):
        dedupe_of({f"0/dedupe/e/{E1}": b"\xc3"})


def test_the_dedupe_state_has_the_shape_detect_writes() -> None:
    from cloud.detect.seen import Seen

    state = Seen(floor=2, ranges=[(2, 9)], readings=40, frames=9, again=3, sums=(1, 2, 3))
    held = dedupe_of({f"7/dedupe/ward-3/{E1}": msgspec.msgpack.encode(state)})[NAME]
    part = held.parts[7]
    assert (held.readings, list(part.seen), part.seen.floor) == (40, [(2, 9)], 2)
    assert (part.tally, part.again, part.summed) == (Tally(9, 40, (1, 2, 3)), 3, True)
    old = msgspec.msgpack.encode(Seen(floor=2, ranges=[(2, 9)], readings=40, frames=9))
    assert not dedupe_of({f"7/dedupe/ward-3/{E1}": old})[NAME].parts[7].summed


def test_quarantine_is_counted_by_its_headers_only(topic: list[Message]) -> None:
    def headers(kind: str, seq: int, count: int) -> list[tuple[str, bytes]]:
        texts = {"kind": kind, "count": str(count), "epoch": E1, "seq": str(seq)}
        return [(name, text.encode()) for name, text in texts.items()]

    reader = QuarantineReader(KAFKA)
    topic += [Message("ward-3", b"sealed", 0, headers("rejects", 4, 3))] * 2
    topic += [Message("ward-3", b"sealed", 0, headers("frame", 9, 0))]
    held = reader.read()[NAME]
    assert (held.rejects, held.again, list(held.set_aside)) == (3, 1, [(9, 9)])
    assert held.newest_ms == NOW


class FakeArchive:
    def entries(self) -> dict[int, list[EpochEntry]]:
        return {
            0: [EpochEntry("ward-3", E1, 1, [(1, 3)], 7, 3)],
            5: [EpochEntry("ward-3", E1, 0, [(2, 2)], 2, 1, 4, (2, 4, 4))],
        }


def test_the_archives_partitions_are_added_up() -> None:
    held = read_archive(FakeArchive())[NAME]  # type: ignore[arg-type] # the one call
    assert held.readings == 9
    assert list(held.parts[5].seen) == [(2, 2)]
    assert (held.parts[5].tally, held.again) == (Tally(1, 2, (2, 4, 4)), 4)
    assert [part.summed for part in held.parts.values()] == [False, True]


class FakeRedis:
    def __init__(self, answer: dict[bytes, bytes] | None) -> None:
        self._answer = answer

    def hgetall(self, _key: str) -> dict[bytes, bytes]:
        if self._answer is None:
            raise redis.ConnectionError
        return self._answer


def test_lag_is_counted_from_projects_own_offsets() -> None:
    asked: dict[str, dict[int, int]] = {}

    def count(topic: Topic, offsets: dict[int, int]) -> int:
        asked[topic.name] = offsets
        return sum(offsets.values())

    lag = project_lag(FakeRedis({b"samples/3": b"40", b"alerts/0": b"2"}), count)
    assert lag == {"samples": 40, "alerts": 2, "identity": 0}
    assert asked["samples"][3] == 40
    assert asked["samples"][0] == 0


def test_redis_being_down_is_unreachable() -> None:
    with pytest.raises(Unreachable, match="redis"):
        project_lag(FakeRedis(None), lambda _topic, _offsets: 0)
