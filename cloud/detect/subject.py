"""One subject: what is remembered of it, and what a reading, a command or the clock makes of it.

Law: a function of what is given, in order: nothing here knows a clock or another subject.
`observe` is the whole truth about a reading; holds only say when it may be left out, and leaving
nothing out gives the same events (tests/cloud/detect/test_holds.py).

**Holds.** For each vital a subject keeps an interval of values and a span of time within which
no detector would do anything but take note of the newest value: no limit is breached or about to
be, no episode of this vital runs, no score changes, nothing is due for the trend. Nearly every
reading of a ward lies there and costs two comparisons. An empty interval says: ask.

Measured on 2 shared x86-64 cores: 0.13 µs a reading within its hold, 6 to 15 µs otherwise.
"""

import sys
from array import array
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from cloud.detect import device, marking, scoring, threshold, trending
from cloud.detect import signal as signals
from cloud.detect.alerts import Episodes, due, give, of_watch
from cloud.detect.episode import Step
from cloud.detect.journal import slice_of
from cloud.detect.lanes import Watches, clamp_ms
from cloud.detect.lifecycle import (
    Acknowledge,
    Raised,
    Release,
    Returned,
    Suppress,
)
from cloud.detect.marking import Traces
from cloud.detect.rules import Rules
from cloud.detect.scores.parameters import Charted
from cloud.detect.silence import Origin, device_key
from cloud.detect.threshold import Finding
from cloud.detect.trending import AllSeries
from cloud.fhir import charting
from cloud.fhir.ids import observation_id, score_id
from cloud.fhir.observations import MINUTE_MS
from cloud.records import AlertEvent
from vitals.codes import VITALS, Status, decimal_scale
from vitals.reading import DeviceAlert, Reading

_OK: Final = int(Status.OK)
_MISSING: Final = int(Status.MISSING)
_COUNT: Final = len(VITALS)
NOTHING: Final = 2**31 - 1
_UNSET: Final = -(2**31)

CONTINUOUS: Final = tuple(vital.index for vital in VITALS if vital.continuous)
PRIORITIES: Final = {"high": 0, "medium": 1, "low": 2}
NO_MARKS: Final[frozenset[str]] = frozenset()

LIMIT: Final = "limit"
"""Kind of an event that tells of a changed limit."""

BEDSIDE: Final = "device"
"""Who: a user at the device itself."""
SYSTEM: Final = "system"
"""Who: this program, where a life only ends by a user's word."""

COMMANDS_KEPT: Final = 32
"""Ids of commands remembered: a repeated one follows its first within seconds."""

ORIGINS_MAX: Final = 16
"""Devices of one subject watched for silence; with more, the one silent for longest goes."""

SPANS_MAX: Final = 64
"""Alarms of one subject around which every reading is charted; the oldest goes first."""

SCORE_LOOK_MS: Final = 300_000
"""Scores are computed at least so often, for what grew old and for the chart."""

SCORE_EVERY_MS: Final = 5_000
"""While a delay of a score runs, it is computed again after so long."""

FRESH_MS: Final = 60_000
"""After a longer gap a value is looked at whole: what was too old for a score may be new again."""

LOOK_MS: Final = 15_000
"""How often the clock looks for signals that are no longer sent."""

SCALE: Final = tuple(decimal_scale(vital) for vital in VITALS)


_NONE: Final[Mapping[str, Any]] = MappingProxyType({})
"""What most subjects have of most things; one for all of them."""


class Kept(msgspec.Struct, array_like=True):
    """A subject as it is stored. Fields are only added at the end."""

    last: bytes = b""
    value: bytes = b""
    others: dict[str, int] = {}
    watches: Watches = {}
    episodes: Episodes = {}
    origins: list[Origin] = []
    series: AllSeries = {}
    traces: Traces = {}
    own: dict[str, tuple[float, int]] = {}
    commands: tuple[str, ...] = ()
    missing: dict[str, int] = {}
    stale: int = 0
    scored_ms: int = 0
    looked_ms: int = 0
    due_ms: int = 0
    edge: str = ""
    device: str = ""
    charted: dict[str, scoring.Charted] = {}
    rest: int = 0
    minutes: charting.State = charting.NOTHING
    spans: tuple[charting.Span, ...] = ()
    gone: int = 0


