"""NEWS2: the National Early Warning Score 2 (Royal College of Physicians, London 2017).

Law: no total without every parameter, and never a band lower than the truth could be. What is
missing widens the bounds; it scores no silent 0. Values are rounded half up to the chart's
resolution before they are looked up (`parameters.charted_value`), so that the chart has no gaps.

============ ======= ======= ======= =========== ======= ======= =======
parameter       3       2       1         0         1       2       3
============ ======= ======= ======= =========== ======= ======= =======
resp. rate    <=8             9-11    12-20               21-24   >=25
SpO2 scale 1  <=91    92-93   94-95   >=96
SpO2 scale 2  <=83    84-85   86-87   88-92       93-94   95-96   >=97    on oxygen
SpO2 scale 2  <=83    84-85   86-87   >=88                                on air
air or oxygen         oxygen          air
systolic      <=90    91-100  101-110 111-219                     >=220
pulse         <=40            41-50   51-90       91-110  111-130 >=131
consciousness                         alert                       C V P U
temperature   <=35.0          35.1-36 36.1-38.0   38.1-39 >=39.1
============ ======= ======= ======= =========== ======= ======= =======

Bands (the chart's clinical risk): 0-4 low, but low_medium when one parameter scores 3; 5-6 medium;
7 and more high. Scale 2 is for hypercapnic respiratory failure with a target of 88-92 %, on a
clinician's decision; it is never inferred. Not for patients under 16 or pregnant ones.

An incomplete score has a band only when every completion has the same one: total 7 so far is high
whatever comes; only oxygen unknown and 0 to 2 points is low either way.

Reproduced from: Royal College of Physicians. National Early Warning Score (NEWS) 2: Standardising
the assessment of acute-illness severity in the NHS. London: RCP, 2017.
"""

from bisect import bisect_left
from collections.abc import Mapping
from typing import Final

from cloud.detect.scores.parameters import (
    AGES,
    SOURCES,
    Ages,
    Band,
    Missing,
    Score,
    Snapshot,
    Taken,
    oxygen_of,
    stale_at_ms,
    take,
)
from vitals.codes import BY_NAME, decimal_scale

PARAMETERS: Final = (
    "resp_rate",
    "spo2",
    "oxygen",
    "systolic",
    "pulse",
    "consciousness",
    "temperature",
)
"""In the order of the chart."""
TOTAL_MAX: Final = 20
RED: Final = 3
OXYGEN: Final = 2
MEDIUM_AT: Final = 5
HIGH_AT: Final = 7

_Steps = tuple[tuple[int, ...], tuple[int, ...]]
"""Highest value of every column but the last; the points of every column, left to right."""

_STEPS: Final[Mapping[str, _Steps]] = {
    "resp_rate": ((8, 11, 20, 24), (3, 1, 0, 2, 3)),
    "systolic": ((90, 100, 110, 219), (3, 2, 1, 0, 3)),
    "pulse": ((40, 50, 90, 110, 130), (3, 1, 0, 1, 2, 3)),
    "consciousness": ((0,), (0, 3)),
    "temperature": ((350, 360, 380, 390), (3, 1, 0, 1, 2)),
    "oxygen": ((0,), (0, OXYGEN)),
}
_SPO2_SCALE_1: Final[_Steps] = ((91, 93, 95), (3, 2, 1, 0))
_SPO2_SCALE_2_AIR: Final[_Steps] = ((83, 85, 87), (3, 2, 1, 0))
_SPO2_SCALE_2_OXYGEN: Final[_Steps] = ((83, 85, 87, 92, 94, 96), (3, 2, 1, 0, 1, 2, 3))

_BANDS: Final[tuple[Band, ...]] = ("low", "low_medium", "medium", "high")


