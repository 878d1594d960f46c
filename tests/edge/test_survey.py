"""Each device gets one word, the worst stand first, and values leave only when revealed."""

import json
from typing import Any

import pytest

from edge import survey
from edge.devices import GAP_MS_MAX, Devices
from edge.skew import SKEW_MS_MIN
from edge.survey import State, Survey, state
from tests.edge.gateway import NOW
from vitals.codes import Site, Status
from vitals.columns import Source
from vitals.reading import Patient, Reading


def _no_skew(_name: str) -> int | None:
    return None


def _devices(name: str = "m-1", *at_ms: int) -> Devices:
    devices = Devices()
    for one in at_ms or (NOW,):
        devices.heard(Source(name), (Reading(0, 78.0, one, one),))
    return devices


def _word(devices: Devices, now_ms: int, skew_ms: int | None = None) -> State:
    [device] = devices
    return state(device, now_ms, skew_ms)


@pytest.mark.parametrize(
    ("quiet_ms", "word"),
    [
        (0, State.OK),
        (10_000, State.OK),
        (10_001, State.LATE),
        (60_000, State.LATE),
        (60_001, State.SILENT),
    ],
)
def test_a_device_that_speaks_each_second_is_soon_late(quiet_ms: int, word: State) -> None:
    assert _word(_devices("m-1", NOW - 1000, NOW), NOW + quiet_ms) == word


@pytest.mark.parametrize(
    ("quiet_ms", "word"),
    [(60_000, State.OK), (60_001, State.LATE), (200_000, State.LATE), (200_001, State.SILENT)],
)
def test_one_that_speaks_now_and_then_is_given_its_own_time(quiet_ms: int, word: State) -> None:
    assert _word(_devices("m-1", NOW - 20_000, NOW), NOW + quiet_ms) == word


def test_nobody_is_given_more_than_half_an_hour() -> None:
    devices = _devices("m-1", NOW - GAP_MS_MAX, NOW)
    assert _word(devices, NOW + survey.SILENT_MS_MAX) == State.OK
    assert _word(devices, NOW + survey.SILENT_MS_MAX + 1) == State.SILENT


def test_a_refused_device_is_worst_until_it_is_taken_again_or_history() -> None:
    devices = _devices()
    devices.rejected("m-1", "bad-unit", NOW + 1)
    assert _word(devices, NOW + 2) == State.REFUSED
    assert _word(devices, NOW + 1 + survey.HEARD_MS) == State.REFUSED
    assert _word(devices, NOW + 2 + survey.HEARD_MS) == State.SILENT
    devices.heard(Source("m-1"), (Reading(0, 78.0, NOW + 1, NOW + 1),))
    assert _word(devices, NOW + 2) == State.OK, "a message with one bad value was taken"


def test_one_that_was_refused_a_while_ago_has_not_been_silent_since() -> None:
    devices = _devices("m-1", NOW - GAP_MS_MAX, NOW)
    devices.rejected("m-1", "bad-unit", NOW + 25 * 60_000)
    assert _word(devices, NOW + 31 * 60_000) == State.OK


@pytest.mark.parametrize(
    ("skew_ms", "word"),
    [(SKEW_MS_MIN, State.OK), (SKEW_MS_MIN + 1, State.CLOCK), (-SKEW_MS_MIN - 1, State.CLOCK)],
)
def test_a_clock_that_is_off_is_said(skew_ms: int, word: State) -> None:
    assert _word(_devices(), NOW, skew_ms) == word


def test_the_worst_stand_first_and_the_rest_is_counted() -> None:
    devices = _devices("b-ok", NOW)
    devices.heard(Source("a-ok"), (Reading(0, 1.0, NOW, NOW),))
    devices.heard(Source("silent"), (Reading(0, 1.0, NOW, NOW - 61_000),))
    devices.heard(Source("gone"), (Reading(0, 1.0, NOW, NOW - survey.GONE_MS - 1),))
    devices.heard(Source("old"), (Reading(0, 1.0, NOW, NOW - survey.HEARD_MS - 1),))
    devices.rejected("refused", "binary", NOW)
    look = Survey(NOW, _no_skew, 3)
    for device in list(devices):
        look.look([device])
    assert [found.device.name for found in look.worst()] == ["refused", "old", "silent"]
    assert look.counts() == {
        "remembered": 6,
        "heard": 3,
        "rate_per_min": 12,
        "ok": 2,
        "clock": 0,
        "late": 0,
        "silent": 2,
        "refused": 1,
    }


def test_the_worst_are_found_among_many() -> None:
    devices = Devices()
    for at in range(500):
        devices.heard(Source(f"m-{at:03}"), (Reading(0, 1.0, NOW, NOW - at % 7 * 12_000),))
    look = Survey(NOW, _no_skew, 20)
    for device in list(devices):
        look.look([device])
    [all_] = [Survey(NOW, _no_skew, 500)]
    all_.look(devices)
    assert look.worst() == all_.worst()[:20]


def _patient() -> Devices:
    devices = Devices()
    ada = Patient(mrn="M000123", name="Ada Ng", bed="12")
    readings = (
        Reading(0, 78.0, NOW - 500, NOW),
        Reading(4, 36.94, NOW - 240_000, NOW, site=Site.ORAL),
        Reading(2, None, NOW + 90_000, NOW, Status.MISSING, channel=1),
    )
    devices.heard(Source("m-1", patient=ada), readings, "line 10.0.0.7")
    return devices


def _row(*, reveal: bool) -> dict[str, Any]:
    look = Survey(NOW + 1000, lambda _name: 7000)
    look.look(_patient())
    [found] = look.worst()
    return look.row(found, reveal=reveal)


def test_a_row_has_ages_and_no_value() -> None:
    row = _row(reveal=False)
    assert row.pop("vitals") == [
        {
            "vital": "heart_rate",
            "short": "HR",
            "site": "",
            "channel": 0,
            "age_s": 1.5,
            "status": "ok",
        },
        {
            "vital": "temperature",
            "short": "Temp",
            "site": "oral",
            "channel": 0,
            "age_s": 241.0,
            "status": "ok",
        },
        {
            "vital": "spo2",
            "short": "SpO2",
            "site": "",
            "channel": 1,
            "age_s": 1.0,
            "status": "missing",
        },
    ]
    assert row == {
        "device": "m-1",
        "bed": "12",
        "identified": True,
        "via": "line 10.0.0.7",
        "state": "clock",
        "rate_per_min": 6.0,
        "inputs": 1,
        "seen_s": 1.0,
        "skew_ms": 7000,
        "rejects": {},
    }


def test_no_age_is_negative_after_the_clock_was_set_back() -> None:
    look = Survey(NOW - 5000, _no_skew)
    look.look(_patient())
    [found] = look.worst()
    row = look.row(found, reveal=False)
    assert row["seen_s"] == row["vitals"][0]["age_s"] == 0.0


def test_a_revealed_row_has_values_and_still_no_name() -> None:
    row = _row(reveal=True)
    assert [(one["value"], one["unit"]) for one in row["vitals"]] == [
        *((78.0, "/min"), (36.9, "Cel")),
        (None, "%"),
    ]
    assert "M000123" not in json.dumps(row)
    assert "Ada" not in json.dumps(row)
