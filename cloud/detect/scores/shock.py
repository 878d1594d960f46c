"""Shock index: pulse divided by systolic pressure.

Law: both from one time or no value: of a pulse of now and a cuff of this morning it would say
nothing. Hence limits of its own (`AGES`): a cuff counts for 15 minutes. A pressure of 0 gives no
value (``zero``): nothing can be divided by it.

=========  ==================  ====================================================
band       index
=========  ==================  ====================================================
low        0.9 or less         healthy adults lie about 0.5 to 0.7
medium     above 0.9           more severe illness, where pulse and pressure alone look well
high       1.0 or more         Allgöwer and Burri's threatening shock
=========  ==================  ====================================================

Compared exactly, in whole numbers; the value shown is rounded half up to hundredths, so that 0.90
may be shown of an index just above 0.9.

Sources: Allgöwer M, Burri C. Schockindex. Dtsch Med Wochenschr 1967;92:1947-1950; the limit of 0.9:
Rady MY et al. A comparison of the shock index and conventional vital signs to identify acute,
critical illness in the emergency department. Ann Emerg Med 1994;24:685-690.
"""

from typing import Final

import msgspec

from cloud.detect.scores.parameters import (
    MINUTE_MS,
    Ages,
    Band,
    Missing,
    Snapshot,
    Taken,
    stale_at_ms,
    take,
)

PARAMETERS: Final = ("pulse", "systolic")
AGES: Final = Ages(nibp_systolic=15 * MINUTE_MS)


class Index(msgspec.Struct, frozen=True):
    """What the shock index says at one time."""

    value: float | None
    """Hundredths; None when anything is missing: there are no useful bounds then."""
    band: Band | None
    missing: tuple[Missing, ...] = ()
    evidence: tuple[Taken, ...] = ()


def score(snapshot: Snapshot, now_ms: int, ages: Ages = AGES) -> Index:
    """Return the index of what is known at ``now_ms``."""
    pulse = take(snapshot, "pulse", now_ms, ages)
    systolic = take(snapshot, "systolic", now_ms, ages)
    if isinstance(systolic, Taken) and systolic.charted.value <= 0:
        systolic = Missing("systolic", "zero")
    if isinstance(pulse, Missing) or isinstance(systolic, Missing):
        missing = tuple(one for one in (pulse, systolic) if isinstance(one, Missing))
        return Index(None, None, missing)
    rate, pressure = pulse.charted.value, systolic.charted.value
    hundredths = (200 * rate + pressure) // (2 * pressure)
    return Index(hundredths / 100, band_of(rate, pressure), (), (pulse, systolic))


def band_of(rate: int, pressure: int) -> Band:
    """Return the band of a pulse and a pressure above 0."""
    if rate >= pressure:
        return "high"
    return "medium" if 10 * rate > 9 * pressure else "low"


def changes_at_ms(snapshot: Snapshot, now_ms: int, ages: Ages = AGES) -> int | None:
    """Return when the index may change although nothing is measured; None: never."""
    return stale_at_ms(snapshot, PARAMETERS, now_ms, ages)
