"""Reading recorded data: JSON lines, the archive's files, a recorded ward; and what is refused."""

import contextlib
import io
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cloud.whatif.ward as ward_
from cloud.archive.chain import Chain
from cloud.archive.errors import ArchiveDamaged
from cloud.archive.parquet import write
from cloud.archive.reader import FUTURE_MS
from cloud.records import encode
from cloud.whatif import files, lines, recorded
from cloud.whatif.errors import DataWrong
from cloud.whatif.ward import MONITORED_GAP_MS, NO_VALUE, Ward, monitored_ms
from tests.cloud.archive.bench import ADA, BOB, DEVICE, NOW, MemoryStore, keys, record
from tests.cloud.whatif.made import T0, flat, line, row, ward
from tests.cloud.whatif.made import lines as made_lines
from tests.cloud.whatif.test_replay import RECORDINGS
from vitals.reading import Reading


def taken(text: str | bytes, **window: int) -> Ward:
    made = Ward(window.get("start"), window.get("end"))
    lines.read(io.BytesIO(text.encode() if isinstance(text, str) else text), "x.jsonl", "", made)
    return made


def columns(made: Ward) -> dict[str, dict[str, list[int]]]:
    """Return label -> column -> numbers, with origins by name."""
    return {
        label: {
            name: [made.origins[at] for at in column.tolist()]
            if name == "source"
            else column.tolist()
            for name, column in zip(rows._fields, rows, strict=True)
        }
        for label, _, rows in made.ordered()
    }


# JSON lines ---------------------------------------------------------------------------------------


def test_a_decoded_line_is_a_reading_that_arrives_when_it_was_taken() -> None:
    made = taken(line(1.5, "temperature", 38.4, site="oral", channel=2, status="questionable"))
    ((label, subject, rows),) = made.ordered()
    assert label == "B1"
    assert len(subject) == 32
    assert "SECRET" not in subject
    got = {name: column.tolist() for name, column in zip(rows._fields, rows, strict=True)}
    assert got == {
        "time": [T0 + 1500],
        "arrival": [T0 + 1500],
        "value": [384],
        "source": [0],
        "vital": [4],
        "status": [2],
        "site": [1],
        "channel": [2],
    }


def test_no_value_is_no_value() -> None:
    ((_, _, rows),) = taken(line(0, "spo2", None)).ordered()
    assert rows.value.tolist() == [NO_VALUE]
    assert rows.status.tolist() == [1]


def test_a_patient_who_moves_stays_one_and_a_device_without_one_is_itself() -> None:
    text = line(0, "spo2", 97, device="a", bed="B2") + line(1, "spo2", 97, device="b", bed="B1")
    text += line(2, "spo2", 97, device="c", patient=None, bed=None)
    assert [label for label, _, _ in taken(text).ordered()] == ["B1", "c"]


def test_two_patients_in_beds_of_one_name_are_told_apart() -> None:
    text = line(0, "spo2", 97, patient="1") + line(1, "spo2", 97, patient="2")
    assert [label for label, _, _ in taken(text).ordered()] == ["B1", "B1 (2)"]


def test_a_label_is_short_and_printable() -> None:
    ((label, _, _),) = taken(line(0, "spo2", 97, bed="\x1b[31m" + "x" * 100)).ordered()
    assert label == "?[31m" + "x" * 27


def test_what_is_no_reading_is_passed_and_counted() -> None:
    text = '{"kind": "rejected", "reason": "x"}\n\n{"kind": "ack", "text": "AA"}\n'
    text += '{"kind": "device_alert", "value": 3, "time": "2026-11-23T10:00:00Z"}\n'
    made = taken(text + line(0, "spo2", 97))
    assert (len(made), made.passed) == (1, 3)


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("spo2=97", "not JSON"),
        ('{"kind": "reading"', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        ("[1]", "object"),
        ('{"kind": "reading", "vital": "spo2", "value": "97"}', "$.value"),
        (line(0, "spo2", 97, kind="frame"), "kind"),
        (line(0, "spo2", 97, vital="SpO2"), "vital"),
        (line(0, "spo2", 97, status="fine"), "status or site"),
        (line(0, "spo2", 97, site="nose"), "status or site"),
        (line(0, "spo2", 97, time=None), "no time"),
        (line(0, "spo2", 97, time="2026-11-23T10:00:00"), "time"),
        (line(0, "spo2", 97, time="1969-12-31T23:59:59Z"), "before 1970"),
        (line(0, "spo2", 97, channel=70_000), "channel"),
        (line(0, "spo2", 97, channel=-1), "channel"),
        (line(0, "spo2", 1e12), "out of range"),
        (line(0, "temperature", 3e8), "out of range"),
        ('{"x": ' + "[" * 20_000, "not JSON"),
        ("x" * (lines.LINE_BYTES_MAX + 1), "longer than"),
    ],
)
def test_a_wrong_line_is_refused_by_its_number_with_a_next_step(
    bad: str | bytes, said: str
) -> None:
    data = bad if isinstance(bad, bytes) else bad.encode()
    with pytest.raises(DataWrong) as refused:
        taken(line(0, "spo2", 97).encode() + b"\n" + data)
    assert str(refused.value).startswith("x.jsonl: line 3: ")
    assert said in str(refused.value)
    assert "SECRET" not in str(refused.value)
    assert "take this one out" in str(refused.value)


