"""Limits of a vital, after delay and with hysteresis.

Law: only a reading of status OK counts. A value the device doubts (QUESTIONABLE) neither raises
nor clears, because motion makes both; TEST and CALIBRATION are no patient; MISSING and
IMPLAUSIBLE have no value. What does not count is as if it had not been sent, so that a doubt
within a delay does not restart it, and one longer than the gap does.

Conditions are told apart by rule and channel: two sensors of one kind on one device do not clear
each other. Two devices of one patient that use one channel are one condition.
"""

from collections.abc import Iterator
from math import ceil, floor
from typing import Final, NamedTuple

from cloud.detect.episode import Delays, Sample
from cloud.detect.lanes import Condition, Judged, Pair, Watches, event, judge
from cloud.policy.resolve import Effective, Limit
from cloud.records import AlertEvent
from vitals.codes import VITALS, decimal_scale
from vitals.reading import Reading

KIND: Final = "threshold"

_FRESH: Final = Pair()


class Finding(NamedTuple):
    """A step of one condition: its key, what the lanes judged, the event."""

    key: str
    judged: Judged
    event: AlertEvent


def key_of(rule: str, channel: int) -> str:
    """Return how a condition is known within its subject."""
    return f"{rule}#{channel}" if channel else rule


def step(
    watches: Watches,
    subject: str,
    reading: Reading,
    at_ms: int,
    age_ms: int,
    policy: Effective,
    *,
    overtaken: bool,
) -> Iterator[Finding]:
    """Take one OK reading with a value into ``watches``; yield what is to be told.

    ``age_ms``: how long before its arrival it was taken; ``overtaken``: a later one was judged.
    """
    value = reading.value
    assert value is not None  # noqa: S101 - the caller has looked
    for limit in policy.limits[reading.vital]:
        low = limit.direction == "low"
        breach = value < limit.limit if low else value > limit.limit
        key = key_of(limit.rule, reading.channel)
        pair = watches.get(key, _FRESH)
        if not breach and pair is _FRESH:
            continue
        back = limit.limit + limit.hysteresis if low else limit.limit - limit.hysteresis
        sample = Sample(
            at_ms,
            value,
            reading.site,
            breach,
            value >= back if low else value <= back,
            value < pair.live.worst if low else value > pair.live.worst,
        )
        after, steps = judge(
            pair,
            sample,
            Delays(limit.delay_ms, limit.clear_delay_ms, limit.gap_ms),
            worse_late=value < pair.late.worst if low else value > pair.late.worst,
            late=overtaken or age_ms > limit.late_ms,
        )
        if after.still:
            watches.pop(key, None)
        else:
            watches[key] = after
        for judged in steps:
            yield Finding(key, judged, _event(subject, reading.channel, limit, judged, policy))


def bounds(policy: Effective) -> tuple[list[int], list[int]]:
    """Return by vital the lowest and highest scaled value that breaches no limit."""
    low, high = [], []
    for vital in VITALS:
        scale = decimal_scale(vital)
        limits = policy.limits[vital.index]
        lows = [ceil(round(one.limit * scale, 6)) for one in limits if one.direction == "low"]
        highs = [floor(round(one.limit * scale, 6)) for one in limits if one.direction == "high"]
        low.append(max(lows, default=-(2**31)))
        high.append(min(highs, default=2**31 - 1))
    return low, high


def _event(
    subject: str, channel: int, limit: Limit, judged: Judged, policy: Effective
) -> AlertEvent:
    vital = VITALS[limit.vital]
    sign = "<" if limit.direction == "low" else ">"
    text = f"{vital.short} {judged.watch.worst:.{vital.decimals}f}{sign}{limit.limit:g}"
    condition = Condition(
        subject,
        KIND,
        limit.rule,
        vital.name,
        channel,
        limit.priority,
        limit.limit,
        policy.version,
    )
    return event(condition, judged, text)
