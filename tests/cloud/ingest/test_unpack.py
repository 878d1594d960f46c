from collections.abc import Callable

import msgspec
import pytest

from cloud import records
from cloud.ingest.unpack import Batch, Record, Unpacker, WrongEdge, frame_name
from tests.cloud.ingest.frames import NOW, Edge, Keys
from vitals import columns as columns_
from vitals.columns import Source
from vitals.errors import EpochError
from vitals.frame import FrameOpener
from vitals.pseudonym import device_id, patient_subject
from vitals.reading import Patient, Reading
from vitals.topics import partition_of

LATER = NOW + 1000


def unpack(unpacker: Unpacker, edge: Edge, frame: bytes, floor: int = 0) -> Batch:
    return unpacker.unpack(edge.name, edge.opener, frame, floor, LATER)


def of(batch: Batch, topic: str) -> list[Record]:
    return [record for record in batch.records if record.topic == topic]


def quarantined(keys: Keys, record: Record) -> records.QuarantineRecord:
    place = records.place("quarantine", record.key.decode())
    return msgspec.msgpack.decode(
        keys.quarantine.open(record.value, place), type=records.QuarantineRecord
    )


def test_a_frame_becomes_one_samples_record_a_partition(
    unpacker: Unpacker, edge: Edge, keys: Keys
) -> None:
    sources = [Source(f"bed-{i}", patient=Patient(mrn=f"M{i}")) for i in range(30)]
    rows = [(i, Reading(0, float(60 + i), NOW + i, NOW)) for i in range(30)]
    batch = unpack(unpacker, edge, edge.frame(7, sources, rows), floor=3)
    samples = of(batch, "samples")
    assert (batch.epoch, batch.seq, batch.readings, batch.set_aside) == (edge.epoch, 7, 30, "")
    assert len({record.partition for record in samples}) == len(samples) > 1
    seen = 0
    for record in samples:
        assert record.key == f"ward-3/{edge.epoch}/7/{record.partition}".encode()
        value = records.decode_samples(record.value)
        assert (value.edge, value.epoch, value.seq, value.floor) == ("ward-3", edge.epoch, 7, 3)
        assert value.ingested_ms == LATER
        assert value.frame_readings == 30
        for at, reading in value.columns.rows():
            source = value.columns.sources[at]
            bed = round(reading.value or 0) - 60
            assert source.subject == patient_subject(keys.subject, f"M{bed}")
            assert source.device == device_id(keys.subject, "ward-3", f"bed-{bed}")
            assert partition_of(source.subject) == record.partition
            seen += 1
    assert seen == 30


def test_a_floor_above_the_frame_itself_is_not_believed(unpacker: Unpacker, edge: Edge) -> None:
    (record,) = of(unpack(unpacker, edge, edge.simple(4), floor=9), "samples")
    assert records.decode_samples(record.value).floor == 4


def test_identity_goes_out_sealed_once_and_again_when_it_changes(
    unpacker: Unpacker, edge: Edge, keys: Keys, ada: Patient
) -> None:
    rows = [(0, Reading(0, 78.0, NOW, NOW))]
    first = unpack(unpacker, edge, edge.frame(0, [Source("bed-12", patient=ada)], rows))
    again = unpack(unpacker, edge, edge.frame(1, [Source("bed-12", patient=ada)], rows))
    moved = msgspec.structs.replace(ada, bed="13")
    third = unpack(unpacker, edge, edge.frame(2, [Source("bed-12", patient=moved)], rows))
    assert [len(of(b, "identity")) for b in (first, again, third)] == [1, 0, 1]
    (record,) = of(first, "identity")
    subject = patient_subject(keys.subject, ada.mrn)
    assert (record.key.decode(), record.partition) == (subject, partition_of(subject))
    opened = keys.identity.open(record.value, records.place("identity", subject))
    identity = msgspec.msgpack.decode(opened, type=records.Identity)
    assert identity.patient == ada
    assert (identity.subject, identity.edge, identity.time_ms) == (subject, "ward-3", NOW)


def test_no_record_carries_a_name_in_clear(unpacker: Unpacker, edge: Edge, ada: Patient) -> None:
    rows = [(0, Reading(0, 78.0, NOW, NOW))]
    batch = unpack(unpacker, edge, edge.frame(0, [Source("bed-12", patient=ada)], rows))
    batch2 = unpack(unpacker, edge, edge.rejects(1, 1))
    for record in (*batch.records, *batch2.records):
        for word in (b"Ada", b"M000123", b"bed-12", b"99X"):
            assert word not in record.value + record.key + repr(record.headers).encode()


