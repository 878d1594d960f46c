"""Trends of one subject as conditions: judged once a finished minute, in event time."""

from collections.abc import Iterator
from typing import Final

from cloud.detect import trend
from cloud.detect.episode import Delays, Sample
from cloud.detect.lanes import Condition, Pair, Watches, event, judge
from cloud.detect.series import Series, advance, finished, hold
from cloud.detect.threshold import Finding
from cloud.detect.trend import Trend
from cloud.policy.resolve import Effective
from vitals.codes import VITALS
from vitals.reading import Reading

KIND: Final = "trend"
MINUTE_MS: Final = 60_000

AllSeries = dict[int, Series]
"""Vital -> series; only of vitals that a trend of the policy looks at."""

_DELAYS: Final = Delays(0, 0, 2**62)
"""A trend has its own way of not being fooled; a minute without one ends nothing."""
_FRESH: Final = Pair()


def trends_of(policy: Effective) -> tuple[tuple[Trend, ...], ...]:
    """Return a policy's trends by the vital's index, as they are judged."""
    return tuple(
        tuple(
            Trend(
                VITALS[slope.vital].name,
                slope.direction,
                slope.change,
                slope.window_ms // MINUTE_MS,
                slope.priority,
            )
            for slope in slopes
        )
        for slopes in policy.trends
    )


def step(
    watches: Watches,
    series: AllSeries,
    subject: str,
    reading: Reading,
    scaled: int,
    at_ms: int,
    trends: tuple[Trend, ...],
    version: str,
) -> Iterator[Finding]:
    """Take a live reading into its vital's series; yield what is to be told of trends."""
    vital = VITALS[reading.vital]
    before = series.get(reading.vital, Series())
    after = advance(before, at_ms, scaled, max(one.window_min for one in trends))
    if after is before:
        return
    series[reading.vital] = after
    if finished(after) == finished(before):
        return
    for one in trends:
        found = trend.judge(after, one)
        pair = watches.get(one.name, _FRESH)
        if found is None and pair is _FRESH:
            continue
        slope = found.slope if found else 0.0
        steeper = abs(slope) > abs(pair.live.worst)
        recovered = found is None and trend.eased(after, one)
        sample = Sample(at_ms, slope, reading.site, found is not None, recovered, steeper)
        now, steps = judge(pair, sample, _DELAYS, worse_late=False, late=False)
        if now.still:
            watches.pop(one.name, None)
        else:
            watches[one.name] = now
        text = (
            f"{vital.short} {found.text}" if found else f"{vital.short} no longer {one.direction}"
        )
        for judged in steps:
            condition = Condition(
                subject, KIND, one.name, vital.name, 0, one.priority, one.change, version
            )
            yield Finding(one.name, judged, event(condition, judged, text))


def held(series: AllSeries, vital: int) -> int:
    """Return before what time a vital's readings change its series."""
    found = series.get(vital)
    return 0 if found is None else hold(found)
