"""Batches into a real Redis."""

import itertools
import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import redis

from cloud import records
from cloud.project import layout
from cloud.project.batch import Batch, Record
from cloud.project.writer import Seals, Writer
from cloud.records import AlertEvent, Identity, LiveUpdate, SamplesRecord
from vitals import columns
from vitals.codes import BY_NAME
from vitals.columns import Source, pack
from vitals.pseudonym import blind_index
from vitals.reading import Patient, Reading
from vitals.sealed import Sealer

NOW = 1_790_000_000_000
ADA, BEA, DEVICE = "a" * 32, "b" * 32, "d" * 32
HR, SPO2, TEMP = (BY_NAME[name].index for name in ("heart_rate", "spo2", "temperature"))
_counter = itertools.count()


def counted(size: int) -> bytes:
    return next(_counter).to_bytes(size, "big")


IDENTITY, VALUES = Sealer(b"i" * 32, counted), Sealer(b"v" * 32, counted)
SEALS = Seals(IDENTITY, VALUES, b"x" * 32)


def reading(vital: int, value: float, at: int = 0, received: int = 0, site: int = 0) -> Reading:
    return Reading(vital, value, NOW + at, NOW + at + received, site=site)


def samples(
    rows: list[tuple[str, Reading]], seq: int = 1, offset: int = 0, partition: int = 0
) -> Record:
    subjects = sorted({subject for subject, _ in rows})
    record = SamplesRecord(
        "edge-1",
        "e" * 32,
        seq,
        0,
        NOW,
        pack(
            [Source(DEVICE, subject) for subject in subjects],
            [(subjects.index(subject), r) for subject, r in rows],
        ),
    )
    return Record("samples", partition, offset, b"key", records.encode(record))


def identity(name: str, at: int = 0, subject: str = ADA, offset: int = 0) -> Record:
    who = Identity(subject, Patient(mrn="M1", name=name, bed="4"), DEVICE, "edge-1", NOW + at)
    sealed = IDENTITY.seal(records.encode(who), records.place("identity", subject))
    return Record("identity", 0, offset, subject.encode(), sealed)


def alert(
    state: str,
    at: int,
    offset: int = 0,
    episode: str = "ep-1",
    number: int = 0,
    kind: str = "threshold",
) -> Record:
    event = AlertEvent(
        episode, ADA, kind, "spo2", "high", state, "SpO2 84<90", 90, 84, NOW, NOW, NOW + at,
        "p1", number=number,
    )  # fmt: skip
    return Record("alerts", 0, offset, f"{ADA}/ep-1".encode(), msgspec.json.encode(event))


def batch_of(*given: Record) -> Batch:
    batch = Batch(IDENTITY)
    for record in given:
        batch.add(record)
    return batch


@pytest.fixture
def client(server: Any) -> Iterator[redis.Redis]:
    opened = server.client()
    yield opened
    opened.close()


@pytest.fixture
def writer(server: Any) -> Iterator[Writer]:
    opened = Writer(server.once(), SEALS, lambda: NOW)
    yield opened
    opened.close()


def latest(client: redis.Redis, subject: str) -> dict[str, layout.Latest]:
    key = layout.latest_key(subject)
    return {
        field.decode(): msgspec.msgpack.decode(
            VALUES.open(value[layout.HEAD_BYTES :], layout.place(key, field.decode())),
            type=layout.Latest,
        )
        for field, value in client.hgetall(key).items()
    }


def content(client: redis.Redis) -> dict[str, Any]:
    """Everything in Redis with its seals opened: what must not depend on order or repetition."""
    found: dict[str, Any] = {}
    for raw in client.keys("*"):
        key = raw.decode()
        kind = client.type(raw).decode()
        if kind == "set":
            found[key] = client.smembers(raw)
        elif kind == "zset":
            found[key] = client.zrange(raw, 0, -1, withscores=True)
        elif key.startswith("offsets:"):
            found[key] = client.hgetall(raw)
        elif kind == "hash":
            skip = 0 if key.startswith("recent:") else layout.HEAD_BYTES
            found[key] = {
                field: (v[:skip], VALUES.open(v[skip:], layout.place(key, field.decode())))
                for field, v in client.hgetall(raw).items()
            }
        elif key.startswith("identity:"):
            value = client.get(raw)
            found[key] = IDENTITY.open(value[layout.HEAD_BYTES :], layout.place(key))
        elif key.startswith("mrn:"):
            found[key] = IDENTITY.open(client.get(raw), layout.place(key))
        else:
            found[key] = client.get(raw)
    return found


