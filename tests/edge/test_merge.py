"""Folding loses no reading, counts none twice, and makes a reading about a byte."""

import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import merge, spool_read
from edge.entry import Entry, accepted
from edge.merge import Folded, fold
from edge.seal import Sealing
from edge.spool import Spool
from simulators.bed import Bed
from tests.edge.spooling import (
    NOW,
    ack,
    ask,
    counters,
    entry,
    handed,
    opened,
    put,
    reject,
    sealed,
    sealing,
    store,
    tell,
)
from vitals import columns, frame, limits
from vitals.columns import Columns, Source
from vitals.frame import Lane
from vitals.reading import DeviceAlert, Patient, Reading


def _fold(spool: Spool, of: Sealing, after: int = -1, **changes: Any) -> Folded:
    return fold(
        spool, of.epoch.epoch, after, of.opener(), of.seal_folded, **{"span_ms": 0, **changes}
    )


def _rows(path: Path, of: Sealing) -> list[tuple[Source, Reading]]:
    found = []
    for held in handed(path):
        header, body = of.opener().open(held.data)
        if header.lane != Lane.QUARANTINE:
            content = frame.read_readings(body)
            found += [(content.sources[at], row) for at, row in content.rows()]
    return found


def _key(row: tuple[Source, Reading]) -> str:
    return repr(row)


# -- the pure part ----------------------------------------------------------------------------

_SOURCES = st.sampled_from(
    [Source("a"), Source("b"), Source("a", patient=Patient(mrn="M1")), Source("\U0001f600")]
)
_READINGS = st.builds(
    Reading,
    vital=st.integers(0, 4),
    value=st.none() | st.integers(-500, 500).map(float),
    time_ms=st.integers(NOW, NOW + 50),
    received_ms=st.integers(NOW, NOW + 50),
    status=st.integers(0, 2),
    site=st.integers(0, 2),
    channel=st.integers(0, 2),
    time_source=st.integers(0, 2),
    reason=st.integers(0, 2),
)
_ALERTS = st.builds(
    DeviceAlert,
    event=st.integers(0, 9),
    name=st.just("X"),
    time_ms=st.just(NOW),
    received_ms=st.just(NOW),
)
_PART = st.tuples(
    st.lists(st.tuples(_SOURCES, _READINGS), max_size=12),
    st.lists(st.tuples(_SOURCES, _ALERTS), max_size=3),
)
_Part = tuple[list[tuple[Source, Reading]], list[tuple[Source, DeviceAlert]]]


def _columns(part: _Part) -> Columns:
    rows, alerts = part
    sources = [source for source, _ in [*rows, *alerts]]  # one for each row: equal ones repeat
    return columns.pack(
        sources,
        [(at, row) for at, (_, row) in enumerate(rows)],
        [(len(rows) + at, alert) for at, (_, alert) in enumerate(alerts)],
    )


@settings(max_examples=300, deadline=None)
@given(st.lists(_PART, max_size=6))
def test_the_same_rows_and_alerts_come_out_sorted_and_each_source_once(
    parts: list[_Part],
) -> None:
    merged = columns.decode(columns.encode(merge.merge([_columns(part) for part in parts])))
    assert len(set(merged.sources)) == len(merged.sources)
    out = [(merged.sources[at], row) for at, row in merged.rows()]
    put_in = [row for rows, _ in parts for row in rows]
    assert sorted(out, key=_key) == sorted(((source, row) for source, row in put_in), key=_key)
    order = [(at, row.time_ms, row.vital, row.site, row.channel) for at, row in merged.rows()]
    assert order == sorted(order)
    assert [(merged.sources[at], alert) for at, alert in merged.alerts] == [
        alert for _, alerts in parts for alert in alerts
    ]


def test_rows_that_agree_in_source_time_and_vital_keep_the_order_of_arrival() -> None:
    rows = [Reading(0, float(value), NOW, NOW + value) for value in (3, 1, 2)]
    merged = merge.merge([columns.pack([Source("a")], [(0, row)]) for row in rows])
    assert [row.value for _, row in merged.rows()] == [3.0, 1.0, 2.0]
    assert [row.received_ms - NOW for _, row in merged.rows()] == [3, 1, 2]


def test_nothing_merges_to_nothing() -> None:
    assert len(merge.merge([])) == 0
    assert merge.merge([columns.pack([Source("a")], [])]).sources == [Source("a")]


# -- in the spool -----------------------------------------------------------------------------


