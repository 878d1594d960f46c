"""Which vital sign an OBX is of, and in what unit: OBX-3 and OBX-6.

Law: pure. A code means what the code table says, or what the vendor's mapping says of a code that
the table has not; whatever stands beside it (REFID, coding system, second triplet, unit) must
agree, else it is a conflict and never a value. What is merely unknown is not a conflict.
"""

from functools import lru_cache
from typing import Final, NamedTuple

from edge.hl7_codes import (
    BEATS,
    BREATHS,
    LOINC,
    LOINC_SYSTEMS,
    REFIDS,
    TAKES,
    UNIT_CODES,
    UNIT_REFIDS,
    UNIT_SPELLINGS,
    is_mdc,
    number_of,
)
from edge.hl7_map import VendorMap
from vitals.codes import BY_MDC, SITE_MDC, VITALS

REMEMBERED_MAX: Final = 2048
"""Texts of OBX-3 or OBX-6 whose meaning is kept: a house has a few hundred."""

REMEMBERED_CHARS_MAX: Final = 200
"""Longer ones are read anew, so that what is kept stays under a megabyte."""

NO_VITAL: Final = -1


class Named(NamedTuple):
    """What OBX-3 names. ``vital`` is NO_VITAL when it is none known; ``conflict`` says why not."""

    vital: int
    site: int = 0
    unit: str = ""
    """The mapping's, for an OBX-6 that says nothing."""
    conflict: str = ""
    component: int = 0
    """Of OBX-3 that the conflict is in, from 1; 0 for the field."""


class _Meant(NamedTuple):
    vitals: tuple[int, ...]
    site: int = 0
    unit: str = ""


class _Conflict(Exception):
    def __init__(self, why: str, component: int = 0) -> None:
        super().__init__(why)
        self.why, self.component = why, component


_UNKNOWN: Final = Named(NO_VITAL)


def named(text: str, component: str, vendor: VendorMap, senders: tuple[str, ...]) -> Named:
    """Return what OBX-3 names; ``senders``: parts of MSH-3 in small letters, for the mapping."""
    if len(text) > REMEMBERED_CHARS_MAX:
        return _named.__wrapped__(text, component, vendor, senders)
    return _named(text, component, vendor, senders)


@lru_cache(maxsize=REMEMBERED_MAX)
def _named(text: str, component: str, vendor: VendorMap, senders: tuple[str, ...]) -> Named:
    parts = [part.strip() for part in text.split(component, 6)[:6]]
    parts += [""] * (6 - len(parts))
    try:
        first = _meant(parts[:3], 1, vendor, senders)
        second = _meant(parts[3:], 4, vendor, senders)
        meant = _agreed(first, second)
    except _Conflict as conflict:
        return Named(NO_VITAL, conflict=conflict.why, component=conflict.component)
    return _UNKNOWN if meant is None else Named(meant.vitals[0], meant.site, meant.unit)


def _agreed(first: _Meant | None, second: _Meant | None) -> _Meant | None:
    if first is None or second is None:
        return first or second
    both = tuple(vital for vital in first.vitals if vital in second.vitals)
    if not both:
        raise _Conflict("its two codes are of different vital signs")
    return _Meant(both, _site(first.site, second.site, 0), first.unit or second.unit)


def _site(one: int, other: int, component: int) -> int:
    if one and other and one != other:
        raise _Conflict("two sites are named", component)
    return one or other


