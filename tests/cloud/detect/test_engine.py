"""The engine's turns against clients that fail on purpose."""

import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple

import msgspec
import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from cloud.brokers import Deserted
from cloud.detect import clients, engine, journal
from cloud.detect.calls import Fenced, Unreachable
from cloud.detect.engine import BATCH_BYTES_MAX, BATCH_RECORDS_MAX, REST_S, Batch, Engine
from cloud.detect.journal import CHUNKS
from cloud.detect.made import Message
from cloud.detect.seen import Seen
from cloud.detect.subject import Subject
from cloud.policy.seal import publish
from cloud.records import AlertEvent, Command, Instruction, NewPolicy, encode
from healthsync.runtime.log import Log
from tests.cloud.deserted import deserted
from tests.cloud.detect.policies import HEART, SPO2, limits_only
from tests.cloud.detect.records_of import EDGE, EPOCH, T0, reading, record, subject_in
from vitals.reading import Reading

PARTITION = 3
SUBJECT = subject_in(PARTITION)
LIMITS = publish(limits_only())
STRICTER = publish(limits_only(msgspec.structs.replace(SPO2, limit=97.0)))
HEART_ONLY = publish(limits_only(HEART))


class Record:
    def __init__(self, offset: int, value: bytes, partition: int = PARTITION) -> None:
        self._offset, self._value, self._partition = offset, value, partition

    def error(self) -> None:
        return None

    def offset(self) -> int:
        return self._offset

    def partition(self) -> int:
        return self._partition

    def value(self) -> bytes:
        return self._value


class Silent:
    """Asked about the group, it gives no answer."""

    def describe_consumer_groups(self, names: list[str]) -> dict[str, Future[Any]]:
        return {name: Future() for name in names}


class Sent(NamedTuple):
    """What a delivery report names."""

    where: str
    place: int | None

    def topic(self) -> str:
        return self.where

    def partition(self) -> int:
        return PARTITION

    def offset(self) -> int | None:
        return self.place


class Committed(NamedTuple):
    """A `TopicPartition` as it is answered: metadata may be None, which no constructor takes."""

    partition: int
    offset: int
    metadata: str | None


