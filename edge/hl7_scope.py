"""Whose row an OBX is and when it was measured: PID, PV1, OBR and the containment tree of OBX-4.

Law: pure. Every PID begins another patient, and nothing of the one before holds any more. OBX-18
of an MDS row names the device of its subtree; a time that is not said is the containing row's,
then OBR-7's, then OBR-15's, then that of receipt; a time that is said and places nothing is that
of receipt too: a reading is never lost for its time. A patient is named by identifier or by bed,
never by name alone. Sources: IHE PCD TF 2 appendix B (OBX-4, OBX-18), standards of HL7 v2.6
chapter 3.
"""

import re
from datetime import date, tzinfo
from typing import Final

from edge.hl7_message import Message, at, moment
from edge.setting import Setting
from vitals import limits
from vitals.reading import Patient

_SEX: Final = {"M": "male", "F": "female", "O": "other", "A": "other", "U": "unknown"}
_DATE: Final = re.compile(r"(\d{4})(\d\d)(\d\d)", re.ASCII)
_ID_TYPES: Final = ("MR", "PI")
"""PID-3.5 in order of belief (HL7 table 0203); any other comes after."""
_PLACE_CHARS_MAX: Final = 64
_NOT_NAME: Final = re.compile(r"[^0-9A-Za-z]+")


class Person:
    """One patient group: PID, PV1 and the devices named in it."""

    __slots__ = ("_pid", "_place", "first", "named", "patient")

    def __init__(self, pid: list[str] | None) -> None:
        """Take PID's fields, None when the message has none."""
        self._pid = pid
        self._place = ""
        self.first = ""
        """The first device that OBX-18 named: whoever names none is it."""
        self.named: dict[str, Place] = {}
        """First number of OBX-4 -> the MDS it is now."""
        self.patient: Patient | None = None

    def visit(self, pv1: list[str]) -> None:
        """Take PV1."""
        self._place = at(pv1, 3)

    def settle(self, message: Message, setting: Setting) -> None:
        """Make ``patient`` of what was said."""
        patient = _identity(message, self._pid) if self._pid is not None else Patient()
        ward, bed = _location(message, self._place)
        if patient == Patient() and not ward and not bed:
            return
        self.patient = Patient(
            patient.mrn, patient.name, patient.birth_date, patient.sex, bed, ward or setting.ward
        )

    def speaks_for(self, message: Message) -> str:
        """Return ward and bed in letters and digits, for a device that has no name of its own."""
        ward, bed = _location(message, self._place)
        return _NOT_NAME.sub("-", f"{ward}-{bed}").strip("-")[:_PLACE_CHARS_MAX]


class Place:
    """One MDS of one patient; ``name`` is settled when the message has been read."""

    __slots__ = ("by_row", "group", "name", "person")

    def __init__(self, person: Person, group: int) -> None:
        """Take the OBR it was met in first."""
        self.person, self.group = person, group
        self.name = ""
        self.by_row = False
        """True when an MDS row of its own named it."""


