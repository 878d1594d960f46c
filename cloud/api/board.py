"""What the ward station shows: one bed a tile, the newest of each vital with its age.

Law: pure; times are given. The age of a value is counted on this server's monotonic clock from
the moment it arrived; the gateway's clock (corrected on its uplink) only says how old it was
then. Only a reading that is newer in its own time than the one shown refreshes an age: a replayed
or duplicate one does not. Full names and record numbers never leave for the page.
"""

import re
from collections import deque
from collections.abc import Iterable
from typing import Final

import msgspec

from cloud.api.store import Seen
from cloud.project.layout import latest_field
from cloud.records import GATEWAY, LIMIT, AlertEvent, Identity, LiveUpdate
from vitals.codes import BY_NAME, VITALS, Status
from vitals.reading import Reading

SPARK_STEP_MS: Final = 5_000
SPARK_MS: Final = 15 * 60_000
SPARKS: Final = {"heart_rate": "hr", "pulse_rate": "hr", "spo2": "spo2"}

# A value that is measured more than this before it was received is history, however it came.
BEHIND_MS_MAX: Final = 10_000

# An interval between readings beyond this is a gap, not a cadence.
CADENCE_MS_MAX: Final = 10_000

# A bed without data leaves the page after a day; a device without a patient after ten minutes
# (its patient has been told meanwhile, or it was unplugged). Another patient in the same bed
# takes the tile of one whose data stopped.
ABSENT_MS: Final = 24 * 3_600_000
UNASSOCIATED_ABSENT_MS: Final = 10 * 60_000
REPLACED_MS: Final = 30_000

# An ended alarm stays as a silent line for this long.
ENDED_SHOWN_MS: Final = 10 * 60_000

PRIORITIES: Final = {"high": 0, "medium": 1, "low": 2}

_DIGITS: Final = re.compile(r"(\d+)")


class Shown(msgspec.Struct):
    """The newest reading of one vital, site and channel."""

    reading: Reading
    born_ms: float
    """Monotonic time at which it was received on the gateway."""
    cadence_ms: float = 0.0


class Value(msgspec.Struct, frozen=True, rename={"value": "v", "age_ms": "age", "time_ms": "t"}):
    """One vital as the page gets it."""

    value: float | None
    age_ms: int
    time_ms: int
    s: int
    """Status of `vitals.codes`."""
    every: int
    """Milliseconds between readings, 0 if not known."""


class Alarm(msgspec.Struct, frozen=True):
    """One alarm as the page gets it."""

    id: str
    vital: str
    priority: str
    text: str
    state: str
    for_ms: int
    """Since its condition began; until its end when it has ended."""
    began: int
    ended: int | None = None
    acknowledged: int | None = None
    """When, by ``by``; what the page does not ring for."""
    by: str = ""
    shelved: int | None = None
    """Until when; only while that lies ahead."""
    suppressed: bool = False
    """A graver alarm of the same bed explains it."""
    level: int = 0
    """How often nobody answered in time."""
    standing: bool = False
    """It comes and goes: one alarm instead of many."""


class Tile(msgspec.Struct, frozen=True, omit_defaults=True):
    """One bed as the page gets it."""

    key: str
    ward: str
    bed: str
    name: str
    initials: str
    device: str
    vitals: dict[str, Value]
    alarms: list[Alarm]
    spark: dict[str, list[tuple[int, float]]] = {}
    """Milliseconds before now, value; only in a snapshot."""


class Bed:
    """All that is known of one subject."""

    def __init__(self, subject: str) -> None:
        """Start with nothing."""
        self.subject = subject
        self.identity: Identity | None = None
        self.shown: dict[str, Shown] = {}
        self.alerts: dict[str, AlertEvent] = {}
        self.sparks: dict[str, deque[tuple[int, float]]] = {"hr": deque(), "spo2": deque()}
        self.newest: Shown | None = None
        self.device = ""

    @property
    def ward(self) -> str:
        """The ward, empty while unknown."""
        return self.identity.patient.ward if self.identity else ""

    @property
    def name(self) -> str:
        """The bed, empty while unknown."""
        return self.identity.patient.bed if self.identity else ""

    def age_ms(self, mono_ms: float) -> float:
        """Return how old the newest reading is; infinite when there is none."""
        return float("inf") if self.newest is None else mono_ms - self.newest.born_ms


