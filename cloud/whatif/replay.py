"""One bed's recorded readings through detect's own `Subject`, as if they came now.

Law: the same events, in the same order, as `cloud.detect.partition` tells for the same readings
(tests/cloud/whatif/test_replay.py). A reading arrives when its gateway received it; the clock
ticks at every whole second of that time, for a subject only when it is due. Nobody acknowledges,
shelves or clears anything.

Subjects know nothing of each other, so each is replayed by itself from beginning to end: its
arrays stay in locals, and the clock is one comparison.

Measured on 2 shared x86-64 cores, two policies over a ward of 40 recorded beds (1 Hz, 5 vitals):
3.5 µs of CPU a reading and policy, 710 times real time. 89 % of the readings lie within their
holds and take a tenth of it; the rest is `Subject.observe` and `Subject.sample`, a third of
that NEWS2's holds computed anew. So what is worth gaining lies in detect, not here; here, what
is tested a reading (late, doubtful, of another site or channel) is tested once a bed by numpy.
"""

from typing import Final, NamedTuple, cast

import numpy as np

from cloud.detect import clock
from cloud.detect.lifecycle import NEVER
from cloud.detect.partition import TICK_MS
from cloud.detect.rules import RulesOf
from cloud.detect.silence import Origin as Heard
from cloud.detect.subject import Subject
from cloud.detect.threshold import key_of
from cloud.policy.bounds import LATE_S_MIN
from cloud.policy.model import Policy
from cloud.policy.resolve import resolve
from cloud.records import AlertEvent
from cloud.whatif.ward import NO_VALUE, Origin, Rows
from vitals.codes import VITALS, decimal_scale
from vitals.limits import FUTURE_MS_MAX
from vitals.reading import Reading

LATE_MS_MIN: Final = round(LATE_S_MIN * 1000)
"""Younger at its arrival, a reading is late under no policy."""

NOBODY_AWAY: Final[frozenset[str]] = frozenset()
"""Which gateways were connected is not recorded."""

SCALE: Final = tuple(decimal_scale(vital) for vital in VITALS)


class Told(NamedTuple):
    """An event, and when the condition behind it began.

    A latched alert that is true again keeps its episode's beginning, so the event alone does not
    say it.
    """

    event: AlertEvent
    began_ms: int


class Judge:
    """One policy, and what is made of it for all beds."""

    def __init__(self, policy: Policy) -> None:
        """``policy`` names nobody in clear."""
        self.policy = policy
        self._rules = RulesOf()

    def rule(self, subject: Subject) -> None:
        """Give a subject the rules that hold for it now, as a partition does."""
        effective = resolve(self.policy, subject.edge, subject.device, subject.name, {})
        rules = self._rules(effective)
        if getattr(subject, "rules", None) is not rules:
            subject.rules = rules
            subject.ask()


