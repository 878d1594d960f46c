"""What two policies made of a ward, as numbers: the shape of ``--json``.

Law: pure. The same data and policies give the same report, in whatever order files were read.
Times are milliseconds of UTC, durations seconds; bed-days count monitored time only. Beds are
called by label, never by a person. Fields only grow.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from cloud.detect.subject import PRIORITIES
from cloud.whatif.episodes import Alarm, Alarms, Change, alarms_of, episodes_of, matched
from cloud.whatif.replay import Judge, plain, replay
from cloud.whatif.ward import Rows, Ward, monitored_ms

FORMAT: Final = 1

BURST_MS: Final = 600_000
"""The longest burst is the most alarms within so long: where a nurse no longer keeps up."""

DAY_MS: Final = 86_400_000

UNACKNOWLEDGED: Final = (
    "How long alarms rang unacknowledged, and how often they escalated, is not said: in a replay"
    " nobody answers."
)


class Load(msgspec.Struct, frozen=True):
    """What one policy rang."""

    policy: str
    """Its version."""
    alarms: int
    high: int
    medium: int
    low: int
    per_bed_day: float | None
    """None: nothing was monitored for any time."""
    per_bed_day_median: float | None
    """Over beds, each by its own monitored time."""
    per_bed_day_p90: float | None
    top_tenth_share: float | None
    """Part of all alarms that the loudest tenth of the beds rang; None without an alarm."""
    burst_ward: int
    """Most alarms of the ward within BURST_MS."""
    burst_bed: int
    """Most alarms of one bed within BURST_MS."""
    flapping: int
    explained: int
    retrospective: int


class RuleLine(msgspec.Struct, frozen=True):
    """Alarms of one rule under both policies."""

    kind: str
    rule: str
    priority: str
    baseline: int
    new: int
    baseline_per_bed_day: float | None
    new_per_bed_day: float | None
    difference_per_bed_day: float | None


class Lead(msgspec.Struct, frozen=True):
    """By how many seconds episodes of both policies rang otherwise."""

    count: int
    median_s: float | None
    p90_s: float | None
    most_s: float | None


class Matches(msgspec.Struct, frozen=True):
    """What became of the episodes."""

    baseline: int
    """Episodes of the baseline; several that are one under the new policy count as one."""
    new: int
    lost: int
    gained: int
    same: int
    """Rang at the same moment."""
    earlier: Lead
    """Under the new policy."""
    later: Lead
    more_urgent: int
    """Of those in both: the new policy rang with a higher priority."""
    less_urgent: int


class Difference(msgspec.Struct, frozen=True):
    """One episode that is lost, gained, or rang otherwise."""

    bed: str
    what: str
    """lost, gained, earlier, later, or priority (rang at the same moment with another)."""
    family: str
    """Vital and direction, score, or device."""
    began_ms: int
    until_ms: int
    baseline_ms: int | None
    """When the baseline rang first; None: never."""
    new_ms: int | None
    baseline_priority: str | None
    new_priority: str | None
    lead_s: float | None
    """Above 0: the new policy rang earlier."""


class Report(msgspec.Struct, frozen=True):
    """The whole comparison."""

    format: int
    start_ms: int
    end_ms: int
    beds: list[str]
    bed_days: float
    gap_hours: float
    """Bed-hours in which nothing came for over `ward.MONITORED_GAP_MS`, between two readings."""
    readings: int
    passed: int
    """Lines that were no readings."""
    baseline: Load
    new: Load
    rules: list[RuleLine]
    episodes: Matches
    differences: list[Difference]
    remark: str = UNACKNOWLEDGED

    @property
    def alike(self) -> bool:
        """True when both policies rang the same."""
        return not self.differences and all(line.baseline == line.new for line in self.rules)


class _Bed(NamedTuple):
    label: str
    monitored_ms: int
    gap_ms: int
    sides: tuple[Alarms, Alarms]
    changes: list[Change]


def compare(ward: Ward, baseline: Judge, new: Judge) -> Report:
    """Replay a ward under two policies; it must have a reading."""
    ordered: list[tuple[str, str, Rows]] = list(ward.ordered())
    start_ms = min(int(rows.arrival[0]) for _, _, rows in ordered)
    end_ms = max(int(rows.arrival[-1]) for _, _, rows in ordered)
    beds = []
    readings = 0
    for label, subject, rows in ordered:
        lists = plain(rows)
        readings += len(lists.vital)
        was, is_ = (
            alarms_of(replay(subject, lists, ward.origins, judge, end_ms), end_ms)
            for judge in (baseline, new)
        )
        changes = matched(episodes_of(was.alarms), episodes_of(is_.alarms))
        beds.append(_Bed(label, *monitored_ms(rows), (was, is_), changes))
    days = sum(bed.monitored_ms for bed in beds) / DAY_MS
    differences = [
        difference for bed in beds for change in bed.changes if (difference := _told(bed, change))
    ]
    return Report(
        FORMAT,
        start_ms,
        end_ms,
        [bed.label for bed in beds],
        days,
        sum(bed.gap_ms for bed in beds) / 3_600_000,
        readings,
        ward.passed,
        _load(beds, 0, baseline.policy.version, days),
        _load(beds, 1, new.policy.version, days),
        _rules(beds, days),
        _matches([change for bed in beds for change in bed.changes]),
        differences,
    )


def _load(beds: list[_Bed], side: int, version: str, days: float) -> Load:
    told = [bed.sides[side] for bed in beds]
    alarms = [alarm for one in told for alarm in one.alarms]
    by = Counter(alarm.priority for alarm in alarms)
    rates = sorted(
        len(bed.sides[side].alarms) / (bed.monitored_ms / DAY_MS)
        for bed in beds
        if bed.monitored_ms
    )
    loudest = sorted((len(one.alarms) for one in told), reverse=True)
    tenth = sum(loudest[: max(1, round(len(beds) / 10))])
    return Load(
        version,
        len(alarms),
        by["high"],
        by["medium"],
        by["low"],
        _per(len(alarms), days),
        quantile(rates, 0.5),
        quantile(rates, 0.9),
        tenth / len(alarms) if alarms else None,
        burst(alarm.rings_ms for alarm in alarms),
        max(burst(alarm.rings_ms for alarm in one.alarms) for one in told),
        sum(one.flapping for one in told),
        sum(one.explained for one in told),
        sum(one.retrospective for one in told),
    )


def burst(times_ms: Iterable[int]) -> int:
    """Return the most times that lie within BURST_MS (less than that apart)."""
    held = sorted(times_ms)
    first = most = 0
    for at, time_ms in enumerate(held):
        while time_ms - held[first] >= BURST_MS:
            first += 1
        most = max(most, at - first + 1)
    return most


def quantile(numbers: Sequence[float], part: float) -> float | None:
    """Return the smallest of sorted ``numbers`` that ``part`` of them do not exceed."""
    return numbers[max(0, math.ceil(part * len(numbers)) - 1)] if numbers else None


def _per(count: float, days: float) -> float | None:
    return count / days if days else None


def _rules(beds: list[_Bed], days: float) -> list[RuleLine]:
    def key(alarm: Alarm) -> tuple[str, str, str]:
        return alarm.kind, alarm.rule, alarm.priority

    sides = [
        Counter(key(alarm) for bed in beds for alarm in bed.sides[side].alarms) for side in (0, 1)
    ]
    lines = []
    for name in sorted(
        sides[0].keys() | sides[1].keys(), key=lambda one: (PRIORITIES[one[2]], one)
    ):
        was, is_ = sides[0][name], sides[1][name]
        rates = (_per(was, days), _per(is_, days), _per(is_ - was, days))
        lines.append(RuleLine(*name, was, is_, *rates))
    return lines


def _matches(changes: list[Change]) -> Matches:
    both = [change for change in changes if change.baseline and change.new]
    leads = [change.lead_ms or 0 for change in both]
    ranks = [
        PRIORITIES[change.baseline.priority] - PRIORITIES[change.new.priority]
        for change in both
        if change.baseline and change.new
    ]
    lost = sum(change.new is None for change in changes)
    gained = sum(change.baseline is None for change in changes)
    return Matches(
        len(both) + lost,
        len(both) + gained,
        lost,
        gained,
        sum(lead == 0 for lead in leads),
        _lead(leads, lambda lead: lead),
        _lead(leads, lambda lead: -lead),
        sum(rank > 0 for rank in ranks),
        sum(rank < 0 for rank in ranks),
    )


def _lead(leads: list[int], signed: Callable[[int], int]) -> Lead:
    found = sorted(signed(lead) / 1000 for lead in leads if signed(lead) > 0)
    return Lead(
        len(found), quantile(found, 0.5), quantile(found, 0.9), found[-1] if found else None
    )


def _told(bed: _Bed, change: Change) -> Difference | None:
    was, is_, lead_ms = change.baseline, change.new, change.lead_ms
    if was is None:
        what = "gained"
    elif is_ is None:
        what = "lost"
    elif lead_ms:
        what = "earlier" if lead_ms > 0 else "later"
    elif was.priority != is_.priority:
        what = "priority"
    else:
        return None
    both = [episode for episode in (was, is_) if episode is not None]
    return Difference(
        bed.label,
        what,
        change.family.partition("@")[0],
        min(episode.began_ms for episode in both),
        max(episode.until_ms for episode in both),
        was.rings_ms if was else None,
        is_.rings_ms if is_ else None,
        was.priority if was else None,
        is_.priority if is_ else None,
        None if lead_ms is None else lead_ms / 1000,
    )
