"""Events of one subject into alarms, alarms into episodes, and two policies' episodes compared.

Law: pure; swapping the two policies swaps lost and gained, earlier and later, and nothing else.

An **alarm** is a sound that begins: ``raised`` or ``raised-again``, or ``released`` for what a more
urgent alert of the same vital explained until then. It lasts until its condition is told to have
ended. A flapping alert rings once and stands.

An **episode** is what a patient went through as the alarms of one policy show it: the times of
one vital and direction (of one score, one device's silence) during which any of them was true,
from its first sample on. Episodes of the two policies belong together when they overlap, directly
or through a third; what overlaps nothing is lost or gained.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from cloud.detect.subject import PRIORITIES, family_of
from cloud.detect.threshold import key_of
from cloud.whatif.replay import Told

RAISES: Final = frozenset({"raised", "raised-again"})
ENDS: Final = frozenset({"latched", "ended", "cleared"})


class Alarm(NamedTuple):
    """One alarm of one policy; times in milliseconds."""

    family: str
    """Vital and direction, score, or device."""
    kind: str
    rule: str
    priority: str
    began_ms: int
    """First sample of its condition."""
    rings_ms: int
    """When it began to sound."""
    until_ms: int
    """When its condition was told to have ended, or the end of the data."""


class Alarms(NamedTuple):
    """What one policy told of one subject."""

    alarms: list[Alarm]
    flapping: int
    """Times that an alert became a standing one."""
    explained: int
    """Conditions that never rang, because a more urgent one of their family did."""
    retrospective: int
    """Episodes of late data, which ring nothing."""


class _Open:
    """An alarm whose condition is still true."""

    def __init__(self, told: Told) -> None:
        self.event, self.began_ms = told
        self.rings_ms = None if self.event.suppressed_by else self.event.at_ms


class Episode(NamedTuple):
    """See the module."""

    family: str
    began_ms: int
    rings_ms: int
    """The first alarm of it."""
    until_ms: int
    priority: str
    """The most urgent that rang."""


class Change(NamedTuple):
    """An episode under both policies. None: that policy has none."""

    family: str
    baseline: Episode | None
    new: Episode | None

    @property
    def lead_ms(self) -> int | None:
        """Return by how much the new policy rings earlier; below 0: later."""
        if self.baseline is None or self.new is None:
            return None
        return self.baseline.rings_ms - self.new.rings_ms


def alarms_of(told: Iterable[Told], end_ms: int) -> Alarms:
    """Return the alarms of one subject's events, in the order in which they sounded."""
    open_: dict[str, _Open] = {}
    alarms: list[Alarm] = []
    flapping = explained = 0
    retrospective: set[str] = set()

    def close(key: str, at_ms: int) -> int:
        one = open_.pop(key)
        event = one.event
        if one.rings_ms is None:
            return 1
        family = _family(key)
        rule = event.rule.partition("@")[0]
        alarms.append(
            Alarm(
                family,
                event.kind,
                rule,
                event.priority,
                min(one.began_ms, one.rings_ms),
                one.rings_ms,
                max(at_ms, one.rings_ms),
            )
        )
        return 0

    for one in told:
        event = one.event
        if event.retrospective:
            retrospective.add(event.episode)
            continue
        key = key_of(event.rule, event.channel)
        if event.step in RAISES:
            if key in open_:
                explained += close(key, event.at_ms)
            open_[key] = _Open(one)
        elif event.step == "flapping":
            flapping += 1
        elif event.step == "released" and key in open_ and open_[key].rings_ms is None:
            open_[key].rings_ms = event.at_ms
        elif event.step in ENDS and key in open_:
            explained += close(key, event.at_ms)
    for key in list(open_):
        explained += close(key, end_ms)
    alarms.sort(key=lambda alarm: (alarm.rings_ms, alarm.family, alarm.rule))
    return Alarms(alarms, flapping, explained, len(retrospective))


def _family(key: str) -> str:
    return family_of(key).removesuffix("#")


def episodes_of(alarms: Iterable[Alarm]) -> list[Episode]:
    """Return the episodes, by family and time."""
    by_family: dict[str, list[Alarm]] = defaultdict(list)
    for alarm in alarms:
        by_family[alarm.family].append(alarm)
    out: list[Episode] = []
    for family in sorted(by_family):
        held: Episode | None = None
        for alarm in sorted(by_family[family], key=lambda one: one.began_ms):
            if held is not None and alarm.began_ms <= held.until_ms:
                held = Episode(
                    family,
                    held.began_ms,
                    min(held.rings_ms, alarm.rings_ms),
                    max(held.until_ms, alarm.until_ms),
                    min(held.priority, alarm.priority, key=PRIORITIES.__getitem__),
                )
                continue
            if held is not None:
                out.append(held)
            held = Episode(family, alarm.began_ms, alarm.rings_ms, alarm.until_ms, alarm.priority)
        if held is not None:
            out.append(held)
    return out


def matched(baseline: Sequence[Episode], new: Sequence[Episode]) -> list[Change]:
    """Return what became of each episode, by family and time."""
    sided = [(episode, 0) for episode in baseline] + [(episode, 1) for episode in new]
    sided.sort(key=lambda one: (one[0].family, one[0].began_ms, one[1]))
    out: list[Change] = []
    group: list[tuple[Episode, int]] = []
    until_ms = 0
    for episode, side in sided:
        if group and (group[0][0].family != episode.family or episode.began_ms > until_ms):
            out.append(_change(group))
            group = []
        until_ms = max(until_ms, episode.until_ms) if group else episode.until_ms
        group.append((episode, side))
    if group:
        out.append(_change(group))
    return out


def _change(group: list[tuple[Episode, int]]) -> Change:
    sides = [[episode for episode, side in group if side == wanted] for wanted in (0, 1)]
    baseline, new = (_whole(side) if side else None for side in sides)
    return Change(group[0][0].family, baseline, new)


def _whole(episodes: list[Episode]) -> Episode:
    """Return several episodes that belong to one of the other policy as one."""
    return Episode(
        episodes[0].family,
        min(one.began_ms for one in episodes),
        min(one.rings_ms for one in episodes),
        max(one.until_ms for one in episodes),
        min((one.priority for one in episodes), key=PRIORITIES.__getitem__),
    )
