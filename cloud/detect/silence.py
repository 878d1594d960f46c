"""Silence: a device that says nothing, a gateway that is gone. By the clock, never by a reading.

Law: who is silent because of somebody else is not told. A gateway without presence is one alert,
for the gateway; while it is away none of its devices is, and after it came back each has its time
to be heard again. A gateway nobody ever spoke of (an ingest that sends no presence) is present.
While detect itself stood still it heard nobody: what it then reads first is the clock, so everybody
has their time to be heard again after a pause, too (`PAUSE_MS`).

======== ================================== ===================================================
gateway  given                              next
======== ================================== ===================================================
present  presence, connected                present
present  nothing for `gateway_ms`, or       away: its alert is raised
         disconnected for as long
away     presence, connected                present since now: its alert returns
======== ================================== ===================================================
"""

import hashlib
from typing import Final

import msgspec

from cloud.detect.signal import KIND as SIGNAL_LOSS
from cloud.detect.signal import rule_of
from cloud.policy.resolve import Effective
from cloud.records import GATEWAY, AlertEvent
from vitals.codes import Vital

KIND: Final = "silence"
RULE: Final = "device.silence"
GATEWAY_RULE: Final = "gateway.silence"

EPISODE_HEX: Final = 32

PAUSE_MS: Final = 10_000
"""The clock is looked at each second; not for so long, and detect or Kafka was away. Less than any
silence that a policy may ask for (cloud/policy/bounds.py, SILENT_S_MIN)."""


class Origin(msgspec.Struct, array_like=True, gc=False):
    """A device of a subject. Fields are only added at the end."""

    device: str
    """Pseudonym."""
    edge: str
    heard_ms: int
    """When its last reading arrived at the cloud."""
    silent: bool = False
    away: bool = False
    """Its gateway was gone when the clock last looked."""


class Gateway(msgspec.Struct, array_like=True):
    """What a partition knows of a gateway. Fields are only added at the end."""

    heard_ms: int
    """Its last presence while connected."""
    since_ms: int
    """When it came (back)."""
    away: bool = False


def episode_of(subject: str, rule: str, began_ms: int) -> str:
    """Return the id of an episode that no reading began."""
    named = f"episode/1/{subject}/{rule}/{began_ms}"
    return hashlib.sha256(named.encode()).hexdigest()[:EPISODE_HEX]


def device_key(device: str) -> str:
    """Return how a device's silence is known within its subject."""
    return f"{RULE}@{device[:8]}"


def clock_event(
    subject: str, kind: str, rule: str, text: str, began_ms: int, now_ms: int, policy: Effective
) -> AlertEvent:
    """Return the event of what the clock found: no value, no limit, no reading it rests on."""
    return AlertEvent(
        episode=episode_of(subject, rule, began_ms),
        subject=subject,
        kind=kind,
        vital="",
        priority=policy.silence.priority,
        state="active",
        text=text,
        limit=0.0,
        worst=0.0,
        began_ms=began_ms,
        raised_ms=now_ms,
        at_ms=now_ms,
        policy=policy.version,
        rule=rule,
    )


def device_event(subject: str, origin: Origin, now_ms: int, policy: Effective) -> AlertEvent:
    """Return the event of a device that is silent."""
    rule = device_key(origin.device)
    return clock_event(subject, KIND, rule, "monitor says nothing", origin.heard_ms, now_ms, policy)


def gateway_event(edge: str, gateway: Gateway, now_ms: int, policy: Effective) -> AlertEvent:
    """Return the event of a gateway that is away; its name is the subject."""
    text = "gateway not connected: its beds are not live"
    return clock_event(edge, GATEWAY, GATEWAY_RULE, text, gateway.heard_ms, now_ms, policy)


def signal_event(
    subject: str, vital: Vital, last_ms: int, now_ms: int, policy: Effective
) -> AlertEvent:
    """Return the event of a signal last heard at ``last_ms``, missed while its device goes on."""
    text = f"{vital.short} no longer sent"
    event = clock_event(subject, SIGNAL_LOSS, rule_of(vital), text, last_ms, now_ms, policy)
    return msgspec.structs.replace(event, vital=vital.name, priority=policy.losses.priority)
