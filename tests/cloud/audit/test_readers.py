import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from cloud import records
from cloud.archive.ledger import EpochEntry
from cloud.audit import topics as topics_
from cloud.audit.errors import Unreachable
from cloud.audit.evidence import EpochName, Spooled
from cloud.audit.others import project_lag, read_archive, read_spool
from cloud.audit.topics import Dedupe, DetectReader, QuarantineReader, SamplesReader, dedupe_of
from cloud.settings import Kafka
from vitals.columns import Source, pack
from vitals.reading import Reading
from vitals.topics import Topic

E1 = "1" * 32
NAME = EpochName("ward-3", E1)
NOW = 1_780_000_000_000
KAFKA = Kafka("nowhere", Path("ca"), Path("cert"), Path("key"))


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    path = tmp_path / "a b?.db"  # a name that must be quoted in a URI
    db = sqlite3.connect(path)
    db.executescript(
        "PRAGMA journal_mode=WAL;"
        "CREATE TABLE counters (epoch TEXT, name TEXT, value INT, PRIMARY KEY (epoch, name));"
        "CREATE TABLE frames (epoch TEXT, seq INT)"
    )
    counters = {"readings_spooled": 9, "readings_acked": 7, "rejects_spooled": 2, "highest_seq": 5}
    db.executemany("INSERT INTO counters VALUES (?, ?, ?)", [(E1, *c) for c in counters.items()])
    db.executemany("INSERT INTO frames VALUES (?, ?)", [(E1, 4), (E1, 5), ("2" * 32, 0)])
    db.commit()
    db.close()
    return path


def test_a_spool_gives_its_counters_and_what_is_in_it(spool: Path) -> None:
    found = read_spool("ward-3", spool)
    assert found == {
        NAME: Spooled(readings_spooled=9, readings_acked=7, rejects_spooled=2, frames_waiting=2),
        EpochName("ward-3", "2" * 32): Spooled(frames_waiting=1),
    }


def test_the_names_of_the_counters_are_those_the_gateway_writes() -> None:
    import edge.spool

    words = (edge.spool.__doc__ or "").replace("`", " ").split()
    for field in msgspec.structs.fields(Spooled):
        if field.name != "frames_waiting":
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


def sample(seq: int, rows: int) -> bytes:
    columns = pack([Source("d", "s")], [(0, Reading(0, 1.0, NOW, NOW))] * rows)
    return records.encode(records.SamplesRecord("ward-3", E1, seq, 0, NOW, columns))


def test_samples_are_counted_distinct_by_partition_and_seq(topic: list[Message]) -> None:
    reader = SamplesReader(KAFKA)
    topic += [Message("k", sample(0, 3), 1), Message("k", sample(0, 2), 2)]
    topic += [Message("k", sample(0, 3), 1), Message("k", b"junk", 1)]
    held = reader.read()[NAME]
    assert (held.readings, held.resent) == (5, 1)
    topic += [Message("k", sample(1, 4), 1)]
    assert reader.read()[NAME].readings == 9


def test_detect_is_read_from_the_latest_value_of_each_dedupe_key(topic: list[Message]) -> None:
    def value(readings: int, high: int) -> bytes:
        return msgspec.msgpack.encode(Dedupe(1, [(1, high)], readings, high))

    reader = DetectReader(KAFKA)
    key = f"2/dedupe/ward-3/{E1}"
    topic += [Message(key, value(5, 3)), Message(key, value(9, 4)), Message("2/level/x", b"?")]
    topic += [Message(f"3/dedupe/ward-3/{E1}", value(1, 1))]
    held = reader.read()[NAME]
    assert held.readings == 10
    assert list(held.seen[2]) == [(1, 4)]
    assert 0 in held.seen[2]  # below the floor
    topic += [Message(f"3/dedupe/ward-3/{E1}", None)]
    assert reader.read()[NAME].readings == 9


def test_detects_state_of_an_unknown_shape_is_said() -> None:
    with pytest.raises(msgspec.DecodeError):
        dedupe_of({f"0/dedupe/e/{E1}": b"\xc3"})


def test_the_dedupe_state_has_the_shape_detect_writes() -> None:
    from cloud.detect.partition import Seen

    written = msgspec.msgpack.encode(Seen(floor=2, ranges=[(2, 9)], readings=40, frames=9))
    held = dedupe_of({f"7/dedupe/ward-3/{E1}": written})[NAME]
    assert (held.readings, list(held.seen[7]), held.seen[7].floor) == (40, [(2, 9)], 2)


def test_quarantine_is_counted_by_its_headers_only(topic: list[Message]) -> None:
    def headers(kind: str, seq: int, count: int) -> list[tuple[str, bytes]]:
        texts = {"kind": kind, "count": str(count), "epoch": E1, "seq": str(seq)}
        return [(name, text.encode()) for name, text in texts.items()]

    reader = QuarantineReader(KAFKA)
    topic += [Message("ward-3", b"sealed", 0, headers("rejects", 4, 3))] * 2
    topic += [Message("ward-3", b"sealed", 0, headers("frame", 9, 0))]
    held = reader.read()[NAME]
    assert (held.rejects, list(held.set_aside)) == (3, [(9, 9)])


class FakeArchive:
    def entries(self) -> dict[int, list[EpochEntry]]:
        return {
            0: [EpochEntry("ward-3", E1, 1, [(1, 3)], 7, 3)],
            5: [EpochEntry("ward-3", E1, 0, [(2, 2)], 2, 1)],
        }


def test_the_archives_partitions_are_added_up() -> None:
    held = read_archive(FakeArchive())[NAME]  # type: ignore[arg-type] # the one call
    assert held.readings == 9
    assert list(held.seen[5]) == [(2, 2)]


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
