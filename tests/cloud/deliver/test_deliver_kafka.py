"""Against a real broker and a real server: killed at any moment, nothing lost, the end the same."""

import io
import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource

from cloud.deliver import consume
from cloud.deliver.address import parse
from cloud.deliver.consume import GROUP, Loop
from cloud.deliver.lane import WINDOW_RECORDS_MAX
from cloud.deliver.letters import BODY_BYTES_MAX, MESSAGE_BYTES_MAX, Letters
from cloud.deliver.main import made
from cloud.records import Undelivered
from healthsync.runtime.clock import now_ms
from healthsync.runtime.exits import Exit
from healthsync.runtime.log import Log
from tests.cloud.deliver.deliver_process import plain, settings
from tests.cloud.deliver.rig import ROOT, FhirServer, bundle, observation, record
from tests.cloud.detect.broker import Broker
from vitals import topics

pytestmark = pytest.mark.system

BOUND_S = 120


SMALL_BYTES = 1_048_576
"""What the dead letters' topic takes until a test says otherwise: Kafka's default."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    node = Broker(tmp_path_factory.mktemp("kafka"), undelivered=SMALL_BYTES)
    try:
        node.start()
        yield node
    finally:
        node.stop()


class Fleet:
    """Deliver processes by instance."""

    def __init__(self, broker: Broker, fhir: FhirServer, folder: Path) -> None:
        self._arguments = [broker.bootstrap, f"{fhir.origin}/fhir"]
        self._folder = folder
        self.running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, instance: int, name: str = "") -> subprocess.Popen[bytes]:
        program = Path(__file__).with_name("deliver_process.py")
        with (self._folder / f"{name or instance}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, program, *self._arguments, str(instance)],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env={"PYTHONPATH": str(ROOT)},
            )
        self.running[instance] = process
        return process

    def logged(self, name: object) -> list[dict[str, Any]]:
        lines = (self._folder / f"{name}.log").read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def end(self, instance: int, how: signal.Signals) -> int:
        process = self.running.pop(instance)
        process.send_signal(how)
        return process.wait(30)

    def close(self) -> None:
        for instance in list(self.running):
            self.end(instance, signal.SIGKILL)


@pytest.fixture
def fleet(broker: Broker, fhir: FhirServer, tmp_path: Path) -> Iterator[Fleet]:
    ours = Fleet(broker, fhir, tmp_path)
    try:
        yield ours
    finally:
        ours.close()


class Sent(NamedTuple):
    partition: int
    offset: int
    entries: list[tuple[str, dict[str, Any]]]


def subject(partition: int, number: int = 0) -> str:
    found = f"{partition:08x}{number:024x}"
    assert topics.partition_of(found) == partition
    return found


def produced(
    broker: Broker, records: list[tuple[int, list[tuple[str, dict[str, Any]]]]], batch: int = 50
) -> list[Sent]:
    """Write as detect does, in transactions; every third is followed by one that is aborted."""
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": "detect-test"})
    producer.init_transactions(30)
    sent: list[Sent] = []

    def written(partition: int, entries: list[tuple[str, dict[str, Any]]]) -> Callable[..., None]:
        return lambda _error, message: sent.append(Sent(partition, message.offset(), entries))

    for number, at in enumerate(range(0, len(records), batch)):
        producer.begin_transaction()
        for partition, entries in records[at : at + batch]:
            producer.produce(
                topics.FHIR.name,
                bundle(*entries),
                subject(partition),
                partition,
                on_delivery=written(partition, entries),
            )
        producer.commit_transaction(30)
        if number % 3 == 0:
            producer.begin_transaction()
            ghost = bundle(observation(f"ghost.spo2.{number}"))
            producer.produce(topics.FHIR.name, ghost, subject(number % 8), number % 8)
            producer.flush(30)
            producer.abort_transaction(30)
    assert len(sent) == len(records)
    return sent


def committed(broker: Broker) -> dict[int, int]:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": GROUP})
    wanted = [TopicPartition(topics.FHIR.name, p) for p in range(topics.SUBJECT_PARTITIONS)]
    found = {at.partition: at.offset for at in consumer.committed(wanted, 10)}
    consumer.close()
    return found


def ends(sent: list[Sent]) -> dict[int, int]:
    return {one.partition: one.offset + 1 for one in sorted(sent, key=lambda one: one.offset)}


def wait_until(true: Callable[[], bool], what: str, every_s: float = 0.2) -> None:
    deadline = time.monotonic() + BOUND_S
    while not true():
        assert time.monotonic() < deadline, f"{what}: not within {BOUND_S} s"
        time.sleep(every_s)  # a real server's progress, polled


def wait_for(broker: Broker, sent: list[Sent]) -> None:
    wanted = ends(sent)
    wait_until(
        lambda: all(committed(broker)[p] >= end for p, end in wanted.items()), "all committed"
    )


def letters(broker: Broker, sent: list[Sent]) -> list[tuple[bytes, Undelivered]]:
    consumer = Consumer(
        {
            "bootstrap.servers": broker.bootstrap,
            "group.id": "reader",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    left = set(range(topics.SUBJECT_PARTITIONS))
    consumer.assign([TopicPartition(topics.UNDELIVERED.name, p, 0) for p in left])
    ours = {(one.partition, one.offset) for one in sent}
    found = []
    deadline = time.monotonic() + BOUND_S
    while left and time.monotonic() < deadline:
        for message in consumer.consume(1000, 0.2):
            if message.error() is not None:
                left.discard(message.partition())
                continue
            letter = msgspec.msgpack.decode(message.value(), type=Undelivered)
            if (letter.partition, letter.offset) in ours:
                assert message.partition() == letter.partition
                found.append((message.key(), letter))
    consumer.close()
    assert not left
    return found


def ward(seed: int, count: int) -> list[tuple[int, list[tuple[str, dict[str, Any]]]]]:
    """Return Bundles of all partitions: new ids, ids that change, and now and then a bad one."""
    rng = random.Random(seed)
    out = []
    for number in range(count):
        partition = rng.randrange(topics.SUBJECT_PARTITIONS)
        who = subject(partition)
        entries = [
            observation(f"{who}.spo2.{seed}n{number}", rng.randrange(80, 100)),
            observation(f"{who}.pulse.{seed}c{rng.randrange(4)}", number),
        ]
        if rng.random() < 0.03:
            entries.insert(1, observation(f"{who}.bad.{seed}n{number}", 61.5, status="nonsense"))
        out.append((partition, entries))
    return out


def expected(sent: list[Sent]) -> tuple[dict[str, Any], set[tuple[int, int, str]]]:
    """Return what the server should hold, and which entries Kafka should."""
    stored: dict[str, Any] = {}
    refused = set()
    for one in sent:
        for url, body in one.entries:
            if body["status"] == "final":
                stored[url] = body
            else:
                refused.add((one.partition, one.offset, url))
    return stored, refused


def test_killed_at_any_moment_the_end_is_the_same(
    broker: Broker, fhir: FhirServer, fleet: Fleet
) -> None:
    rng = random.Random(20)
    fleet.start(0)
    fleet.start(1)
    sent: list[Sent] = []
    versions: dict[str, int] = {}
    for round_ in range(8):
        # somewhere in the round's work, of which there is more than 450 writes
        moment = fhir.writes() + rng.randrange(400)
        # each answer takes a while, so that records wait in the lanes when the blow falls
        fhir.rule("POST /fhir", "late", times=100_000, seconds=0.04)
        sent += produced(broker, ward(round_, 250), batch=250)
        wait_until(lambda at=moment: fhir.writes() >= at, "work", every_s=0.005)  # type: ignore[misc]
        victim = rng.choice([0, 1, None])
        if victim is None:
            fhir.end(signal.SIGKILL)
            fhir.start()
        else:
            fleet.end(victim, signal.SIGKILL)
            fleet.start(victim)
        after = fhir.versions()
        assert all(after.get(url, 0) >= version for url, version in versions.items())
        versions = after
    wait_for(broker, sent)
    stored, refused = expected(sent)
    assert fhir.stored() == stored
    found = letters(broker, sent)
    assert {(x.partition, x.offset, x.url) for _, x in found} == refused
    for key, letter in found:
        assert key == subject(letter.partition).encode()
        assert (letter.reason, letter.status) == ("refused", 422)
        assert json.loads(letter.body)["status"] == "nonsense"
    assert_no_overtaking(fhir, sent)
    text = json.dumps([fleet.logged(instance) for instance in (0, 1)])
    assert "61.5" not in text
    assert subject(0) not in text


def assert_no_overtaking(fhir: FhirServer, sent: list[Sent]) -> None:
    """The first writes of a partition's records are in the order of its offsets."""
    first: dict[str, int] = {}
    for at, (url, _body) in enumerate(fhir.written()):
        first.setdefault(url, at)
    for partition in range(topics.SUBJECT_PARTITIONS):
        own = [one for one in sent if one.partition == partition]
        written = [first[one.entries[0][0]] for one in sorted(own, key=lambda one: one.offset)]
        assert written == sorted(written)


