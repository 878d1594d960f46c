"""A vendor's own codes: from a TOML file to vital signs (edge/hl7-map.example.toml).

Law: pure but for `load`; a mapping adds meaning to codes that have none here, and never changes
what an MDC or LOINC code of the code table means: a file that tries is refused whole.
"""

import difflib
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from edge.hl7_codes import LOINC, REFIDS, TAKES, UNIT_CODES, UNIT_REFIDS, UNIT_SPELLINGS, number_of
from healthsync.runtime import config as files
from vitals.codes import BY_MDC, BY_NAME, SITE_ALIAS
from vitals.errors import ConfigError

ENTRIES_MAX: Final = 1000
"""Codes and spellings of one file: every monitor of a house together has a hundred."""

CHARS_MAX: Final = 64
"""Of one code, system, sender or spelling: HL7 v2 codes have at most 20."""


class Code(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[[code]]``: what a local code means."""

    code: str
    """OBX-3 first component (or fourth), any case."""
    vital: str
    """Name in `vitals.codes`."""
    system: str = ""
    """Coding system beside it (third component, or sixth); empty: any."""
    sender: str = ""
    """MSH-3, its first or second component; empty: any."""
    site: str = ""
    """Of a temperature: oral, rectal, tympanic, axillary, bladder, core, oesophageal, skin."""
    unit: str = ""
    """Taken where OBX-6 is empty or in words that are not known."""


class Spelling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[[unit]]``: what a local unit code or spelling means."""

    spelling: str
    """A component of OBX-6, any case."""
    unit: str
    sender: str = ""


class File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole file."""

    code: tuple[Code, ...] = ()
    unit: tuple[Spelling, ...] = ()


class Meaning(NamedTuple):
    """What a local code stands for; ``unit`` as in `edge.hl7_codes`, or empty."""

    vital: int
    site: int = 0
    unit: str = ""


class VendorMap:
    """Looked up in small letters; replaced whole when the configuration is read again."""

    __slots__ = ("_codes", "_senders", "_units")

    def __init__(
        self,
        codes: dict[tuple[str, str, str], Meaning] | None = None,
        units: dict[tuple[str, str], str] | None = None,
    ) -> None:
        """Take (code, system, sender) -> meaning and (spelling, sender) -> unit, in lower case."""
        self._codes = codes or {}
        self._units = units or {}
        self._senders = frozenset({of[2] for of in self._codes} | {of[1] for of in self._units}) - {
            ""
        }

    def listed(self, sender: list[str]) -> tuple[str, ...]:
        """Return those components of MSH-3 that an entry is for, in small letters."""
        if not self._senders:
            return ()
        return tuple(one.lower() for one in sender if one.lower() in self._senders)

    def __len__(self) -> int:
        return len(self._codes) + len(self._units)

    def meaning(self, code: str, system: str, senders: tuple[str, ...]) -> Meaning | None:
        """Return what a code means; one listed for the sender, then for the system, goes first."""
        code, system = code.lower(), system.lower()
        for sender in (*senders, ""):
            for of in (system, "") if system else ("",):
                found = self._codes.get((code, of, sender))
                if found is not None:
                    return found
        return None

    def unit(self, spelling: str, senders: tuple[str, ...]) -> str:
        """Return the unit a local spelling means, or nothing."""
        spelling = spelling.lower()
        for sender in (*senders, ""):
            found = self._units.get((spelling, sender))
            if found is not None:
                return found
        return ""


NO_MAP: Final = VendorMap()
"""Nothing is local."""


def load(path: Path) -> VendorMap:
    """Return the mapping of a file; raise ConfigError that names the entry and the next step."""
    if not path.exists():
        raise ConfigError(f"{path}: no such file; correct hl7_map, or leave it out")
    return build(files.load(path, File), str(path))


def build(read: File, path: str) -> VendorMap:
    """Return the mapping of what was read from ``path``; raise ConfigError likewise."""
    if len(read.code) + len(read.unit) > ENTRIES_MAX:
        raise ConfigError(f"{path}: over {ENTRIES_MAX} entries; keep to the monitors in use")
    codes: dict[tuple[str, str, str], Meaning] = {}
    for at, entry in enumerate(read.code, 1):
        where = f"{path}: [[code]] number {at}"
        code, system, sender = _key(where, "code", entry.code, entry.system, entry.sender)
        meaning = _meaning(where, entry)
        if number_of(code) in BY_MDC or code in LOINC:
            raise ConfigError(f"{where}: {entry.code} is an MDC or LOINC code already; remove it")
        named = REFIDS.get(code.removeprefix("mdc_").upper()) if code.startswith("mdc_") else None
        if named is not None and named[0] != meaning.vital:
            raise ConfigError(f"{where}: {entry.code} names another vital sign; correct vital")
        if (code, system, sender) in codes:
            raise ConfigError(f"{where}: {entry.code} is mapped twice; remove one")
        codes[code, system, sender] = meaning
    units: dict[tuple[str, str], str] = {}
    for at, one in enumerate(read.unit, 1):
        where = f"{path}: [[unit]] number {at}"
        spelling, _, sender = _key(where, "spelling", one.spelling, "", one.sender)
        if (
            spelling in UNIT_SPELLINGS
            or number_of(spelling) in UNIT_CODES
            or spelling.upper() in UNIT_REFIDS
        ):
            raise ConfigError(f"{where}: {one.spelling} is known already; remove it")
        if (spelling, sender) in units:
            raise ConfigError(f"{where}: {one.spelling} is mapped twice; remove one")
        units[spelling, sender] = _unit(where, one.unit)
    return VendorMap(codes, units)


def _key(where: str, name: str, first: str, system: str, sender: str) -> tuple[str, str, str]:
    texts = first.strip().lower(), system.strip().lower(), sender.strip().lower()
    if not texts[0]:
        raise ConfigError(f"{where}: {name} is empty; write it as the device sends it")
    if any(len(text) > CHARS_MAX or not text.isprintable() or "^" in text for text in texts):
        raise ConfigError(
            f"{where}: write one component of the field, at most {CHARS_MAX} characters, without ^"
        )
    return texts


def _meaning(where: str, entry: Code) -> Meaning:
    vital = BY_NAME.get(entry.vital)
    if vital is None or vital.name == "consciousness":  # no device's number is ACVPU
        near = difflib.get_close_matches(entry.vital, BY_NAME.keys() - {"consciousness"}, n=1)
        raise ConfigError(
            f"{where}: no vital sign {entry.vital!r}; "
            + (f"did you mean {near[0]!r}?" if near else "see vitals/codes.py for their names")
        )
    site = 0
    if entry.site:
        if vital.name != "temperature" or entry.site not in SITE_ALIAS:
            raise ConfigError(
                f"{where}: site is for a temperature, one of {', '.join(sorted(SITE_ALIAS))}"
            )
        site = int(SITE_ALIAS[entry.site])
    unit = ""
    if entry.unit:
        unit = _unit(where, entry.unit)
        if unit not in TAKES[vital.index]:
            raise ConfigError(f"{where}: {vital.name} is measured in {vital.unit}, correct unit")
    return Meaning(vital.index, site, unit)


def _unit(where: str, text: str) -> str:
    unit = UNIT_SPELLINGS.get(text.lower(), "")
    if not unit:
        raise ConfigError(f"{where}: unit {text!r} is not known; write UCUM, as /min or mm[Hg]")
    return unit
