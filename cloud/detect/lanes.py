"""Two lanes a condition: live readings ring, late ones only tell.

Law: a late reading never touches the live lane's condition, so it can neither ring an alarm nor
silence one. Late is: older than its arrival at the cloud by more than the rule's ``late_s``, or
older than a reading of its kind that was already judged live (the caller knows).

A time ahead of the arrival by more than limits.FUTURE_MS_MAX (edges refuse those) is drawn back
to that bound, so that no clock can make every later reading late.
"""

import hashlib
from typing import Final, NamedTuple

import msgspec

from cloud.detect.episode import Delays, Sample, Step, Watch, advance, cut, quiet
from cloud.fhir.ids import observation_id
from cloud.records import AlertEvent
from vitals import limits

EPISODE_HEX: Final = 32


class Pair(msgspec.Struct, frozen=True, array_like=True):
    """The two lanes of one condition. Stored as an array: fields are only added at the end."""

    live: Watch = Watch()
    late: Watch = Watch()

    @property
    def still(self) -> bool:
        """True when neither lane is doing anything: nothing need be remembered."""
        return self.live.began_ms == 0 and self.late.began_ms == 0


Watches = dict[str, Pair]
"""A subject's conditions that are not still: ``rule name`` or ``rule name#channel`` -> lanes."""


class Condition(msgspec.Struct, frozen=True):
    """What is fixed about a condition: for its events."""

    subject: str
    kind: str
    rule: str
    """Stable name, part of the episode's identity."""
    vital: str
    channel: int
    priority: str
    limit: float
    policy: str


class Judged(NamedTuple):
    """One step worth telling."""

    watch: Watch
    retrospective: bool
    step: Step = Step.RAISED


def clamp_ms(time_ms: int, ingested_ms: int) -> int:
    """Return a reading's time, at most limits.FUTURE_MS_MAX ahead of its arrival."""
    return min(time_ms, ingested_ms + limits.FUTURE_MS_MAX)


def episode_id(condition: Condition, began_ms: int) -> str:
    """Return the id of an episode: the same from every process and every replay.

    A hash, not a keyed one: everything in it is pseudonymous already.
    """
    named = "/".join(
        (
            "episode/1",
            condition.subject,
            condition.kind,
            condition.rule,
            str(condition.channel),
            str(began_ms),
        )
    )
    return hashlib.sha256(named.encode()).hexdigest()[:EPISODE_HEX]


def event(
    condition: Condition, judged: Judged, text: str, evidence: list[str] | None = None
) -> AlertEvent:
    """Return a step of an episode as it is told.

    ``evidence``: ids of Observations; None: those of the vital's first, worst and last reading.
    """
    watch = judged.watch
    ended = watch.ended_ms != 0
    if evidence is None:
        points = [
            (watch.began_ms, watch.began_site),
            (watch.worst_ms, watch.worst_site),
            (watch.last_ms, watch.last_site),
        ]
        evidence = [
            observation_id(condition.subject, condition.vital, time_ms, site, condition.channel)
            for time_ms, site in points
        ]
    return AlertEvent(
        episode=episode_id(condition, watch.began_ms),
        subject=condition.subject,
        kind=condition.kind,
        vital=condition.vital,
        priority=condition.priority,
        state="ended" if ended else "active",
        text=text,
        limit=condition.limit,
        worst=watch.worst,
        began_ms=watch.began_ms,
        raised_ms=watch.raised_ms,
        at_ms=watch.last_ms,
        policy=condition.policy,
        ended_ms=watch.ended_ms if ended else None,
        retrospective=judged.retrospective,
        evidence=list(dict.fromkeys(evidence)),
        rule=condition.rule,
        channel=condition.channel,
    )


def judge(
    pair: Pair, sample: Sample, delays: Delays, *, worse_late: bool, late: bool
) -> tuple[Pair, list[Judged]]:
    """Return both lanes after one reading, and the steps to tell.

    ``sample.worse`` is against the live lane's worst, ``worse_late`` against the late lane's.
    """
    if not late and sample.time_ms >= pair.live.last_ms:
        watch, step = advance(pair.live, sample, delays)
        told = [] if step is Step.NONE else [Judged(watch, False, step)]
        return Pair(quiet(watch) if step is Step.ENDED else watch, pair.late), told
    told = []
    before = pair.late
    sample = sample._replace(worse=worse_late)
    if sample.time_ms < before.last_ms:
        # Backlogs come oldest first, each from its own past: begin again.
        if before.active:
            told.append(Judged(cut(before), True, Step.ENDED))
        before = Watch()
    watch, step = advance(before, sample, delays)
    if step is not Step.NONE:
        told.append(Judged(watch, True, step))
    return Pair(pair.live, quiet(watch) if step is Step.ENDED else watch), told
