"""All detectors of a subject, one pure function: (state, readings) -> (state, alert events).

Law: readings are judged one by one in the order of arrival, so that cutting them into batches
anywhere gives the same events. The state given is never changed.
"""

from collections.abc import Iterable
from typing import NamedTuple

from cloud.detect import signal, threshold
from cloud.detect.episode import cut
from cloud.detect.lanes import Condition, Judged, Pair, State, event
from cloud.detect.policy import Policy
from cloud.records import AlertEvent
from vitals.codes import VITALS
from vitals.reading import Reading


class Ready(NamedTuple):
    """A policy made ready for `advance`."""

    limits: threshold.Limits
    loss: signal.Loss
    names: frozenset[str]
    """Names of every condition the policy knows."""
    version: str


def ready(policy: Policy) -> Ready:
    """Return a checked policy made ready."""
    names = {rule.name for rule in policy.rules}
    if policy.signal_loss.enabled:
        names |= {vital.name + signal.SUFFIX for vital in VITALS if vital.continuous}
    return Ready(
        threshold.limits_of(policy), signal.loss_of(policy), frozenset(names), policy.version
    )


def advance(
    state: State, subject: str, rows: Iterable[Reading], ingested_ms: int, policy: Ready
) -> tuple[State, list[AlertEvent]]:
    """Return a subject's state and the events after readings that arrived at ``ingested_ms``."""
    new = dict(state)
    told: list[AlertEvent] = []
    if not new.keys() <= policy.names:
        told += _forget(new, subject, policy)
    for reading in rows:
        told += threshold.step(new, subject, reading, ingested_ms, policy.limits)
        told += signal.step(new, subject, reading, ingested_ms, policy.loss)
    return new, told


def _forget(state: State, subject: str, policy: Ready) -> list[AlertEvent]:
    """Drop conditions whose rule the policy no longer has; their episodes end."""
    told = []
    for key in list(state):
        name, _, channel = key.partition("#")
        if name in policy.names:
            continue
        pair: Pair = state.pop(key)
        vital, _, rule = name.partition(".")
        kind = signal.KIND if f".{rule}" == signal.SUFFIX else threshold.KIND
        for watch, retrospective in ((pair.live, False), (pair.late, True)):
            if watch.active:
                condition = Condition(
                    subject, kind, name, vital, int(channel or "0"), "low", 0.0, policy.version
                )
                judged = Judged(cut(watch), retrospective)
                told.append(event(condition, judged, f"{name}: no longer watched"))
    return told