def test_a_line_of_the_longest_length_is_read() -> None:
    text = line(0, "spo2", 97).rstrip("\n")
    assert len(taken(text + " " * (lines.LINE_BYTES_MAX - len(text)))) == 1


@given(st.binary(max_size=200))
def test_no_bytes_crash_it(data: bytes) -> None:
    with contextlib.suppress(DataWrong):
        taken(data)


def test_only_what_was_measured_between_start_and_end() -> None:
    text = "".join(line(second, "spo2", 97) for second in range(5))
    made = taken(text, start=T0 + 1000, end=T0 + 3000)
    assert columns(made)["B1"]["time"] == [T0 + 1000, T0 + 2000]
    assert len(made) == 2


# order --------------------------------------------------------------------------------------------


def test_readings_come_by_arrival_each_once_whatever_the_order_of_the_files() -> None:
    told = made_lines(flat(30, spo2=97, heart_rate=80))
    told += [line(second, "spo2", 96, device="other") for second in range(30)]
    expected = columns(taken("".join(told)))
    shuffled = told * 2
    random.Random(4).shuffle(shuffled)
    assert columns(taken("".join(shuffled))) == expected
    assert expected["B1"]["arrival"] == sorted(expected["B1"]["arrival"])
    assert len(expected["B1"]["time"]) == 90


def test_a_late_reading_comes_when_it_arrived() -> None:
    late = row("spo2", 96, T0, T0 + 7_000)
    made = ward(ADA, [("a", late), ("a", row("spo2", 97, T0 + 5_000, T0 + 6_000))])
    ((_, _, rows),) = made.ordered()
    assert rows.time.tolist() == [T0 + 5_000, T0]
    assert rows.arrival.tolist() == [T0 + 6_000, T0 + 7_000]


def test_readings_that_differ_in_anything_are_both_kept() -> None:
    base = row("spo2", 97, T0)
    others = [
        base._replace(time_ms=T0 + 1),
        base._replace(arrival_ms=T0 + 1),
        base._replace(vital=0),
        base._replace(value=96),
        base._replace(status=2),
        base._replace(site=1),
        base._replace(channel=1),
    ]
    made = ward(ADA, [("a", base), ("b", base), *(("a", one) for one in [base, *others])])
    ((_, _, rows),) = made.ordered()
    assert len(rows.time) == 2 + len(others)


def test_time_without_readings_is_not_monitored() -> None:
    times = (0, 1_000, 1_000 + MONITORED_GAP_MS, 2_001 + 2 * MONITORED_GAP_MS)
    made = ward(ADA, [("a", row("spo2", 97, T0 + time_ms)) for time_ms in times])
    ((_, _, rows),) = made.ordered()
    assert monitored_ms(rows) == (1_000 + MONITORED_GAP_MS, MONITORED_GAP_MS + 1_001)


def test_too_many_readings_and_beds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ward_, "READINGS_MAX", 3)
    monkeypatch.setattr(ward_, "BEDS_MAX", 2)
    assert len(taken("".join(line(s, "spo2", 97) for s in range(3)))) == 3
    with pytest.raises(DataWrong, match="more than 3 readings; give a part"):
        taken("".join(line(s, "spo2", 97) for s in range(4)))
    taken("".join(line(0, "spo2", 97, patient=str(n)) for n in range(2)))
    with pytest.raises(DataWrong, match="more than 2 patients; give a part"):
        taken("".join(line(0, "spo2", 97, patient=str(n)) for n in range(3)))


# a recorded ward ----------------------------------------------------------------------------------