class Kafka:
    """Consumer, producer and the topics in one: what is committed and what is not."""

    AT_ONCE = 2
    """Records that one call gives, so that a batch is several calls."""

    def __init__(self, values: list[bytes]) -> None:
        self.values = values
        self.orders: list[bytes] = []
        self.offset = 0
        self.metadata: str | None = None
        self.at = 0
        self.topics: dict[str, list[Message]] = {
            "fhir": [], "alerts": [], "state": [], "poison": []
        }  # fmt: skip
        self.state: list[tuple[int, Message]] = []
        """With offsets: what was aborted leaves holes."""
        self.state_end = 0
        self.open: list[tuple[str, Message, int]] = []
        self.deliveries: list[tuple[Any, Sent]] = []
        self.ends: Counter[str] = Counter()
        """Of the topics but ``state``: the next offset."""
        self.implicit = ""
        """Topic whose next message is reported delivered without a place."""
        self.moved: Any = None
        self.named: list[tuple[int, int]] = []
        self.fail: list[KafkaError] = []
        self.calls: list[str] = []
        self.rebalance_at: int | None = None
        self.lose_at: int | None = None
        self.full = 0
        self.read_from: list[int] = []
        self.read_again: list[tuple[int, int]] = []
        self.now_ms = T0
        self.monotonic_s = 0.0
        self.closed = False

    # the consumer

    def subscribe(self, _topics: list[str], on_assign: Any, on_revoke: Any, on_lost: Any) -> None:
        self.on_assign, self.on_revoke, self.on_lost = on_assign, on_revoke, on_lost
        on_assign(self, [TopicPartition("samples", PARTITION)])

    def incremental_assign(self, partitions: list[Any]) -> None:
        for at in partitions:
            self.at = 0 if at.offset == OFFSET_BEGINNING else at.offset

    def incremental_unassign(self, _partitions: list[Any]) -> None:
        self.calls.append("unassign")

    def committed(self, partitions: list[Any], _timeout: float) -> list[Any]:
        return [Committed(p.partition, self.offset or -1001, self.metadata) for p in partitions]

    def seek(self, where: Any) -> None:
        self.calls.append("seek")
        self.incremental_assign([where])

    def _serve(self) -> None:
        """Serve what happens to the group, as any call of the consumer does."""
        if self.rebalance_at == self.at:
            self.rebalance_at = None
            self.on_revoke(self, [TopicPartition("samples", PARTITION)])
            self.on_assign(self, [TopicPartition("samples", PARTITION)])
        if self.lose_at == self.at:
            self.on_lost(self, [TopicPartition("samples", PARTITION)])

    def poll(self, _timeout: float) -> Record | None:
        found = self._take(1)
        return found[0] if found else None

    def consume(self, most: int, _timeout: float) -> list[Record]:
        return self._take(min(most, self.AT_ONCE))

    def _take(self, most: int) -> list[Record]:
        self._serve()
        begin, self.at = self.at, min(self.at + most, len(self.values))
        return [Record(offset, self.values[offset]) for offset in range(begin, self.at)]

    def position(self, partitions: list[Any]) -> list[Any]:
        return [TopicPartition("samples", p.partition, self.at) for p in partitions]

    def get_watermark_offsets(self, _at: Any, cached: bool) -> tuple[int, int]:
        return 0, len(self.values)

    def consumer_group_metadata(self) -> str:
        return "group"

    def close(self) -> None:
        """Give the partitions back, as confluent_kafka does: in the callback, before it returns."""
        self.on_revoke(self, [TopicPartition("samples", PARTITION)])
        self.closed = True

    # the producer

    def init_transactions(self, _timeout: float) -> None:
        self.calls.append("init")

    def begin_transaction(self) -> None:
        self.calls.append("begin")
        self.open = []

    def produce_batch(
        self, topic: str, messages: list[dict[str, Any]], partition: int, on_delivery: Any
    ) -> None:
        for message in messages:
            self._send(topic, message["value"], message["key"], partition, on_delivery)

    def produce(
        self, topic: str, value: bytes, key: bytes, partition: int, on_delivery: Any
    ) -> None:
        if self.full:
            self.full -= 1
            raise BufferError("on purpose")
        self._send(topic, value, key, partition, on_delivery)

    def _send(self, topic: str, value: bytes, key: bytes, partition: int, told: Any) -> None:
        assert partition == PARTITION
        if topic == "state":
            offset, self.state_end = self.state_end, self.state_end + 1
        else:
            offset, self.ends[topic] = self.ends[topic], self.ends[topic] + 1
        place = None if topic == self.implicit else offset
        if place is None:
            self.implicit = ""
        else:
            self.open.append((topic, Message(key, value), offset))
        self.deliveries.append((told, Sent(topic, place)))

    def flush(self, _timeout: float) -> int:
        waiting, self.deliveries = self.deliveries, []
        for told, sent in waiting:
            told(None, sent)
        return 0

    def send_offsets_to_transaction(self, offsets: list[Any], _group: str, _timeout: float) -> None:
        (self.moved,) = offsets
        self.named.append((self.moved.partition, self.moved.offset))

    def commit_transaction(self, _timeout: float) -> None:
        assert not self.deliveries, "committed before it was known what arrived"
        if self.fail:
            raise KafkaException(self.fail.pop(0))
        self.calls.append("commit")
        self.state_end += 1  # the transaction's own marker
        if self.moved is not None:
            self.offset, self.metadata = self.moved.offset, self.moved.metadata
            self.moved = None
        for topic, message, offset in self.open:
            self.topics[topic].append(message)
            if topic == "state":
                self.state.append((offset, message))

    def abort_transaction(self, _timeout: float) -> None:
        self.calls.append("abort")
        self.moved = None
        self.state_end += 1

    # what came of it

    def observations(self) -> list[str]:
        urls = [
            entry["request"]["url"]
            for message in self.topics["fhir"]
            for entry in json.loads(message.value)["entry"]
        ]
        return [url for url in urls if url.startswith("Observation/")]

    def alerts(self) -> list[AlertEvent]:
        return [msgspec.json.decode(m.value, type=AlertEvent) for m in self.topics["alerts"]]

    def last_state(self) -> dict[bytes, bytes]:
        return {message.key: message.value for _, message in self.state}

    def seen(self) -> Seen:
        key = f"{PARTITION}/dedupe/{EDGE}/{EPOCH}".encode()
        return msgspec.msgpack.decode(self.last_state()[key], type=Seen)

    def transactions(self) -> int:
        return self.calls.count("commit")