def test_stopped_it_commits_and_nothing_is_sent_twice(
    broker: Broker, fhir: FhirServer, fleet: Fleet
) -> None:
    fleet.start(0)
    sent = produced(broker, ward(100, 100))
    wait_for(broker, sent)
    assert fleet.end(0, signal.SIGTERM) == Exit.OK
    fhir.control(forget_seen=True)
    fleet.start(0)
    more = produced(broker, [(3, [observation(f"{subject(3)}.spo2.more")])])
    wait_for(broker, more)
    assert [line for line in fhir.lines() if "metadata" not in line] == ["POST /fhir"]
    assert fleet.end(0, signal.SIGTERM) == Exit.OK


def test_a_second_process_of_the_same_instance_ends_the_first(
    broker: Broker, fhir: FhirServer, fleet: Fleet
) -> None:
    first = fleet.start(0, "first")
    wait_until(lambda: any(x["event"] == "ready" for x in fleet.logged("first")), "ready")
    fleet.start(0, "second")
    assert first.wait(60) == Exit.RESTART
    sent = produced(broker, ward(200, 20))
    wait_for(broker, sent)


class Stepped:
    """A loop in this process, stepped by the test."""

    def __init__(self, broker: Broker, fhir: FhirServer, out: Path) -> None:
        url = f"{fhir.origin}/fhir"
        self._out = out
        self._file = out.open("w")
        log = Log("deliver", now_ms, self._file)
        self.loop = made(
            settings(broker.bootstrap, url, 0), parse(url), plain(broker.bootstrap), log
        )
        self.loop.subscribe()

    def until(self, true: Callable[[Loop], bool], what: str) -> None:
        deadline = time.monotonic() + BOUND_S
        while not true(self.loop):
            assert time.monotonic() < deadline, f"{what}: not within {BOUND_S} s"
            self.loop.step()

    def logged(self, event: str) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in self._out.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def close(self) -> None:
        self.loop.close()
        self._file.close()