def test_the_recorded_ward_is_taken_whole() -> None:
    made = Ward()
    recorded.read(RECORDINGS, made)
    found = columns(made)
    assert len(found) == 53
    assert len(made) == 53 * 481 * 4
    first = found["recording 01"]
    assert set(np.diff(first["time"]).tolist()) == {0, 1000}
    none = sum(value == NO_VALUE for one in found.values() for value in one["value"])
    assert none == 413  # as simulators/recordings/README.md says


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 1),
        ("recording,HR\n", 1),
        ("recording,HR,PULSE,RESP,SpO2\n1,80,80,12,97\n1,80,80,12\n", 3),
        ("recording,HR,PULSE,RESP,SpO2\n1,80,80,12,97,1\n", 2),
        ("recording,HR,PULSE,RESP,SpO2\n1,80,80,12,97%\n", 2),
        ("recording,HR,PULSE,RESP,SpO2\n1,80,80,12,101\n", 2),
        ("recording,HR,PULSE,RESP,SpO2\n1,80,80,-1,97\n", 2),
        ("recording,HR,PULSE,RESP,SpO2\n0,80,80,12,97\n", 2),
        ("recording,HR,PULSE,RESP,SpO2\n\n", 2),
    ],
)
def test_a_wrong_recording_is_refused_by_its_line(text: str, number: int, tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text, encoding="ascii")
    with pytest.raises(DataWrong, match=f"line {number}: not .*; "):
        recorded.read(path, Ward())


# the archive --------------------------------------------------------------------------------------

KEYS = keys()


def archived(*batches: list[tuple[str, Reading]]) -> dict[str, bytes]:
    """Return the archive's files of partition 0, one a batch."""
    chain, out = Chain(0, None), {}
    for seq, batch in enumerate(batches):
        chain.take(chain.next_offset, encode(record(seq, batch)), NOW)
        closed = chain.close()
        out[closed.name] = write(closed.rows, closed.state, KEYS)
        chain.put()
    return out


READINGS = [
    (ADA, Reading(4, 36.9, NOW, NOW + 1, 2, 3, 1, 2)),
    (ADA, Reading(0, None, NOW - 1, NOW, 1)),
    (BOB, Reading(2, 97.0, NOW + 5, NOW + 70_000)),
]


def in_folder(folder: Path, objects: dict[str, bytes]) -> None:
    for name, body in objects.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)


def test_a_file_of_the_archive_is_read_as_it_was_written(tmp_path: Path) -> None:
    in_folder(tmp_path, archived(READINGS))
    (path,) = files.in_folder(tmp_path)
    made = Ward()
    files.read_file(path, KEYS, made)
    found = columns(made)
    assert list(found) == [ADA, BOB]
    assert found[ADA]["value"] == [NO_VALUE, 369]
    assert found[ADA]["time"] == [NOW - 1, NOW]
    assert found[ADA]["arrival"] == [NOW, NOW + 1]
    assert found[ADA]["status"] == [1, 2]
    assert found[ADA]["site"] == [0, 3]
    assert found[ADA]["channel"] == [0, 1]
    assert found[BOB]["arrival"] == [NOW + 70_000]
    assert {origin.device for one in found.values() for origin in one["source"]} == {DEVICE}  # type: ignore[attr-defined]


def test_the_bucket_and_a_copy_of_it_give_the_same(tmp_path: Path) -> None:
    objects = archived(READINGS[:2], READINGS[2:])
    in_folder(tmp_path, objects)
    store = MemoryStore()
    for name, body in objects.items():
        store.put(name, body)
    there, here = Ward(), Ward()
    files.read_bucket(store, KEYS, there)
    for path in reversed(files.in_folder(tmp_path)):
        files.read_file(path, KEYS, here)
    assert columns(there) == columns(here)
    assert len(there) == 3


def test_a_file_written_before_the_time_asked_for_is_not_opened() -> None:
    store = MemoryStore()
    for name, body in archived(READINGS).items():
        store.put(name, body)
    made = Ward(start_ms=NOW + FUTURE_MS + 1)
    files.read_bucket(store, KEYS, made)
    assert (store.reads, len(made)) == (0, 0)
    made = Ward(start_ms=NOW, end_ms=NOW + 5)
    files.read_bucket(store, KEYS, made)
    assert columns(made)[ADA]["time"] == [NOW]


def test_a_file_under_another_key_damaged_or_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (body,) = archived(READINGS).values()
    path = tmp_path / "x.parquet"
    for data in (b"", b"PAR1", body[:-9] + b"123456789", body[: len(body) // 2]):
        path.write_bytes(data)
        with pytest.raises(ArchiveDamaged):
            files.read_file(path, KEYS, Ward())
    path.write_bytes(body)
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"a": [1]}), other)
    with pytest.raises((ArchiveDamaged, DataWrong)):
        files.read_file(other, KEYS, Ward())