def test_rejected_inputs_go_to_quarantine_with_their_number(
    unpacker: Unpacker, edge: Edge, keys: Keys
) -> None:
    batch = unpack(unpacker, edge, edge.rejects(5, 3))
    (record,) = batch.records
    assert (batch.rejects, batch.readings, batch.set_aside) == (3, 0, "")
    assert dict(record.headers) == {
        "kind": b"rejects",
        "count": b"3",
        "epoch": edge.epoch.encode(),
        "seq": b"5",
    }
    assert (record.key, record.partition) == (b"ward-3", 0)
    opened = quarantined(keys, record)
    assert [r.reason for r in opened.rejects] == ["unit"] * 3
    assert opened.frame == b""


def refuse(_epoch: str) -> FrameOpener | None:
    raise EpochError("wrapped to a key not held")


@pytest.mark.parametrize("reason", ["forged", "malformed", "epoch-unknown", "epoch-key"])
def test_a_frame_that_cannot_be_used_is_set_aside_whole(
    unpacker: Unpacker, edge: Edge, keys: Keys, reason: str
) -> None:
    frame = edge.simple(9)
    opener: Callable[[str], FrameOpener | None] = edge.opener
    if reason == "forged":
        frame = frame[:-1] + bytes([frame[-1] ^ 1])
    elif reason == "malformed":
        frame = edge.body(9, b"\x93junk")
    elif reason == "epoch-unknown":
        opener = dict[str, FrameOpener]().get
    else:
        opener = refuse
    batch = unpacker.unpack("ward-3", opener, frame, 0, LATER)
    assert (batch.epoch, batch.seq, batch.set_aside) == (edge.epoch, 9, reason)
    record, alert = batch.records
    assert alert.topic == "alerts"
    assert dict(record.headers)["kind"] == b"frame"
    opened = quarantined(keys, record)
    assert (opened.frame, opened.reason, opened.rejects) == (frame, reason, [])


def test_numbers_out_of_range_set_the_frame_aside(unpacker: Unpacker, edge: Edge) -> None:
    columns = columns_.pack([Source("a")], [(0, Reading(0, 70.0, NOW, NOW))])
    columns.time = [-5]
    batch = unpack(unpacker, edge, edge.body(2, columns_.encode(columns)))
    assert batch.set_aside == "malformed"


def test_bytes_that_are_no_frame_are_set_aside_without_a_name(
    unpacker: Unpacker, edge: Edge
) -> None:
    batch = unpack(unpacker, edge, b"GET / HTTP/1.1")
    assert (batch.epoch, batch.seq, batch.set_aside) == ("", -1, "malformed")


def test_a_frame_of_a_later_version_is_set_aside_by_its_name(
    unpacker: Unpacker, edge: Edge
) -> None:
    head = msgspec.msgpack.encode([2, "ward-3", edge.epoch, 11, {"new": True}])
    frame = b"HSF1" + len(head).to_bytes(2, "big") + head + b"rest"
    batch = unpack(unpacker, edge, frame)
    assert (batch.epoch, batch.seq, batch.set_aside) == (edge.epoch, 11, "malformed")


def test_a_frame_over_the_limit_is_set_aside(unpacker: Unpacker, edge: Edge, keys: Keys) -> None:
    frame = edge.simple(3) + bytes(1024 * 1024)
    batch = unpack(unpacker, edge, frame)
    assert (batch.seq, batch.set_aside) == (3, "too-large")
    assert quarantined(keys, batch.records[0]).frame == frame[: 1024 * 1024]


def test_a_frame_of_another_gateway_ends_the_session(
    unpacker: Unpacker, edge: Edge, other_edge: Edge
) -> None:
    with pytest.raises(WrongEdge):
        unpack(unpacker, edge, other_edge.simple(0))


@pytest.mark.parametrize("size", range(0, 60, 3))
def test_a_cut_frame_never_raises(unpacker: Unpacker, edge: Edge, size: int) -> None:
    assert unpack(unpacker, edge, edge.simple(0)[:size]).set_aside in ("malformed", "forged")


def test_the_name_of_a_frame_survives_damage_behind_its_header(edge: Edge) -> None:
    assert frame_name(edge.simple(6)[:-20]) == (edge.epoch, 6)
    assert frame_name(b"") == ("", -1)
