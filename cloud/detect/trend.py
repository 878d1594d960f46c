"""Trends: a vital that falls or rises over minutes, before it crosses a limit.

Law: neither one outlier, nor one step of noise, nor a gap makes a trend. Two estimates of the slope
must both reach the rule's change over its window, and they fail on different things:

- Tukey's three-group resistant line: the medians of the window's first and last third (Tukey,
  Exploratory Data Analysis, 1977; sizes of the thirds as Velleman and Hoaglin, Applications,
  Basics and Computing of EDA, 1981). It is the check for a change of level between the ends of
  the window, blind to what a few minutes do between them, and it costs two small medians. Chosen
  over Pettitt's and over CUSUM: both want a variance of this patient's noise, and find that
  something changed, not that it changed by as much as the rule says.
- The Theil-Sen slope: the median of the slopes of all pairs of minutes (Theil 1950; Sen, J Am Stat
  Assoc 1968;63:1379-1389). Up to 29 % of the minutes may be wrong. It sees that the middle goes
  along: a level that changed just at the window's end is a step, and a limit's business.

The resistant line is computed first; only when it reaches the change is Theil-Sen computed at all.
Plain Python on purpose: for 15 minutes numpy is slower, and for 60 the pairs are computed at most
once a minute, of a patient who is getting worse.
"""

from collections.abc import Sequence
from statistics import median
from typing import Final, Literal

import msgspec

from cloud.detect.series import MINUTES_MAX, Series, medians
from vitals.codes import BY_NAME, decimal_scale
from vitals.errors import ConfigError

WINDOW_MIN_LEAST: Final = 5
"""Minutes: fewer have no three thirds worth a median."""
WINDOW_MIN_MOST: Final = MINUTES_MAX
SHARE_LEAST: Final = 0.5
"""Of the window's minutes, and always of its first and last third: below, it would be guessed."""
STEPS_LEAST: Final = 2
"""A change of one step of the vital's resolution is rounding, not a trend."""
TEXT_MIN: Final = 10
"""Slopes are told a ten minutes."""

Direction = Literal["falling", "rising"]

_UNITS: Final = {"mm[Hg]": "mmHg", "Cel": "°C"}
"""As people write them, where UCUM does not."""
_ROUNDING: Final = 1e-9
"""A slope of exactly the rule's change must not fail by a float's last digit."""


class Trend(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One rule."""

    vital: str
    direction: Direction
    change: float
    """In the vital's unit, over the window."""
    window_min: int
    """Minutes, WINDOW_MIN_LEAST to WINDOW_MIN_MOST."""
    priority: Literal["high", "medium", "low"]
    share: float = 0.75
    """Least share of the window's minutes that have a median."""

    @property
    def name(self) -> str:
        """Return the rule's stable name."""
        return f"{self.vital}.{self.direction}"


class Finding(msgspec.Struct, frozen=True):
    """A trend that is there."""

    slope: float
    """Theil-Sen, in the vital's unit a minute; below 0 when falling."""
    text: str
    """Such as ``falling 3 %/10 min``."""


def check(trend: Trend) -> Trend:
    """Return the rule; raise ConfigError for one that cannot work."""
    where = f"policy trend {trend.name}"
    vital = BY_NAME.get(trend.vital)
    if vital is None:
        raise ConfigError(f"{where}: no such vital; see vitals/codes.py")
    if not vital.continuous:
        raise ConfigError(f"{where}: {vital.name} is taken now and then; only a limit can watch it")
    if not WINDOW_MIN_LEAST <= trend.window_min <= WINDOW_MIN_MOST:
        raise ConfigError(
            f"{where}: window_min must be {WINDOW_MIN_LEAST} to {WINDOW_MIN_MOST} minutes"
        )
    least = STEPS_LEAST / decimal_scale(vital)
    if not least <= trend.change <= vital.high - vital.low:
        raise ConfigError(
            f"{where}: change must be {least:g} to {vital.high - vital.low:g} {vital.unit}"
        )
    if not SHARE_LEAST <= trend.share <= 1:
        raise ConfigError(f"{where}: share must be {SHARE_LEAST:g} to 1")
    return trend


def judge(series: Series, trend: Trend) -> Finding | None:
    """Return the trend of the series' last finished minutes, or None.

    Ask once a finished minute: between, the answer is the same.
    """
    return of_medians(medians(series, trend.window_min), trend)


def of_medians(values: Sequence[int | None], trend: Trend) -> Finding | None:
    """Return the trend of a window's minutes, the oldest first, in the vital's scale."""
    points = _points(values, trend)
    if points is None:
        return None
    line = resistant_slope(points, trend.window_min)
    if line is None or not _reaches(line, trend):
        return None
    slope = theil_sen(points)
    if not _reaches(slope, trend):
        return None
    vital = BY_NAME[trend.vital]
    slope /= decimal_scale(vital)
    shown = round(abs(slope) * TEXT_MIN, vital.decimals + 1)
    unit = _UNITS.get(vital.unit, vital.unit)
    return Finding(slope, f"{trend.direction} {shown:g} {unit}/{TEXT_MIN} min")


def eased(series: Series, trend: Trend) -> bool:
    """Tell whether a trend that was there is over: the ends differ by less than half the change.

    Unknown (too many gaps) is not over: silence ends nothing.
    """
    points = _points(medians(series, trend.window_min), trend)
    line = None if points is None else resistant_slope(points, trend.window_min)
    return line is not None and not _reaches(2 * line, trend)


Points = list[tuple[int, int]]
"""(minute in the window from 0, value of the vital's scale)."""


def _points(values: Sequence[int | None], trend: Trend) -> Points | None:
    window = trend.window_min
    if len(values) < window:
        return None
    points = [(at, value) for at, value in enumerate(values[-window:]) if value is not None]
    third = _third(window)
    first = sum(at < third for at, _ in points)
    last = sum(at >= window - third for at, _ in points)
    enough = len(points) >= trend.share * window and min(first, last) >= SHARE_LEAST * third
    return points if enough else None


def resistant_slope(points: Points, window: int) -> float | None:
    """Return the slope a minute through the medians of the first and last third of a window."""
    third = _third(window)
    first = [point for point in points if point[0] < third]
    last = [point for point in points if point[0] >= window - third]
    if not first or not last:
        return None
    (x0, y0), (x1, y1) = _middle(first), _middle(last)
    return (y1 - y0) / (x1 - x0)


def theil_sen(points: Points) -> float:
    """Return the median of the slopes of all pairs, a minute. At least two points."""
    return median(
        (y1 - y0) / (x1 - x0) for at, (x0, y0) in enumerate(points) for x1, y1 in points[at + 1 :]
    )


def _third(window: int) -> int:
    return (window + 1) // 3


def _middle(points: Points) -> tuple[float, float]:
    return median(x for x, _ in points), median(y for _, y in points)


def _reaches(slope: float, trend: Trend) -> bool:
    change = slope * trend.window_min / decimal_scale(BY_NAME[trend.vital])
    return (change if trend.direction == "rising" else -change) >= trend.change - _ROUNDING