class Scope:
    """Read segment by segment; ask for places and times of rows, at the end for their owners."""

    __slots__ = (
        "_address",
        "_default_ms",
        "_devices",
        "_group",
        "_message",
        "_people",
        "_person",
        "_said",
        "_said_ms",
        "_sender",
        "_setting",
        "_times",
        "_zone",
    )

    def __init__(self, message: Message, address: str, setting: Setting) -> None:
        """Take the sender: MSH-3, or the caller's address, names a device that has no name."""
        self._message, self._setting = message, setting
        self._zone: tzinfo = setting.zone
        self._person = Person(None)
        self._people = [self._person]
        self._group = 0
        self._default_ms: int | None = None
        self._times: dict[str, int | None] = {}
        self._devices: dict[str, str] = {}
        self._said = ""
        self._said_ms: int | None = None
        parts = [message.clean(part) for part in message.first(at(message.segments[0], 2))[:2]]
        named = [part for part in parts if part]
        self._sender, self._address = (named[-1] if named else ""), address

    @property
    def groups(self) -> int:
        """Return how many OBR there were."""
        return self._group

    def pid(self, fields: list[str]) -> None:
        """Begin another patient."""
        self._person = Person(fields)
        self._people.append(self._person)
        self._default_ms = None
        self._times.clear()

    def pv1(self, fields: list[str]) -> None:
        """Take the bed."""
        self._person.visit(fields)

    def obr(self, fields: list[str]) -> None:
        """Begin another group of rows."""
        self._group += 1
        self._times.clear()
        said = at(fields, 7).strip().strip('"') or at(fields, 15)
        self._default_ms = moment(said, self._zone)

    def place(self, fields: list[str], path: str) -> Place:
        """Return the MDS of a row; ``path`` is its OBX-4."""
        person = self._person
        mds = path.partition(".")[0]
        place = person.named.get(mds)
        if place is None:
            place = person.named[mds] = Place(person, self._group)
        if len(fields) > 18 and fields[18]:
            name = self._devices.get(fields[18])
            if name is None:
                name = self._devices[fields[18]] = self._device(fields[18])
            if name:
                place = self._name(place, mds, name, is_mds=not fields[2] and _root(path))
        return place

    def _device(self, text: str) -> str:
        """Return OBX-18's first identifier: entity id, else universal id, else name space."""
        parts = self._message.first(text)
        for part in (at(parts, 0), at(parts, 2), at(parts, 1)):
            name = self._message.clean(part)
            if name:
                return name
        return ""

    def _name(self, place: Place, mds: str, name: str, *, is_mds: bool) -> Place:
        person = self._person
        if is_mds:
            if place.name not in ("", name) and (place.by_row or place.group != self._group):
                place = person.named[mds] = Place(person, self._group)  # another of that number
            place.name, place.by_row = name, True
        elif not place.name:
            place.name = name
        person.first = person.first or name
        return place

    def contains(self, fields: list[str], path: str) -> None:
        """Note the time of a row without a value of its own: its children's, if they say none."""
        if len(fields) > 14 and fields[14]:
            said = fields[14].strip().strip('"')
            if said:
                self._times[_trimmed(path)] = moment(said, self._zone)

    def when(self, fields: list[str], path: str) -> int | None:
        """Return a row's time in milliseconds of UTC, None for that of receipt."""
        said = fields[14] if len(fields) > 14 else ""
        if said and said != '""':
            if said != self._said:  # the rows of a message mostly share one
                self._said, self._said_ms = said, moment(said, self._zone)
            return self._said_ms
        if self._times:
            above = path
            while above:
                above = above.rpartition(".")[0]
                key = _trimmed(above)
                if key in self._times:
                    return self._times[key]
        return self._default_ms

    def settle(self) -> None:
        """Make the patients; call once, after the last segment."""
        for person in self._people:
            person.settle(self._message, self._setting)

    def device(self, place: Place) -> str:
        """Return the name of a place: its own, the first named beside it, or the sender's.

        A sender's name stands for all devices of its kind: the bed it speaks for is added, or
        the address where it names none, so that two of them are never taken for one.
        """
        person = place.person
        if place.name or person.first:
            return place.name or person.first
        if not self._sender:
            return f"addr-{self._address}"
        bed = person.speaks_for(self._message) or self._address[:_PLACE_CHARS_MAX]
        return f"{self._sender[: limits.TEXT_CHARS_MAX - len(bed) - 1]}/{bed}"


def _trimmed(path: str) -> str:
    """Return a containment path without its trailing zeros: 1.0.1.0 is 1.0.1."""
    while path.endswith(".0"):
        path = path[:-2]
    return path


def _root(path: str) -> bool:
    return "." not in _trimmed(path)


def _identity(message: Message, pid: list[str]) -> Patient:
    ids = [one.split(message.component) for one in at(pid, 3).split(message.repeat)]
    ids = [one for one in ids if message.clean(one[0])]
    best = [""]
    if ids:
        best = min(ids, key=lambda one: _rank(at(one, 4)))
    name = message.first(at(pid, 5))
    family = at(name, 0).split(message.sub)[0]
    full = " ".join(
        part for part in (message.clean(one) for one in (at(name, 1), at(name, 2), family)) if part
    )
    return Patient(
        mrn=message.clean(best[0]),
        name=full[: limits.TEXT_CHARS_MAX],
        birth_date=_birth_date(at(pid, 7)),
        sex=_SEX.get(at(pid, 8).strip().upper()[:1], ""),
    )


def _rank(kind: str) -> int:
    kind = kind.strip().upper()
    return _ID_TYPES.index(kind) if kind in _ID_TYPES else len(_ID_TYPES)


def _birth_date(text: str) -> str:
    found = _DATE.match(text.strip())
    if found is None:
        return ""
    year, month, day = (int(part) for part in found.groups())
    try:
        return date(year, month, day).isoformat()
    except ValueError:
        return ""


def _location(message: Message, text: str) -> tuple[str, str]:
    """Return ward and bed of a PV1-3: unit^room^bed; Mindray puts unit&bed&numbers into bed."""
    unit, room, bed = [*message.first(text), "", "", ""][:3]
    subs = [part for part in bed.split(message.sub) if part]
    if len(subs) > 1 and not unit:
        unit, bed = subs[0], subs[1]
    else:
        bed = subs[0] if subs else ""
    ward, room, bed = (message.clean(part.split(message.sub)[0]) for part in (unit, room, bed))
    return ward, "-".join(part for part in (room, bed) if part)