class Producing:
    """The producer's own name for what is not the consumer's."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self.polled = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kafka, name)

    def poll(self, _timeout: float) -> int:
        self.polled += 1
        return 0


class Orders:
    """The consumer of ``commands``."""

    def __init__(self, kafka: Kafka) -> None:
        self.kafka = kafka
        self.at: int | None = None
        self.closed = False

    def assign(self, partitions: list[Any]) -> None:
        if self.closed:
            raise RuntimeError("Consumer closed")
        self.at = partitions[0].offset if partitions else None

    def consume(self, most: int, _timeout: float) -> list[Record]:
        if self.at is None:
            return []
        begin, self.at = self.at, min(self.at + most, len(self.kafka.orders))
        return [Record(offset, self.kafka.orders[offset]) for offset in range(begin, self.at)]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a maker of (kafka, started engine, log); a second engine takes an old kafka over."""

    def make(
        values: list[bytes], policy: str = LIMITS.text, kafka: Kafka | None = None
    ) -> tuple[Kafka, Engine, io.StringIO]:
        kafka, out = kafka or Kafka(values), io.StringIO()
        held = kafka

        class Restored:
            def __init__(self, _base: Any, _identity: str, floors: Mapping[int, int]) -> None:
                self._floor = floors[PARTITION]
                held.read_from.append(self._floor)

            def records(self) -> Iterable[tuple[int, bytes, bytes | None, int]]:
                return [
                    (PARTITION, m.key, m.value, offset)
                    for offset, m in held.state
                    if offset >= self._floor
                ]

            def close(self) -> None:
                pass

        class Samples:
            def __init__(
                self, _base: Any, _identity: str, ranges: Mapping[int, tuple[int, int]]
            ) -> None:
                self._ranges = ranges
                held.read_again += ranges.values()

            def records(self) -> Iterable[tuple[int, int, bytes | None]]:
                for number, (begin, end) in self._ranges.items():
                    for offset in range(begin, end):
                        yield number, offset, held.values[offset]

            def close(self) -> None:
                pass

        monkeypatch.setattr(clients, "consumer", lambda _base, _identity, *_watch: held)
        monkeypatch.setattr(clients, "producer", lambda _base, _identity: Producing(held))
        monkeypatch.setattr(clients, "commands", lambda _base, _identity: Orders(held))
        monkeypatch.setattr(clients, "admin", lambda _base: Silent())
        monkeypatch.setattr(clients, "Restored", Restored)
        monkeypatch.setattr(clients, "Samples", Samples)
        engine = Engine(
            {},
            "detect-0",
            policy,
            Log("detect", lambda: 0, out),
            lambda: held.now_ms,
            lambda: held.monotonic_s,
        )
        engine.start()
        return held, engine, out

    return make


def frames(count: int, value: float = 80) -> list[bytes]:
    return [
        encode(record(at, [(SUBJECT, reading("spo2", value, T0 + at * 1000))]))
        for at in range(count)
    ]


def order(nth: int, kind: str, episode: str, **fields: Any) -> bytes:
    base: Instruction = Command(f"{nth:032x}", kind, SUBJECT, "nurse", T0, "", episode)
    return msgspec.json.encode(msgspec.structs.replace(base, **fields))


def pushed(text: str, who: str = "admin") -> bytes:
    return msgspec.json.encode(NewPolicy("v", text, who, T0))


def run_dry(engine: Engine) -> None:
    while engine.step():
        pass


def error(code: int, *, fatal: bool = False, retriable: bool = False, abort: bool = False) -> Any:
    return KafkaError(code, "on purpose", fatal, retriable, abort)


def delivered(kafka: Kafka) -> tuple[int, int, list[str]]:
    """Return how many Observations, how many of them different, and the alerts' steps."""
    found = kafka.observations()
    return len(found), len(set(found)), [alert.step for alert in kafka.alerts()]


def test_a_client_that_calls_no_broker_any_more_ends_the_engine(given: Any) -> None:
    _, engine, _ = given(frames(1))
    engine._watch = deserted()
    with pytest.raises(Deserted):
        engine.step()


