"""Episodes of one subject: what the life cycle decides becomes events, each told once.

Law: an event repeats everything of its episode, so that the newest step stands for itself; what
the detectors said last (worst value, evidence) stays until they say more.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from cloud.detect.lifecycle import (
    NEVER,
    Acknowledge,
    Clear,
    Given,
    Life,
    Raised,
    Returned,
    Shelve,
    Step,
    Tick,
    Unshelve,
    Worsened,
    advance,
    due_ms,
)
from cloud.policy.manners import Manners
from cloud.records import AlertEvent, Command

_NONE: Final = Life()


class Episode(msgspec.Struct, frozen=True, array_like=True):
    """One condition's life and the event that was told last."""

    life: Life
    told: AlertEvent


Episodes = dict[str, Episode]
"""Condition key -> episode; a condition about which nothing is remembered has none."""


def give(
    episodes: Episodes,
    key: str,
    given: Given,
    life: Mapping[str, Manners],
    event: AlertEvent | None = None,
) -> list[AlertEvent]:
    """Give an input to one condition's life in ``episodes``; return the events of its steps.

    ``event`` is what the detector says now; None: as it was told last. An input to a condition
    that nothing is remembered of, without an event, changes nothing.
    """
    held = episodes.get(key)
    said = event if event is not None else held.told if held else None
    if said is None:
        return []
    after, steps = advance(held.life if held else _NONE, given, life[said.priority])
    out = []
    for step in steps:
        said = _stepped(said, step)
        out.append(said)
    if after == _NONE:
        episodes.pop(key, None)
    else:
        episodes[key] = Episode(after, said)
    return out


def tick(episodes: Episodes, now_ms: int, life: Mapping[str, Manners]) -> list[AlertEvent]:
    """Let the clock act on every episode; return the events."""
    return [event for key in list(episodes) for event in give(episodes, key, Tick(now_ms), life)]


def due(episodes: Episodes, life: Mapping[str, Manners]) -> int:
    """Return when `tick` would next do something."""
    return min(
        (due_ms(held.life, life[held.told.priority]) for held in episodes.values()),
        default=NEVER,
    )


def answer(
    episodes: Episodes, command: Command, now_ms: int, life: Mapping[str, Manners]
) -> tuple[str, list[AlertEvent]]:
    """Carry out a user's word on one episode; return its condition's key, or "", and the events."""
    of = command.episode
    key = next((key for key, held in episodes.items() if held.life.episode == of), "")
    if not key:
        return "", []
    who, why = command.who, command.why
    given: Given
    match command.kind:
        case "acknowledge":
            given = Acknowledge(who, why, now_ms, of)
        case "shelve":
            given = Shelve(who, why, command.until_ms or 0, now_ms, of)
        case "unshelve":
            given = Unshelve(who, why, now_ms, of)
        case "clear":
            given = Clear(who, why, now_ms, of)
        case _:
            return "", []
    return key, give(episodes, key, given, life)


def of_watch(event: AlertEvent, *, raised: bool) -> Given:
    """Return what a detector's event is to the life of its condition."""
    if event.ended_ms is not None:
        return Returned(event.at_ms, event.ended_ms)
    if raised:
        return Raised(event.episode, event.began_ms, event.at_ms)
    return Worsened(event.at_ms)


def _stepped(event: AlertEvent, step: Step) -> AlertEvent:
    life = step.life
    ended_ms = None
    if life.state not in {"active", "latched"}:
        ended_ms = event.ended_ms if event.ended_ms is not None else step.at_ms
    return msgspec.structs.replace(
        event,
        episode=life.episode or event.episode,
        began_ms=life.began_ms or event.began_ms,
        state=life.state or "ended",
        at_ms=step.at_ms,
        ended_ms=ended_ms,
        step=step.name,
        number=life.number,
        who=step.who,
        why=step.why,
        acknowledged_ms=life.acknowledged_ms or None,
        acknowledged_by=life.acknowledged_by,
        shelved_until_ms=life.shelved_until_ms or None,
        suppressed_by=life.suppressed_by,
        level=life.level,
        standing=life.standing,
    )
