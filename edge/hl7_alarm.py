"""Alarms that a device raised itself (IHE PCD-04, ORU^R40) as device alerts, and watchdogs.

Law: pure. One OBR is one alarm, its OBX are facets; an alarm is passed on whatever its event, and
none of its free text is: event, source and words of the closed sets only. A value stands in it
only where code, unit and number agree. A message of priority "none" that states a confirm timeout
is a sign of life, no alarm. Sources: `edge.hl7_facets`.
"""

from typing import Final, NamedTuple

from edge.decode_line import parse_number
from edge.hl7_codes import EVENT_FIRST, EVENT_LAST, EVENTS, number_of
from edge.hl7_facets import (
    EVENT,
    FACETS,
    FIELDS,
    KIND,
    PRIORITY,
    REFID,
    SOURCE,
    TIME_UNITS_MS,
    TIMEOUT,
    WORDS,
    facet_of,
    ident,
    limits_of,
    value_of,
)
from edge.hl7_message import Message, at
from edge.hl7_naming import NO_VITAL, named, unit
from edge.hl7_observe import Part
from edge.hl7_row import Marks, marks
from edge.hl7_scope import Place, Scope
from edge.refusal import Reason, Refuse
from edge.setting import Setting
from vitals.codes import Status, TimeSource
from vitals.reading import DeviceAlert

ALERTS_MAX: Final = 200
"""Alarms of one message: a monitor has some dozens; a frame takes ten such messages."""

TIMEOUT_MS_DEFAULT: Final = 5_000
"""Watchdog that states no readable time (Draeger's default)."""
TIMEOUT_MS_MIN: Final = 1_000
TIMEOUT_MS_MAX: Final = 3_600_000
"""A shorter one is under the second of the gateway's sweep, a longer one is no watch any more."""

ALARM: Final = 196_616
"""MDC_EVT_ALARM: an alarm whose event stands in OBX-5."""


class Watch(NamedTuple):
    """A sign of life: from whom, when the next is due, and whether it is the last on purpose."""

    place: Place
    timeout_ms: int
    leaving: bool


class _Alarm:
    """One alarm as it is read."""

    __slots__ = (
        "event",
        "high",
        "id",
        "low",
        "name",
        "order",
        "place",
        "placed",
        "said",
        "source",
        "sourced",
        "status",
        "time_ms",
        "timeout_ms",
        "value",
        "vital",
        "withdrawn",
    )

    def __init__(self, name: str, order: tuple[int, str], place: Place) -> None:
        self.id = name
        self.order = order
        self.event: int | None = None
        self.name = ""
        self.place = place
        self.placed = False
        self.withdrawn = False
        self.time_ms: int | None = None
        self.said: dict[str, str] = {}
        self.status = int(Status.OK)
        self.source = 0
        self.sourced = False
        self.vital: int | None = None
        self.value: float | None = None
        self.low: float | None = None
        self.high: float | None = None
        self.timeout_ms: int | None = None