def test_the_newest_of_each_vital_stays_and_sites_compete_apart(
    writer: Writer, client: redis.Redis
) -> None:
    writer.write(
        batch_of(
            samples(
                [
                    (ADA, reading(HR, 80, at=5000)),
                    (ADA, reading(HR, 70, at=1000)),
                    (ADA, reading(TEMP, 36.6, site=1)),
                    (ADA, reading(TEMP, 37.9, site=2)),
                ]
            )
        )
    )
    writer.write(batch_of(samples([(ADA, reading(HR, 60, at=2000))], seq=2, offset=1)))
    held = latest(client, ADA)
    assert {field: value.reading.value for field, value in held.items()} == {
        "heart_rate": 80,
        "temperature:1": 36.6,
        "temperature:2": 37.9,
    }
    assert held["heart_rate"].device == DEVICE


def test_of_one_time_the_later_receipt_stays(writer: Writer, client: redis.Redis) -> None:
    writer.write(batch_of(samples([(ADA, reading(HR, 81, received=900))])))
    writer.write(batch_of(samples([(ADA, reading(HR, 82, received=100))], seq=2)))
    assert latest(client, ADA)["heart_rate"].reading.value == 81


def test_the_content_depends_neither_on_order_nor_on_repetition(
    writer: Writer, client: redis.Redis
) -> None:
    given = [
        samples([(ADA, reading(HR, 70)), (BEA, reading(SPO2, 97))], seq=1, offset=1),
        samples([(ADA, reading(HR, 71, at=61_000)), (ADA, reading(HR, 75))], seq=2, offset=2),
        samples([(ADA, reading(HR, 72))], seq=3, offset=3),
        identity("Ada Ng", at=0, offset=1),
        identity("Ada Nguyen", at=0, offset=2),
        alert("active", at=9000, offset=1),
        alert("ended", at=9000, offset=2),
    ]
    outcomes = []
    for seed in range(6):
        client.flushall()
        order = given * (1 + seed % 2)
        random.Random(seed).shuffle(order)
        for at in range(0, len(order), 1 + seed):
            writer.write(batch_of(*order[at : at + 1 + seed]))
        outcome = content(client)
        outcome.pop("offsets:project")
        outcomes.append(outcome)
    assert outcomes[0]
    assert all(outcome == outcomes[0] for outcome in outcomes)
    ended = msgspec.json.decode(outcomes[0][f"alert:{ADA}"][b"ep-1"][1], type=AlertEvent)
    assert ended.state == "ended"


def test_of_two_steps_at_one_time_the_end_stands(writer: Writer, client: redis.Redis) -> None:
    episodes = [f"ep-{n}" for n in range(8)]
    for episode in episodes:
        writer.write(batch_of(alert("ended", at=9000, episode=episode)))
        writer.write(batch_of(alert("active", at=9000, episode=episode)))
    key = layout.alert_key(ADA)
    for episode in episodes:
        value = client.hget(key, episode) or b""
        plain = VALUES.open(value[layout.HEAD_BYTES :], layout.place(key, episode))
        assert msgspec.json.decode(plain, type=AlertEvent).state == "ended"


def test_the_highest_number_of_an_episodes_steps_stands_in_any_order(
    writer: Writer, client: redis.Redis
) -> None:
    """Event time goes back and forth, as detect tells steps of readings and of the clock."""
    steps = [
        alert("ended", at=90_000),  # of a version that did not number
        alert("active", at=9_000, number=1),
        alert("active", at=80_000, number=2),
        alert("ended", at=10_000, number=9),
        alert("latched", at=10_000, number=10),
    ]
    key = layout.alert_key(ADA)
    for seed in range(12):
        client.flushall()
        order = steps * (1 + seed % 2)
        random.Random(seed).shuffle(order)
        for at in range(0, len(order), 1 + seed % 3):
            writer.write(batch_of(*order[at : at + 1 + seed % 3]))
        value = client.hget(key, "ep-1") or b""
        plain = VALUES.open(value[layout.HEAD_BYTES :], layout.place(key, "ep-1"))
        found = msgspec.json.decode(plain, type=AlertEvent)
        assert (found.state, found.number) == ("latched", 10)


def test_a_numbered_steps_head_is_exact_in_redis(writer: Writer, client: redis.Redis) -> None:
    high = 1 << 40
    writer.write(batch_of(alert("active", at=0, number=high + 1)))
    writer.write(batch_of(alert("ended", at=0, number=high)))
    key = layout.alert_key(ADA)
    value = client.hget(key, "ep-1") or b""
    assert layout.head_of(value)[:2] == (layout.NUMBERED + high + 1, NOW)


@pytest.mark.parametrize("kind", [records.GATEWAY, records.LIMIT])
def test_what_is_no_alert_of_a_patient_is_passed_over_and_counted_as_read(
    writer: Writer, client: redis.Redis, kind: str
) -> None:
    batch = batch_of(alert("ended", at=0, offset=3, number=1, kind=kind))
    writer.write(batch)
    assert client.keys("*") == [b"offsets:project"]
    assert writer.offsets() == {"alerts/0": 4}
    assert not batch.refused


