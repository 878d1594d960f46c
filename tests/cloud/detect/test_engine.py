"""The engine's turns against clients that fail on purpose."""

import io
import json
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, KafkaError, KafkaException, TopicPartition

from cloud.brokers import Deserted
from cloud.detect import clients
from cloud.detect.calls import Fenced, Unreachable
from cloud.detect.detectors import ready
from cloud.detect.engine import Engine
from cloud.detect.partition import Message
from cloud.detect.policy import DEFAULT
from cloud.records import encode
from healthsync.runtime.log import Log
from tests.cloud.deserted import deserted
from tests.cloud.detect.records_of import T0, reading, record, subject_in

PARTITION = 3
SUBJECT = subject_in(PARTITION)


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


class Kafka:
    """Both clients and the topics in one: what is committed and what is not."""

    def __init__(self, values: list[bytes]) -> None:
        self.values = values
        self.offset = 0
        self.at = 0
        self.topics: dict[str, list[Message]] = {"fhir": [], "alerts": [], "state": []}
        self.open: list[tuple[str, Message]] = []
        self.moved = 0
        self.fail: list[KafkaError] = []
        self.calls: list[str] = []
        self.rebalance_at: int | None = None
        self.lose_at: int | None = None
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
        return [TopicPartition("samples", p.partition, self.offset or -1001) for p in partitions]

    def seek(self, where: Any) -> None:
        self.calls.append("seek")
        self.incremental_assign([where])

    def poll(self, _timeout: float) -> Record | None:
        if self.rebalance_at == self.at:
            self.rebalance_at = None
            self.on_revoke(self, [TopicPartition("samples", PARTITION)])
            self.on_assign(self, [TopicPartition("samples", PARTITION)])
        if self.lose_at == self.at:
            self.on_lost(self, [TopicPartition("samples", PARTITION)])
        if self.at >= len(self.values):
            return None
        self.at += 1
        return Record(self.at - 1, self.values[self.at - 1])

    def position(self, partitions: list[Any]) -> list[Any]:
        return [TopicPartition("samples", p.partition, self.at) for p in partitions]

    def get_watermark_offsets(self, _at: Any, cached: bool) -> tuple[int, int]:
        return 0, len(self.values)

    def consumer_group_metadata(self) -> str:
        return "group"

    def close(self) -> None:
        self.closed = True

    # the producer

    def init_transactions(self, _timeout: float) -> None:
        self.calls.append("init")

    def begin_transaction(self) -> None:
        self.calls.append("begin")
        self.open = []

    def produce_batch(self, topic: str, messages: list[dict[str, Any]], partition: int) -> None:
        assert partition == PARTITION
        self.open += [(topic, Message(m["key"], m["value"])) for m in messages]

    def send_offsets_to_transaction(self, offsets: list[Any], _group: str, _timeout: float) -> None:
        self.moved = offsets[0].offset

    def commit_transaction(self, _timeout: float) -> None:
        if self.fail:
            raise KafkaException(self.fail.pop(0))
        self.calls.append("commit")
        self.offset = self.moved
        for topic, message in self.open:
            self.topics[topic].append(message)

    def abort_transaction(self, _timeout: float) -> None:
        self.calls.append("abort")


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a maker of (kafka, started engine, log)."""

    def make(values: list[bytes]) -> tuple[Kafka, Engine, io.StringIO]:
        kafka, out = Kafka(values), io.StringIO()

        class Restored:
            def __init__(self, _base: Any, _identity: str, _partitions: list[int]) -> None:
                pass

            def records(self) -> Any:
                return [(PARTITION, m.key, m.value) for m in kafka.topics["state"]]

            def close(self) -> None:
                pass

        monkeypatch.setattr(clients, "consumer", lambda _base, _identity, *_watch: kafka)
        monkeypatch.setattr(clients, "producer", lambda _base, _identity, *_watch: kafka)
        monkeypatch.setattr(clients, "Restored", Restored)
        engine = Engine({}, "detect-0", ready(DEFAULT), Log("detect", lambda: 0, out))
        engine.start()
        return kafka, engine, out

    return make


def frames(count: int) -> list[bytes]:
    return [
        encode(record(at, [(SUBJECT, reading("spo2", 80, T0 + at * 1000))])) for at in range(count)
    ]


def run_dry(engine: Engine) -> None:
    while engine.step():
        pass


def error(code: int, *, fatal: bool = False, retriable: bool = False, abort: bool = False) -> Any:
    return KafkaError(code, "on purpose", fatal, retriable, abort)


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
    assert (len(kafka.topics["fhir"]), len(kafka.topics["alerts"])) == (12, 1)
    assert len(kafka.topics["state"]) == 2
    assert kafka.offset == 12


def test_an_aborted_batch_is_done_again_from_what_was_committed(given: Any) -> None:
    kafka, engine, _ = given(frames(5))
    engine.step()
    kafka.values += frames(12)[5:]
    kafka.fail = [error(KafkaError.ILLEGAL_GENERATION, abort=True)]
    assert engine.step() == 0
    assert kafka.calls[-3:] == ["begin", "abort", "seek"]
    assert len(kafka.topics["fhir"]) == 5
    run_dry(engine)
    assert (len(kafka.topics["fhir"]), len(kafka.topics["alerts"])) == (12, 1)


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
    kafka.lose_at = 2
    with pytest.raises(Fenced):
        engine.step()
    assert kafka.topics["fhir"] == []


def test_a_fenced_process_ends(given: Any) -> None:
    kafka, engine, _ = given(frames(2))
    kafka.fail = [error(KafkaError._FENCED, fatal=True)]
    with pytest.raises(Fenced):
        engine.step()
    assert kafka.topics["fhir"] == []


@pytest.mark.parametrize("at", range(1, 12))
def test_a_rebalance_within_a_batch_loses_and_repeats_nothing(given: Any, at: int) -> None:
    kafka, engine, _ = given(frames(4))
    engine.step()
    kafka.values += frames(12)[4:]
    kafka.rebalance_at = max(at, 4)
    for _ in range(4):
        engine.step()
    assert (len(kafka.topics["fhir"]), len(kafka.topics["alerts"])) == (12, 1)


def test_poison_is_logged_by_its_place_and_passed_over(given: Any) -> None:
    values = frames(3)
    values[1] = b"Ada Ng M000123"
    kafka, engine, out = given(values)
    assert engine.step() == 3
    assert (len(kafka.topics["fhir"]), kafka.offset) == (2, 3)
    (line,) = [json.loads(text) for text in out.getvalue().splitlines() if "poison" in text]
    assert (line["partition"], line["offset"], line["reason"]) == (3, 1, "malformed")
    assert "Ada" not in out.getvalue()


def test_a_frame_sent_again_moves_the_offset_and_its_count_only(given: Any) -> None:
    kafka, engine, _ = given(frames(1))
    engine.step()
    kafka.values += frames(1)
    assert engine.step() == 1
    assert (len(kafka.topics["fhir"]), len(kafka.topics["state"]), kafka.offset) == (1, 3, 2)
