"""Alarms that a device raised itself (IHE PCD-04), taken into the same life cycle.

Law: the device judges, we tell: no limit of ours is asked, and its end is its own word. TEST and
CALIBRATION never ring. One that arrives late tells of the past. An acknowledgement at the device
is one here; ours does not reach the device.
"""

from typing import Final

from cloud.detect.silence import episode_of
from cloud.fhir.ids import observation_id
from cloud.policy.resolve import Effective
from cloud.records import AlertEvent
from vitals.codes import VITALS, Status
from vitals.reading import DeviceAlert

KIND: Final = "device"
LATE_MS: Final = 60_000
"""Older than this at its arrival it rings nothing."""

PRIORITIES: Final = frozenset({"high", "medium", "low"})
NO_PATIENT: Final = frozenset({int(Status.TEST), int(Status.CALIBRATION)})


def key_of(alert: DeviceAlert, device: str) -> str:
    """Return how a device's alarm is known within its subject."""
    return f"{KIND}.{alert.id or alert.name}@{device[:8]}"


def is_over(alert: DeviceAlert) -> bool:
    """Tell whether the device says that its alarm has ended."""
    return alert.phase == "end" or alert.state in {"off", "inactive"}


def event(
    subject: str, alert: DeviceAlert, device: str, ingested_ms: int, policy: Effective
) -> AlertEvent | None:
    """Return what a device's alarm is as an event; None for one that is no patient's."""
    if alert.status in NO_PATIENT:
        return None
    rule = key_of(alert, device)
    vital = None if alert.vital is None else VITALS[alert.vital]
    limit = 0.0
    text = alert.name or "alarm"
    if vital is not None and alert.value is not None:
        below = alert.low is not None and alert.value < alert.low
        bound = alert.low if below else alert.high
        text = f"{vital.short} {alert.value:.{vital.decimals}f}"
        if bound is not None:
            limit = bound
            text += f"{'<' if below else '>'}{bound:g}"
    evidence = []
    if vital is not None:
        evidence.append(observation_id(subject, vital.name, alert.time_ms))
    return AlertEvent(
        episode=episode_of(subject, rule, alert.time_ms),
        subject=subject,
        kind=KIND,
        vital=vital.name if vital else "",
        priority=alert.priority if alert.priority in PRIORITIES else "low",
        state="ended" if is_over(alert) else "active",
        text=f"monitor: {text}",
        limit=limit,
        worst=alert.value or 0.0,
        began_ms=alert.time_ms,
        raised_ms=alert.time_ms,
        at_ms=alert.time_ms,
        policy=policy.version,
        ended_ms=alert.time_ms if is_over(alert) else None,
        retrospective=ingested_ms - alert.time_ms > LATE_MS,
        evidence=evidence,
        rule=rule,
    )
