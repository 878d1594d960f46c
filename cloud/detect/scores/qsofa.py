"""qSOFA: quick Sequential Organ Failure Assessment, a bedside prompt for suspected infection.

Law: as NEWS2: no total without every parameter; bounds always.

============== ========================== ======
parameter      scores                     points
============== ========================== ======
resp_rate      22/min or more             1
systolic       100 mm[Hg] or less         1
consciousness  altered: any but Alert     1
============== ========================== ======

Two points or more are ``high``, fewer ``low``; incomplete has a band when both bounds agree. The
paper's altered mentation is a Glasgow Coma Scale below 15; Alert is what ACVPU has for 15.

Source: Singer M et al. The Third International Consensus Definitions for Sepsis and Septic Shock
(Sepsis-3). JAMA 2016;315(8):801-810.
"""

from typing import Final

from cloud.detect.scores.parameters import (
    AGES,
    Ages,
    Band,
    Missing,
    Score,
    Snapshot,
    Taken,
    stale_at_ms,
    take,
)
from vitals.codes import Consciousness

PARAMETERS: Final = ("resp_rate", "systolic", "consciousness")
TOTAL_MAX: Final = 3
HIGH_AT: Final = 2
RESP_RATE_FROM: Final = 22
SYSTOLIC_TO: Final = 100


def score(snapshot: Snapshot, now_ms: int, ages: Ages = AGES) -> Score:
    """Return the score of what is known at ``now_ms``."""
    points: dict[str, int] = {}
    missing: list[Missing] = []
    evidence: list[Taken] = []
    for parameter in PARAMETERS:
        taken = take(snapshot, parameter, now_ms, ages)
        if isinstance(taken, Missing):
            missing.append(taken)
        else:
            points[parameter] = sub_score(parameter, taken.charted.value)
            evidence.append(taken)
    lowest = sum(points.values())
    highest = lowest + len(missing)
    least, most = _band(lowest), _band(highest)
    return Score(
        total=None if missing else lowest,
        bounds=(lowest, highest),
        sub_scores=points,
        band=least if least == most else None,
        missing=tuple(missing),
        evidence=tuple(evidence),
    )


def sub_score(parameter: str, value: int) -> int:
    """Return the point of one parameter; ``value`` is of its vital's scale."""
    if parameter == "resp_rate":
        return int(value >= RESP_RATE_FROM)
    if parameter == "systolic":
        return int(value <= SYSTOLIC_TO)
    return int(value != Consciousness.ALERT)


def changes_at_ms(snapshot: Snapshot, now_ms: int, ages: Ages = AGES) -> int | None:
    """Return when the score may change although nothing is measured; None: never."""
    return stale_at_ms(snapshot, PARAMETERS, now_ms, ages)


def _band(total: int) -> Band:
    return "high" if total >= HIGH_AT else "low"
