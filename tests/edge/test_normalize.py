"""Units are converted by stated factors, times kept or set aside, nothing is clamped."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from edge.normalize import (
    MDC_UNITS,
    SENTINELS,
    SETTLED_MAX,
    Measure,
    readings,
    settle,
    to_ms,
)
from edge.refusal import Refuse
from vitals.codes import BY_NAME, VITALS, Absence, Status, TimeSource
from vitals.reading import Reading

NOW = 1_795_428_000_000


def _settle(name: str, number: float | None, unit: str = "") -> tuple[float | None, int, int]:
    return settle(BY_NAME[name].index, number, unit)


def test_fahrenheit_and_kilopascal_are_converted() -> None:
    value, status, _ = _settle("temperature", 98.6, "[degF]")
    assert (round(value or 0, 6), status) == (37.0, Status.OK)
    value, status, _ = _settle("nibp_systolic", 16, "kPa")
    assert (round(value or 0, 2), status) == (120.01, Status.OK)


def test_a_number_in_the_tables_own_unit_stands() -> None:
    for vital in VITALS:
        assert settle(vital.index, vital.high, vital.unit)[0] == vital.high


def test_the_units_of_11073_are_partition_4_of_its_codes() -> None:
    """Terms of ISO/IEEE 11073-10101: ppm, per minute of beats and breaths, kPa, mmHg, F, C."""
    terms = {544: "%", 2720: "/min", 2784: "/min", 3843: "kPa", 3872: "mm[Hg]", 4416: "[degF]"}
    terms |= {6048: "Cel"}
    assert {4 * 65_536 + term: unit for term, unit in terms.items()} == MDC_UNITS


@pytest.mark.parametrize(
    ("name", "unit"), [("heart_rate", "%"), ("spo2", "mm[Hg]"), ("temperature", "kPa")]
)
def test_a_unit_of_another_kind_is_refused(name: str, unit: str) -> None:
    with pytest.raises(Refuse):
        _settle(name, 50, unit)


@pytest.mark.parametrize("number", [-1, -100, -10000, -999, -99.9, 8388607])
def test_a_sentinel_is_missing_for_every_vital_sign(number: float) -> None:
    """Also where it lies in the table's range: a venous pressure of -1."""
    assert number in SENTINELS
    for vital in VITALS:
        assert settle(vital.index, number, "") == (None, Status.MISSING, Absence.SENTINEL)


def test_a_sentinel_is_one_as_it_is_written_not_as_it_is_converted() -> None:
    assert _settle("cvp_mean", -1, "kPa") == (None, Status.MISSING, Absence.SENTINEL)
    value, status, reason = _settle("cvp_mean", -0.133322387415, "kPa")
    assert (value, status, reason) == (-1, Status.OK, Absence.NONE)
    assert _settle("cvp_mean", -1.5) == (-1.5, Status.OK, Absence.NONE)


def test_no_number_is_missing_and_says_that_there_was_none() -> None:
    for vital in VITALS:
        assert settle(vital.index, None, "") == (None, Status.MISSING, Absence.NO_VALUE)


def test_the_edges_of_the_range_are_inside_and_beyond_is_not_clamped() -> None:
    outside = (None, Status.IMPLAUSIBLE, Absence.OUT_OF_RANGE)
    for vital in VITALS:
        assert settle(vital.index, vital.low, "") == (vital.low, Status.OK, Absence.NONE)
        assert settle(vital.index, vital.high, "") == (vital.high, Status.OK, Absence.NONE)
        assert settle(vital.index, vital.low - 0.5, "") == outside
        assert settle(vital.index, vital.high + 0.5, "") == outside


@pytest.mark.parametrize(("fahrenheit", "celsius"), [(116.6, 47.0), (57.56, 14.2), (98.69, 37.05)])
def test_a_converted_value_has_no_error_of_its_own(fahrenheit: float, celsius: float) -> None:
    assert _settle("temperature", fahrenheit, "[degF]") == (celsius, Status.OK, Absence.NONE)


