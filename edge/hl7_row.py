"""What one OBX says beside its number and time: vital sign, unit, state, or its conflict.

Law: pure. Code, value type, unit and state must agree, else the row is a conflict; the same row
means the same in every message, so each is read once and remembered, in bounds. Sources: HL7 v2.6
chapter 7 (OBX, tables 0078 and 0085), IHE PCD TF 2 appendix B (OBX-8, OBX-11).
"""

from functools import lru_cache
from typing import Final, NamedTuple

from edge.hl7_map import VendorMap
from edge.hl7_naming import NO_VITAL, named, unit
from vitals.codes import VITALS, Absence, Status

ROWS_REMEMBERED: Final = 512
ROW_CHARS_MAX: Final = 256
_TABLES_REMEMBERED: Final = 8
"""Rows whose meaning is kept, number and time aside: a house has a few hundred, with one set of
delimiters and few senders that the mapping tells apart. Some 4 MB at the very worst."""

_ABSENT: Final = {
    "INV": Absence.INVALID,
    "NAV": Absence.UNAVAILABLE,
    "BUSY": Absence.BUSY,
    "OFF": Absence.OFF,
    "NI": Absence.UNKNOWN,
}
_DOUBTED: Final = frozenset({"QUES", "EARLY"})
_TRIED: Final = {"TEST": Status.TEST, "DEMO": Status.TEST, "CAL": Status.CALIBRATION}
"""OBX-8 (IHE PCD TF 2, table B.8-3). Other words there (N, L, PM, ALACT, VAL …) are no state."""

_WITH_VALUE: Final = frozenset({"", "R", "F", "P", "S", "C", "U", "A", "B", "V"})
_WITHOUT: Final = frozenset({"X", "N", "O", "I"})
_WITHDRAWN: Final = frozenset({"D", "W"})
"""OBX-11 (HL7 table 0085): raw, final, preliminary, partial, corrected, changed, …; no result, not
asked, order only, pending; deleted, posted as wrong."""


class Marks(NamedTuple):
    """What OBX-8 and OBX-11 say of a value."""

    status: int = int(Status.OK)
    reason: int = int(Absence.NONE)
    """Why there is none, NONE when there is one."""
    withdrawn: bool = False
    unknown: bool = False
    """OBX-11 is not of its table."""


class Said(NamedTuple):
    """All that a row says beside its number and time."""

    vital: int
    site: int = 0
    ucum: str = ""
    marks: Marks | None = None
    """None: the row makes no reading."""
    numeric: bool = True
    """OBX-2 is NM; else it is empty, and so must the value be."""
    field: str = ""
    why: str = ""
    """Where and why it is in conflict, empty when it is not."""


Key = tuple[str, str, str, str, str]
"""OBX-2, -3, -6, -8 and -11."""


def marks(flags: str, result: str, component: str, repeat: str) -> Marks:
    """Return the state of OBX-8 and OBX-11: test over all, then no value, doubt, alarms off."""
    said = {one.split(component, 1)[0].strip().upper() for one in flags.split(repeat)}
    result = result.strip().upper()
    if result in _WITHDRAWN:
        return Marks(withdrawn=True)
    if result not in _WITH_VALUE and result not in _WITHOUT:
        return Marks(unknown=True)
    absent = [reason for word, reason in _ABSENT.items() if word in said]
    if result in _WITHOUT:
        absent.append(Absence.NO_VALUE)
    reason = int(absent[0]) if absent else 0
    tried = [status for word, status in _TRIED.items() if word in said]
    if tried:
        return Marks(int(max(tried)), reason)
    if reason:
        return Marks(int(Status.MISSING), reason)
    if said & _DOUBTED:
        return Marks(int(Status.QUESTIONABLE))
    return Marks(int(Status.ALARM_INHIBITED)) if "ALINH" in said else Marks()


class Rows:
    """The rows known of messages with one set of marks, one mapping and one sender."""

    __slots__ = ("_component", "_known", "_repeat", "_senders", "_vendor", "get")

    def __init__(
        self, component: str, repeat: str, vendor: VendorMap, senders: tuple[str, ...]
    ) -> None:
        """Know none yet."""
        self._component, self._repeat = component, repeat
        self._vendor, self._senders = vendor, senders
        self._known: dict[Key, Said] = {}
        self.get = self._known.get
        """What a row is known to say, None when it is not known."""

    def __len__(self) -> int:
        return len(self._known)

    def learn(self, key: Key) -> Said:
        """Return what a row says, and remember it if it is of ordinary length."""
        said = _said(key, self._component, self._repeat, self._vendor, self._senders)
        if sum(map(len, key)) <= ROW_CHARS_MAX:
            if len(self._known) >= ROWS_REMEMBERED:
                self._known.clear()
            self._known[key] = said
        return said


@lru_cache(maxsize=_TABLES_REMEMBERED)
def rows(component: str, repeat: str, vendor: VendorMap, senders: tuple[str, ...]) -> Rows:
    """Return the rows known so far."""
    return Rows(component, repeat, vendor, senders)


def key_of(fields: list[str]) -> Key:
    """Return what tells rows of one meaning."""
    padded = fields + [""] * (12 - len(fields))
    return padded[2], padded[3], padded[6], padded[8], padded[11]


def _said(
    key: Key, component: str, repeat: str, vendor: VendorMap, senders: tuple[str, ...]
) -> Said:
    """Return what OBX-2, -3, -6, -8 and -11 say together."""
    kind, code, unit_text, flags, result = key
    of = named(code, component, vendor, senders)
    if of.vital == NO_VITAL:
        return Said(NO_VITAL, field=f"3.{of.component}" if of.component else "3", why=of.conflict)
    state = marks(flags, result, component, repeat)
    name = VITALS[of.vital].name
    if state.withdrawn:
        return Said(of.vital, of.site)
    if state.unknown:
        why = f"{name}: the result status is none of HL7 table 0085"
        return Said(of.vital, of.site, field="11", why=why)
    if kind not in ("NM", ""):
        why = f"{name}: the value type of a vital sign is NM"
        return Said(of.vital, of.site, field="2", why=why)
    in_unit = unit(of.vital, unit_text, component, vendor, senders, of.unit)
    if in_unit.conflict:
        return Said(of.vital, of.site, field="6", why=f"{name}: {in_unit.conflict}")
    return Said(of.vital, of.site, in_unit.ucum, state, kind == "NM")
