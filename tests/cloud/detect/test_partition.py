"""A partition's memory: each frame once, restored as it was, poison harmless."""

import json

import msgspec
import pytest

from cloud.detect.detectors import ready
from cloud.detect.partition import Made, Partition, Poison, Seen, alert_message
from cloud.detect.policy import DEFAULT
from cloud.fhir import chart
from cloud.fhir.ids import parse_observation_id
from cloud.records import AlertEvent, SamplesRecord, encode
from tests.cloud.detect.records_of import EDGE, EPOCH, T0, reading, record, subject_in, ward
from vitals.columns import Source, pack
from vitals.reading import DeviceAlert

READY = ready(DEFAULT)
SUBJECT = subject_in(3)


def fed(partition: Partition, records: list[SamplesRecord]) -> list[Made]:
    return [partition.take(partition.read(encode(one)), READY) for one in records]


def of_three(seconds: int) -> list[SamplesRecord]:
    return [one for number, one in ward(seconds, beds=16) if number == 3]


def spo2(seq: int, value: float = 85, floor: int = 0) -> SamplesRecord:
    return record(seq, [(SUBJECT, reading("spo2", value, T0 + seq * 1000))], floor=floor)


def test_a_frame_sent_twice_counts_once() -> None:
    partition = Partition(3)
    first, again = fed(partition, [spo2(0), spo2(0)])
    assert (len(first.fhir), first.readings, first.duplicate) == (1, 1, False)
    assert again == Made([], [], 0, duplicate=True)
    seen = msgspec.msgpack.decode(partition.changed()[0].value, type=Seen)
    assert (seen.readings, seen.frames, seen.ranges, seen.again) == (1, 1, [(0, 0)], 1)


def test_counts_go_on_over_a_restart_and_a_repeat_alone_is_written() -> None:
    before, after = Partition(3), Partition(3)
    fed(before, [spo2(2), spo2(3)])
    for key, value in before.changed():
        after.restore(key, value)
    fed(after, [spo2(3)])
    (written,) = after.changed()
    seen = msgspec.msgpack.decode(written.value, type=Seen)
    assert (seen.frames, seen.again, seen.sums) == (2, 1, (5, 13, 5))


def test_the_state_of_an_older_version_is_taken_over_without_sums() -> None:
    old = {"floor": 2, "ranges": [(2, 3)], "readings": 9, "frames": 4}
    partition = Partition(3)
    partition.restore(f"3/dedupe/{EDGE}/{EPOCH}".encode(), msgspec.msgpack.encode(old))
    made = fed(partition, [spo2(1), spo2(4)])
    assert [one.duplicate for one in made] == [True, False]
    seen = msgspec.msgpack.decode(partition.changed()[0].value, type=Seen)
    assert (seen.readings, seen.frames, seen.again, seen.sums) == (10, 5, 1, None)


def test_what_lies_below_the_floor_was_seen() -> None:
    partition = Partition(3)
    made = fed(partition, [spo2(7, floor=5), spo2(4), spo2(5, floor=5), spo2(6, floor=8)])
    assert [one.duplicate for one in made] == [False, True, False, False]
    (seen, _) = partition.changed()
    assert msgspec.msgpack.decode(seen.value, type=Seen) == Seen(8, [], 3, 3, 1, (18, 110, 18))


def test_live_frames_may_overtake_and_epochs_stand_apart() -> None:
    partition = Partition(3)
    other = record(0, [(SUBJECT, reading("spo2", 95, T0))], epoch="cd" * 16)
    made = fed(partition, [spo2(9), spo2(2), other, spo2(2)])
    assert [one.duplicate for one in made] == [False, False, False, True]


def test_a_restart_anywhere_gives_the_same() -> None:
    records = of_three(60)
    whole = Partition(3)
    expected = fed(whole, records)
    state: dict[bytes, bytes] = {}
    made = []
    for at in range(0, len(records), 7):
        part = Partition(3)
        for key, value in state.items():
            part.restore(key, value)
        made += fed(part, records[at : at + 7])
        state |= dict(part.changed())
    assert made == expected
    assert any(one.alerts for one in made)
    assert state == dict(whole.changed())


def test_nothing_new_changes_nothing() -> None:
    partition = Partition(3)
    fed(partition, [spo2(0)])
    assert len(partition.changed()) == 2
    assert partition.changed() == []
    fed(partition, [spo2(0)])
    (counted,) = partition.changed()  # that it came again, and nothing else
    assert counted.key.startswith(b"3/dedupe/")


