"""The built-in policy on 53 recorded ICU adults (simulators/recordings): what rings, and when.

Recorded are heart rate, pulse, respiration and SpO2, 8 minutes each; artefacts are the source's.
What the recordings lack is spliced into those that are quiet by the rules of SPLICES: from second
AT on, SpO2 is replaced and nothing else.
"""

from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Final, NamedTuple

import pytest

from cloud.detect.partition import TICK_MS
from cloud.policy.default import DEFAULT
from cloud.whatif.episodes import Alarm, alarms_of
from cloud.whatif.recorded import COLUMNS, RECORDED_MS
from cloud.whatif.replay import Judge, plain, replay
from cloud.whatif.ward import NO_VALUE, Origin, Row, Ward
from simulators.recorded import recordings
from vitals.codes import BY_NAME, Status

SUBJECT: Final = "0" * 32
DEVICE: Final = "d" * 32
AT: Final = 200
"""Second of a recording at which a splice begins."""
SPO2: Final = BY_NAME["spo2"].index

JUDGE: Final = Judge(DEFAULT)

Spo2 = tuple[int | None, Status]
Splice = Callable[[int, Spo2], Spo2]
"""What SpO2 is instead, by seconds since AT and what was recorded."""


class Rang(NamedTuple):
    """An alarm, in seconds of the recording."""

    rule: str
    began: int
    rings: int
    until: int


def rang(number: int, splice: Splice | None = None) -> list[Rang]:
    """Return the alarms of recording 1, 2, ... under the built-in policy."""
    return [
        Rang(one.rule, _second(one.began_ms), _second(one.rings_ms), _second(one.until_ms))
        for one in alarms(number, splice)
    ]


def _second(time_ms: int) -> int:
    return round((time_ms - RECORDED_MS) / 1000)


def alarms(number: int, splice: Splice | None = None) -> list[Alarm]:
    """Return the same as the replay gives it."""
    recording = recordings()[number - 1]
    ward = Ward()
    bed, source = ward.bed(SUBJECT, "bed"), ward.source(_origin())
    for at, second in enumerate(recording):
        time_ms = RECORDED_MS + at * 1000
        for vital, value in zip(COLUMNS.values(), second, strict=True):
            status = Status.MISSING if value is None else Status.OK
            if splice is not None and vital.index == SPO2 and at >= AT:
                value, status = splice(at - AT, (value, status))
            scaled = NO_VALUE if value is None else value
            ward.add(bed, Row(time_ms, time_ms, vital.index, scaled, int(status)), source)
    ((_, subject, rows),) = ward.ordered()
    end_ms = RECORDED_MS + (len(recording) - 1) * TICK_MS
    return alarms_of(replay(subject, plain(rows), ward.origins, JUDGE, end_ms), end_ms).alarms


def _origin() -> Origin:
    return Origin(DEVICE, "edge-1")


@cache
def ward() -> dict[int, list[Rang]]:
    """Return every recording's alarms."""
    return {number: rang(number) for number in range(1, len(recordings()) + 1)}


# as recorded --------------------------------------------------------------------------------------


def test_who_rings_is_who_is_ill_or_without_a_sensor() -> None:
    who: dict[str, list[int]] = {}
    for number, found in ward().items():
        for rule in dict.fromkeys(one.rule for one in found):
            who.setdefault(rule, []).append(number)
    assert who == {
        "spo2.low.high": [32, 49],  # 84 to 88 % throughout
        "news2.medium": [8, 32],  # heart rate 100, respiration 21, SpO2 93: 1 + 2 + 2; and 24, 85
        "resp_rate.low.high": [13],  # reads 0 for minutes
        "resp_rate.signal": [13],
        "spo2.signal": [1, 19],
        "pulse_rate.signal": [1, 19],
    }


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (32, [Rang("spo2.low.high", 0, 10, 480), Rang("news2.medium", 0, 63, 480)]),
        (49, [Rang("spo2.low.high", 0, 10, 480)]),
        (8, [Rang("news2.medium", 194, 254, 480)]),
        (1, [Rang("pulse_rate.signal", 111, 121, 129), Rang("spo2.signal", 111, 121, 129)]),
        (2, []),
        (28, []),  # heart rate and pulse far apart
        (45, []),
    ],
)
def test_a_handful_of_patients_ring_at_these_seconds(number: int, expected: list[Rang]) -> None:
    assert ward()[number] == expected


def test_respiration_that_reads_zero_for_minutes_is_apnoea_until_it_is_seen_to_breathe() -> None:
    found = [one for one in ward()[13] if one.rule == "resp_rate.low.high"]
    assert [(one.began, one.rings) for one in found] == [
        (48, 63),
        (128, 138),
        (181, 211),
        (314, 324),
    ]