def test_what_is_remembered_is_bounded() -> None:
    for number in range(SETTLED_MAX + 10):
        settle(0, number / 7, "")
    assert settle.cache_info().currsize == SETTLED_MAX


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_refused(number: float) -> None:
    with pytest.raises(Refuse):
        _settle("heart_rate", number)


def test_a_missing_value_is_a_reading_without_one() -> None:
    (reading,) = readings([Measure(2, None)], None, NOW)
    assert (reading.value, reading.status, reading.reason) == (
        None,
        Status.MISSING,
        Absence.NO_VALUE,
    )


def test_a_measure_becomes_the_reading_it_says() -> None:
    (reading,) = readings([Measure(4, 98.6, "[degF]", 3, 7)], NOW - 5000, NOW)
    assert reading == Reading(4, 37.0, NOW - 5000, NOW, Status.OK, 3, 7, TimeSource.DEVICE)
    assert type(reading.status) is type(reading.reason) is int


def test_a_reason_that_the_device_gave_is_kept() -> None:
    (reading,) = readings([Measure(2, None, reason=Absence.BUSY)], None, NOW)
    assert (reading.status, reading.reason) == (Status.MISSING, Absence.BUSY)
    (reading,) = readings([Measure(2, -1, reason=Absence.INVALID)], None, NOW)
    assert (reading.status, reading.reason) == (Status.MISSING, Absence.INVALID)


def test_a_reading_with_a_value_has_no_reason_for_none() -> None:
    (reading,) = readings([Measure(2, 95, reason=Absence.BUSY)], None, NOW)
    assert (reading.value, reading.reason) == (95, Absence.NONE)


@pytest.mark.parametrize("mark", [Status.TEST, Status.CALIBRATION])
def test_a_test_covers_what_has_no_value_too(mark: Status) -> None:
    listed = [Measure(0, 78), Measure(2, None), Measure(3, 999), Measure(11, -1)]
    of_line = readings(listed, None, NOW, mark)
    of_each = readings([m._replace(status=mark) for m in listed], None, NOW)
    assert of_line == of_each
    assert [(r.value, r.status, r.reason) for r in of_line] == [
        (78, mark, Absence.NONE),
        (None, mark, Absence.NO_VALUE),
        (None, mark, Absence.OUT_OF_RANGE),
        (None, mark, Absence.SENTINEL),
    ]


@pytest.mark.parametrize("mark", [Status.QUESTIONABLE, Status.ALARM_INHIBITED])
def test_a_mark_of_a_value_stands_with_it_and_falls_with_it(mark: Status) -> None:
    (reading,) = readings([Measure(0, 78, status=mark)], None, NOW)
    assert (reading.value, reading.status) == (78, mark)
    (reading,) = readings([Measure(0, 7800, status=mark)], None, NOW)
    assert (reading.value, reading.status) == (None, Status.IMPLAUSIBLE)
    (reading,) = readings([Measure(0, None, status=mark)], None, NOW)
    assert (reading.value, reading.status) == (None, Status.MISSING)


def test_the_mark_of_the_whole_input_goes_before_that_of_a_part() -> None:
    (reading,) = readings([Measure(0, 78, status=Status.QUESTIONABLE)], None, NOW, Status.TEST)
    assert reading.status == Status.TEST


def test_a_time_stands_as_the_device_said_it_and_a_missing_one_is_of_receipt() -> None:
    (said,) = readings([Measure(0, 78)], NOW - 86_400_000, NOW)
    assert (said.time_ms, said.time_source) == (NOW - 86_400_000, TimeSource.DEVICE)
    (unsaid,) = readings([Measure(0, 78)], None, NOW)
    assert unsaid == Reading(0, 78.0, NOW, NOW, Status.OK, 0, 0, TimeSource.RECEIVED)


def test_a_time_without_a_zone_is_the_sites() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    summer = datetime(2026, 7, 1, 12)  # noqa: DTZ001 - the case: no zone
    assert to_ms(summer, berlin) == to_ms(datetime(2026, 7, 1, 10, tzinfo=UTC), berlin)
    assert to_ms(datetime(1970, 1, 1, tzinfo=UTC), berlin) == 0
    assert to_ms(datetime(1970, 1, 1, 0, 0, 1, 234_567, tzinfo=UTC), berlin) == 1234