def test_one_transaction_holds_everything_and_idle_there_is_none(given: Any) -> None:
    kafka, engine, _ = given(frames(12))
    assert engine.ready
    assert engine.step() == 12
    assert engine.step() == 0
    assert kafka.calls == ["init", "begin", "commit"]
    assert delivered(kafka) == (12, 12, ["raised"])
    kinds = [key.split(b"/")[1] for key in kafka.last_state()]
    assert sorted(set(kinds)) == [b"chunk", b"dedupe", b"marks", b"turn"]
    assert kafka.offset == 12


def test_an_aborted_batch_is_done_again_from_what_was_committed(given: Any) -> None:
    kafka, engine, _ = given(frames(5))
    engine.step()
    kafka.values += frames(12)[5:]
    kafka.fail = [error(KafkaError.ILLEGAL_GENERATION, abort=True)]
    assert engine.step() == 0
    assert kafka.calls[-3:] == ["begin", "abort", "seek"]
    assert len(kafka.observations()) == 5
    run_dry(engine)
    assert delivered(kafka) == (12, 12, ["raised"])


def test_the_very_first_batch_may_be_aborted(given: Any) -> None:
    kafka, engine, _ = given(frames(12))
    kafka.fail = [error(KafkaError.ILLEGAL_GENERATION, abort=True)]
    run_dry(engine)
    assert engine.step() == 12
    assert delivered(kafka) == (12, 12, ["raised"])


def test_a_transaction_call_that_times_out_ends_the_process_and_is_not_called_twice(
    given: Any,
) -> None:
    kafka, engine, _ = given(frames(2))
    kafka.fail = [error(KafkaError._TIMED_OUT, retriable=True)]
    with pytest.raises(Unreachable):
        engine.step()
    assert kafka.topics["fhir"] == []
    assert "abort" not in kafka.calls


def test_a_process_the_group_gave_up_ends_and_writes_nothing_more(given: Any) -> None:
    kafka, engine, _ = given(frames(4))
    kafka.lose_at = 3
    with pytest.raises(Fenced):
        engine.step()
    assert kafka.topics["fhir"] == []


@pytest.mark.parametrize("topic", ["fhir", "alerts", "state"])
def test_nothing_is_committed_that_has_no_place_in_the_log(given: Any, topic: str) -> None:
    """librdkafka reports success for what it only believes to be there (cloud/proof.py)."""
    kafka, engine, _ = given(frames(12))
    kafka.implicit = topic
    with pytest.raises(Fenced):
        engine.step()
    assert "commit" not in kafka.calls
    assert (kafka.topics["fhir"], kafka.offset) == ([], 0)


def test_a_fenced_process_ends(given: Any) -> None:
    kafka, engine, _ = given(frames(2))
    kafka.fail = [error(KafkaError._FENCED, fatal=True)]
    with pytest.raises(Fenced):
        engine.step()
    assert kafka.topics["fhir"] == []


@pytest.mark.parametrize("at", range(4, 13))
def test_a_rebalance_within_a_batch_loses_and_repeats_nothing(given: Any, at: int) -> None:
    kafka, engine, _ = given(frames(4))
    engine.step()
    kafka.values += frames(12)[4:]
    kafka.rebalance_at = at
    for _ in range(6):
        engine.step()
    assert delivered(kafka) == (12, 12, ["raised"])
    # where a rebalance falls depends on what a call gives; those that fell left nothing behind
    assert kafka.offset == 12


@pytest.mark.parametrize("restart_at", range(13))
def test_whoever_takes_over_goes_on_where_it_was(given: Any, restart_at: int) -> None:
    kafka, engine, _ = given(frames(restart_at))
    run_dry(engine)
    kafka.values += frames(12)[restart_at:]
    kafka, engine, _ = given([], kafka=kafka)
    run_dry(engine)
    assert delivered(kafka) == (12, 12, ["raised"])


# -- poison --------------------------------------------------------------------------------------


def test_poison_is_logged_by_its_place_and_set_aside_in_the_same_transaction(given: Any) -> None:
    values = frames(3)
    values[1] = b"Ada Ng M000123"
    kafka, engine, out = given(values)
    assert engine.step() == 3
    assert (len(kafka.observations()), kafka.offset, kafka.transactions()) == (2, 3, 1)
    assert kafka.topics["poison"] == [Message(b"3/1/malformed", b"Ada Ng M000123")]
    (line,) = [json.loads(text) for text in out.getvalue().splitlines() if "poison" in text]
    assert (line["partition"], line["offset"], line["reason"]) == (3, 1, "malformed")
    assert "Ada" not in out.getvalue()