BED_DAYS: Final = 53 * 480 / 86_400

MOST_PER_BED_DAY: Final = {"high": 25, "medium": 10, "low": 50}
"""A fifth or so above what rings today (20, 7 and 48): three alarms of one patient more, and
somebody should look why. For comparison: 187 audible alarms a bed-day in five adult ICUs (Drew
2014, PLoS ONE 9)."""


def test_the_ward_is_no_louder_than_it_was() -> None:
    found = Counter(one.priority for number in ward() for one in alarms(number))
    rates = {priority: found[priority] / BED_DAYS for priority in MOST_PER_BED_DAY}
    assert {priority: round(rate) for priority, rate in rates.items()} == {
        "high": 20,
        "medium": 7,
        "low": 48,
    }
    assert all(rates[priority] <= most for priority, most in MOST_PER_BED_DAY.items())


def test_most_patients_ring_not_at_all() -> None:
    assert sum(not found for found in ward().values()) == 47


# spliced ------------------------------------------------------------------------------------------


def held(seconds: int, value: int | None, status: Status) -> Splice:
    """Return a splice that holds a value for so many readings."""
    return lambda at, was: (value, status) if at < seconds else was


def _falls_off(at: int, was: Spo2) -> Spo2:
    """Return what a probe says that slips: 0 % for 8 s, then nothing for a minute."""
    return held(68, None, Status.MISSING)(at, was) if at >= 8 else (0, Status.OK)


def _motion(at: int, was: Spo2) -> Spo2:
    """Return what shaking does for two minutes: 5 s of every 10 at 70 %."""
    return (70, Status.OK) if at < 120 and at % 10 < 5 else was


def _flickers(at: int, was: Spo2) -> Spo2:
    """Return a bad contact: for two minutes 4 s of nothing in every 8."""
    return was if at >= 120 else (None, Status.MISSING) if at % 8 < 4 else was


SLIPS: Final = "sensor slips: 0 % for 8 s, then no value"

SPLICES: Final[dict[str, Splice]] = {
    "sensor off: no value for a minute": held(60, None, Status.MISSING),
    SLIPS: _falls_off,
    "artefact: 60 % for 10 readings, one second short of the delay": held(10, 60, Status.OK),
    "motion: 70 % for 5 s in every 10": _motion,
    "bad contact: no value for 4 s in every 8": _flickers,
    "the monitor doubts it: 70 % for a minute": held(60, 70, Status.QUESTIONABLE),
    "a technician's test: 84 % for a minute": held(60, 84, Status.TEST),
    "calibration: 84 % for a minute": held(60, 84, Status.CALIBRATION),
    "alarms switched off at the bed: 84 % for a minute": held(60, 84, Status.ALARM_INHIBITED),
    "no measurement: out of range for a minute": held(60, None, Status.IMPLAUSIBLE),
}


def quiet() -> list[int]:
    """Return the recordings that ring nothing and whose SpO2 has no gap."""
    found = [
        number
        for number, rung in ward().items()
        if not rung and all(second.spo2 is not None for second in recordings()[number - 1])
    ]
    assert len(found) >= 40
    return found


@pytest.mark.parametrize("name", SPLICES)
def test_artefact_and_sensor_off_do_not_ring_as_desaturation(name: str) -> None:
    for number in quiet():
        rules = {one.rule for one in rang(number, SPLICES[name])}
        assert rules <= {"spo2.signal"}, (number, rules)


def test_a_sensor_that_is_off_rings_once_as_what_it_is() -> None:
    splice = SPLICES["sensor off: no value for a minute"]
    for number in quiet():
        assert rang(number, splice) == [Rang("spo2.signal", AT, AT + 10, AT + 65)], number


@pytest.mark.parametrize("value", [84, 89])
def test_a_desaturation_of_half_a_minute_rings_after_ten_seconds_in_everybody(value: int) -> None:
    for number in quiet():
        found = [one for one in rang(number, held(30, value, Status.OK)) if "spo2.low" in one.rule]
        assert [one[:3] for one in found] == [("spo2.low.high", AT, AT + 10)], number


def test_one_reading_more_than_the_artefact_rings() -> None:
    for number in quiet():
        found = rang(number, held(11, 60, Status.OK))
        assert [one[:3] for one in found] == [("spo2.low.high", AT, AT + 10)], number


def test_a_desaturation_whose_sensor_then_falls_off_has_rung() -> None:
    def splice(at: int, was: Spo2) -> Spo2:
        return held(60, None, Status.MISSING)(at, was) if at >= 15 else (84, Status.OK)

    for number in quiet():
        rules = [(one.rule, one.rings) for one in rang(number, splice) if one.rule[:4] == "spo2"]
        assert rules == [("spo2.low.high", AT + 10), ("spo2.signal", AT + 25)], number
