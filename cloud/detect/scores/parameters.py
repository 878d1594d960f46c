"""What a score reads: the newest measurement of each parameter, and whether it is too old.

Law: nothing is inferred. Oxygen is as charted or as a flow or an inspired fraction says; the SpO2
scale is as a clinician decided; a value older than its limit is as good as none, and is named
``stale``. Values are integers of their vital's scale (`vitals.codes.decimal_scale`), which is the
resolution of the chart: tenths of a degree, whole numbers for the rest.

===============  ==========================================================================
parameter        read from
===============  ==========================================================================
resp_rate, spo2  the vital of that name
systolic         abp_systolic or nibp_systolic, whichever is newer; the arterial line when both
                 are of one time, because it measures and the cuff estimates
pulse            heart_rate (ECG) while it is fresh, else pulse_rate: motion takes the
                 oximeter's pulse first
consciousness    entered by hand: `vitals.codes.Consciousness`
temperature      any site: the chart knows no difference
oxygen           see `oxygen_of`
===============  ==========================================================================
"""

from collections.abc import Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal
from typing import Final, Literal, NamedTuple

import msgspec

from vitals.codes import BY_NAME, Vital, decimal_scale

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
AIR_FIO2: Final = 21
"""% of oxygen in air; a ventilator on air says 21."""

Why = Literal["absent", "stale", "zero"]
Band = Literal["low", "low_medium", "medium", "high"]


class Charted(NamedTuple):
    """One measurement, with what its Observation's id is made of."""

    value: int
    """Of its vital's scale; of oxygen: 1 oxygen, 0 air."""
    time_ms: int
    site: int = 0
    channel: int = 0


class Snapshot(msgspec.Struct, frozen=True):
    """What is known of one patient: the newest usable measurement of each vital.

    Usable is a value without doubt (status OK or ALARM_INHIBITED): the caller's business.
    """

    values: Mapping[int, Charted]
    """By index of the code table."""
    oxygen: Charted | None = None
    """As charted by somebody; None: nobody did."""
    scale: Literal[1, 2] = 1
    """SpO2 scale; 2 only as a clinician decided for this patient."""
    under_16: bool = False
    pregnant: bool = False