def test_poison_of_an_aborted_transaction_is_set_aside_once(given: Any) -> None:
    kafka, engine, _ = given([*frames(1), b"poison"])
    kafka.fail = [error(KafkaError.ILLEGAL_GENERATION, abort=True)]
    engine.step()
    assert kafka.topics["poison"] == []
    run_dry(engine)
    assert [m.key for m in kafka.topics["poison"]] == [b"3/1/malformed"]


def test_a_full_buffer_is_waited_for(given: Any) -> None:
    kafka, engine, _ = given([b"poison", *frames(2)])
    kafka.full = 3
    run_dry(engine)
    assert (len(kafka.topics["poison"]), len(kafka.observations())) == (1, 2)


def test_what_cannot_be_judged_is_tried_again_and_then_set_aside(
    given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    observe, tried = Subject.observe, []

    def failing(self: Subject, row: Reading, scaled: int | None, ingested_ms: int) -> Any:
        if row.value == 66:
            tried.append(row.time_ms)
            raise ZeroDivisionError("Ada Ng")
        return observe(self, row, scaled, ingested_ms)

    monkeypatch.setattr(Subject, "observe", failing)
    values = frames(14)
    values[6] = frames(7, 66)[6]
    kafka, engine, out = given(values)
    assert [engine.step() for _ in range(4)] == [0, 0, 14, 0]
    assert len(tried) == 2
    assert delivered(kafka) == (13, 13, ["raised"])
    assert [m.key for m in kafka.topics["poison"]] == [b"3/6/unjudgeable"]
    assert kafka.topics["poison"][0].value == values[6]
    assert kafka.seen().frames == 13
    assert "Ada" not in out.getvalue()
    kafka, engine, _ = given([], kafka=kafka)  # nor does it stop whoever takes over
    kafka.values += frames(15, 79)[14:]
    run_dry(engine)
    assert len(tried) == 2
    assert delivered(kafka)[2] == ["raised", "worse"]


def test_what_was_judged_the_second_time_is_not_set_aside(
    given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    observe, left = Subject.observe, [1]

    def failing(self: Subject, row: Reading, scaled: int | None, ingested_ms: int) -> Any:
        if left:
            raise MemoryError(left.pop())
        return observe(self, row, scaled, ingested_ms)

    monkeypatch.setattr(Subject, "observe", failing)
    kafka, engine, _ = given(frames(12))
    assert [engine.step(), engine.step()] == [0, 12]
    assert delivered(kafka) == (12, 12, ["raised"])
    assert kafka.topics["poison"] == []


def test_a_frame_sent_again_moves_the_offset_and_its_count_only(given: Any) -> None:
    kafka, engine, _ = given(frames(1))
    engine.step()
    before = len(kafka.state)
    kafka.values += frames(1)
    assert engine.step() == 1
    assert (len(kafka.observations()), kafka.offset) == (1, 2)
    assert {m.key.split(b"/")[1] for _, m in kafka.state[before:]} == {b"turn", b"dedupe"}
    assert kafka.seen().again == 1


# -- the policy ----------------------------------------------------------------------------------


def test_the_file_s_policy_is_given_before_anything_and_once(given: Any) -> None:
    kafka, engine, _ = given(frames(12), policy=HEART_ONLY.text)
    engine.step()
    assert delivered(kafka) == (12, 12, [])
    before = len(kafka.state)
    kafka, engine, _ = given([], policy=HEART_ONLY.text, kafka=kafka)
    engine.step()
    assert len(kafka.state) == before


def test_a_changed_file_s_policy_is_given_again(given: Any) -> None:
    kafka, engine, _ = given(frames(12, 95))
    run_dry(engine)
    assert kafka.alerts() == []
    kafka, engine, _ = given([], policy=STRICTER.text, kafka=kafka)
    kafka.values += frames(24, 95)[12:]
    run_dry(engine)
    assert [(a.step, a.policy) for a in kafka.alerts()] == [("raised", STRICTER.version)]


def test_the_file_s_policy_is_never_given_over_a_pushed_one(given: Any) -> None:
    kafka, engine, _ = given(frames(1))
    engine.step()
    kafka.orders.append(pushed(HEART_ONLY.text))
    engine.step()
    kafka, engine, _ = given([], policy=STRICTER.text, kafka=kafka)
    kafka.values += frames(24)[1:]
    run_dry(engine)
    assert kafka.alerts() == []


def test_a_policy_pushed_before_the_first_start_stands_over_the_file_s(given: Any) -> None:
    kafka = Kafka(frames(12))
    kafka.orders.append(pushed(HEART_ONLY.text))
    _, engine, _ = given([], kafka=kafka)
    run_dry(engine)
    assert kafka.alerts() == []


# -- commands ------------------------------------------------------------------------------------


def test_a_command_is_applied_once_however_often_its_transaction_fails(given: Any) -> None:
    kafka, engine, _ = given(frames(11))
    engine.step()
    (raised,) = kafka.alerts()
    kafka.orders.append(order(1, "acknowledge", raised.episode))
    kafka.fail = [error(KafkaError.ILLEGAL_GENERATION, abort=True)] * 2
    for _ in range(5):
        engine.step()
    assert [a.step for a in kafka.alerts()] == ["raised", "acknowledged"]
    kafka, engine, _ = given([], kafka=kafka)
    engine.step()
    assert [a.step for a in kafka.alerts()] == ["raised", "acknowledged"]


def test_commands_alone_move_no_offset_of_the_samples(given: Any) -> None:
    kafka, engine, _ = given(frames(11))
    engine.step()
    offset, metadata = kafka.offset, kafka.metadata
    kafka.orders.append(order(1, "clear", "0" * 32))
    engine.step()
    assert kafka.transactions() == 2
    assert (kafka.offset, kafka.metadata) == (offset, metadata)


def test_so_many_commands_are_taken_at_once_and_the_rest_next(
    given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "COMMANDS_MAX", 3)
    kafka, one, _ = given(frames(11))
    one.step()
    (raised,) = kafka.alerts()
    for nth in range(2):
        kafka.orders.append(order(4 * nth, "shelve", raised.episode, until_ms=T0 + 60_000))
        kafka.orders.append(order(4 * nth + 1, "unshelve", raised.episode))
    one.step()
    assert len(kafka.alerts()) == 1 + 3
    one.step()
    assert [a.step for a in kafka.alerts()][1:] == ["shelved", "unshelved"] * 2


# -- what bounds a batch and a restart -----------------------------------------------------------


def test_a_batch_is_full_at_its_bytes_and_at_its_records() -> None:
    batch = Batch()
    batch.add(3, 0, bytes(BATCH_BYTES_MAX - 1))
    assert not batch.full()
    batch.add(3, 1, b"1")
    assert batch.full()
    batch = Batch()
    for offset in range(BATCH_RECORDS_MAX - 1):
        batch.add(3, offset, None)
    assert not batch.full()
    batch.add(3, BATCH_RECORDS_MAX, None)
    assert batch.full()


@pytest.mark.parametrize("what", ["BATCH_RECORDS_MAX", "BATCH_BYTES_MAX"])
def test_a_full_batch_is_committed_and_what_was_fetched_is_not_lost(
    given: Any, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    size = 5 if what == "BATCH_RECORDS_MAX" else 4 * len(frames(1)[0]) + 1
    monkeypatch.setattr(engine, what, size)
    kafka, one, _ = given(frames(12))
    assert [one.step() for _ in range(4)] == [5, 5, 2, 0]
    assert delivered(kafka) == (12, 12, ["raised"])


def test_what_was_fetched_and_not_taken_is_thrown_away_by_a_rebalance(
    given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BATCH_RECORDS_MAX", 2)
    kafka, one, _ = given(frames(12))
    assert one.step() == 2  # one more lies fetched
    kafka.on_revoke(kafka, [TopicPartition("samples", PARTITION)])
    assert one.step() == 0
    assert kafka.transactions() == 1


def test_the_offsets_say_from_where_the_state_is_to_be_read(
    given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal, "CHUNK_TURNS", 1)
    kafka, one, _ = given(frames(1))
    one.step()
    assert kafka.metadata == "0"  # the chunks of this transaction are not known to stand yet
    for at in range(1, 2 * CHUNKS):
        kafka.values += frames(at + 1)[at:]
        one.step()
    floor = int(kafka.metadata or "")
    assert floor > 0
    written = {m.key for offset, m in kafka.state if offset >= floor and b"/chunk/" in m.key}
    assert len(written) == CHUNKS + 1
    kafka, one, _ = given([], kafka=kafka)
    assert kafka.read_from == [0, floor]
    # of what was read again, no more than a rotation
    assert all(end - begin <= CHUNKS + 1 for begin, end in kafka.read_again)
    kafka.values += frames(2 * CHUNKS)[5:6]
    run_dry(one)
    assert (kafka.seen().frames, kafka.seen().again) == (2 * CHUNKS, 1)


@pytest.mark.parametrize("metadata", [None, "", "x", "-5", "1.5"])
def test_offsets_that_say_nothing_of_it_have_all_of_the_state_read(
    given: Any, metadata: str | None
) -> None:
    kafka, one, _ = given(frames(3))
    run_dry(one)
    kafka.metadata = metadata
    kafka, one, _ = given([], kafka=kafka)
    assert kafka.read_from[-1] == 0
    kafka.values += frames(3)
    run_dry(one)
    assert kafka.seen().again == 3


def test_resting_what_changed_is_written_once_and_then_nothing_more(given: Any) -> None:
    kafka, one, _ = given(frames(11))
    run_dry(one)
    one.step()
    assert kafka.transactions() == 1  # not yet
    kafka.values += frames(12)[11:]
    run_dry(one)
    kafka.monotonic_s += REST_S
    one.step()
    assert kafka.transactions() == 2
    kafka.monotonic_s += 0.01
    before = len(kafka.state)
    for _ in range(10):
        one.step()
    assert kafka.transactions() == 3
    assert sum(b"/chunk/" in m.key for _, m in kafka.state[before:]) == 1
    again = len(kafka.read_again)
    given([], kafka=kafka)
    assert len(kafka.read_again) == again  # nothing was left to replay


def test_leaving_writes_what_changed(given: Any) -> None:
    kafka, one, _ = given(frames(11))
    run_dry(one)
    kafka.values += frames(12)[11:]
    run_dry(one)
    one.rest()
    again = len(kafka.read_again)
    given([], kafka=kafka)
    assert len(kafka.read_again) == again


# Open: `Engine.close` closes the consumer of commands before the group's, whose last rebalance
# assigns it once more: every SIGTERM ends with code 1 (test_engine_kafka.py finds it too).
def test_the_group_is_left_before_what_its_last_rebalance_needs(given: Any) -> None:
    kafka, one, _ = given(frames(11))
    run_dry(one)
    one.close()
    assert kafka.closed


def test_leaving_gives_up_when_its_transaction_is_aborted(given: Any) -> None:
    kafka, one, _ = given(frames(11))
    run_dry(one)
    kafka.values += frames(12)[11:]
    run_dry(one)
    kafka.fail = [error(KafkaError.ILLEGAL_GENERATION, abort=True)]
    one.rest()
    assert kafka.fail == []


def test_the_clock_alone_makes_a_transaction_when_something_is_due(given: Any) -> None:
    kafka, one, _ = given(frames(11, 97))
    kafka.now_ms = T0 + 10_000
    run_dry(one)
    before = len(kafka.named)
    for second in range(15, 85, 5):
        kafka.now_ms = T0 + second * 1000
        one.step()
    # By its offsets Kafka tells whose partition it is, without a record to move them too.
    assert len(kafka.named) == kafka.calls.count("commit") > before
    assert set(kafka.named[before:]) == {(PARTITION, 11)}
    (told,) = kafka.alerts()
    assert (told.kind, told.step, told.at_ms) == ("silence", "raised", T0 + 75_000)


def test_a_state_record_of_nobody_is_logged_and_passed_over(given: Any) -> None:
    kafka, one, _ = given(frames(11))
    run_dry(one)
    kafka.state.append((kafka.state_end, Message(b"3/chunk/999", b"Ada Ng")))
    kafka, one, out = given([], kafka=kafka)
    kafka.values += frames(12, 79)[11:]
    run_dry(one)
    assert [a.step for a in kafka.alerts()] == ["raised", "worse"]
    assert "state-record-unreadable" in out.getvalue()
    assert "Ada" not in out.getvalue()
