"""OBX rows into readings, each with its device, channel and time.

Law: pure. A row in conflict with itself never becomes a value; codes that are no vital sign here
are counted and passed over; rows deleted or posted as wrong are left out. What a device could not
measure is a reading with the reason.
"""

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

import msgspec

from edge import normalize
from edge.decode_line import MISSING, parse_number
from edge.hl7_message import Message
from edge.hl7_naming import NO_VITAL
from edge.hl7_row import Rows, Said, key_of, rows
from edge.hl7_scope import Place, Scope
from edge.normalize import Measure
from edge.refusal import Reason, Refuse, Refused
from edge.setting import Setting
from vitals.codes import VITALS
from vitals.reading import DeviceAlert, Patient, Reading

READINGS_MAX: Final = 2000
"""Readings, or rows in conflict, of one message: a full PCD-01 report has under a hundred."""

_NUMBERS_REMEMBERED: Final = 4096
_NUMBER_CHARS_MAX: Final = 16

_NOTHING: Final = math.nan
"""Of a row whose value is in conflict; no number that is read is NaN."""


class Part(msgspec.Struct, frozen=True):
    """What one device of the message says."""

    device: str
    readings: tuple[Reading, ...] = ()
    alerts: tuple[DeviceAlert, ...] = ()
    patient: Patient | None = None


_Row = tuple[Place, str, int, Said, float | None, int | None, bool]
"""Place, OBX-4, number of its OBR, what it says, number, time, and whether it is a reading: one
that is none keeps its place among the channels. A plain tuple: there are thousands a second."""


@lru_cache(maxsize=_NUMBERS_REMEMBERED)
def _number(text: str) -> float | Refused:
    try:
        return parse_number("", text)
    except Refuse as refuse:
        return refuse.refused


class Observations:
    """Rows of one ORU^R01 as they come; `parts` at the end."""

    __slots__ = (
        "_count",
        "_known",
        "_message",
        "_rows",
        "_scope",
        "ignored",
        "refused",
    )

    def __init__(
        self, message: Message, scope: Scope, setting: Setting, senders: tuple[str, ...]
    ) -> None:
        """``senders``: parts of MSH-3 in small letters, for the vendor's mapping."""
        self._message, self._scope = message, scope
        self._known: Rows = rows(message.component, message.repeat, setting.vendor, senders)
        self._rows: list[_Row] = []
        self._count = 0
        self.ignored = 0
        """Rows of codes that are no vital sign here, or withdrawn."""
        self.refused: list[Refused] = []
        """Rows in conflict."""

    def obx(self, fields: list[str], number: int) -> None:
        """Take the ``number``-th OBX of the message; raise Refuse when there are too many."""
        scope = self._scope
        path = fields[4] if len(fields) > 4 else ""
        place = scope.place(fields, path)
        try:
            key = fields[2], fields[3], fields[6], fields[8], fields[11]
        except IndexError:
            key = key_of(fields)
        said = self._known.get(key) or self._known.learn(key)
        if said.why:
            self._conflict(number, said.field, said.why)
        elif said.marks is None:
            self.ignored += 1
            if said.vital == NO_VITAL and len(fields) > 4 and not fields[2]:
                scope.contains(fields, path)
        else:
            value = self._value(fields, said, number)
            if value is not _NOTHING:
                self._count += 1
                if self._count > READINGS_MAX:
                    raise Refuse(
                        Reason.HL7_TOO_MANY, f"OBX[{number}]", f"at most {READINGS_MAX} readings"
                    )
                device_ms = scope.when(fields, path)
                self._rows.append((place, path, scope.groups, said, value, device_ms, True))
                return
        if said.vital != NO_VITAL:
            self._rows.append((place, path, scope.groups, said, None, None, False))

    def _conflict(
        self, number: int, field: str, why: str, reason: Reason = Reason.HL7_CONFLICT
    ) -> None:
        if len(self.refused) == READINGS_MAX:
            raise Refuse(
                Reason.HL7_TOO_MANY, f"OBX[{number}]", f"at most {READINGS_MAX} rows in conflict"
            )
        self.refused.append(Refused(reason, f"OBX[{number}]-{field}", why))

    def _value(self, fields: list[str], said: Said, number: int) -> float | None:
        """Return the row's number, None when it has none, NaN after a conflict."""
        text = fields[5].strip() if len(fields) > 5 else ""
        if text in MISSING or text == '""':
            return None
        if not said.numeric:
            why = f"{VITALS[said.vital].name}: the value type of a vital sign is NM"
            self._conflict(number, "2", why)
            return _NOTHING
        found = _number(text) if len(text) <= _NUMBER_CHARS_MAX else _number.__wrapped__(text)
        if isinstance(found, float):
            return None if said.marks is not None and said.marks.reason else found
        name = VITALS[said.vital].name
        if self._message.repeat in text or self._message.component in text:
            self._conflict(number, "5", f"{name}: one number, without repetitions or parts")
        else:
            self._conflict(number, "5", f"{name}: {found.detail}", found.reason)
        return _NOTHING

    def parts(self, received_ms: int, status: int) -> tuple[Part, ...]:
        """Return the devices' readings in the order of their first row; ``status`` covers all.

        Two sensors of a kind on one device are told apart by their order in the message: numbers
        in OBX-4 may change from message to message. The same OBX-4 in another OBR is the same one.
        """
        owners: dict[tuple[int, str], _Owner] = {}
        places: dict[Place, _Owner] = {}
        for place, path, group, said, number, device_ms, read in self._rows:
            owner = places.get(place)
            if owner is None:
                key = id(place.person), self._scope.device(place)
                owner = places[place] = owners.setdefault(key, _Owner(key[1], place))
            vital, site, ucum, state, *_ = said
            kind = vital, site
            channels = owner.channels.get(kind)
            if channels is None:
                channels = owner.channels[kind] = _Channels()
            channel = channels.of(path, group)
            if read and state is not None:
                status_said, reason = state[:2]
                measure = Measure(vital, number, ucum, site, channel, status_said, reason)
                runs = owner.runs
                if runs and runs[-1][0] == device_ms:
                    runs[-1][1].append(measure)
                else:
                    runs.append((device_ms, [measure]))
        return tuple(
            Part(
                owner.device,
                _readings(owner.runs, received_ms, status),
                (),
                owner.place.person.patient,
            )
            for owner in owners.values()
            if owner.runs
        )


class _Owner:
    """One device of one patient: its measures in runs of one time, its channels."""

    __slots__ = ("channels", "device", "place", "runs")

    def __init__(self, device: str, place: Place) -> None:
        self.device, self.place = device, place
        self.runs: list[tuple[int | None, list[Measure]]] = []
        self.channels: dict[tuple[int, int], _Channels] = {}


class _Channels:
    """The sensors of one kind on one device, by order."""

    __slots__ = ("_count", "_known")

    def __init__(self) -> None:
        self._count = 0
        self._known: dict[str, tuple[int, int]] = {}

    def of(self, path: str, group: int) -> int:
        known = self._known.get(path) if path else None
        if known is not None and known[1] != group:
            channel = known[0]
        else:
            channel = self._count
            self._count += 1
            if known is not None:
                return channel
        if path:
            self._known[path] = (channel, group)
        return channel


def _readings(
    runs: Iterable[tuple[int | None, list[Measure]]], received_ms: int, status: int
) -> tuple[Reading, ...]:
    made: list[Reading] = []
    for device_ms, measures in runs:
        made += normalize.readings(measures, device_ms, received_ms, status)
    return tuple(made)
