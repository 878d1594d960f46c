"""Signal loss: a monitor that says it has no value of a vital it had one of before.

Law: a technical alert, never more than the policy's priority (low unless set). A vital that never
gave a value is a sensor nobody attached, and stays silent; so does a monitor that stops sending:
that is the link's business. TEST, CALIBRATION and IMPLAUSIBLE neither raise nor clear.
"""

from typing import Final

import msgspec

from cloud.detect.episode import Delays, Sample
from cloud.detect.lanes import Condition, Pair, State, clamp_ms, event, judge
from cloud.detect.policy import Policy
from cloud.records import AlertEvent
from vitals.codes import VITALS, Status
from vitals.reading import Reading

KIND: Final = "signal_loss"
SUFFIX: Final = ".signal"

_PRESENT: Final = frozenset({int(Status.OK), int(Status.QUESTIONABLE), int(Status.ALARM_INHIBITED)})
_MISSING: Final = int(Status.MISSING)
_FRESH: Final = Pair()


class Loss(msgspec.Struct, frozen=True):
    """The policy made ready."""

    enabled: bool
    delays: Delays
    late_ms: int
    priority: str
    policy: str


def loss_of(policy: Policy) -> Loss:
    """Return the policy's signal loss in milliseconds."""
    of = policy.signal_loss
    delays = Delays(
        round(of.delay_s * 1000), round(of.clear_delay_s * 1000), round(policy.gap_s * 1000)
    )
    return Loss(of.enabled, delays, round(of.late_s * 1000), of.priority, policy.version)


def step(
    state: State, subject: str, reading: Reading, ingested_ms: int, loss: Loss
) -> list[AlertEvent]:
    """Take one reading into ``state`` (which the caller owns); return what is to be told."""
    vital = VITALS[reading.vital]
    if not loss.enabled or not vital.continuous:
        return []
    missing = reading.status == _MISSING
    if not missing and (reading.value is None or reading.status not in _PRESENT):
        return []
    name = vital.name + SUFFIX
    key = f"{name}#{reading.channel}" if reading.channel else name
    if missing and key not in state:
        return []
    at = clamp_ms(reading.time_ms, ingested_ms)
    sample = Sample(at, 0.0, reading.site, missing, not missing, worse=False)
    late = ingested_ms - at > loss.late_ms
    pair = state.get(key, _FRESH)
    state[key], steps = judge(pair, sample, loss.delays, worse_late=False, late=late)
    if not steps:
        return []
    condition = Condition(
        subject, KIND, name, vital.name, reading.channel, loss.priority, 0.0, loss.policy
    )
    return [event(condition, judged, f"{vital.short} no signal") for judged in steps]
