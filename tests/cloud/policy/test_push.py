"""A policy pushed to a real Kafka: in every partition, or an error."""

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from cloud.policy import push as push_
from cloud.policy.push import PushFailed, push, send
from cloud.policy.seal import open_published
from cloud.records import Command, Instruction, NewPolicy
from healthsync.runtime.exits import Exit
from onebox import ports
from tests.cloud.detect.broker import Broker
from tests.cloud.policy.test_command import PATIENT, Desk
from vitals import topics

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    made = Broker(tmp_path_factory.mktemp("kafka"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def base(bootstrap: str) -> dict[str, str | int | bool]:
    return {"bootstrap.servers": bootstrap}


def in_topic(
    broker: Broker, count: int, kind: type[Instruction] = NewPolicy
) -> list[tuple[int, bytes | None, Instruction]]:
    """Return (partition, key, record) of the first ``count`` records of a kind in ``commands``."""
    consumer = Consumer({**base(broker.bootstrap), "group.id": "test"})
    every = range(topics.SUBJECT_PARTITIONS)
    consumer.assign([TopicPartition(topics.COMMANDS.name, at, 0) for at in every])
    found = []
    try:
        for _ in range(100):
            for message in consumer.consume(100, 0.2):
                assert message.error() is None
                record = msgspec.json.decode(message.value(), type=Instruction)
                if isinstance(record, kind):
                    found.append((message.partition(), message.key(), record))
            if len(found) >= count:
                break
    finally:
        consumer.close()
    return sorted(found, key=lambda one: one[0])


def test_a_policy_is_in_every_partition_and_names_nobody(
    broker: Broker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("cloud.policy.command.kafka_config", lambda _: base(broker.bootstrap))
    desk = Desk(tmp_path)
    # Near the most that a file may have: one record takes it.
    rule = '[[patient.rule]]\nvital = "spo2"\ndirection = "low"\npriority = "high"\nlimit = 85\n'
    many = "".join(f'\n[[patient]]\nmrn = "MRN-CANARY-{n}"\n{rule}' for n in range(4_900))
    file = desk.file("p.toml", tail=PATIENT + many)
    words = ["push", file, "--config", str(desk.config), "--who", "lee.k"]
    assert desk.run(*words) == Exit.OK
    said = capsys.readouterr()
    assert "CANARY" not in said.out + said.err
    found = in_topic(broker, topics.SUBJECT_PARTITIONS)
    assert [partition for partition, _, _ in found] == list(range(topics.SUBJECT_PARTITIONS))
    assert {key for _, key, _ in found} == {b"policy"}
    (record,) = {msgspec.json.encode(record): record for _, _, record in found}.values()
    assert isinstance(record, NewPolicy)
    assert record.who == "lee.k"
    assert "CANARY" not in record.toml
    assert len(record.toml) > 600_000
    policy = open_published(record.toml)
    assert policy.version == record.version
    assert len(policy.patients) == 4_901
    listed = "0, 1, 2, 3, 4, 5, 6, 7"
    assert said.out == f"policy {record.version} is in commands, partitions {listed}\n"


def test_a_command_is_in_its_subjects_partition_alone(broker: Broker) -> None:
    subjects = [f"{at:08x}" + "0" * 24 for at in (3, 6)]
    sent = [Command("f" * 32, "clear", one, "lee.k", 1, episode="e") for one in subjects]
    assert [send(base(broker.bootstrap), one) for one in sent] == [3, 6]
    assert in_topic(broker, 2, Command) == [
        (3, subjects[0].encode(), sent[0]),
        (6, subjects[1].encode(), sent[1]),
    ]


def test_some_partitions_are_not_all(broker: Broker) -> None:
    admin = AdminClient(base(broker.bootstrap))
    name = topics.COMMANDS.name
    admin.delete_topics([name])[name].result(30)
    for _ in range(100):
        if name not in admin.list_topics(timeout=5).topics:
            break
        time.sleep(0.1)
    admin.create_topics([NewTopic(name, num_partitions=5)])[name].result(30)
    with pytest.raises(PushFailed, match=r"only partitions \[0, 1, 2, 3, 4\] of 8 have the policy"):
        push(base(broker.bootstrap), NewPolicy("v", "", "lee.k", 1))


def test_no_kafka_is_an_error_in_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (port,) = ports.free(1)
    monkeypatch.setattr("cloud.policy.command.kafka_config", lambda _: base(f"127.0.0.1:{port}"))
    monkeypatch.setattr(push_, "DELIVERY_TIMEOUT_MS", 500)
    desk = Desk(tmp_path)
    words = ["push", desk.file("p.toml"), "--config", str(desk.config)]
    assert desk.run(*words) == Exit.UNAVAILABLE
    said = capsys.readouterr()
    assert "only partitions [] of 8 have the policy" in said.err
    assert "push it again" in said.err
    assert said.out == ""
