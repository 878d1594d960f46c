"""Limits of a vital, after delay and with hysteresis.

Law: only a reading of status OK counts. A value the device doubts (QUESTIONABLE) neither raises
nor clears, because motion makes both; TEST and CALIBRATION are no patient; MISSING and
IMPLAUSIBLE have no value. What does not count is as if it had not been sent, so that a doubt
within a delay does not restart it, and one longer than the gap does.

Conditions are told apart by rule and channel: two sensors of one kind on one device do not clear
each other. Two devices of one patient that use one channel are one condition.
"""

from typing import Final

import msgspec

from cloud.detect.episode import Delays, Sample
from cloud.detect.lanes import Condition, Judged, Pair, State, clamp_ms, event, judge
from cloud.detect.policy import Policy, Rule
from cloud.records import AlertEvent
from vitals.codes import BY_NAME, VITALS, Status
from vitals.reading import Reading

KIND: Final = "threshold"

_OK: Final = int(Status.OK)
_FRESH: Final = Pair()


class Limit(msgspec.Struct, frozen=True):
    """A rule made ready: names and milliseconds."""

    rule: Rule
    name: str
    delays: Delays
    late_ms: int
    policy: str


Limits = tuple[tuple[Limit, ...], ...]
"""By index of the code table."""


def limits_of(policy: Policy) -> Limits:
    """Return a policy's rules by the vital they watch."""
    by_vital: list[list[Limit]] = [[] for _ in VITALS]
    for rule in policy.rules:
        delays = Delays(
            round(rule.delay_s * 1000), round(rule.clear_delay_s * 1000), round(policy.gap_s * 1000)
        )
        late_ms = round(rule.late_s * 1000)
        ready = Limit(rule, rule.name, delays, late_ms, policy.version)
        by_vital[BY_NAME[rule.vital].index].append(ready)
    return tuple(tuple(ready) for ready in by_vital)


def step(
    state: State, subject: str, reading: Reading, ingested_ms: int, limits: Limits
) -> list[AlertEvent]:
    """Take one reading into ``state`` (which the caller owns); return what is to be told."""
    value = reading.value
    watching = limits[reading.vital]
    if not watching or value is None or reading.status != _OK:
        return []
    told: list[AlertEvent] = []
    at = clamp_ms(reading.time_ms, ingested_ms)
    for limit in watching:
        rule = limit.rule
        key = f"{limit.name}#{reading.channel}" if reading.channel else limit.name
        pair = state.get(key, _FRESH)
        sample = Sample(
            at,
            value,
            reading.site,
            rule.breach(value),
            rule.recovered(value),
            rule.worse(value, pair.live.worst),
        )
        state[key], steps = judge(
            pair,
            sample,
            limit.delays,
            worse_late=rule.worse(value, pair.late.worst),
            late=ingested_ms - at > limit.late_ms,
        )
        if steps:
            told += [_event(subject, reading.channel, limit, judged) for judged in steps]
    return told


def _event(subject: str, channel: int, limit: Limit, judged: Judged) -> AlertEvent:
    rule, vital = limit.rule, BY_NAME[limit.rule.vital]
    sign = "<" if rule.direction == "low" else ">"
    text = f"{vital.short} {judged.watch.worst:.{vital.decimals}f}{sign}{rule.limit:g}"
    condition = Condition(
        subject, KIND, rule.name, rule.vital, channel, rule.priority, rule.limit, limit.policy
    )
    return event(condition, judged, text)
