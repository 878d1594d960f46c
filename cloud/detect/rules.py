"""What a policy means to the detectors of one kind of subject, made ready once.

A ward of patients without changes of their own shares one `Rules`: `Effective` is the same object
for the same set of changes, and so is what is computed from it.
"""

from typing import Final

from cloud.detect.artefact import BOUNDS, Bound
from cloud.detect.scoring import ages_of, levels_of, reads_of
from cloud.detect.threshold import bounds
from cloud.detect.trending import trends_of
from cloud.fhir import chart
from cloud.fhir.chart import Chart
from cloud.fhir.charting import Charting
from cloud.fhir.ranges import Limits
from cloud.policy.resolve import Effective
from vitals.codes import VITALS

RULES_MAX: Final = 4_096
"""Kinds of subjects kept ready; every patient with limits of their own is one, at some 10 KB."""

NO_BOUND: Final = Bound()


class Rules:
    """One `Effective`, with what the hot path looks up."""

    __slots__ = (
        "ages",
        "chart",
        "charting",
        "effective",
        "high",
        "late_ms",
        "late_ms_max",
        "late_ms_min",
        "levels",
        "life",
        "low",
        "low_at",
        "marked",
        "reads",
        "trends",
    )

    def __init__(self, effective: Effective) -> None:
        """Compute it; some 0.1 ms."""
        self.effective = effective
        self.low, self.high = bounds(effective)
        """By vital: scaled values from low to high breach no limit."""
        loss_ms = effective.losses.late_ms
        self.late_ms = [
            min([loss_ms, *(limit.late_ms for limit in effective.limits[vital.index])])
            for vital in VITALS
        ]
        """By vital: older than this at arrival is late for some detector."""
        self.late_ms_min, self.late_ms_max = min(self.late_ms), max(self.late_ms)
        self.life = effective.life
        self.levels = levels_of(effective)
        self.reads = reads_of(effective)
        plain = self.reads == (1, False, False) and not effective.scores.news2.single_red
        self.low_at = int(min((level.at for level in self.levels), default=0)) if plain else 0
        """Below this lowest NEWS2 nothing is watched and the risk is low; 0: always look."""
        self.ages = ages_of(effective)
        self.trends = trends_of(effective)
        self.charting = Charting(effective.charting.mode, effective.charting.around_alarm_ms)
        self.marked = [
            effective.artefact
            and BOUNDS[vital.index] != NO_BOUND
            and bool(effective.limits[vital.index])
            for vital in VITALS
        ]
        """By vital: a doubt about it could stand on an alert, so traces are kept."""
        self.chart: Chart = chart.of(_shown(effective))


class RulesOf:
    """`Rules` by their `Effective`, while both are in use."""

    def __init__(self) -> None:
        """Begin empty."""
        self._made: dict[int, Rules] = {}

    def __call__(self, effective: Effective) -> Rules:
        """Return the rules of ``effective``."""
        found = self._made.get(id(effective))
        if found is None:
            if len(self._made) >= RULES_MAX:
                self._made.clear()  # those in use live on in their subjects
            found = self._made[id(effective)] = Rules(effective)
        return found


def _shown(effective: Effective) -> dict[int, Limits]:
    """Return the alarm limits as FHIR shows them: the first to be met, and the urgent ones."""
    out = {}
    for vital, limits in enumerate(effective.limits):
        sides = {
            direction: [one for one in limits if one.direction == direction]
            for direction in ("low", "high")
        }
        lows = [one.limit for one in sides["low"]]
        highs = [one.limit for one in sides["high"]]
        low, high = max(lows, default=None), min(highs, default=None)
        urgent_low = max((o.limit for o in sides["low"] if o.priority == "high"), default=None)
        urgent_high = min((o.limit for o in sides["high"] if o.priority == "high"), default=None)
        if limits:
            out[vital] = Limits(
                low,
                high,
                urgent_low if urgent_low is not None and urgent_low != low else None,
                urgent_high if urgent_high is not None and urgent_high != high else None,
            )
    return out