def family_of(key: str) -> str:
    """Return what conditions have in common of which one explains the others.

    ``spo2.low.high`` and ``spo2.low.medium`` of one channel; the levels of one score.
    """
    rule, _, channel = key.partition("#")
    head, _, level = rule.rpartition(".")
    if "@" in key or (level not in PRIORITIES and head not in scoring.KINDS):
        return key
    return f"{head}#{channel}"


class Subject:
    """See the module. ``rules`` must be set before anything else is asked."""

    __slots__ = (
        "charted",
        "commands",
        "device",
        "due_ms",
        "edge",
        "episodes",
        "gone",
        "high",
        "last",
        "leaving",
        "looked_ms",
        "low",
        "minutes",
        "missing",
        "name",
        "origins",
        "others",
        "own",
        "rest",
        "rules",
        "scored_ms",
        "series",
        "slice",
        "spans",
        "stale",
        "traces",
        "until",
        "value",
        "watches",
    )

    rules: Rules

    def __init__(self, name: str, kept: Kept | None = None) -> None:
        """Begin as nothing is known, or as it was `stored`."""
        kept = Kept() if kept is None else kept
        self.name = name
        self.slice = slice_of(name)
        self.last = array("q", kept.last or bytes(8 * _COUNT))
        """By vital: time of the newest live reading of status OK on channel 0; 0: none."""
        self.value = array("i", kept.value or bytes(4 * _COUNT))
        """By vital: its scaled value."""
        self.others: Mapping[str, int] = kept.others or _NONE
        """``vital#channel`` -> time of its newest live reading."""
        self.watches = kept.watches
        self.episodes = kept.episodes
        self.origins = kept.origins
        self.series = kept.series
        self.traces = kept.traces
        self.own: Mapping[str, tuple[float, int]] = kept.own or _NONE
        """Rule -> limit set by command, until when (0: for good)."""
        self.commands = kept.commands
        self.missing = kept.missing
        self.stale = kept.stale
        """Bit by vital: its signal is missed by the clock."""
        self.scored_ms = kept.scored_ms
        self.looked_ms = kept.looked_ms
        self.due_ms = kept.due_ms
        self.edge, self.device = kept.edge, kept.device
        """The gateway and the device that came last: whose ward and bed hold."""
        self.charted: Mapping[str, scoring.Charted] = kept.charted or _NONE
        """Score -> what of it was charted last."""
        self.rest = kept.rest
        """Points of the lowest possible NEWS2 that are not of SINGLE, at the last whole look."""
        self.gone = kept.gone
        """Bit by vital: the monitor says that it has no value of it."""
        self.minutes = kept.minutes
        """What charting by the minute remembers."""
        self.spans = kept.spans
        """Alarms around which every reading is charted."""
        self.leaving: tuple[tuple[str, bytes], ...] = ()
        """Scores that leave: (id, body); whoever takes them empties it."""
        self.low = array("i", [NOTHING]) * _COUNT
        self.high = array("i", [-NOTHING]) * _COUNT
        self.until = array("q", bytes(8 * _COUNT))

    def stored(self) -> Kept:
        """Return everything but the holds, which are made anew."""
        return Kept(
            self.last.tobytes(),
            self.value.tobytes(),
            dict(self.others),
            self.watches,
            self.episodes,
            self.origins,
            self.series,
            self.traces,
            dict(self.own),
            self.commands,
            self.missing,
            self.stale,
            self.scored_ms,
            self.looked_ms,
            self.due_ms,
            self.edge,
            self.device,
            dict(self.charted),
            self.rest,
            self.minutes,
            self.spans,
            self.gone,
        )

    def ask(self) -> None:
        """Empty every hold."""
        for vital in range(_COUNT):
            self.low[vital], self.high[vital] = NOTHING, -NOTHING

    # -- readings ----------------------------------------------------------------------------

    def observe(self, reading: Reading, scaled: int | None, ingested_ms: int) -> list[AlertEvent]:
        """Take one reading; return what is to be told."""
        quiet = not self.watches
        rules, vital, channel = self.rules, reading.vital, reading.channel
        policy = rules.effective
        at_ms = clamp_ms(reading.time_ms, ingested_ms)
        age_ms = ingested_ms - at_ms
        other = "" if channel == 0 else marking.key_of(vital, channel)
        last_ms = self.others.get(other, 0) if channel else self.last[vital]
        overtaken = at_ms < last_ms
        live = not overtaken and age_ms <= rules.late_ms[vital]
        usable = reading.status == _OK and scaled is not None
        marks = self._marks(reading, scaled, at_ms) if live and rules.marked[vital] else NO_MARKS
        found: list[Finding] = []
        inside = scaled is not None and rules.low[vital] <= scaled <= rules.high[vital]
        if usable and (self.watches or not inside):
            found += threshold.step(
                self.watches, self.name, reading, at_ms, age_ms, policy, overtaken=overtaken
            )
        if not usable or self.watches:
            found += signals.step(
                self.watches,
                self.name,
                reading,
                at_ms,
                age_ms,
                policy,
                overtaken=overtaken,
                known=last_ms > 0,
            )
        out: list[AlertEvent] = []
        if live and usable and scaled is not None:
            if channel:
                self.others = {**self.others, other: at_ms}
            else:
                before = self.value[vital]
                self.last[vital], self.value[vital] = at_ms, scaled
                if self.stale >> vital & 1:
                    out += self._present(vital, at_ms)
        if found:
            out += self._told(found, marks)
        if live and usable and not channel:
            if rules.trends[vital]:
                out += self._trend(vital, reading, at_ms)
            if vital in scoring.PARAMETERS and rules.levels:
                if self._moved(vital, before):
                    self._narrow()
                lasted = last_ms > 0 and at_ms - last_ms <= FRESH_MS and not self.gone >> vital & 1
                self.gone &= ~(1 << vital)
                if (
                    not lasted
                    or self._rescored(vital, before, self.value[vital])
                    or self._score_due(at_ms)
                ):
                    out += self._score(at_ms)
            self._hold(vital)
        elif not channel:
            self.low[vital], self.high[vital] = NOTHING, -NOTHING
            if live and reading.status == _MISSING:
                out += self._went(vital, at_ms)
        if quiet and self.watches:
            self._narrow()
        if out:
            self.schedule()
        return out

    def _moved(self, vital: int, before: int) -> bool:
        """Tell whether a vital that was looked at took points that others' wide holds count on."""
        return vital in scoring.SINGLE and scoring.points(vital, before) != scoring.points(
            vital, self.value[vital]
        )

    def _narrow(self) -> None:
        """End wide holds: they are for a low score, shared out when they were made, and for peace.

        Without this a score could rise unseen until the next look, and a restart, which empties
        all holds, would chart one that nobody else does.
        """
        for vital in scoring.SINGLE:
            self.low[vital], self.high[vital] = NOTHING, -NOTHING

    def _went(self, vital: int, at_ms: int) -> list[AlertEvent]:
        """Take note that a monitor has no value of a vital any more: no score counts its last one.

        A sensor that slips off says 0 before it says nothing; for minutes that would be 3 points.
        """
        if self.gone >> vital & 1:
            return []
        self.gone |= 1 << vital
        return self._score(at_ms) if vital in scoring.PARAMETERS and self.rules.levels else []

    def sample(self, vital: int, scaled: int, time_ms: int, ingested_ms: int) -> list[AlertEvent]:
        """Take a reading whose value is within its hold and whose time is not: what is sampled."""
        if time_ms - self.last[vital] > FRESH_MS:
            reading = Reading(vital, scaled / SCALE[vital], time_ms, ingested_ms)
            return self.observe(reading, scaled, ingested_ms)
        quiet = not self.watches
        rules = self.rules
        out: list[AlertEvent] = []
        reading = Reading(vital, scaled / SCALE[vital], time_ms, ingested_ms)
        if rules.marked[vital]:
            self._marks(reading, scaled, time_ms)
        self.last[vital], self.value[vital] = time_ms, scaled
        if rules.trends[vital]:
            out += self._trend(vital, reading, time_ms)
        if vital in scoring.PARAMETERS and rules.levels and self._score_due(time_ms):
            out += self._score(time_ms)
        self._hold(vital)
        if quiet and self.watches:
            self._narrow()
        if out:
            self.schedule()
        return out

    def _score_due(self, at_ms: int) -> bool:
        """Tell whether the scores were not looked at for long, or for a while and a delay runs."""
        since_ms = at_ms - self.scored_ms
        return since_ms >= SCORE_LOOK_MS or (
            since_ms >= SCORE_EVERY_MS and scoring.running(self.watches, self.rules.levels)
        )

    def _rescored(self, vital: int, before: int, now: int) -> bool:
        """Tell whether a value's score matters, and is another than that of the value before.

        A value that stands at the edge of two columns of the chart flickers every few seconds;
        while NEWS2 is low all the same and nothing of it is watched, that is bookkeeping.
        """
        low, high = scoring.hold(vital, before, self.rules.reads)
        if low <= now <= high:
            return False
        if vital not in scoring.SINGLE or not self.rules.low_at or self.watches:
            return True
        before_points = scoring.points(vital, before) - scoring.points(vital, now)
        lowest = self._lowest()
        return max(lowest, lowest + before_points) >= self.rules.low_at

    def _lowest(self) -> int:
        """Return the lowest NEWS2 that is possible now: no more than the truth can be."""
        return self.rest + sum(
            scoring.points(vital, self.value[vital])
            for vital in scoring.SINGLE
            if self.last[vital] and not self.gone >> vital & 1
        )

    def _told(self, found: Iterable[Finding], marks: frozenset[str]) -> list[AlertEvent]:
        """Return findings as the life cycle tells them; late ones tell of the past and ring not."""
        out: list[AlertEvent] = []
        life = self.rules.life
        for key, judged, told in found:
            if marks:
                told = msgspec.structs.replace(told, quality=sorted(marks))  # noqa: PLW2901
            if judged.retrospective:
                out.append(told)
                continue
            raised = judged.step is Step.RAISED
            if raised and (cause := self._cause_of(key, told.priority)):
                # Before the raise, so that it never rings.
                give(self.episodes, key, Suppress(cause, told.at_ms), life, told)
            out += give(self.episodes, key, of_watch(told, raised=raised), life, told)
            if judged.step is not Step.WORSE:
                out += self.explain(key, told.at_ms)
        return out

    def _cause_of(self, key: str, priority: str) -> str:
        """Return the episode of a true, more urgent condition of the same family, or nothing."""
        family, rank = family_of(key), PRIORITIES[priority]
        for one, held in self.episodes.items():
            if (
                held.life.active
                and PRIORITIES[held.told.priority] < rank
                and family_of(one) == family
            ):
                return held.life.episode
        return ""

    def explain(self, key: str, at_ms: int) -> list[AlertEvent]:
        """Let the most urgent true condition of a family suppress the others, or release them."""
        family = family_of(key)
        out: list[AlertEvent] = []
        for one in sorted(one for one in self.episodes if family_of(one) == family):
            cause = self._cause_of(one, self.episodes[one].told.priority)
            given = Suppress(cause, at_ms) if cause else Release(at_ms)
            out += give(self.episodes, one, given, self.rules.life)
        return out

    def _present(self, vital: int, at_ms: int) -> list[AlertEvent]:
        """End a signal that the clock missed."""
        self.stale &= ~(1 << vital)
        key = signals.rule_of(VITALS[vital])
        if key in self.watches:
            return []  # the monitor's own word decides
        return give(self.episodes, key, Returned(at_ms, at_ms), self.rules.life)

    def _score(self, at_ms: int) -> list[AlertEvent]:
        """Judge the scores at a time."""
        levels = self.rules.levels
        self.scored_ms = at_ms
        policy = self.rules.effective
        known = scoring.snapshot(self._measured(), policy)
        out: list[AlertEvent] = []
        for kind in dict.fromkeys(level.kind for level in levels):
            score = scoring.read(kind, known, at_ms, self.rules.ages)
            if score is None:
                continue
            if kind == scoring.NEWS2:
                self.rest = 0
                self.rest = int(score.lowest) - self._lowest()
            evidence = [
                observation_id(self.name, VITALS[vital].name, self.last[vital])
                for vital in score.vitals
            ]
            if scoring.news(self.charted.get(kind), score, at_ms):
                charted = scoring.Charted(at_ms, float(score.lowest), float(score.highest))
                self.charted = {**self.charted, kind: charted}
                scale = policy.scores.news2.spo2_scale
                body = scoring.chart(self.name, score, at_ms, evidence, scale)
                self.leaving += ((score_id(self.name, scoring.NAMES[kind], at_ms), body),)
            for level in levels:
                if level.kind == kind:
                    found = scoring.step(
                        self.watches, self.missing, self.name, score, level, at_ms, evidence, policy
                    )
                    out += self._told(found, NO_MARKS)
        asked = scoring.PARAMETERS if scoring.running(self.watches, levels) else scoring.SINGLE
        for vital in asked:
            self.low[vital], self.high[vital] = NOTHING, -NOTHING
        return out

    def _measured(self) -> dict[int, Charted]:
        return {
            vital: Charted(self.value[vital], self.last[vital])
            for vital in scoring.PARAMETERS
            if self.last[vital] and not self.gone >> vital & 1
        }

    # -- series: trends and artefacts ----------------------------------------------------------

    def _marks(self, reading: Reading, scaled: int | None, at_ms: int) -> frozenset[str]:
        """Return the doubts about a live reading."""
        vital = reading.vital
        return marking.take(
            self.traces,
            reading,
            scaled,
            at_ms,
            (self.last[vital], self.value[vital]),
            marking.rates_of(self.last, self.value),
        )

    def _trend(self, vital: int, reading: Reading, at_ms: int) -> list[AlertEvent]:
        """Take a live reading into the series of its vital, if one is kept."""
        found = trending.step(
            self.watches,
            self.series,
            self.name,
            reading,
            self.value[vital],
            at_ms,
            self.rules.trends[vital],
            self.rules.effective.version,
        )
        return self._told(found, NO_MARKS)

    # -- holds ---------------------------------------------------------------------------------

    def _hold(self, vital: int) -> None:
        """Compute within which values and until when a reading of ``vital`` changes nothing."""
        rules = self.rules
        self.low[vital], self.high[vital] = NOTHING, -NOTHING
        if self.stale >> vital & 1 or not self.last[vital]:
            return
        if self.watches:
            prefix = VITALS[vital].name + "."
            if any(key.startswith(prefix) for key in self.watches):
                return
        low, high = rules.low[vital], rules.high[vital]
        until = self.last[vital] + FRESH_MS
        if vital in scoring.PARAMETERS and rules.levels:
            if self.watches and scoring.running(self.watches, rules.levels):
                return
            value = self.value[vital]
            scores = scoring.hold(vital, value, rules.reads)
            if vital in scoring.SINGLE and not self.watches:
                spare = rules.low_at - 1 - self._lowest()
                if spare >= len(scoring.SINGLE):
                    scores = scoring.wide(vital, value, spare // len(scoring.SINGLE))
            low, high = max(low, scores[0]), min(high, scores[1])
            until = min(until, self.scored_ms + SCORE_LOOK_MS)
        if rules.marked[vital]:
            held = marking.held(self.traces, vital)
            low, high, until = max(low, held.lo), min(high, held.hi), min(until, held.until_ms)
        if rules.trends[vital]:
            until = min(until, trending.held(self.series, vital))
        self.low[vital], self.high[vital] = low, high
        self.until[vital] = until

    # -- charting by the minute ----------------------------------------------------------------

    def chart(
        self, given: Iterable[charting.Given], events: Iterable[AlertEvent], now_ms: int
    ) -> charting.Leaving:
        """Return which readings are charted now; ``events``: what was told since the last call."""
        around_ms = self.rules.charting.around_ms
        open_spans = {span.began_ms: span for span in self.spans}
        for event in events:
            if event.subject == self.name and not event.retrospective:
                open_spans[event.began_ms] = charting.Span(event.began_ms, event.ended_ms)
        kept = [
            span
            for span in open_spans.values()
            if span.ended_ms is None or now_ms - span.ended_ms < 2 * around_ms
        ]
        self.spans = tuple(kept[-SPANS_MAX:])
        self.minutes, leaving = charting.advance(
            self.minutes, given, self.spans, self.rules.charting
        )
        return leaving

    def close_minutes(self, now_ms: int) -> charting.Leaving:
        """Return the medians of minutes that nothing is added to any more."""
        self.minutes, leaving = charting.close(self.minutes, now_ms - MINUTE_MS)
        return leaving

    # -- devices ---------------------------------------------------------------------------------

    def origin(self, device: str, edge: str, ingested_ms: int) -> tuple[Origin, bool]:
        """Return a device of this subject, and whether it or its gateway is new here."""
        for origin in self.origins:
            if origin.device == device:
                moved = origin.edge != edge
                origin.edge = edge
                return origin, moved
        edge = sys.intern(edge)  # every record brings a string of its own
        origin = Origin(device, edge, ingested_ms)
        if len(self.origins) >= ORIGINS_MAX:
            self.origins.remove(min(self.origins, key=lambda one: one.heard_ms))
        self.origins.append(origin)
        return origin, True

    def heard(self, origin: Origin, ingested_ms: int) -> list[AlertEvent]:
        """End a device's silence."""
        origin.silent = False
        out = give(
            self.episodes,
            device_key(origin.device),
            Returned(ingested_ms, ingested_ms),
            self.rules.life,
        )
        self.schedule()
        return out

    def device_alert(self, alert: DeviceAlert, name: str, ingested_ms: int) -> list[AlertEvent]:
        """Take an alarm that a device raised itself; ``name``: the device's pseudonym."""
        event = device.event(self.name, alert, name, ingested_ms, self.rules.effective)
        if event is None:
            return []
        if event.retrospective:
            return [event]
        key, life = event.rule, self.rules.life
        held = self.episodes.get(key)
        if device.is_over(alert):
            out = give(self.episodes, key, Returned(event.at_ms, event.at_ms), life)
        elif held is None or not held.life.active:
            given = Raised(event.episode, event.began_ms, event.at_ms)
            out = give(self.episodes, key, given, life, event)
        else:
            out = []
        if alert.inactivation == "alert-acknowledged":
            seen = Acknowledge(BEDSIDE, "acknowledged at the device", event.at_ms)
            out += give(self.episodes, key, seen, life)
        self.schedule()
        return out

    def schedule(self, now_ms: int = 0) -> None:
        """Say when the clock would next do something."""
        wanted = due(self.episodes, self.rules.life)
        silence = self.rules.effective.silence
        for origin in self.origins:
            if silence.enabled and not origin.away:
                after_ms = silence.forget_ms if origin.silent else silence.after_ms
                wanted = min(wanted, origin.heard_ms + after_ms + 1)
            if not (origin.silent or origin.away):
                wanted = min(wanted, self.looked_ms + LOOK_MS)
        until_ms = self.rules.effective.until_ms
        if until_ms is not None:
            wanted = min(wanted, until_ms)
        for minute in self.minutes.minutes.values():
            wanted = min(wanted, minute.start_ms + 2 * MINUTE_MS)
        for _, until_ms in self.own.values():
            if until_ms:
                wanted = min(wanted, until_ms)
        self.due_ms = max(wanted, now_ms + 1) if now_ms else wanted

    @property
    def idle(self) -> bool:
        """True when nothing is left to remember: every device forgotten, no episode."""
        return not self.origins and not self.episodes and not self.own