def test_small_frames_become_one_and_every_count_stays_true(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    for number in range(30):
        store(spool, of, entry(number, at_ms=NOW + number), *([reject()] if number == 9 else []))
    before = sorted(_rows(path, of), key=_key)
    done = _fold(spool, of)
    assert (done.frames, done.into, done.readings, done.upto) == (30, 1, 30, 30)
    assert done.bytes_after < done.bytes_before / 10
    assert sorted(_rows(path, of), key=_key) == before
    assert ask(path, "SELECT seq, lane, count, covers_from, covers_to FROM frames") == [
        (10, 2, 1, None, None),
        (31, 1, 30, 0, 30),
    ]
    found = counters(path)
    assert found["frames_spooled"] == 32
    assert found["frames_merged"] == 30
    assert found["readings_spooled"] == 30
    assert found["highest_seq"] == 31
    assert ask(path, "SELECT first_ms, last_ms FROM frames WHERE lane = 1") == [(NOW, NOW + 29)]
    spool.close()
    assert spool_read.verify(path) == []


def test_what_was_sent_is_left_alone_and_the_next_call_goes_on(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    for number in range(10):
        store(spool, of, entry(number))
    done = _fold(spool, of, after=3)
    assert (done.frames, done.upto) == (6, 9)
    assert [held.seq for held in handed(path)] == [0, 1, 2, 3, 10]
    store(spool, of, entry(1))
    assert _fold(spool, of, after=done.upto) == Folded(upto=11)  # one alone is not worth it
    store(spool, of, entry(2))
    assert _fold(spool, of, after=done.upto).frames == 2
    assert [held.seq for held in handed(path)] == [0, 1, 2, 3, 10, 13]
    spool.close()
    assert spool_read.verify(path) == []


def test_another_epochs_frames_are_left_alone(tmp_path: Path) -> None:
    path, old, of = tmp_path / "spool.db", sealing(), sealing()
    spool = opened(path)
    for number in range(4):
        store(spool, old, entry(number))
        store(spool, of, entry(number))
    assert _fold(spool, of).frames == 4
    assert len([held for held in handed(path) if held.epoch == old.epoch.epoch]) == 4
    spool.close()


def test_it_waits_for_enough(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    for number in range(6):
        store(spool, of, entry(number, at_ms=NOW + 1000 * number))
    assert _fold(spool, of, span_ms=5001) == Folded(upto=-1)
    assert _fold(spool, of, span_ms=5001, frames_max=7) == Folded(upto=-1)
    assert _fold(spool, of, span_ms=5001, frames_max=6).frames == 6
    spool.close()
    path = tmp_path / "other.db"
    spool = opened(path)
    of = sealing()
    for number in range(6):
        store(spool, of, entry(number, at_ms=NOW + 1000 * number))
    assert _fold(spool, of, span_ms=5000).frames == 6
    spool.close()


@pytest.mark.parametrize(("name", "value"), [("BYTES_MAX", 1200), ("READINGS_MAX", 5)])
def test_one_call_takes_a_bounded_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: int
) -> None:
    monkeypatch.setattr(merge, name, value)
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    for number in range(20):
        store(spool, of, entry(number))
    done = _fold(spool, of, span_ms=1 << 40)
    assert 4 <= done.frames <= 8
    assert _fold(spool, of, done.upto, span_ms=1 << 40).frames >= 4
    spool.close()
    assert spool_read.verify(path) == []


def test_limits_of_a_frame_hold_for_a_folded_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FRAME_READINGS_MAX", 10)
    monkeypatch.setattr(limits, "FRAME_ALERTS_MAX", 3)
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    alert = DeviceAlert(1, "X", NOW, NOW)
    for number in range(25):
        one = entry(number)
        one.alerts = (alert,) if number >= 20 else ()
        store(spool, of, one)
    before = sorted(_rows(path, of), key=_key)
    _fold(spool, of)
    assert [count for (count,) in ask(path, "SELECT count FROM frames ORDER BY id")] == [
        10,
        10,
        3,
        2,
    ]
    assert sorted(_rows(path, of), key=_key) == before
    spool.close()
    assert spool_read.verify(path) == []


def test_a_body_over_its_bytes_is_halved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "COMMIT_BYTES_MAX", 400)
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    for number in range(20):
        store(spool, of, entry(number, device=f"a-device-with-a-name-{number}"))
    before = sorted(_rows(path, of), key=_key)
    done = _fold(spool, of)
    assert 2 <= done.into <= 10
    assert sorted(_rows(path, of), key=_key) == before
    spool.close()
    assert spool_read.verify(path) == []


def test_a_frame_that_is_large_enough_stays_and_no_range_goes_over_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "LARGE", 3)
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    for number in range(9):
        store(spool, of, *[entry(number, at_ms=NOW + n) for n in range(3 if number == 4 else 1)])
    _fold(spool, of)
    ranges = ask(path, "SELECT seq, covers_from, covers_to FROM frames ORDER BY seq")
    assert ranges == [(4, None, None), (9, 0, 3), (10, 5, 8)]
    spool.close()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE frames SET bytes = zeroblob(size) WHERE seq = 4",
        "UPDATE frames SET crc = 0 WHERE seq = 4",
    ],
)
def test_a_frame_that_does_not_open_stays_and_stops_nothing(tmp_path: Path, change: str) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    for number in range(9):
        store(spool, of, entry(number))
    spool.close()
    tell(path, change)
    spool = opened(path)
    assert _fold(spool, of).frames == 8
    ranges = ask(path, "SELECT seq, covers_from, covers_to FROM frames ORDER BY seq")
    assert ranges == [(4, None, None), (9, 0, 3), (10, 5, 8)]
    spool.close()


