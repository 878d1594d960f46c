"""Columns: rows in, the same rows out; hostile bytes are refused in words."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitals import columns, limits
from vitals.codes import VITALS, Site, Status, TimeSource, decimal_scale
from vitals.columns import Columns, Source
from vitals.errors import FrameMalformed
from vitals.reading import DeviceAlert, Patient, Reading

SOURCES = [
    Source("bed-01", patient=Patient(mrn="SIM000001", name="Ada Sample", bed="01", ward="W1")),
    Source("bed-02"),
    Source("0" * 32, subject="f" * 32),
]
TIMES = st.integers(0, 4_102_444_800_000)


@st.composite
def readings(draw: st.DrawFn) -> Reading:
    vital = draw(st.sampled_from(VITALS))
    scale = decimal_scale(vital)
    low, high = round(vital.low * scale), round(vital.high * scale)
    scaled = draw(st.none() | st.integers(low, high))
    return Reading(
        vital=vital.index,
        value=None if scaled is None else scaled / scale,
        time_ms=draw(TIMES),
        received_ms=draw(TIMES),
        status=draw(st.sampled_from(Status)).value,
        site=draw(st.sampled_from(Site)).value,
        channel=draw(st.integers(0, 3)),
        time_source=draw(st.sampled_from(TimeSource)).value,
    )


rows_of_sources = st.lists(st.tuples(st.integers(0, len(SOURCES) - 1), readings()), max_size=30)


@given(rows_of_sources)
def test_rows_survive_packing_and_bytes(rows: list[tuple[int, Reading]]) -> None:
    packed = columns.pack(SOURCES, rows)
    assert len(packed) == len(rows)
    assert list(packed.rows()) == rows
    again = columns.decode(columns.encode(packed))
    assert again == packed
    assert again.sources == SOURCES
    assert list(again.rows()) == rows
    assert again.times_ms() == [reading.time_ms for _, reading in rows]
    assert again.received_times_ms() == [reading.received_ms for _, reading in rows]


def test_ordinary_rows_cost_no_status_site_channel_or_clock_column() -> None:
    rows = [(0, Reading(0, 78.0, 1000 + n, 1000 + n)) for n in range(3)]
    packed = columns.pack([Source("bed-01")], rows)
    assert (packed.status, packed.site, packed.channel, packed.time_source) == ([], [], [], [])
    assert packed.time == [1000, 1, 1]


def test_values_are_rounded_to_the_decimals_of_their_vital() -> None:
    assert columns.scaled(4, 36.94) == 369
    assert columns.scaled(15, 1.234) == 123
    assert columns.scaled(0, 77.6) == 78
    assert columns.scaled(0, None) is None


def test_unknown_fields_of_a_newer_writer_are_ignored() -> None:
    raw = msgspec.msgpack.decode(columns.encode(columns.pack(SOURCES, [])))
    raw["quality"] = [1, 2, 3]
    assert columns.decode(msgspec.msgpack.encode(raw)) == columns.pack(SOURCES, [])


ALERT: dict[str, object] = {
    "event": 196652,
    "name": "MDC_EVT_HI",
    "time_ms": 1000,
    "received_ms": 1000,
}


def test_device_alerts_stand_beside_the_rows_and_come_back_as_they_were() -> None:
    alert = DeviceAlert(196652, "MDC_EVT_HI", 1000, 2000, "start", "active", priority="high")
    whole = columns.pack([Source("bed-01")], [], [(0, alert)])
    assert len(whole) == 0
    assert columns.decode(columns.encode(whole)).alerts == [(0, alert)]


def one_row(**changes: object) -> bytes:
    whole = columns.pack([Source("bed-01")], [(0, Reading(0, 78.0, 1000, 1000))])
    return msgspec.msgpack.encode(msgspec.to_builtins(whole) | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"source": []},
        {"source": [0, 0]},
        {"source": [1]},
        {"source": [-1]},
        {"sources": []},
        {"vital": [len(VITALS)]},
        {"vital": [-1]},
        {"vital": []},
        {"value": []},
        {"value": [1.5]},
        {"value": ["78"]},
        {"time": [1, 2]},
        {"time": [None]},
        {"received": []},
        {"status": [0, 1]},
        {"site": [0, 0]},
        {"channel": [0, 0]},
        {"time_source": [0, 0]},
        {"sources": None},
        {"sources": [{}]},
        {"sources": [{"device": b"\xff"}]},
        {"status": [7]},
        {"reason": [0, 0]},
        {"reason": [9]},
        {"alerts": [[1, ALERT]]},
        {"alerts": [[0, ALERT | {"name": "Ada Ng"}]]},
        {"alerts": [[0, ALERT | {"id": "a" * 65}]]},
        {"alerts": [[0, ALERT | {"vital": 99}]]},
        {"alerts": [[0, ALERT | {"time_ms": -1}]]},
        {"alerts": [[0, ALERT | {"status": 7}]]},
        {"alerts": [[0, ALERT]] * 2001},
        {"status": [-1]},
        {"site": [9]},
        {"channel": [-1]},
        {"time_source": [3]},
        {"time_source": [-1]},
        {"value": [2**31]},
        {"time": [-1]},
        {"received": [2**63]},
    ],
)
def test_columns_that_disagree_or_point_outside_are_refused(changes: dict[str, object]) -> None:
    assert columns.decode(one_row())
    with pytest.raises(FrameMalformed):
        columns.decode(one_row(**changes))


@pytest.mark.parametrize(
    "raw",
    [b"", b"\x00", b"\xc1", b"\x80", b"[]", b"\x81\xa6source\xdd\xff\xff\xff\xff", b"\xff" * 64],
)
def test_bytes_that_are_no_columns_are_refused(raw: bytes) -> None:
    with pytest.raises(FrameMalformed):
        columns.decode(raw)


@given(st.binary(max_size=200))
def test_any_bytes_are_either_columns_or_refused(raw: bytes) -> None:
    try:
        columns.decode(raw)
    except FrameMalformed:
        return


@given(rows_of_sources, st.data())
def test_cut_or_lengthened_columns_are_refused(
    rows: list[tuple[int, Reading]], data: st.DataObject
) -> None:
    whole = columns.encode(columns.pack(SOURCES, rows))
    cut = data.draw(st.integers(0, len(whole) - 1))
    for wrong in (whole[:cut], whole + b"\xc0"):
        with pytest.raises(FrameMalformed):
            columns.decode(wrong)


def test_text_that_is_not_utf_8_and_nesting_without_end_are_refused() -> None:
    for raw in (b"\x81\xa2\xff\xfe\xc0", b"\x81\xa1x" + b"\x91" * 100_000 + b"\xc0"):
        with pytest.raises(FrameMalformed):
            columns.decode(raw)


def test_more_readings_than_a_frame_may_hold_are_refused() -> None:
    for count in (limits.FRAME_READINGS_MAX, limits.FRAME_READINGS_MAX + 1):
        zeros = [0] * count
        raw = columns.encode(Columns([Source("bed-01")], zeros, zeros, [78] * count, zeros, zeros))
        if count <= limits.FRAME_READINGS_MAX:
            assert len(columns.decode(raw)) == count
        else:
            with pytest.raises(FrameMalformed):
                columns.decode(raw)


def test_columns_without_rows_are_fine() -> None:
    empty = columns.decode(columns.encode(columns.pack([], [])))
    assert isinstance(empty, Columns)
    assert len(empty) == 0
    assert list(empty.rows()) == []