class Alarms:
    """Rows of one ORU^R40 as they come; `parts` and `watches` at the end."""

    __slots__ = ("_alarm", "_alarms", "_message", "_scope", "_senders", "_setting")

    def __init__(
        self, message: Message, scope: Scope, setting: Setting, senders: tuple[str, ...]
    ) -> None:
        """``senders``: parts of MSH-3 in small letters, for the vendor's mapping."""
        self._message, self._scope, self._setting = message, scope, setting
        self._senders = senders
        self._alarms: list[_Alarm] = []
        self._alarm: _Alarm | None = None

    def obr(self, fields: list[str]) -> None:
        """Begin an alarm."""
        code = self._message.first(at(fields, 4))
        order = number_of(code[0].strip()), at(code, 1).strip()
        self._begin(self._name(fields), order, self._scope.place(["OBR"], ""))

    def _begin(self, name: str, order: tuple[int, str], place: Place) -> _Alarm:
        self._alarm = _Alarm(name, order, place)
        self._alarm.time_ms = self._scope.when([], "")
        self._alarms.append(self._alarm)
        if len(self._alarms) > ALERTS_MAX:
            raise Refuse(Reason.HL7_TOO_MANY, "OBR", f"at most {ALERTS_MAX} alarms a message")
        return self._alarm

    def _name(self, obr: list[str]) -> str:
        """Return the alarm's name: the first report's, in OBR-29 of all later ones, else OBR-3."""
        message = self._message
        parent = message.first(at(obr, 29))
        for one in (at(parent, 1), at(parent, 0)):
            subs = one.split(message.sub)
            if message.clean(subs[0]):
                return ident(message.clean(subs[0]), message.clean(at(subs, 1)))
        for order in (at(obr, 3), at(obr, 2)):
            parts = message.first(order)
            if message.clean(parts[0]):
                return ident(message.clean(parts[0]), message.clean(at(parts, 1)))
        return ""

    def obx(self, fields: list[str]) -> None:
        """Take one row; rows that are no facet only place their device."""
        alarm, path = self._alarm, at(fields, 4).strip()
        if alarm is None or len(fields) < 5:
            return
        place = self._scope.place(fields, path)
        if not alarm.placed:
            alarm.place, alarm.placed = place, True
        parts = self._message.first(at(fields, 3))
        code = number_of(parts[0].strip())
        facet = facet_of(code, at(parts, 1).strip().upper(), path) if fields[2] else 0
        if facet == 0:
            if not fields[2]:
                self._scope.contains(fields, path)
            return
        flags = at(fields, 8)
        if facet == EVENT:
            if alarm.event is not None:  # a second alarm under one OBR
                name = ident(f"{alarm.id}-{max(code, 0)}", "") if alarm.id else ""
                alarm = self._begin(name, alarm.order, place)
            alarm.withdrawn = self._marks(flags, at(fields, 11)).withdrawn
            self._event(alarm, fields, code, at(parts, 1).strip())
            alarm.place, alarm.time_ms = place, self._scope.when(fields, path)
        elif facet == SOURCE:
            self._source(alarm, fields, code)
        elif facet == TIMEOUT:
            alarm.timeout_ms = self._timeout_ms(fields)
        else:
            word = self._word(facet, at(fields, 5))
            if word:
                alarm.said[FIELDS[facet]] = word
        self._flags(alarm, flags)

    def _event(self, alarm: _Alarm, fields: list[str], code: int, refid: str) -> None:
        said = self._message.first(at(fields, 5))
        inner, words = number_of(said[0].strip()), at(said, 1).strip()
        if code == ALARM or (code <= 0 and not REFID.fullmatch(refid)):
            code = inner if inner >= 0 else ALARM
            refid = words if inner >= 0 else said[0].strip()
        elif inner > 0 and not alarm.sourced:
            self._about(alarm, said[:3])
        alarm.event = max(code, 0)
        alarm.name = refid if REFID.fullmatch(refid) else EVENTS.get(alarm.event, "")

    def _about(self, alarm: _Alarm, triplet: list[str]) -> None:
        code = number_of(triplet[0].strip())
        if code > 0:
            alarm.source = code
        of = named(
            self._message.component.join(triplet),
            self._message.component,
            self._setting.vendor,
            self._senders,
        )
        alarm.vital = None if of.vital == NO_VITAL else of.vital

    def _source(self, alarm: _Alarm, fields: list[str], code: int) -> None:
        message = self._message
        if alarm.sourced:
            return  # the first value is the one it is about
        if code in FACETS or fields[2] != "NM":
            text = at(fields, 5) if code in FACETS or code < 0 else at(fields, 3)
            self._about(alarm, message.first(text)[:3])
            return
        alarm.sourced = True
        self._about(alarm, at(fields, 3).split(message.component))
        if alarm.vital is None:
            return
        said = unit(
            alarm.vital,
            at(fields, 6),
            message.component,
            self._setting.vendor,
            self._senders,
            "",
        )
        if said.conflict:
            return
        state = self._marks(at(fields, 8), at(fields, 11))
        if not (state.reason or state.withdrawn or state.unknown):
            alarm.value = value_of(alarm.vital, at(fields, 5), said.ucum)
        low, high = limits_of(at(fields, 7))
        alarm.low = value_of(alarm.vital, low, said.ucum)
        alarm.high = value_of(alarm.vital, high, said.ucum)

    def _marks(self, flags: str, result: str) -> Marks:
        return marks(flags, result, self._message.component, self._message.repeat)

    def _word(self, facet: int, text: str) -> str:
        for part in self._message.first(text):
            word = WORDS[facet].get(part.strip().lower())
            if word:
                return word
        return ""

    def _flags(self, alarm: _Alarm, flags: str) -> None:
        if not flags:
            return
        state = self._marks(flags, "")
        if state.status in (Status.TEST, Status.CALIBRATION):
            alarm.status = max(alarm.status, state.status)
        for one in flags.split(self._message.repeat):
            for facet in (PRIORITY, KIND):
                word = self._word(facet, one)
                if word:
                    alarm.said.setdefault(FIELDS[facet], word)

    def _timeout_ms(self, fields: list[str]) -> int:
        message = self._message
        per = TIME_UNITS_MS.get(number_of(message.first(at(fields, 6))[0].strip()), 1000)
        try:
            timeout_ms = int(parse_number("", at(fields, 5).strip()) * per)
        except Refuse:
            return TIMEOUT_MS_DEFAULT
        return min(max(timeout_ms, TIMEOUT_MS_MIN), TIMEOUT_MS_MAX)

    def watches(self) -> tuple[Watch, ...]:
        """Return the signs of life of the message."""
        return tuple(
            Watch(alarm.place, alarm.timeout_ms, alarm.said.get("state") == "inactive")
            for alarm in self._alarms
            if alarm.timeout_ms is not None and _lives(alarm)
        )

    def parts(self, received_ms: int, status: int) -> tuple[Part, ...]:
        """Return the devices' alarms in the order of their first; ``status`` covers all."""
        by_owner: dict[tuple[int, str], tuple[Place, list[DeviceAlert]]] = {}
        for alarm in self._alarms:
            if alarm.withdrawn or _lives(alarm):
                continue
            if alarm.event is None:
                code, refid = alarm.order
                if not EVENT_FIRST <= code <= EVENT_LAST:
                    continue
                alarm.event = code
                alarm.name = refid if REFID.fullmatch(refid) else EVENTS.get(code, "")
            owner = id(alarm.place.person), self._scope.device(alarm.place)
            listed = by_owner.setdefault(owner, (alarm.place, []))[1]
            listed.append(_alert(alarm, received_ms, status))
        return tuple(
            Part(device, (), tuple(alerts), place.person.patient)
            for (_, device), (place, alerts) in by_owner.items()
        )


def _lives(alarm: _Alarm) -> bool:
    return alarm.timeout_ms is not None and alarm.said.get("priority", "none") == "none"


def _alert(alarm: _Alarm, received_ms: int, status: int) -> DeviceAlert:
    known = alarm.time_ms is not None
    return DeviceAlert(
        alarm.event or 0,
        alarm.name,
        alarm.time_ms if alarm.time_ms is not None else received_ms,
        received_ms,
        id=alarm.id,
        source=alarm.source,
        vital=alarm.vital,
        value=alarm.value,
        low=alarm.low,
        high=alarm.high,
        status=status or alarm.status,
        time_source=int(TimeSource.DEVICE if known else TimeSource.RECEIVED),
        **alarm.said,
    )
