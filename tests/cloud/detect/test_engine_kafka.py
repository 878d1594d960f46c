"""The engine against a real broker: killed, restarted, rebalanced; nothing lost, nothing twice.

The engines' clock stands still (engine_process.py), so that an undisturbed run in this process
tells the same, value by value.
"""

import collections
import functools
import json
import os
import random
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from cloud.detect.made import alert_message
from cloud.detect.seen import Seen
from cloud.policy.default import DEFAULT
from cloud.records import AlertEvent, Command, SamplesRecord, encode, samples_key
from tests.cloud.detect.broker import Broker
from tests.cloud.detect.fleet import NOW_MS, Fleet, wait_until
from tests.cloud.detect.records_of import T0, reading, record, subject_in, ward
from tests.cloud.detect.turns import Log
from vitals import topics

pytestmark = pytest.mark.system


KILLS = int(os.environ.get("HEALTHSYNC_DETECT_KILLS", "8"))
"""Of the test with three processes; `make faults` gives 200."""

KILLED_S_MAX = 15.0
"""A kill and the restart take 2 to 5 s on a machine that is not busy."""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """Return one broker for all: each test has patients and gateways of its own (`elsewhere`)."""
    made = Broker(tmp_path_factory.mktemp("kafka"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


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
    for partition, one in records:
        key = samples_key(one.edge, one.epoch, one.seq, partition)
        producer.produce(topics.SAMPLES.name, encode(one), key, partition)
        producer.poll(0)
        if per_s:
            time.sleep(1 / per_s)  # a ward's pace, so that the load lasts
    assert producer.flush(30) == 0


def command(broker: Broker, orders: list[tuple[int, Command]], per_s: float) -> None:
    producer = Producer(
        {"bootstrap.servers": broker.bootstrap, "linger.ms": 0, "enable.idempotence": True}
    )
    for partition, order in orders:
        producer.produce(topics.COMMANDS.name, msgspec.json.encode(order), b"", partition)
        producer.poll(0)
        time.sleep(1 / per_s)  # over several kills
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


def frames_seen(broker: Broker, where: int) -> int:
    last = {m.key(): m.value() for m in committed(broker, topics.STATE.name)}
    return sum(
        msgspec.msgpack.decode(value, type=Seen).frames
        for key, value in last.items()
        if b"/dedupe/" in key and f"-{where}/".encode() in key
    )


def elsewhere(
    records: list[tuple[int, SamplesRecord]], where: int
) -> list[tuple[int, SamplesRecord]]:
    """Return the same records of other patients behind another gateway, in the same partitions."""

    def moved(record: SamplesRecord) -> SamplesRecord:
        sources = [
            msgspec.structs.replace(source, subject=source.subject[:-4] + f"{where:04x}")
            for source in record.columns.sources
        ]
        columns = msgspec.structs.replace(record.columns, sources=sources)
        return msgspec.structs.replace(record, edge=f"{record.edge}-{where}", columns=columns)

    return [(number, moved(one)) for number, one in records]


class Outcome(NamedTuple):
    """What came of a run, of each partition or subject in its order."""

    charted: dict[int, list[tuple[bytes, bytes]]]
    issues: dict[int, list[tuple[bytes, bytes]]]
    """Apart: a turn's come after its Observations, and turns are cut otherwise in each run."""
    alerts: dict[str, list[AlertEvent]]
    seen: dict[bytes, bytes]


def outcome(
    fhir: Iterable[tuple[int, bytes, bytes]],
    alerts: Iterable[bytes],
    state: Iterable[tuple[bytes, bytes | None]],
) -> Outcome:
    made = Outcome({}, {}, {}, {})
    for number, key, value in fhir:
        to = made.issues if b'"url":"DetectedIssue/' in value else made.charted
        to.setdefault(number, []).append((key, value))
    for raw in alerts:
        event = msgspec.json.decode(raw, type=AlertEvent)
        made.alerts.setdefault(event.subject, []).append(event)
    made.seen.update({key: value for key, value in state if b"/dedupe/" in key and value})
    return made


def assert_same(made: Outcome, expected: Outcome) -> None:
    """Fail with the first thing that differs, not with megabytes."""
    for name in Outcome._fields:
        one, other = getattr(made, name), getattr(expected, name)
        assert one.keys() == other.keys(), name
        for key in other:
            if one[key] == other[key]:
                continue
            assert isinstance(one[key], list), (name, key, one[key], other[key])
            assert len(one[key]) == len(other[key]), (name, key, len(one[key]), len(other[key]))
            pairs = enumerate(zip(one[key], other[key], strict=True))
            at = next(at for at, (mine, its) in pairs if mine != its)
            mine, its = (collections.Counter(map(repr, side[key])) for side in (one, other))
            only = [" ".join(list(some)[:2]) for some in (mine - its, its - mine)]
            pytest.fail(f"{name} {key} {at} of {len(one[key])}; made {only[0]}; expected {only[1]}")


def found(broker: Broker, where: int) -> Outcome:
    """Return what was committed for the patients and gateways of one test."""
    subjects = f"{where:04x}".encode()
    edge = f"-{where}/".encode()
    return outcome(
        (
            (m.partition(), m.key(), m.value())
            for m in committed(broker, topics.FHIR.name)
            if m.key().endswith(subjects)
        ),
        (
            m.value()
            for m in committed(broker, topics.ALERTS.name)
            if m.key().partition(b"/")[0].endswith(subjects)
        ),
        ((m.key(), m.value()) for m in committed(broker, topics.STATE.name) if edge in m.key()),
    )


def undisturbed(
    records: list[tuple[int, SamplesRecord]], orders: Iterable[tuple[int, Command]] = ()
) -> Outcome:
    """Return what comes of records, and then of commands, when nothing happens."""
    logs = {number: Log(number, DEFAULT) for number in range(topics.SUBJECT_PARTITIONS)}
    made = [(number, logs[number].give([one], NOW_MS)) for number, one in records]
    made += [(number, logs[number].give([], NOW_MS, [one])) for number, one in orders]
    return outcome(
        ((number, *message) for number, one in made for message in one.fhir),
        (alert_message(alert).value for _, one in made for alert in one.alerts),
        (kept for log in logs.values() for kept in log.state),
    )


def each_once(broker: Broker) -> None:
    """Raise if an Observation was charted twice, whatever its Bundle."""
    ids = collections.Counter(
        entry["resource"]["id"]
        for m in committed(broker, topics.FHIR.name)
        for entry in json.loads(m.value())["entry"]
        if entry["request"]["url"].startswith("Observation/")
    )
    assert set(ids.values()) == {1}


def test_a_ward_under_kill_minus_nine_comes_out_as_if_nothing_had_happened(
    broker: Broker, fleet: Fleet
) -> None:
    records = elsewhere(ward(seconds=240, beds=24), 1)
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
    wait_until(lambda: frames_seen(broker, 1) == len(records), "every frame taken")
    fleet.end("detect-1", signal.SIGKILL)
    assert fleet.end("detect-0", signal.SIGTERM) == 0

    expected = undisturbed(given)
    assert expected.alerts, "a ward without a single alert proves nothing"
    assert_same(found(broker, 1), expected)
    each_once(broker)


def test_kills_and_rebalances_at_random_change_nothing(broker: Broker, fleet: Fleet) -> None:
    a_kill = 8
    records = elsewhere(ward(seconds=KILLS * a_kill, beds=24, seed=11), 2)
    moments = random.Random(5)
    names = [f"detect-{nth}" for nth in range(3)]
    for name in names:
        fleet.start(name)
    deadline = time.monotonic() + 60 + KILLS * KILLED_S_MAX
    for nth in range(KILLS):
        assert time.monotonic() < deadline, f"{nth} kills within the time of {KILLS}"
        produce(broker, records[nth * a_kill * 8 : (nth + 1) * a_kill * 8])
        at = moments.randrange(len(names))
        if moments.random() < 0.7:  # the others fall while they are reading back
            wait_until(functools.partial(fleet.is_ready, names[at]), f"{names[at]} ready", 60)
        time.sleep(moments.uniform(0.0, 0.4))
        fleet.end(names[at], signal.SIGKILL if nth % 4 else signal.SIGTERM)
        if nth % 10 == 5:  # somebody new: partitions move, and the old one's are left open
            names[at] = f"detect-{3 + nth}"
        fleet.start(names[at])
    wait_until(lambda: frames_seen(broker, 2) == len(records), "every frame taken")
    expected = undisturbed(records)
    assert expected.alerts
    assert_same(found(broker, 2), expected)
    each_once(broker)


def latched(number: int) -> tuple[str, list[tuple[int, SamplesRecord]]]:
    """Return a subject of a partition and the readings that leave its SpO2 alarm latched."""
    subject = subject_in(number, 10)[:-4] + "0003"
    values = [80] * 11 + [97] * 7
    return subject, [
        (
            number,
            record(
                second, [(subject, reading("spo2", value, T0 + second * 1000))], edge="edge-ill-3"
            ),
        )
        for second, value in enumerate(values)
    ]


def answers(number: int, subject: str, episode: str) -> list[tuple[int, Command]]:
    """Return what is ordered about an episode; every one comes twice."""

    def order(nth: int, kind: str, who: str = "nurse-1", **fields: Any) -> Command:
        base = Command(f"{number:016x}{nth:016x}", kind, subject, who, NOW_MS, "", episode)
        return msgspec.structs.replace(base, **fields)

    orders = [
        order(0, "shelve", until_ms=NOW_MS + 60_000),
        order(1, "unshelve"),
        order(2, "shelve", until_ms=NOW_MS + 90_000),
        order(3, "unshelve", "nurse-2"),
        order(4, "acknowledge"),
        order(5, "acknowledge", "nurse-2"),
        order(6, "limit", rule="spo2.low.high", limit=85.0),
    ]
    return [(number, one) for one in orders for _ in range(2)]


def test_answers_given_while_processes_are_killed_are_applied_once(
    broker: Broker, fleet: Fleet
) -> None:
    ill = [latched(number) for number in range(topics.SUBJECT_PARTITIONS)]
    first = [one for _, records in ill for one in records]
    expected = undisturbed(first)
    orders = [
        answers(number, subject, expected.alerts[subject][0].episode)
        for number, (subject, _) in enumerate(ill)
    ]
    by_turns = [one for those in zip(*orders, strict=True) for one in those]
    fleet.start("detect-0")
    fleet.start("detect-1")
    produce(broker, first)
    wait_until(lambda: frames_seen(broker, 3) == len(first), "every alarm latched")

    background = elsewhere(ward(seconds=60, beds=16), 3)
    devices = threading.Thread(target=produce, args=(broker, background, 40))
    nurses = threading.Thread(target=command, args=(broker, by_turns, 10))
    devices.start()
    nurses.start()
    kills = 0
    while nurses.is_alive():
        victim = f"detect-{kills % 2}"
        wait_until(functools.partial(fleet.is_ready, victim), f"{victim} ready")
        time.sleep(0.1 * (kills % 4))
        fleet.end(victim, signal.SIGKILL)
        fleet.start(victim)
        kills += 1
    devices.join()
    nurses.join()
    assert kills >= 3
    wanted = undisturbed([*first, *background], by_turns)
    total = sum(map(len, wanted.alerts.values()))

    def told() -> bool:
        return sum(map(len, found(broker, 3).alerts.values())) >= total

    wait_until(told, "every answer applied")
    wait_until(lambda: frames_seen(broker, 3) == len(first) + len(background), "every frame taken")
    made = found(broker, 3)
    assert made.alerts == wanted.alerts
    assert made.seen == wanted.seen
    for subject, _ in ill:
        assert [event.step for event in made.alerts[subject]] == [
            "raised",
            "latched",
            *["shelved", "unshelved"] * 2,
            "acknowledged",
            "ended",
            "limit",
        ]