def next_tick_ms(due_ms: int) -> int:
    """Return the first whole second at or after a time."""
    return -(-due_ms // TICK_MS) * TICK_MS


class Plain(NamedTuple):
    """A bed's readings as lists for the loop; made once, replayed under each policy."""

    vital: list[int]
    value: list[int]
    time: list[int]
    arrival: list[int]
    source: list[int]
    """Its number; of a reading that holds do not apply to, the complement (below 0)."""
    odd: list[tuple[int, int, int]]
    """(status, site, channel) of those, in order."""


def plain(rows: Rows) -> Plain:
    """Return lists for `replay`."""
    age = rows.arrival - rows.time
    odd = (
        (rows.status != 0)
        | (rows.site != 0)
        | (rows.channel != 0)
        | (rows.value == NO_VALUE)
        | (age > LATE_MS_MIN)
        | (age < -FUTURE_MS_MAX)
    )
    return Plain(
        rows.vital.tolist(),
        rows.value.tolist(),
        rows.time.tolist(),
        rows.arrival.tolist(),
        np.where(odd, ~rows.source, rows.source).tolist(),
        list(
            zip(
                rows.status[odd].tolist(),
                rows.site[odd].tolist(),
                rows.channel[odd].tolist(),
                strict=True,
            )
        ),
    )


def replay(name: str, rows: Plain, origins: list[Origin], judge: Judge, end_ms: int) -> list[Told]:
    """Return what is told of a subject; the clock runs on to ``end_ms``."""
    out: list[Told] = []
    odds = iter(rows.odd)
    subject, here = Subject(name), cast("Heard", None)
    current, heard_ms, wake_ms = -1, 0, NEVER
    low, high, last, until, seen = _holds(subject)
    for vital, value, time_ms, arrival_ms, source in zip(
        rows.vital, rows.value, rows.time, rows.arrival, rows.source, strict=True
    ):
        if arrival_ms >= wake_ms:
            here.heard_ms = heard_ms
            wake_ms = _clock(subject, wake_ms, arrival_ms, out)
            current = -1  # a device may have fallen silent, or been forgotten
            if subject.idle:
                subject = Subject(name)
                low, high, last, until, seen = _holds(subject)
        number = source if source >= 0 else ~source
        if number != current:
            if current >= 0:
                here.heard_ms = heard_ms
            here = _heard(subject, origins[number], judge, arrival_ms, out)
            current = number
            wake_ms = next_tick_ms(max(subject.due_ms, arrival_ms + 1))
        heard_ms = arrival_ms
        if source >= 0 and low[vital] <= value <= high[vital] and last[vital] <= time_ms:
            if time_ms < until[vital]:
                last[vital] = time_ms
                seen[vital] = value
                continue
            here.heard_ms = arrival_ms
            told = subject.sample(vital, value, time_ms, arrival_ms)
        else:
            status, site, channel = (0, 0, 0) if source >= 0 else next(odds)
            scaled = None if value == NO_VALUE else value
            number_ = None if scaled is None else scaled / SCALE[vital]
            reading = Reading(vital, number_, time_ms, arrival_ms, status, site, channel)
            here.heard_ms = arrival_ms
            told = subject.observe(reading, scaled, arrival_ms)
        if told:
            _tell(subject, told, out)
            wake_ms = next_tick_ms(max(subject.due_ms, arrival_ms + 1))
    if current >= 0:
        here.heard_ms = heard_ms
    _clock(subject, wake_ms, end_ms, out)
    return out


def _holds(subject: Subject) -> tuple[list[int], list[int], list[int], list[int], list[int]]:
    # arrays of the subject itself, which it changes in place
    return cast(
        "tuple[list[int], list[int], list[int], list[int], list[int]]",
        (subject.low, subject.high, subject.last, subject.until, subject.value),
    )


def _clock(subject: Subject, wake_ms: int, now_ms: int, out: list[Told]) -> int:
    """Tick at every whole second that is due up to ``now_ms``; return the next one."""
    while wake_ms <= now_ms:
        _tell(subject, clock.act(subject, wake_ms, NOBODY_AWAY), out)
        if subject.idle:
            return NEVER
        wake_ms = next_tick_ms(max(subject.due_ms, wake_ms + 1))
    return wake_ms


def _heard(
    subject: Subject, origin: Origin, judge: Judge, arrival_ms: int, out: list[Told]
) -> Heard:
    """Return the device of a subject that speaks now."""
    here, new = subject.origin(origin.device, origin.edge, arrival_ms)
    if new:
        subject.edge, subject.device = origin.edge, origin.device
        judge.rule(subject)
    if here.silent:
        _tell(subject, subject.heard(here, arrival_ms), out)
    here.heard_ms = arrival_ms
    return here


def _tell(subject: Subject, events: list[AlertEvent], out: list[Told]) -> None:
    for event in events:
        pair = subject.watches.get(key_of(event.rule, event.channel))
        began_ms = event.began_ms
        if pair is not None and pair.live.began_ms and not event.retrospective:
            began_ms = pair.live.began_ms
        out.append(Told(event, began_ms))
