"""What the clock does to one subject: silence, signals missed, waits of its alerts.

Law: time comes from the caller; a clock that was set back makes nobody wait for the old one.
"""

from collections.abc import Sequence
from typing import Final

from cloud.detect import signal as signals
from cloud.detect.alerts import give, tick
from cloud.detect.lifecycle import SKEW_MS, Clear, Raised
from cloud.detect.silence import device_event, device_key, signal_event
from cloud.detect.subject import CONTINUOUS, LOOK_MS, NOTHING, SYSTEM, Subject
from cloud.records import AlertEvent
from vitals.codes import VITALS

FORGOTTEN: Final = "forgotten"
"""Why: nothing came for so long that nobody is watched there any more."""


def act(subject: Subject, now_ms: int, away: frozenset[str]) -> list[AlertEvent]:
    """Let the clock act; ``away``: gateways that are gone, whose devices are not silent."""
    life = subject.rules.life
    out = tick(subject.episodes, now_ms, life)
    silence = subject.rules.effective.silence
    for origin in list(subject.origins):
        if origin.heard_ms > now_ms + SKEW_MS:
            origin.heard_ms = now_ms  # the clock was set back: count from now
        gone_ms = now_ms - origin.heard_ms
        key = device_key(origin.device)
        origin.away = origin.edge in away
        if not silence.enabled or origin.away:
            continue
        if gone_ms > silence.forget_ms:
            subject.origins.remove(origin)
            out += give(subject.episodes, key, Clear(SYSTEM, FORGOTTEN, now_ms), life)
        elif gone_ms > silence.after_ms and not origin.silent and _had_signals(subject):
            origin.silent = True
            event = device_event(subject.name, origin, now_ms, subject.rules.effective)
            given = Raised(event.episode, event.began_ms, event.at_ms)
            out += give(subject.episodes, key, given, life, event)
    if now_ms - subject.looked_ms >= LOOK_MS:
        subject.looked_ms = now_ms
        out += _stale(subject, now_ms)
    if subject.own:
        kept = {rule: held for rule, held in subject.own.items() if not 0 < held[1] <= now_ms}
        subject.own = kept
    subject.schedule(now_ms)
    return out


def _had_signals(subject: Subject) -> bool:
    return any(subject.last[vital] for vital in CONTINUOUS)


def _stale(subject: Subject, now_ms: int) -> list[AlertEvent]:
    """Raise signals that are no longer sent by devices that go on."""
    rules = subject.rules
    loss = rules.effective.losses
    newest = max((subject.last[vital] for vital in CONTINUOUS), default=0)
    if not loss.enabled or now_ms - newest > loss.stale_ms:
        return []  # nothing comes at all: silence, or the link
    out: list[AlertEvent] = []
    for vital in CONTINUOUS:
        last_ms = subject.last[vital]
        rule = signals.rule_of(VITALS[vital])
        if not last_ms or newest - last_ms <= loss.stale_ms or rule in subject.watches:
            continue
        if newest - last_ms > rules.effective.silence.forget_ms:
            subject.last[vital] = 0
            subject.stale &= ~(1 << vital)
            out += give(subject.episodes, rule, Clear(SYSTEM, FORGOTTEN, now_ms), rules.life)
        elif not subject.stale >> vital & 1:
            subject.stale |= 1 << vital
            subject.low[vital], subject.high[vital] = NOTHING, -NOTHING
            event = signal_event(subject.name, VITALS[vital], last_ms, now_ms, rules.effective)
            given = Raised(event.episode, event.began_ms, event.at_ms)
            out += give(subject.episodes, rule, given, rules.life, event)
    return out


def back(subject: Subject, edges: Sequence[str], now_ms: int) -> bool:
    """Give devices of gateways that came back their time; return whether there is one."""
    found = False
    for origin in subject.origins:
        if origin.edge in edges:
            origin.heard_ms = max(origin.heard_ms, now_ms)
            origin.away = False
            found = True
    if found:
        subject.schedule()
    return found
