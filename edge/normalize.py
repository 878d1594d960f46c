"""Turns what was decoded into readings: units, plausibility, time.

Law: pure; a value is converted by a stated factor or refused, never guessed and never clamped.
Outside the code table's range, or a vendor's "no value" number, it is IMPLAUSIBLE without a value.
A time that the device said stands as it was said, for `edge.skew` to judge.
"""

import math
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple

from edge.refusal import Reason, Refuse
from vitals.codes import VITALS, Status, TimeSource
from vitals.reading import Reading

SENTINELS: Final = frozenset({-1.0, -100.0, -10000.0, -999.0, -99.9, 8388607.0})
"""Numbers that devices send for "no value" (XH80X, Comen, ISO/IEEE 11073 NaN)."""

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
    status: int = Status.OK


@lru_cache(maxsize=8192)
def settle(vital: int, number: float | None, unit: str) -> tuple[float | None, int]:
    """Return value in the table's unit, and status; raise Refuse for a unit it is not taken in."""
    entry = VITALS[vital]
    if number is None:
        return None, Status.MISSING
    if not math.isfinite(number):
        raise Refuse(Reason.BAD_NUMBER, entry.name, "write a decimal number")
    # -1 mmHg is a real central venous pressure: a sentinel inside the range is a value.
    if number in SENTINELS and not entry.low <= number <= entry.high:
        return None, Status.IMPLAUSIBLE
    value = number
    if unit and unit != entry.unit:
        linear = _LINEAR.get((unit, entry.unit))
        if linear is None:
            raise Refuse(Reason.BAD_UNIT, entry.name, f"it is measured in {entry.unit}")
        value = number * linear[0] + linear[1]
    if not entry.low <= value <= entry.high:
        return None, Status.IMPLAUSIBLE
    return value, Status.OK


def to_ms(moment: datetime, zone: tzinfo) -> int:
    """Return milliseconds of UTC since 1970; ``zone`` is taken when the moment has none."""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)
    try:
        return (aware - _EPOCH) // _MS
    except OverflowError:
        raise Refuse(Reason.BAD_TIME, "time", "the year is out of range") from None


def readings(
    measures: Iterable[Measure], device_ms: int | None, received_ms: int, status: int = Status.OK
) -> tuple[Reading, ...]:
    """Return one reading a measure; raise Refuse.

    ``status`` TEST or CALIBRATION speaks of the device and covers every reading, so that a
    missing value in a test raises no signal-loss alarm either.
    """
    if device_ms is None:
        time_ms, source = received_ms, int(TimeSource.RECEIVED)
    else:
        time_ms, source = device_ms, int(TimeSource.DEVICE)
    result = []
    for vital, number, unit, site, channel, said in measures:
        value, found = settle(vital, number, unit)
        mark = status or (said if found == Status.OK or said >= Status.TEST else found)
        result.append(Reading(vital, value, time_ms, received_ms, int(mark), site, channel, source))
    return tuple(result)