class Ages(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How old a measurement may be, milliseconds; exactly as old still counts.

    What a monitor repeats every second is old after minutes: 5 bridge a change of sensor or a
    walk to the bathroom, no more. What is taken by hand is as old as the round it was taken in:
    6 hours are the longest interval the NEWS2 chart gives a patient who has any point (4 to 6
    hourly). Oxygen as charted is a treatment that lasts until it is changed: 12 hours, the
    chart's longest interval of all.
    """

    resp_rate: int = 5 * MINUTE_MS
    spo2: int = 5 * MINUTE_MS
    heart_rate: int = 5 * MINUTE_MS
    pulse_rate: int = 5 * MINUTE_MS
    abp_systolic: int = 5 * MINUTE_MS
    nibp_systolic: int = 6 * HOUR_MS
    consciousness: int = 6 * HOUR_MS
    temperature: int = 6 * HOUR_MS
    o2_flow: int = 6 * HOUR_MS
    fio2: int = 5 * MINUTE_MS
    oxygen: int = 12 * HOUR_MS


AGES: Final = Ages()


class Missing(NamedTuple):
    """A parameter without a usable value, and why."""

    parameter: str
    why: Why
    """absent: never measured; stale: too old; zero: nothing can be divided by it."""


class Taken(NamedTuple):
    """The measurement that stands for a parameter."""

    vital: int
    """Index in the code table."""
    charted: Charted


class Score(msgspec.Struct, frozen=True):
    """What a score of points says at one time."""

    total: int | None
    """None when a parameter is missing, or the score is not for this patient."""
    bounds: tuple[int, int]
    """Lowest and highest total that the missing parameters leave possible."""
    sub_scores: dict[str, int]
    """By parameter; only what is certain."""
    band: Band | None
    """None unless every value of what is missing gives this band."""
    missing: tuple[Missing, ...] = ()
    single_red: bool = False
    """A certain sub-score is 3."""
    evidence: tuple[Taken, ...] = ()
    """The measurements it rests on."""
    not_applicable: str = ""
    """under_16 or pregnant: the score says nothing about this patient."""


SOURCES: Final[Mapping[str, tuple[str, ...]]] = {
    "resp_rate": ("resp_rate",),
    "spo2": ("spo2",),
    "systolic": ("abp_systolic", "nibp_systolic"),
    "pulse": ("heart_rate", "pulse_rate"),
    "consciousness": ("consciousness",),
    "temperature": ("temperature",),
}
"""Vitals that a parameter is read from, the preferred one first."""

PARAMETER_OF: Final[Mapping[int, str]] = {
    BY_NAME[name].index: parameter for parameter, names in SOURCES.items() for name in names
}
"""By index of the code table."""

_O2_FLOW: Final = BY_NAME["o2_flow"].index
_FIO2: Final = BY_NAME["fio2"].index


def charted_value(vital: Vital, number: Decimal | float) -> int:
    """Return a number as an integer of the vital's scale, rounded half up as a person charts it.

    The chart has gaps for what a monitor can say (35.05 is neither <= 35.0 nor >= 35.1): rounding
    comes first, then the chart. Of a float its shortest decimal form is rounded: 35.05 is 35.1,
    though its binary value lies below. Oxygen's flow and fraction are rounded up: the least of it
    is oxygen. Raises ValueError for a number that is no measurement of this vital.
    """
    exact = number if isinstance(number, Decimal) else Decimal(str(number))
    if not exact.is_finite():
        raise ValueError(f"{vital.name} is not a finite number; leave it out when not measured")
    if not Decimal(str(vital.low)) <= exact <= Decimal(str(vital.high)):
        raise ValueError(
            f"{vital.name} is outside {vital.low:g} to {vital.high:g} {vital.unit};"
            " check value and unit, or leave it out"
        )
    rounding = ROUND_CEILING if vital.index in (_O2_FLOW, _FIO2) else ROUND_HALF_UP
    return int(exact.quantize(Decimal(1).scaleb(-vital.decimals), rounding) * decimal_scale(vital))


def fresh(charted: Charted, now_ms: int, age_ms: int) -> bool:
    """Tell whether a measurement still counts; one from ahead of ``now_ms`` does.

    How far ahead a time may be is the caller's to bound (`cloud.detect.lanes.clamp_ms`).
    """
    return now_ms - charted.time_ms <= age_ms


def take(snapshot: Snapshot, parameter: str, now_ms: int, ages: Ages = AGES) -> Taken | Missing:
    """Return the measurement that stands for a parameter (not for oxygen), or why there is none."""
    found = _found(snapshot, SOURCES[parameter])
    usable = [
        Taken(BY_NAME[name].index, charted)
        for name, charted in found
        if fresh(charted, now_ms, getattr(ages, name))
    ]
    if not usable:
        return Missing(parameter, "stale" if found else "absent")
    if parameter == "systolic":
        return max(usable, key=_time_ms)  # of equals the first: the arterial line
    return usable[0]


def oxygen_of(snapshot: Snapshot, now_ms: int, ages: Ages = AGES) -> bool | Missing:
    """Tell whether the patient breathes oxygen (True) or air (False), or why nobody knows.

    An inspired fraction above 21 % is oxygen, whatever else was charted. Else the newer of what
    was charted and the flow stands (a flow above 0 is oxygen), oxygen when both are of one time.
    A fraction of 21 % says air only when nothing else says anything: the sensor of a ventilator
    that stands by knows nothing of a nasal cannula.
    """
    fio2 = snapshot.values.get(_FIO2)
    flow = snapshot.values.get(_O2_FLOW)
    fraction = fio2 is not None and fresh(fio2, now_ms, ages.fio2)
    if fio2 is not None and fraction and fio2.value > AIR_FIO2:
        return True
    said = []
    if snapshot.oxygen is not None and fresh(snapshot.oxygen, now_ms, ages.oxygen):
        said.append((snapshot.oxygen.time_ms, snapshot.oxygen.value > 0))
    if flow is not None and fresh(flow, now_ms, ages.o2_flow):
        said.append((flow.time_ms, flow.value > 0))
    if said:
        return max(said)[1]
    if fraction:
        return False
    known = any(charted is not None for charted in (fio2, flow, snapshot.oxygen))
    return Missing("oxygen", "stale" if known else "absent")


def stale_at_ms(
    snapshot: Snapshot, parameters: Sequence[str], now_ms: int, ages: Ages = AGES
) -> int | None:
    """Return when the first measurement that counts now will be too old; None: none counts.

    Until then a score changes by new measurements only. With ``oxygen`` among ``parameters``
    what oxygen is read from is looked at too.
    """
    ends = [
        charted.time_ms + getattr(ages, name) + 1
        for parameter in parameters
        for name, charted in _found(snapshot, SOURCES.get(parameter, ()))
    ]
    if "oxygen" in parameters:
        ends += [
            charted.time_ms + getattr(ages, name) + 1
            for name, charted in _found(snapshot, ("o2_flow", "fio2"))
        ]
        if snapshot.oxygen is not None:
            ends.append(snapshot.oxygen.time_ms + ages.oxygen + 1)
    return min((end for end in ends if end > now_ms), default=None)


def _found(snapshot: Snapshot, names: Sequence[str]) -> list[tuple[str, Charted]]:
    return [
        (name, snapshot.values[BY_NAME[name].index])
        for name in names
        if BY_NAME[name].index in snapshot.values
    ]


def _time_ms(taken: Taken) -> int:
    return taken.charted.time_ms