def score(snapshot: Snapshot, now_ms: int, ages: Ages = AGES) -> Score:
    """Return the score of what is known at ``now_ms``."""
    if snapshot.under_16 or snapshot.pregnant:
        why = "under_16" if snapshot.under_16 else "pregnant"
        return Score(None, (0, TOTAL_MAX), {}, None, not_applicable=why)
    values: dict[str, int] = {}
    missing: list[Missing] = []
    evidence: list[Taken] = []
    oxygen = oxygen_of(snapshot, now_ms, ages)
    for parameter in PARAMETERS:
        if parameter == "oxygen":
            if isinstance(oxygen, Missing):
                missing.append(oxygen)
            continue
        taken = take(snapshot, parameter, now_ms, ages)
        if isinstance(taken, Missing):
            missing.append(taken)
        else:
            values[parameter] = taken.charted.value
            evidence.append(taken)
    ways = (False, True) if isinstance(oxygen, Missing) else (oxygen,)
    completions = [_points(values, snapshot.scale, oxygen=way) for way in ways]
    # Of everything but oxygen the chart has a column of 0 points and one of 3.
    gaps = len(PARAMETERS) - 1 - len(values)
    certain = {
        parameter: points
        for parameter, points in completions[0].items()
        if all(other[parameter] == points for other in completions)
    }
    lowest = min(sum(points.values()) for points in completions)
    highest = max(sum(points.values()) for points in completions) + RED * gaps
    red = RED in certain.values()
    may_be_red = gaps > 0 or any(RED in points.values() for points in completions)
    least, most = band_of(lowest, red=red), band_of(highest, red=may_be_red)
    return Score(
        total=None if missing else lowest,
        bounds=(lowest, highest),
        sub_scores=certain,
        band=least if least == most else None,
        missing=tuple(missing),
        single_red=red,
        evidence=tuple(evidence),
    )


def _points(values: Mapping[str, int], scale: int, *, oxygen: bool) -> dict[str, int]:
    points = dict.fromkeys(PARAMETERS, 0)
    points["oxygen"] = OXYGEN if oxygen else 0
    for parameter, value in values.items():
        points[parameter] = sub_score(parameter, value, scale, oxygen=oxygen)
    return {name: n for name, n in points.items() if name == "oxygen" or name in values}


def band_of(total: int, *, red: bool) -> Band:
    """Return the band of a total; ``red``: one parameter alone scores 3."""
    if total >= HIGH_AT:
        return _BANDS[3]
    if total >= MEDIUM_AT:
        return _BANDS[2]
    return _BANDS[1] if red else _BANDS[0]


def sub_score(parameter: str, value: int, scale: int = 1, *, oxygen: bool = False) -> int:
    """Return the points of one parameter; ``value`` is of its vital's scale.

    ``scale`` and ``oxygen`` matter to SpO2 only.
    """
    uppers, points = _steps(parameter, scale, oxygen=oxygen)
    return points[bisect_left(uppers, value)]


def hold(
    parameter: str,
    value: int,
    scale: int = 1,
    oxygen: bool | None = None,  # noqa: FBT001  the chart's row: parameter, value, scale, oxygen
) -> tuple[int, int]:
    """Return the widest range around ``value`` in which its sub-score is the same, both ends in.

    Of the vital's scale, within its plausible range (and ``value``, should that lie outside).
    With oxygen unknown the points must be the same on air and on oxygen both.
    """
    low, high = _range(parameter)
    for way in (False, True) if oxygen is None else (oxygen,):
        uppers, _ = _steps(parameter, scale, oxygen=way)
        at = bisect_left(uppers, value)
        if at:
            low = max(low, uppers[at - 1] + 1)
        if at < len(uppers):
            high = min(high, uppers[at])
    return min(low, value), max(high, value)


def changes_at_ms(snapshot: Snapshot, now_ms: int, ages: Ages = AGES) -> int | None:
    """Return when the score may change although nothing is measured; None: never."""
    return stale_at_ms(snapshot, PARAMETERS, now_ms, ages)


def _steps(parameter: str, scale: int, *, oxygen: bool) -> _Steps:
    if parameter != "spo2":
        return _STEPS[parameter]
    if scale == 1:
        return _SPO2_SCALE_1
    return _SPO2_SCALE_2_OXYGEN if oxygen else _SPO2_SCALE_2_AIR


def _range(parameter: str) -> tuple[int, int]:
    if parameter == "oxygen":
        return 0, 1
    vital = BY_NAME[SOURCES[parameter][0]]
    scale = decimal_scale(vital)
    return round(vital.low * scale), round(vital.high * scale)