@pytest.fixture
def stepped(broker: Broker, fhir: FhirServer, tmp_path: Path) -> Iterator[Stepped]:
    ours = Stepped(broker, fhir, tmp_path / "log")
    try:
        ours.until(lambda loop: len(loop._lanes) == topics.SUBJECT_PARTITIONS, "assigned")
        yield ours
    finally:
        ours.close()


def test_what_the_server_does_not_take_stays_in_kafka_and_others_go_on(
    broker: Broker, fhir: FhirServer, stepped: Stepped
) -> None:
    slow, quick = subject(2), subject(5)
    fhir.rule("POST /fhir", "status", times=1000, status=503, has=slow)
    many = 3 * WINDOW_RECORDS_MAX
    held = produced(
        broker, [(2, [observation(f"{slow}.spo2.held{n}")]) for n in range(many)], batch=many
    )
    other = produced(broker, [(5, [observation(f"{quick}.spo2.held{n}")]) for n in range(many)])
    done = ends(other)[5]
    most = 0

    def others_are_done(loop: Loop) -> bool:
        nonlocal most
        most = max(most, len(loop._lanes[2]))
        return loop._lanes[5].done == done

    stepped.until(others_are_done, "the other partition")
    stepped.until(lambda loop: 2 in loop._held, "held")
    assert most == WINDOW_RECORDS_MAX
    assert not [url for url in fhir.stored() if slow in url]
    fhir.control(rules=[])
    stepped.until(lambda loop: loop._lanes[2].done == ends(held)[2], "the slow partition")
    assert fhir.stored() == expected([*held, *other])[0]