def test_a_frame_sealed_by_nobody_known_stays_too(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    store(spool, of, entry(0))
    store(spool, of, entry(1))
    put(spool, of, sealed(of, 90))
    assert _fold(spool, of).frames == 2
    assert [held.seq for held in handed(path)] == [90, 2]
    spool.close()


def test_a_transaction_that_fails_leaves_every_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    for number in range(9):
        store(spool, of, entry(number))
    insert = spool.insert

    def failing(*arguments: Any) -> Any:
        insert(*arguments)
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(spool, "insert", failing)
    with pytest.raises(sqlite3.OperationalError):
        _fold(spool, of)
    monkeypatch.undo()
    assert [held.seq for held in handed(path)] == list(range(9))
    assert _fold(spool, of).frames == 9
    spool.close()
    assert spool_read.verify(path) == []


def test_frames_that_went_while_they_were_folded_undo_it(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    for number in range(9):
        store(spool, of, entry(number))

    def seal(content: Columns) -> Any:
        ack(spool, of, (3, 3))
        return of.seal_folded(content)

    with pytest.raises(RuntimeError, match="changed"):
        fold(spool, of.epoch.epoch, -1, of.opener(), seal, span_ms=0)
    assert [held.seq for held in handed(path)] == [0, 1, 2, 4, 5, 6, 7, 8]
    spool.close()
    assert spool_read.verify(path) == []


def test_a_folded_frame_is_acknowledged_and_dropped_as_any_other(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    for number in range(6):
        store(spool, of, entry(number))
    _fold(spool, of)
    assert ack(spool, of, (6, 6)).frames_now == 0
    found = counters(path)
    assert (found["frames_acked"], found["readings_acked"]) == (1, 6)
    spool.close()
    assert spool_read.verify(path) == []


def _ward(seconds: int, beds: int = 40) -> list[tuple[int, Entry]]:
    """Return (ms, entry) of a replayed ward at 1 Hz with five vitals, in the order of arrival."""
    chance = random.Random(1)
    lines = []
    for number in range(1, beds + 1):
        bed = Bed(number, "W1", 1)
        patient = Patient(f"SIM{number:06}", "Ada Sample", "1951-02-03", "female", bed.name, "W1")
        source, phase = Source(bed.device, patient=patient), chance.randrange(1000)
        for second in range(seconds):
            said = bed.second(second)
            at = NOW + 1000 * second + phase + chance.randrange(3)
            received = at + 1 + chance.randrange(8)
            values = [
                said.heart_rate,
                said.pulse,
                said.spo2,
                said.resp,
                bed.temperature(second // 10),
            ]
            rows = tuple(
                Reading(
                    vital, value, at, received, 2 * (value is None), 0, 0, 1, int(value is None)
                )
                for vital, value in enumerate(values)
            )
            lines.append((received, accepted(source, rows, None)))
    return sorted(lines, key=lambda line: line[0])


def test_a_minute_of_a_ward_is_under_a_byte_a_reading(tmp_path: Path) -> None:
    path, of = tmp_path / "spool.db", sealing()
    spool = opened(path)
    spool._db.execute("PRAGMA synchronous=OFF")  # the disk is not what is measured
    lines = _ward(60)
    for at in range(0, len(lines), 2):  # what a window of 10 ms holds is a line or two
        store(spool, of, *(one for _, one in lines[at : at + 2]))
    done = _fold(spool, of)
    assert done.readings == 5 * 40 * 60
    assert done.bytes_after / done.readings < 0.8
    assert done.bytes_before / done.readings > 30
    spool.close()
    assert spool_read.verify(path) == []