def short_name(full: str) -> str:
    """Return a name as short as a ward says it: family name, first initial."""
    words = full.replace(",", " ").split()
    if not words:
        return ""
    return words[-1] if len(words) == 1 else f"{words[-1]} {words[0][0]}."


def initials(full: str) -> str:
    """Return at most three initials."""
    return "".join(word[0].upper() for word in full.replace(",", " ").split()[:3])


def bed_order(bed: Bed) -> tuple[bool, str, list[tuple[int, str]], str]:
    """Return a fixed order: wards, then beds as people count them; unknown beds last."""
    parts = [(int(part), "") if part.isdigit() else (-1, part) for part in _DIGITS.split(bed.name)]
    return not bed.name, bed.ward, parts, bed.subject


class Board:
    """Every bed of this installation."""

    def __init__(self) -> None:
        """Start empty."""
        self.beds: dict[str, Bed] = {}

    def load(self, everyone: Iterable[Seen], now_ms: int, mono_ms: float) -> None:
        """Take a snapshot in; values on the board that are newer stay."""
        for seen in everyone:
            bed = self._bed(seen.subject)
            if seen.identity is not None:
                self._identify(bed, seen.identity)
            for latest in seen.latest:
                if self._read(bed, latest.reading, now_ms, mono_ms):
                    bed.device = latest.device
            for event in seen.alerts:
                self._alert(bed, event, now_ms)

    def fill(self, subject: str, rows: Iterable[tuple[str, Reading]]) -> None:
        """Take readings of the last minutes in, for the sparkline only."""
        bed = self._bed(subject)
        for _, reading in sorted(rows, key=lambda row: row[1].time_ms):
            self._spark(bed, reading)

    def apply(self, update: LiveUpdate, now_ms: int, mono_ms: float) -> tuple[bool, bool]:
        """Take an update in; return (something changed, beds came or moved)."""
        known = update.subject in self.beds
        bed = self._bed(update.subject)
        changed = moved = not known
        absent = bed.age_ms(mono_ms) > REPLACED_MS
        if update.identity is not None:
            before = bed.ward, bed.name
            changed |= self._identify(bed, update.identity)
            moved |= before != (bed.ward, bed.name)
        for reading in update.readings:
            changed |= self._read(bed, reading, now_ms, mono_ms)
        # A first reading, or one after an absence, may bring a tile onto the page.
        moved |= absent and bed.age_ms(mono_ms) <= REPLACED_MS
        if update.alert is not None:
            changed |= self._alert(bed, update.alert, now_ms)
        return changed, moved

    def _bed(self, subject: str) -> Bed:
        return self.beds.setdefault(subject, Bed(subject))

    @staticmethod
    def _identify(bed: Bed, identity: Identity) -> bool:
        if bed.identity is not None and bed.identity.time_ms > identity.time_ms:
            return False
        bed.identity = identity
        bed.device = identity.device
        return True

    def _read(self, bed: Bed, reading: Reading, now_ms: int, mono_ms: float) -> bool:
        field = latest_field(reading)
        before = bed.shown.get(field)
        order = (reading.time_ms, reading.received_ms)
        if before and (before.reading.time_ms, before.reading.received_ms) >= order:
            return False
        age = max(0, now_ms - reading.received_ms)
        behind = reading.received_ms - reading.time_ms
        if behind > BEHIND_MS_MAX:
            age = max(age, now_ms - reading.time_ms, behind)
        shown = Shown(reading, mono_ms - age)
        if before:
            gap = reading.time_ms - before.reading.time_ms
            shown.cadence_ms = before.cadence_ms
            if 0 < gap <= CADENCE_MS_MAX:
                shown.cadence_ms = (
                    gap if not before.cadence_ms else (0.8 * before.cadence_ms + 0.2 * gap)
                )
        bed.shown[field] = shown
        if bed.newest is None or shown.born_ms > bed.newest.born_ms:
            bed.newest = shown
        self._spark(bed, reading)
        return True

    @staticmethod
    def _spark(bed: Bed, reading: Reading) -> None:
        series = SPARKS.get(VITALS[reading.vital].name)
        if series is None or reading.value is None or reading.status != Status.OK:
            return
        points = bed.sparks[series]
        at = reading.time_ms // SPARK_STEP_MS * SPARK_STEP_MS
        if points and at < points[-1][0]:
            return
        value = reading.value
        if points and points[-1][0] == at:
            # a short fall of oxygen must survive the step
            value = min(value, points.pop()[1]) if series == "spo2" else value
        points.append((at, value))
        while points[0][0] < at - SPARK_MS:
            points.popleft()

    @staticmethod
    def _alert(bed: Bed, event: AlertEvent, now_ms: int) -> bool:
        if event.retrospective or event.kind in {GATEWAY, LIMIT}:
            return False
        before = bed.alerts.get(event.episode)
        if before and _step(before) >= _step(event):
            return False
        bed.alerts[event.episode] = event
        for episode, held in list(bed.alerts.items()):
            if held.ended_ms is not None and now_ms - held.ended_ms > ENDED_SHOWN_MS:
                del bed.alerts[episode]
        return True

    def visible(self, mono_ms: float) -> list[Bed]:
        """Return the beds to show, in their fixed order."""
        owners: dict[tuple[str, str], Bed] = {}
        for bed in self.beds.values():
            if bed.name:
                other = owners.get((bed.ward, bed.name))
                if other is None or _since(bed) > _since(other):
                    owners[bed.ward, bed.name] = bed
        return sorted(
            (bed for bed in self.beds.values() if self._is_shown(bed, owners, mono_ms)),
            key=bed_order,
        )

    @staticmethod
    def _is_shown(bed: Bed, owners: dict[tuple[str, str], Bed], mono_ms: float) -> bool:
        age = bed.age_ms(mono_ms)
        if not bed.name:
            return age <= UNASSOCIATED_ABSENT_MS
        if owners[bed.ward, bed.name] is not bed and age > REPLACED_MS:
            return False
        return age <= ABSENT_MS

    def tile(self, bed: Bed, now_ms: int, mono_ms: float, *, history: bool = False) -> Tile:
        """Return a bed as the page gets it; ``history`` adds the sparklines."""
        vitals: dict[str, tuple[int, Value]] = {}
        for shown in bed.shown.values():
            reading = shown.reading
            name = VITALS[reading.vital].name
            if name not in vitals or vitals[name][0] < reading.time_ms:
                vitals[name] = reading.time_ms, _value(shown, mono_ms)
        who = bed.identity.patient if bed.identity else None
        return Tile(
            bed.subject,
            bed.ward,
            bed.name,
            short_name(who.name) if who else "",
            initials(who.name) if who else "",
            bed.device[:8],
            {name: value for name, (_, value) in sorted(vitals.items(), key=_table_order)},
            self._alarms(bed, now_ms),
            self._history(bed, mono_ms) if history else {},
        )

    @staticmethod
    def _alarms(bed: Bed, now_ms: int) -> list[Alarm]:
        events = [
            event
            for event in bed.alerts.values()
            if event.ended_ms is None or now_ms - event.ended_ms <= ENDED_SHOWN_MS
        ]
        events.sort(key=lambda e: (e.state == "ended", PRIORITIES.get(e.priority, 3), -e.began_ms))
        return [
            Alarm(
                event.episode,
                event.vital,
                event.priority,
                event.text,
                event.state,
                max(0, (event.ended_ms or now_ms) - event.began_ms),
                event.began_ms,
                event.ended_ms,
                event.acknowledged_ms,
                event.acknowledged_by,
                # a shelving that is over rings, whether or not its end was told
                until if (until := event.shelved_until_ms or 0) > now_ms else None,
                bool(event.suppressed_by),
                event.level,
                event.standing,
            )
            for event in events
        ]

    @staticmethod
    def _history(bed: Bed, mono_ms: float) -> dict[str, list[tuple[int, float]]]:
        if bed.newest is None:
            return {}
        # positions are differences on the device's own clock, hung on the age of the newest
        age, newest = bed.age_ms(mono_ms), bed.newest.reading.time_ms
        return {
            series: [(round(age + newest - at), value) for at, value in points]
            for series, points in bed.sparks.items()
            if points
        }


def _step(event: AlertEvent) -> tuple[int, int, bool]:
    """Return what orders the steps of an episode; those of an older version have number 0."""
    return event.number, event.at_ms, event.state == "ended"


def _since(bed: Bed) -> tuple[int, str]:
    return (bed.identity.time_ms if bed.identity else 0), bed.subject


def _value(shown: Shown, mono_ms: float) -> Value:
    reading = shown.reading
    return Value(
        reading.value,
        max(0, round(mono_ms - shown.born_ms)),
        reading.time_ms,
        reading.status,
        round(shown.cadence_ms),
    )


def _table_order(item: tuple[str, tuple[int, Value]]) -> int:
    return BY_NAME[item[0]].index