def test_a_bundle_a_subject_with_its_observations() -> None:
    other = subject_in(3, 1)
    rows = [
        (SUBJECT, reading("spo2", 97, T0)),
        (other, reading("spo2", 98, T0)),
        (SUBJECT, reading("heart_rate", 70, T0)),
    ]
    (made,) = fed(Partition(3), [record(0, rows)])
    assert [m.key for m in made.fhir] == [SUBJECT.encode(), other.encode()]
    bundle = json.loads(made.fhir[0].value)
    assert bundle["type"] == "transaction"
    ids = [entry["request"]["url"].removeprefix("Observation/") for entry in bundle["entry"]]
    parsed = [parse_observation_id(ident) for ident in ids]
    assert [(p.subject, p.vital) for p in parsed if p] == [
        (SUBJECT, "spo2"),
        (SUBJECT, "heart_rate"),
    ]


def test_a_large_bundle_is_cut_and_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chart, "BUNDLE_BYTES_MAX", 3000)
    rows = [(SUBJECT, reading("spo2", 97, T0 + at * 1000)) for at in range(20)]
    (made,) = fed(Partition(3), [record(0, rows)])
    sizes = [len(json.loads(m.value)["entry"]) for m in made.fhir]
    assert sum(sizes) == 20
    assert max(sizes) == 3


def wrong_source(subject: str, device: str = "0" * 32) -> SamplesRecord:
    columns = pack([Source(device, subject)], [(0, reading("spo2", 97, T0))])
    return SamplesRecord(EDGE, EPOCH, 0, 0, T0, columns)


def with_columns(**fields: list[int]) -> SamplesRecord:
    good = spo2(0)
    return msgspec.structs.replace(good, columns=msgspec.structs.replace(good.columns, **fields))


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"", "malformed"),
        (None, "malformed"),
        (encode(spo2(0))[:-3], "malformed"),
        (encode(with_columns(vital=[99])), "malformed"),
        (encode(with_columns(source=[])), "malformed"),
        (encode(wrong_source(subject_in(4))), "partition"),
        (encode(wrong_source("M000123")), "subject"),
        (encode(wrong_source(SUBJECT, "bed-12")), "subject"),
        (encode(with_columns(status=[9])), "malformed"),
        (encode(with_columns(time=[-1])), "malformed"),
        (encode(with_columns(time=[10**16])), "malformed"),
        (encode(msgspec.structs.replace(spo2(0), seq=-1)), "range"),
    ],
)
def test_poison_is_found_before_anything_is_remembered(value: bytes | None, reason: str) -> None:
    partition = Partition(3)
    with pytest.raises(Poison) as caught:
        partition.take(partition.read(value), READY)
    assert caught.value.reason == reason
    assert partition.changed() == []


@pytest.mark.parametrize("fields", [{"site": [77]}, {"channel": [10**9]}, {"channel": [-1]}])
def test_codes_out_of_range_are_poison_too(fields: dict[str, list[int]]) -> None:
    partition = Partition(3)
    rows = [(SUBJECT, reading("temperature", 37.0, T0))]
    good = record(0, rows)
    bad = msgspec.structs.replace(good, columns=msgspec.structs.replace(good.columns, **fields))
    with pytest.raises(Poison):
        partition.take(partition.read(encode(bad)), READY)
    assert partition.changed() == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"4/subject/x", b"\x80"),
        (b"3/other/x", b"\x80"),
        (b"3", b""),
        (b"\xff", b""),
        (b"3/subject/x", b"\xc1"),
        (b"3/dedupe/e/f", b"\x80"),
    ],
)
def test_a_state_record_of_nobody_is_refused(key: bytes, value: bytes) -> None:
    with pytest.raises(Poison):
        Partition(3).restore(key, value)


def test_a_tombstone_forgets() -> None:
    partition = Partition(3)
    fed(partition, [spo2(0)])
    for message in partition.changed():
        partition.restore(message.key, None)
    assert fed(partition, [spo2(0)])[0].duplicate is False


def test_an_alert_lies_under_subject_and_episode() -> None:
    made = fed(Partition(3), [spo2(at) for at in range(11)])
    (alert,) = [alert for one in made for alert in one.alerts]
    message = alert_message(alert)
    assert message.key == f"{SUBJECT}/{alert.episode}".encode()
    assert msgspec.json.decode(message.value, type=AlertEvent) == alert


def test_a_frame_of_device_alerts_alone_is_seen_once_and_makes_nothing() -> None:
    alone = record(3, [])
    alone.columns.sources.append(Source("0" * 32, SUBJECT))
    alone.columns.alerts.append((0, DeviceAlert(196652, "MDC_EVT_HI", T0, T0)))
    made = fed(Partition(3), [alone, alone])
    assert made == [Made([], [], 0, duplicate=False), Made([], [], 0, duplicate=True)]
