"""Turns what was decoded into readings: units, plausibility, time.

Law: pure; a value is converted by a stated factor or refused, never guessed and never clamped.
What is no value stays a reading, with the reason: nothing sent or a vendor's "no value" number is
MISSING, a number outside the code table's range IMPLAUSIBLE. A time that the device said stands as
it was said, for `edge.skew` to judge.
"""

import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple

from edge.moment import Moment, Row, layout_of
from edge.refusal import Reason, Refuse
from vitals.codes import VITALS, Absence, Status, TimeSource
from vitals.columns import scaled
from vitals.reading import Reading

SENTINELS: Final = frozenset({-1.0, -100.0, -10000.0, -999.0, -99.9, 8388607.0})
"""Numbers that devices send for "no value" (XH80X, Comen, ISO/IEEE 11073 NaN), as they are
written: before any conversion, and for every vital sign, also where the number lies in the table's
range. Who sends -1 for "none" sends it for a venous pressure too, and a real one of -1 mmHg is one
reading in thousands: a hole is seen, an invented value is not."""

UNITS: Final = {
    "%": "%",
    "/min": "/min",
    "bpm": "/min",
    "rpm": "/min",
    "beats/min": "/min",
    "breaths/min": "/min",
    "resp/min": "/min",
    "{beats}/min": "/min",
    "{breaths}/min": "/min",
    "c": "Cel",
    "cel": "Cel",
    "degc": "Cel",
    "°c": "Cel",
    "f": "[degF]",
    "[degf]": "[degF]",
    "degf": "[degF]",
    "°f": "[degF]",
    "mmhg": "mm[Hg]",
    "mm[hg]": "mm[Hg]",
    "kpa": "kPa",
    "l/min": "L/min",
    "lpm": "L/min",
    "{score}": "{score}",
}
"""Spelling of a unit in lower case -> UCUM."""

MDC_UNITS: Final = {
    262688: "%",
    264864: "/min",
    264928: "/min",
    265987: "kPa",
    266016: "mm[Hg]",
    266560: "[degF]",
    268192: "Cel",
}
"""ISO/IEEE 11073-10101 unit codes (dimension partition 4) -> UCUM."""

_LINEAR: Final = {
    ("[degF]", "Cel"): (5 / 9, -160 / 9),
    ("kPa", "mm[Hg]"): (1 / 0.133322387415, 0.0),
}
"""(from, to): factor and offset. kPa: conventional millimetre of mercury, NIST SP 811 app. B."""

CONVERTED_DIGITS: Final = 6
"""Decimals kept of a converted value: more than any vital has, fewer than a float's own error, so
that 116.6 F is the 47 C that the table still takes."""

SETTLED_MAX: Final = 2048
"""Values remembered with their verdict, under 1 MB: those of a ward are a few hundred."""

# Plain integers: an IntEnum's own comparison costs four times as much, and these run per reading.
_OK: Final = int(Status.OK)
_NONE: Final = int(Absence.NONE)
_RECEIVED: Final = int(TimeSource.RECEIVED)
_DEVICE: Final = int(TimeSource.DEVICE)
_COVERS: Final = frozenset({int(Status.TEST), int(Status.CALIBRATION)})
_NO_VALUE: Final = (None, int(Status.MISSING), int(Absence.NO_VALUE))
_SENTINEL: Final = (None, int(Status.MISSING), int(Absence.SENTINEL))
_OUT_OF_RANGE: Final = (None, int(Status.IMPLAUSIBLE), int(Absence.OUT_OF_RANGE))

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MS: Final = timedelta(milliseconds=1)


class Measure(NamedTuple):
    """One decoded value, before units and range: ``number`` is None when there is none."""

    vital: int
    number: float | None
    unit: str = ""
    """UCUM; empty means the table's own unit."""
    site: int = 0
    channel: int = 0
    status: int = 0
    """What the device says of it: `vitals.codes.Status`."""
    reason: int = 0
    """Why the device has no value: `vitals.codes.Absence`, NONE when it does not say."""


def takes(vital: int, unit: str) -> bool:
    """Tell whether a UCUM unit is one that a vital sign is measured in."""
    own = VITALS[vital].unit
    return unit == own or (unit, own) in _LINEAR


@lru_cache(maxsize=SETTLED_MAX)
def settle(vital: int, number: float | None, unit: str) -> tuple[float | None, int, int]:
    """Return value in the table's unit, status and absence; raise Refuse for a unit it has not."""
    if number is None:
        return _NO_VALUE
    if number in SENTINELS:
        return _SENTINEL
    entry = VITALS[vital]
    if not math.isfinite(number):
        raise Refuse(Reason.BAD_NUMBER, entry.name, "write a decimal number")
    value = number
    if unit and unit != entry.unit:
        linear = _LINEAR.get((unit, entry.unit))
        if linear is None:
            raise Refuse(Reason.BAD_UNIT, entry.name, f"it is measured in {entry.unit}")
        value = round(number * linear[0] + linear[1], CONVERTED_DIGITS)
    if not entry.low <= value <= entry.high:
        return _OUT_OF_RANGE
    return value, _OK, _NONE


def to_ms(moment: datetime, zone: tzinfo) -> int:
    """Return milliseconds of UTC since 1970; ``zone`` is taken when the moment has none."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)
    try:
        return (aware - _EPOCH) // _MS
    except OverflowError:
        raise Refuse(Reason.BAD_TIME, "time", "the year is out of range") from None


def row(measure: Measure, status: int = 0) -> Row:
    """Return the measure settled; raise Refuse.

    TEST and CALIBRATION, of the whole input by ``status`` or of the measure, speak of the device
    and cover also what has no value, so that a missing one in a test raises no alarm either. Any
    other mark is of a value and falls with it.
    """
    vital, number, unit, site, channel, said, why = measure
    value, found, reason = settle(vital, number, unit)
    said = status or said
    mark = said if found == _OK or said in _COVERS else found
    if value is None and why:
        reason = why
    return vital, value, int(mark), site, channel, int(reason), scaled(vital, value)


def readings(
    measures: Iterable[Measure], device_ms: int | None, received_ms: int, status: int = 0
) -> tuple[Reading, ...]:
    """Return one reading a measure; raise Refuse. ``status``: see `row`."""
    return moment(measures, device_ms, received_ms, status).readings


def moment(
    measures: Iterable[Measure], device_ms: int | None, received_ms: int, status: int = 0
) -> Moment:
    """Return measures of one time as `edge.entry` takes them; raise Refuse. See `row`."""
    rows = tuple([row(measure, status) for measure in measures])
    layout = 0
    for one in rows:
        layout |= layout_of(one)
    return timed(rows, device_ms, received_ms, layout)


def timed(rows: tuple[Row, ...], device_ms: int | None, received_ms: int, layout: int) -> Moment:
    """Return rows with one time: the device's as it said it, or without one that of receipt."""
    if device_ms is None:
        return Moment(rows, received_ms, received_ms, _RECEIVED, layout)
    return Moment(rows, device_ms, received_ms, _DEVICE, layout)
