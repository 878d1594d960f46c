"""Units are converted by stated factors, times kept or set aside, nothing is clamped."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from edge.normalize import SENTINELS, Measure, readings, settle, to_ms
from edge.refusal import Refuse
from vitals.codes import BY_NAME, VITALS, Status, TimeSource

NOW = 1_795_428_000_000


def _settle(name: str, number: float | None, unit: str = "") -> tuple[float | None, int]:
    return settle(BY_NAME[name].index, number, unit)


def test_fahrenheit_and_kilopascal_are_converted() -> None:
    value, status = _settle("temperature", 98.6, "[degF]")
    assert (round(value or 0, 6), status) == (37.0, Status.OK)
    value, status = _settle("nibp_systolic", 16, "kPa")
    assert (round(value or 0, 2), status) == (120.01, Status.OK)


@pytest.mark.parametrize(
    ("name", "unit"), [("heart_rate", "%"), ("spo2", "mm[Hg]"), ("temperature", "kPa")]
)
def test_a_unit_of_another_kind_is_refused(name: str, unit: str) -> None:
    with pytest.raises(Refuse):
        _settle(name, 50, unit)


@pytest.mark.parametrize("number", sorted(SENTINELS))
def test_a_sentinel_is_no_value(number: float) -> None:
    for vital in VITALS:
        if vital.low >= 0:
            assert settle(vital.index, number, "") == (None, Status.IMPLAUSIBLE)


def test_minus_one_is_a_real_venous_pressure() -> None:
    assert _settle("cvp_mean", -1) == (-1, Status.OK)
    assert _settle("cvp_mean", -999) == (None, Status.IMPLAUSIBLE)


def test_the_edges_of_the_range_are_inside_and_beyond_is_not_clamped() -> None:
    for vital in VITALS:
        assert settle(vital.index, vital.low, "") == (vital.low, Status.OK)
        assert settle(vital.index, vital.high, "") == (vital.high, Status.OK)
        assert settle(vital.index, vital.high + 0.5, "") == (None, Status.IMPLAUSIBLE)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_refused(number: float) -> None:
    with pytest.raises(Refuse):
        _settle("heart_rate", number)


def test_a_missing_value_is_a_reading_without_one() -> None:
    (reading,) = readings([Measure(2, None)], None, NOW)
    assert (reading.value, reading.status) == (None, Status.MISSING)


def test_a_test_covers_every_reading_of_its_line() -> None:
    found = readings([Measure(0, 78), Measure(2, None), Measure(3, 999)], None, NOW, Status.TEST)
    assert {reading.status for reading in found} == {Status.TEST}


def test_a_device_that_doubts_its_value_keeps_it() -> None:
    (reading,) = readings([Measure(0, 78, status=Status.QUESTIONABLE)], None, NOW)
    assert (reading.value, reading.status) == (78, Status.QUESTIONABLE)
    (reading,) = readings([Measure(0, 7800, status=Status.QUESTIONABLE)], None, NOW)
    assert (reading.value, reading.status) == (None, Status.IMPLAUSIBLE)


def test_a_time_stands_as_the_device_said_it_and_a_missing_one_is_of_receipt() -> None:
    (said,) = readings([Measure(0, 78)], NOW - 86_400_000, NOW)
    assert (said.time_ms, said.time_source) == (NOW - 86_400_000, TimeSource.DEVICE)
    (unsaid,) = readings([Measure(0, 78)], None, NOW)
    assert (unsaid.time_ms, unsaid.time_source) == (NOW, TimeSource.RECEIVED)


def test_a_time_without_a_zone_is_the_sites() -> None:
    berlin = ZoneInfo("Europe/Berlin")
    summer = datetime(2026, 7, 1, 12)  # noqa: DTZ001 - the case: no zone
    assert to_ms(summer, berlin) == to_ms(datetime(2026, 7, 1, 10, tzinfo=UTC), berlin)
    assert to_ms(datetime(1970, 1, 1, tzinfo=UTC), berlin) == 0
