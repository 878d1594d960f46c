"""Alarm limits of a vital: what is shown of them beside a value, and what a value is against them.

Law: pure. A value is beyond a limit exactly when the alarm's rule calls it a breach: below a low
one, above a high one; a value equal to its limit is inside. Limits are those of the alarms, never
a "normal range" of a person (IHE PCD-01 OBX-7 has the same meaning).
"""

from math import isfinite
from typing import Final, NamedTuple

from vitals.codes import VITALS


class Limits(NamedTuple):
    """Alarm limits of one vital in its unit, None where there is none.

    ``low_low`` and ``high_high`` are those of a high-priority alarm beyond the first.
    """

    low: float | None = None
    high: float | None = None
    low_low: float | None = None
    high_high: float | None = None


NONE: Final = Limits()

FLAGS: Final = ("", "N", "L", "H", "LL", "HH")
"""HL7 v3 ObservationInterpretation; empty: nothing to compare with."""

LOW_SHOWN: Final = 1
HIGH_SHOWN: Final = 2
SHAPES: Final = range(4)
"""Which sides a referenceRange has: a sum of the two above; 0 is no referenceRange."""


class Shown(NamedTuple):
    """A referenceRange's numbers as text; empty for a side without limit."""

    shape: int
    low: str
    high: str
    text: str
    """As OBX-7 writes it: ``40-130``, ``>=90`` or ``<=39``."""


def check(vital: int, limits: Limits) -> Limits:
    """Return the limits; raise ValueError for those that contradict themselves."""
    name = VITALS[vital].name
    given = [
        x for x in (limits.low_low, limits.low, limits.high, limits.high_high) if x is not None
    ]
    if not all(map(isfinite, given)):
        raise ValueError(f"{name}: an alarm limit is no finite number; leave it out")
    if given != sorted(given):
        raise ValueError(
            f"{name}: alarm limits must rise from low_low by low and high to high_high"
        )
    return limits


def flag(limits: Limits, value: float) -> str:
    """Return what a value is against its limits: one of FLAGS."""
    low, high, low_low, high_high = limits
    if low_low is not None and value < low_low:
        return "LL"
    if high_high is not None and value > high_high:
        return "HH"
    if low is not None and value < low:
        return "L"
    if high is not None and value > high:
        return "H"
    return "" if limits == NONE else "N"


def shown(limits: Limits) -> Shown:
    """Return the range in which no alarm rings: the innermost limit of each side."""
    low = limits.low_low if limits.low is None else limits.low
    high = limits.high_high if limits.high is None else limits.high
    low_text, high_text = _number(low), _number(high)
    if low is None:
        text = "" if high is None else f"<={high_text}"
    else:
        text = f">={low_text}" if high is None else f"{low_text}-{high_text}"
    shape = LOW_SHOWN * (low is not None) + HIGH_SHOWN * (high is not None)
    return Shown(shape, low_text, high_text, text)


def _number(limit: float | None) -> str:
    """Return a limit as people set it: 90, 39.5; a JSON number."""
    if limit is None:
        return ""
    return str(int(limit)) if limit == int(limit) else repr(limit)
