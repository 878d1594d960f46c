"""The engine against a real broker: killed, restarted, rebalanced; nothing lost, nothing twice."""

import collections
import functools
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from cloud.detect.detectors import ready
from cloud.detect.partition import Partition, Seen, alert_message
from cloud.detect.policy import DEFAULT
from cloud.records import SamplesRecord, encode, samples_key
from tests.cloud.detect.broker import Broker
from tests.cloud.detect.records_of import ward
from vitals import topics

pytestmark = pytest.mark.system

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    made = Broker(tmp_path_factory.mktemp("kafka"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


class Fleet:
    """Engine processes by identity."""

    def __init__(self, broker: Broker, folder: Path) -> None:
        self._broker = broker
        self._folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, identity: str) -> None:
        with (self._folder / f"{identity}.log").open("ab") as log:
            log.write(b"-- start\n")
            log.flush()
            self._running[identity] = subprocess.Popen(
                [sys.executable, HERE / "engine_process.py", self._broker.bootstrap, identity],
                stdout=log,
                stderr=log,
                cwd=HERE.parents[2],
                env={"PYTHONPATH": str(HERE.parents[2])},
            )

    def is_ready(self, identity: str) -> bool:
        """Tell whether the process of this name that runs now said so."""
        log = (self._folder / f"{identity}.log").read_text()
        return '"ready"' in log.rpartition("-- start")[2]

    def end(self, identity: str, how: signal.Signals) -> int:
        process = self._running.pop(identity)
        process.send_signal(how)
        return process.wait(30)

    def close(self) -> None:
        for identity in list(self._running):
            self.end(identity, signal.SIGKILL)


@pytest.fixture
def fleet(broker: Broker, tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(broker, tmp_path)
    try:
        yield made
    finally:
        made.close()


def produce(broker: Broker, records: list[tuple[int, SamplesRecord]], per_s: float = 0) -> None:
    producer = Producer(
        {"bootstrap.servers": broker.bootstrap, "linger.ms": 0, "enable.idempotence": True}
    )
    for partition, record in records:
        key = samples_key(record.edge, record.epoch, record.seq, partition)
        producer.produce(topics.SAMPLES.name, encode(record), key, partition)
        producer.poll(0)
        if per_s:
            time.sleep(1 / per_s)  # a ward's pace, so that the load lasts
    assert producer.flush(30) == 0


def committed(broker: Broker, topic: str, isolation: str = "read_committed") -> list[Any]:
    """Return every committed message of a topic, partitions one after another."""
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": "reader",
            "isolation.level": isolation,
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    found: dict[int, list[Any]] = {p: [] for p in range(topics.SUBJECT_PARTITIONS)}
    left = set(found)
    consumer.assign([TopicPartition(topic, p, 0) for p in found])
    deadline = time.monotonic() + 30
    while left:
        assert time.monotonic() < deadline, f"{topic} was not read to its end"
        for message in consumer.consume(1000, 0.2):
            if message.error() is None:
                found[message.partition()].append(message)
            else:
                left.discard(message.partition())
    consumer.close()
    return [message for messages in found.values() for message in messages]


def frames_seen(broker: Broker) -> int:
    last = {m.key(): m.value() for m in committed(broker, topics.STATE.name)}
    return sum(
        msgspec.msgpack.decode(value, type=Seen).frames
        for key, value in last.items()
        if b"/dedupe/" in key
    )


def wait_until(true: Callable[[], bool], what: str, bound_s: float = 180) -> None:
    deadline = time.monotonic() + bound_s
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {bound_s} s"
        time.sleep(0.2)  # a real server's progress, polled


def undisturbed(
    records: list[tuple[int, SamplesRecord]],
) -> tuple[list[Any], list[Any], dict[bytes, bytes]]:
    """Return fhir, alerts and last state of a run that nothing happened to."""
    partitions = {p: Partition(p) for p in range(topics.SUBJECT_PARTITIONS)}
    fhir: list[Any] = []
    alerts: list[Any] = []
    state: dict[bytes, bytes] = {}
    policy = ready(DEFAULT)
    for number, record in records:
        made = partitions[number].take(partitions[number].read(encode(record)), policy)
        fhir += [(number, m.key, m.value) for m in made.fhir]
        alerts += [(number, *alert_message(a)) for a in made.alerts]
    for partition in partitions.values():
        state |= dict(partition.changed())
    return fhir, alerts, state


def test_a_ward_under_kill_minus_nine_comes_out_as_if_nothing_had_happened(
    broker: Broker, fleet: Fleet
) -> None:
    records = ward(seconds=240, beds=24)
    again = records[50:400:7]  # what an edge sends twice because an acknowledgement was lost
    given = [*records[:900], *again, *records[900:]]
    moments = random.Random(3)
    fleet.start("detect-0")
    fleet.start("detect-1")
    devices = threading.Thread(target=produce, args=(broker, given, 250))
    devices.start()
    kills = 0
    while devices.is_alive():
        victim = f"detect-{kills % 2}"
        wait_until(functools.partial(fleet.is_ready, victim), f"{victim} ready")
        time.sleep(moments.uniform(0.0, 0.4))  # so that kills fall anywhere in a transaction
        fleet.end(victim, signal.SIGKILL)
        fleet.start(victim)
        kills += 1
    devices.join()
    assert kills >= 3
    wait_until(lambda: frames_seen(broker) == len(records), "every frame taken")
    fleet.end("detect-1", signal.SIGKILL)
    assert fleet.end("detect-0", signal.SIGTERM) == 0

    fhir, alerts, state = undisturbed(given)
    assert alerts, "a ward without a single alert proves nothing"

    def found(topic: str) -> list[Any]:
        return [(m.partition(), m.key(), m.value()) for m in committed(broker, topic)]

    def by_partition(messages: list[Any]) -> list[Any]:
        return sorted(messages, key=lambda m: m[0])  # stable: order within one is kept

    assert by_partition(found(topics.FHIR.name)) == by_partition(fhir)
    assert by_partition(found(topics.ALERTS.name)) == by_partition(alerts)
    assert {key: value for _, key, value in found(topics.STATE.name)} == state
    ids = collections.Counter(
        entry["resource"]["id"]
        for m in committed(broker, topics.FHIR.name)
        for entry in json.loads(m.value())["entry"]
    )
    assert set(ids.values()) == {1}