def _meant(
    triplet: list[str], component: int, vendor: VendorMap, senders: tuple[str, ...]
) -> _Meant | None:
    code, words, system = triplet
    if not code and not words:
        return None
    system, refid = system.upper(), words.upper()
    spoken = REFIDS.get(refid.removeprefix("MDC_"))
    number = number_of(code)
    if number in BY_MDC:
        if not is_mdc(system):
            raise _Conflict("the code is MDC's, the system beside it is not", component + 2)
        if spoken is None and refid.startswith("MDC_"):
            raise _Conflict("the REFID is not the code's", component + 1)
        meant = _Meant((BY_MDC[number].index,), int(SITE_MDC.get(number, 0)))
    elif code in LOINC:
        if system not in LOINC_SYSTEMS:
            raise _Conflict("the code is LOINC's, the system beside it is not", component + 2)
        meant = _Meant(*LOINC[code])
        if not refid.startswith("MDC_"):
            return meant  # beside a LOINC code stands a name for people
    else:
        local = vendor.meaning(code, system, senders)
        if local is None:
            if (spoken and (refid.startswith("MDC_") or (system and is_mdc(system)))) or (
                code.upper().startswith("MDC_") and code.upper()[4:] in REFIDS
            ):
                raise _Conflict("the REFID is a vital sign's, the code beside it is not", component)
            return None
        meant = _Meant((local.vital,), local.site, local.unit)
        if not refid.startswith("MDC_"):
            return meant
    if spoken is None:
        return meant
    if spoken[0] not in meant.vitals:
        raise _Conflict("the REFID is another vital sign's than the code", component + 1)
    return _Meant((spoken[0],), _site(meant.site, spoken[1], component + 1), meant.unit)


class Unit(NamedTuple):
    """What OBX-6 says: a UCUM unit that the vital sign is taken in, empty for the table's own."""

    ucum: str = ""
    conflict: str = ""


def unit(
    vital: int, text: str, component: str, vendor: VendorMap, senders: tuple[str, ...], own: str
) -> Unit:
    """Return the unit of a vital sign; ``own``: the mapping's, where OBX-6 says nothing known."""
    if len(text) > REMEMBERED_CHARS_MAX:
        return _unit.__wrapped__(vital, text, component, vendor, senders, own)
    return _unit(vital, text, component, vendor, senders, own)


@lru_cache(maxsize=REMEMBERED_MAX)
def _unit(
    vital: int, text: str, component: str, vendor: VendorMap, senders: tuple[str, ...], own: str
) -> Unit:
    parts = [part.strip().strip('"') for part in text.split(component, 6)[:6]]
    parts += [""] * (6 - len(parts))
    if not any(parts):
        return Unit(_ucum(own))
    try:
        said = ""
        for at in (0, 3):
            for one in _said(parts[at], parts[at + 1], parts[at + 2], vendor, senders):
                said = _same(said, one)
    except _Conflict as conflict:
        return Unit(conflict=conflict.why)
    said = said or own
    if not said:
        return Unit(conflict="the unit is not known")
    if said not in TAKES[vital]:
        return Unit(conflict=f"it is measured in {VITALS[vital].unit}")
    return Unit(_ucum(said))


def _ucum(said: str) -> str:
    return "/min" if said in (BEATS, BREATHS) else said


def _same(one: str, other: str) -> str:
    """Return the unit two words agree on; ``/min`` agrees with any rate."""
    if not one or not other or one == other:
        return one or other
    if "/min" in (one, other) and {one, other} <= {"/min", BEATS, BREATHS}:
        return other if one == "/min" else one
    raise _Conflict("two units are named")


def _said(
    code: str, words: str, system: str, vendor: VendorMap, senders: tuple[str, ...]
) -> list[str]:
    """Return the units that a triplet's code and words name, empty where they name none."""
    number = number_of(code)
    by_code = UNIT_CODES.get(number, "") or _word(code, vendor, senders)
    system = system.upper()
    if code and not by_code and (number >= 0 or (system and is_mdc(system)) or system == "UCUM"):
        raise _Conflict("the unit code is not known")
    if number in UNIT_CODES and not is_mdc(system):
        raise _Conflict("the unit code is MDC's, the system beside it is not")
    return [by_code, _word(words, vendor, senders)]


def _word(text: str, vendor: VendorMap, senders: tuple[str, ...]) -> str:
    if text[:8].upper() == "MDC_DIM_":
        found = UNIT_REFIDS.get(text.upper(), "")
        if not found:
            raise _Conflict("the unit's REFID is not known")
        return found
    return UNIT_SPELLINGS.get(text.lower(), "") or vendor.unit(text, senders)