def test_offsets_stand_beside_the_data_and_point_after_it(
    writer: Writer, client: redis.Redis
) -> None:
    writer.write(
        batch_of(
            samples([(ADA, reading(HR, 70))], offset=41, partition=3),
            identity("Ada", offset=7),
        )
    )
    assert writer.offsets() == {"samples/3": 42, "identity/0": 8}


def test_a_step_that_fails_leaves_the_offsets_behind(writer: Writer, client: redis.Redis) -> None:
    client.set(layout.latest_key(ADA), "not a hash")
    with pytest.raises(redis.RedisError):
        writer.write(batch_of(samples([(ADA, reading(HR, 70))], offset=5)))
    assert writer.offsets() == {}


def test_the_live_window_lies_in_buckets_of_a_minute_that_expire(
    writer: Writer, client: redis.Redis
) -> None:
    minute = NOW // layout.MINUTE_MS
    rows = [(ADA, reading(HR, 70)), (BEA, reading(HR, 90)), (ADA, reading(HR, 71, at=60_000))]
    writer.write(batch_of(samples(rows, seq=9)))
    key, field = layout.recent_key(ADA, minute), f"edge-1/{'e' * 32}/9"
    sealed = client.hget(key, field)
    assert sealed is not None
    opened = columns.decode(VALUES.open(sealed, layout.place(key, field)))
    assert [source.subject for source in opened.sources] == [ADA]
    assert [r.value for _, r in opened.rows()] == [70]
    assert 0 < client.ttl(key) <= layout.RECENT_S
    assert client.zrange(layout.recent_index(ADA), 0, -1) == [
        str(minute).encode(),
        str(minute + 1).encode(),
    ]


def test_the_index_of_buckets_forgets_what_has_expired(server: Any, client: redis.Redis) -> None:
    now = [NOW]
    writer = Writer(server.once(), SEALS, lambda: now[0])
    writer.write(batch_of(samples([(ADA, reading(HR, 70))])))
    now[0] += (layout.RECENT_S + layout.RECENT_INDEX_SLACK_S + 1) * 1000
    writer.write(batch_of(samples([(ADA, reading(HR, 70, at=now[0] - NOW))], seq=2)))
    assert client.zcard(layout.recent_index(ADA)) == 1
    writer.close()


def test_what_is_new_is_told_and_what_is_old_is_not(writer: Writer, client: redis.Redis) -> None:
    listener = client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe(layout.CHANNEL)
    listener.get_message(timeout=1)
    writer.write(batch_of(samples([(ADA, reading(HR, 70, at=1000))]), identity("Ada")))
    writer.write(batch_of(samples([(ADA, reading(HR, 60))], seq=2)))  # backlog: older
    writer.write(batch_of(alert("active", at=0)))
    writer.write(batch_of(alert("active", at=0)))  # again
    told = []
    while message := listener.get_message(timeout=0.2):
        plain = VALUES.open(message["data"], layout.place(layout.CHANNEL))
        told.append(msgspec.msgpack.decode(plain, type=LiveUpdate))
    listener.close()
    assert [(bool(t.identity), [r.value for r in t.readings], bool(t.alert)) for t in told] == [
        (True, [], False),
        (False, [70], False),
        (False, [], True),
    ]


def test_a_record_number_leads_to_its_subject_by_blind_index_only(
    writer: Writer, client: redis.Redis
) -> None:
    writer.write(batch_of(identity("Ada Ng")))
    key = layout.mrn_key(blind_index(b"x" * 32, "M1"))
    assert IDENTITY.open(client.get(key) or b"", layout.place(key)) == ADA.encode()
    for raw in client.keys("*"):
        if client.type(raw) == b"string":
            assert b"Ada" not in (client.get(raw) or b"")
        assert b"M1" not in raw


def test_a_record_that_cannot_be_read_is_counted_and_passed_over(
    writer: Writer, client: redis.Redis
) -> None:
    batch = batch_of(
        Record("samples", 0, 3, b"k", b"\xc1junk"),
        Record("identity", 0, 4, ADA.encode(), b"forged" * 20),
        Record("alerts", 0, 5, b"k", b"{}"),
        Record("alerts", 0, 6, b"k", None),
        samples([(ADA, reading(HR, 70))], offset=4),
    )
    writer.write(batch)
    assert dict(batch.refused) == {"samples": 1, "identity": 1, "alerts": 1}
    assert writer.offsets() == {"samples/0": 5, "identity/0": 5, "alerts/0": 7}
    assert latest(client, ADA)["heart_rate"].reading.value == 70


def test_only_what_became_the_newest_counts_for_latency(writer: Writer) -> None:
    first = writer.write(batch_of(samples([(ADA, reading(HR, 70, at=1000, received=30))])))
    late = writer.write(batch_of(samples([(ADA, reading(HR, 60))], seq=2)))
    assert first.fresh_received_ms == [NOW + 1030]
    assert late.fresh_received_ms == []