def test_what_expired_is_said_and_the_rest_arrives(
    broker: Broker, fhir: FhirServer, tmp_path: Path
) -> None:
    first = Stepped(broker, fhir, tmp_path / "first")
    sent = produced(broker, [(6, [observation(f"{subject(6)}.spo2.exp{n}")]) for n in range(4)])
    first.until(lambda loop: 6 in loop._lanes and loop._lanes[6].done == ends(sent)[6], "done")
    first.close()
    gone = produced(broker, [(6, [observation(f"{subject(6)}.spo2.gone{n}")]) for n in range(3)])
    kept = produced(broker, [(6, [observation(f"{subject(6)}.spo2.kept{n}")]) for n in range(2)])
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    cut = TopicPartition(topics.FHIR.name, 6, kept[0].offset)
    for future in admin.delete_records([cut]).values():
        future.result(30)
    second = Stepped(broker, fhir, tmp_path / "second")
    try:
        second.until(lambda loop: 6 in loop._lanes and loop._lanes[6].done == ends(kept)[6], "rest")
        (said,) = second.logged("expired")
    finally:
        second.close()
    assert said["level"] == "error"
    assert (said["partition"], said["first"]) == (6, kept[0].offset)
    assert said["offset"] == ends(sent)[6]
    stored = fhir.stored()
    assert not set(expected(gone)[0]) & set(stored)
    assert set(expected(kept)[0]) <= set(stored)


def test_a_letter_too_large_for_its_topic_goes_without_its_body(broker: Broker) -> None:
    out = io.StringIO()
    ours = Letters(plain(broker.bootstrap), "deliver-0", Log("deliver", now_ms, out))
    body = random.Random(1).randbytes(SMALL_BYTES + 100_000)
    letter = Undelivered("refused", 413, 1, 999_999, 0, "Observation/x", body, b"o")
    ours.put(record(None, 999_999, 1), letter, time.sleep)
    ((_key, found),) = letters(broker, [Sent(1, 999_999, [])])
    assert found == msgspec.structs.replace(letter, body=b"")
    assert "MSG_SIZE_TOO_LARGE" in out.getvalue()


@pytest.mark.parametrize("extra", [0, 1])
def test_the_largest_body_is_kept_and_a_larger_one_is_pointed_at(
    broker: Broker, extra: int
) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    size = ConfigEntry(
        "max.message.bytes", str(MESSAGE_BYTES_MAX), incremental_operation=AlterConfigOpType.SET
    )
    topic = ConfigResource("TOPIC", topics.UNDELIVERED.name, incremental_configs=[size])
    for future in admin.incremental_alter_configs([topic]).values():
        future.result(30)
    out = io.StringIO()
    ours = Letters(plain(broker.bootstrap), "deliver-0", Log("deliver", now_ms, out))
    body = random.Random(1).randbytes(BODY_BYTES_MAX + extra)  # lz4 makes nothing of it

    def is_in_force() -> bool:
        """The broker learns its topic's new size after the controller has said yes."""
        out.truncate(0)
        probe = Undelivered("refused", 413, 1, 2_000_000, 0, "x/y", body[:BODY_BYTES_MAX])
        ours.put(record(None, 2_000_000, 1), probe, time.sleep)
        return "MSG_SIZE_TOO_LARGE" not in out.getvalue()

    wait_until(is_in_force, "the topic's size")
    offset = 1_000_000 + extra
    letter = Undelivered("refused", 413, 1, offset, 0, "Observation/x", body, b"o" * 16_384)
    sent = record(None, offset, 1)
    ours.put(sent, letter, time.sleep)
    ((key, found),) = letters(broker, [Sent(1, offset, [])])
    assert key == sent.key
    assert found == (msgspec.structs.replace(letter, body=b"") if extra else letter)


def test_the_client_has_the_settings_that_nothing_lost_hangs_on() -> None:
    config = consume.consumer_config({}, "deliver-0")
    assert config["enable.auto.commit"] is False
    assert config["enable.auto.offset.store"] is False
    assert config["isolation.level"] == "read_committed"
    assert config["auto.offset.reset"] == "error"
    assert config["group.instance.id"] == "deliver-0"
