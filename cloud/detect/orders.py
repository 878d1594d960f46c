"""What people and policies ask of one subject: commands, and rules that no longer hold.

Law: each command counts once, whatever it asks; what means nothing here changes and tells nothing.
"""

from typing import Final

import msgspec

from cloud.detect import signal as signals
from cloud.detect.alerts import answer, give
from cloud.detect.lanes import Pair
from cloud.detect.lifecycle import Clear
from cloud.detect.silence import device_key
from cloud.detect.subject import COMMANDS_KEPT, LIMIT, SYSTEM, Subject
from cloud.policy.resolve import refusal
from cloud.records import AlertEvent, Command
from vitals.codes import VITALS

POLICY: Final = "policy"
"""Why: the policy no longer has the rule."""


def carry_out(subject: Subject, command: Command, now_ms: int) -> list[AlertEvent]:
    """Carry out a command once; what means nothing here changes and tells nothing."""
    if command.id in subject.commands:
        return []
    subject.commands = (*subject.commands[1 - COMMANDS_KEPT :], command.id)
    if command.kind == "limit":
        told = _limit(subject, command, now_ms)
        subject.schedule()
        return told
    key, out = answer(subject.episodes, command, now_ms, subject.rules.life)
    if not key:
        return []
    if command.kind == "clear" and out:
        _restart(subject, key)
    out += subject.explain(key, now_ms)
    subject.schedule()
    subject.ask()
    return out


def _restart(subject: Subject, key: str) -> None:
    """Forget what a cleared condition was, so that it is raised anew when it is still true."""
    pair = subject.watches.pop(key, None)
    if pair is not None and not Pair(late=pair.late).still:
        subject.watches[key] = Pair(late=pair.late)
    for origin in subject.origins:
        if device_key(origin.device) == key:
            origin.silent = False
    for vital in VITALS:
        if key == signals.rule_of(vital):
            subject.stale &= ~(1 << vital.index)


def _limit(subject: Subject, command: Command, now_ms: int) -> list[AlertEvent]:
    effective = subject.rules.effective
    if command.limit is None:
        if command.rule not in subject.own:
            return []
        subject.own = {rule: held for rule, held in subject.own.items() if rule != command.rule}
        why = command.why
    else:
        refused = refusal(effective, command.rule, command.limit)
        if refused is None:
            held = (command.limit, command.until_ms or 0)
            subject.own = {**subject.own, command.rule: held}
        why = f"refused: {refused}" if refused else command.why
    return [_limit_event(subject.name, command, now_ms, effective.version, why)]


def renounce(subject: Subject, now_ms: int) -> list[AlertEvent]:
    """End the episodes of rules that no longer hold; what they explained rings by itself."""
    effective = subject.rules.effective
    known = {limit.rule for limits in effective.limits for limit in limits}
    known |= {level.rule for level in subject.rules.levels}
    known |= {slope.rule for slopes in effective.trends for slope in slopes}
    known |= {signals.rule_of(vital) for vital in VITALS if effective.losses.enabled}
    out: list[AlertEvent] = []
    for key in dict.fromkeys([*subject.watches, *subject.episodes]):
        rule = key.partition("#")[0]
        if rule in known or "@" in rule:
            continue
        subject.watches.pop(key, None)
        if key in subject.episodes:
            told = subject.episodes[key].told
            event = msgspec.structs.replace(told, policy=effective.version)
            given = Clear(SYSTEM, POLICY, now_ms)
            out += give(subject.episodes, key, given, subject.rules.life, event)
        out += subject.explain(key, now_ms)
    subject.schedule()
    return out


def _limit_event(subject: str, command: Command, now_ms: int, version: str, why: str) -> AlertEvent:
    """Return what tells that a limit was changed, or why not: an episode of one step."""
    return AlertEvent(
        episode=command.id,
        subject=subject,
        kind=LIMIT,
        vital=command.rule.partition(".")[0],
        priority="low",
        state="ended",
        text=f"{command.rule} "
        + ("as the policy says" if command.limit is None else f"{command.limit:g}"),
        limit=command.limit or 0.0,
        worst=0.0,
        began_ms=now_ms,
        raised_ms=now_ms,
        at_ms=now_ms,
        policy=version,
        ended_ms=now_ms,
        rule=command.rule,
        step="limit",
        number=1,
        who=command.who,
        why=why,
    )
