"""Signal loss: a vital that was there is not any more, while its device goes on.

Two ways to know: the monitor says that it has no value (MISSING), or it no longer sends this
signal at all although it sends others (STALE, by the clock).

Law: a technical alert, never more than the policy's priority (low unless set). A vital that never
gave a value is a sensor nobody attached, and stays silent; a device that sends nothing is
`silence`'s business. TEST, CALIBRATION and IMPLAUSIBLE neither raise nor clear.
"""

from collections.abc import Iterator
from typing import Final

from cloud.detect.episode import Delays, Sample
from cloud.detect.lanes import Condition, Pair, Watches, event, judge
from cloud.detect.threshold import Finding, key_of
from cloud.policy.resolve import Effective
from vitals.codes import VITALS, Status, Vital
from vitals.reading import Reading

KIND: Final = "signal_loss"
SUFFIX: Final = ".signal"

PRESENT: Final = frozenset({int(Status.OK), int(Status.QUESTIONABLE), int(Status.ALARM_INHIBITED)})
_MISSING: Final = int(Status.MISSING)
_FRESH: Final = Pair()


def rule_of(vital: Vital) -> str:
    """Return the name of a vital's signal loss."""
    return vital.name + SUFFIX


def step(
    watches: Watches,
    subject: str,
    reading: Reading,
    at_ms: int,
    age_ms: int,
    policy: Effective,
    *,
    overtaken: bool,
    known: bool,
) -> Iterator[Finding]:
    """Take one reading into ``watches``; yield what is to be told.

    ``known``: this vital had a value before.
    """
    vital, loss = VITALS[reading.vital], policy.losses
    missing = reading.status == _MISSING
    if not loss.enabled or not vital.continuous:
        return
    if not missing and (reading.value is None or reading.status not in PRESENT):
        return
    key = key_of(rule_of(vital), reading.channel)
    pair = watches.get(key, _FRESH)
    if pair is _FRESH and not (missing and known):
        return
    sample = Sample(at_ms, 0.0, reading.site, missing, not missing, worse=False)
    after, steps = judge(
        pair,
        sample,
        Delays(loss.delay_ms, loss.clear_delay_ms, loss.gap_ms),
        worse_late=False,
        late=overtaken or age_ms > loss.late_ms,
    )
    if after.still:
        watches.pop(key, None)
    else:
        watches[key] = after
    for judged in steps:
        condition = Condition(
            subject,
            KIND,
            rule_of(vital),
            vital.name,
            reading.channel,
            loss.priority,
            0.0,
            policy.version,
        )
        yield Finding(key, judged, event(condition, judged, f"{vital.short} no signal"))
