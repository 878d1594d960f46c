"""Search parameters: text in, typed search out, or a Problem that names the parameter.

Law: pure. A parameter that this server does not know is ignored, unless the client asked for
strict handling (Prefer); a known one with a wrong value, or with a modifier, is always refused.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from cloud.api import dates
from cloud.api.problems import Problem, bad
from cloud.fhir import observations, terms
from cloud.fhir.ids import PANELS, ObservationId, parse_observation_id
from cloud.fhir.observations import Built
from vitals.codes import BY_NAME, VITALS, Site
from vitals.reading import Reading

COUNT_DEFAULT: Final = 100
COUNT_MAX: Final = 1000
LASTN_MAX: Final = 1000

CURSOR: Final = "_cursor"
IGNORED: Final = frozenset({"_format", "_pretty"})

_FHIR_ID: Final = re.compile(r"[A-Za-z0-9.-]{1,64}")
_LOINC: Final = re.compile(r"\d+-\d")


class Token(NamedTuple):
    """``system|code``: None is "any", an empty system "none"."""

    system: str | None
    code: str | None

    def fits(self, system: str, code: str) -> bool:
        """Tell whether a coding fits."""
        return self.system in {None, system} and self.code in {None, code}


def system_of(code: str) -> str:
    """Return the system of a bare code of our Observations."""
    if _LOINC.fullmatch(code):
        return terms.LOINC
    return terms.MDC if code.isdigit() else terms.LOCAL_VITAL


def own_codes(built: Built) -> frozenset[str]:
    """Return the codes of Observation.code, without those of components."""
    return built.codes - built.component_codes


def _codes_of_vitals() -> dict[str, frozenset[int]]:
    """Return bare code -> vitals whose Observations carry it, by building one of each."""
    nobody = "0" * 32
    found: dict[str, set[int]] = {}
    for vital in VITALS:
        panel = next((parts for parts in PANELS.values() if vital.name in parts), (vital.name,))
        together = {BY_NAME[name].index for name in panel}
        for site in Site:
            rows = [Reading(vital.index, max(0.0, vital.low), 0, 0, site=int(site))]
            for built in observations.of_rows(nobody, nobody, rows):
                for code in own_codes(built):
                    found.setdefault(code, set()).update(together)
    return {code: frozenset(vitals) for code, vitals in found.items()}


VITALS_OF_CODE: Final = _codes_of_vitals()


class Search(NamedTuple):
    """An Observation search. ``codes``: each list is OR, the lists are AND."""

    subject: str | None
    ids: frozenset[str] | None
    codes: list[list[Token]]
    dates: list[dates.DateParam]
    vital_signs: bool
    """False: a category was asked for that no Observation here has."""
    size: int
    """Entries of a page."""
    cursor: ObservationId | None
    used: list[tuple[str, str]]
    """The parameters that counted, for the self link; without the cursor."""

    def vitals(self) -> frozenset[int] | None:
        """Return the vitals that can fit, None when all can."""
        if not self.codes:
            return None
        sets = [
            frozenset[int]().union(
                *(
                    vitals
                    for code, vitals in VITALS_OF_CODE.items()
                    if any(token.fits(system_of(code), code) for token in tokens)
                )
            )
            for tokens in self.codes
        ]
        return frozenset.intersection(*sets)

    def fits(self, built: Built) -> bool:
        """Tell whether an Observation fits everything but patient and page."""
        if self.ids is not None and built.id not in self.ids:
            return False
        codes = own_codes(built)
        return all(
            any(token.fits(system_of(code), code) for token in tokens for code in codes)
            for tokens in self.codes
        ) and all(dates.instant_matches(wanted, built.time_ms) for wanted in self.dates)


def sorted_out(
    items: Iterable[tuple[str, str]], known: frozenset[str], *, strict: bool
) -> list[tuple[str, str]]:
    """Return the parameters this search knows; refuse modifiers and, if strict, strangers."""
    used = []
    for name, value in items:
        bare = name.partition(":")[0]
        if bare in known:
            if bare != name:
                raise bad(f"{bare}: modifiers are not supported", "not-supported")
            used.append((name, value))
        elif strict and bare not in IGNORED:
            raise bad(
                "an unknown search parameter, and Prefer: handling=strict; known are "
                + ", ".join(sorted(known)),
                "not-supported",
            )
    return used


def values_of(used: Sequence[tuple[str, str]], *names: str) -> list[str]:
    """Return every value of these parameters; refuse an empty one."""
    found = [value for name, value in used if name in names]
    if any(not value for value in found):
        raise bad(f"{names[0]}: a value is missing")
    return found


def patient_of(used: Sequence[tuple[str, str]], base_url: str) -> str | None:
    """Return the subject of ``patient=`` (or ``subject=``), as id or reference."""
    values = values_of(used, "patient", "subject")
    if not values:
        return None
    ids = set()
    for value in values:
        bare = value.removeprefix(f"{base_url}/").removeprefix("Patient/")
        if not _FHIR_ID.fullmatch(bare):
            raise bad("patient: one id, or Patient/id, is needed")
        ids.add(bare)
    if len(ids) > 1:
        raise bad("patient: only one patient in one search", "not-supported")
    return ids.pop()


def tokens_of(value: str, name: str) -> list[Token]:
    """Return the tokens of a comma-separated list."""
    found = []
    for part in value.split(","):
        system, bar, code = part.rpartition("|")
        if not part or (bar and not system and not code):
            raise bad(f"{name}: an empty code in the list")
        found.append(Token(system if bar else None, code or None))
    return found


def count_of(used: Sequence[tuple[str, str]], name: str, default: int, most: int) -> int:
    """Return a positive number, capped at ``most``."""
    values = values_of(used, name)
    if not values:
        return default
    try:
        number = int(values[-1]) if values[-1].isascii() else -1
    except ValueError:
        number = -1
    if number < 1:
        raise bad(f"{name}: a whole number from 1 is needed", "value")
    return min(number, most)


def dates_of(used: Sequence[tuple[str, str]]) -> list[dates.DateParam]:
    """Return the date parameters, which all must fit."""
    found = []
    for value in values_of(used, "date"):
        try:
            found.append(dates.parse(value))
        except dates.DateError as error:
            raise bad(f"date: {error}", "value") from error
    return found


def is_vital_signs(used: Sequence[tuple[str, str]]) -> bool:
    """Tell whether every category asked for is one that all Observations here have."""
    return all(
        any(token.fits(terms.CATEGORY, "vital-signs") for token in tokens_of(value, "category"))
        for value in values_of(used, "category")
    )


def cursor_text(ident: str) -> str:
    """Return the opaque mark of the last entry of a page."""
    return base64.urlsafe_b64encode(ident.encode()).decode().rstrip("=")


def cursor_of(used: Sequence[tuple[str, str]]) -> str | None:
    """Return the id in a page's mark."""
    values = values_of(used, CURSOR)
    if not values:
        return None
    try:
        padded = values[-1] + "=" * (-len(values[-1]) % 4)
        ident = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise _bad_cursor() from error
    if not _FHIR_ID.fullmatch(ident):
        raise _bad_cursor()
    return ident


def _bad_cursor() -> Problem:
    return bad("the page link is not one of this server; start the search again", "value")


OBSERVATION: Final = frozenset(
    {"patient", "subject", "code", "date", "category", "_id", "_count", CURSOR}
)


def observation(items: Iterable[tuple[str, str]], base_url: str, *, strict: bool) -> Search:
    """Return an Observation search; raise Problem."""
    used = sorted_out(items, OBSERVATION, strict=strict)
    subject = patient_of(used, base_url)
    listed = [value for text in values_of(used, "_id") for value in text.split(",")]
    if subject is None:
        if not listed:
            raise bad("patient: a search needs a patient, or _id", "required")
        subjects = {parsed.subject for text in listed if (parsed := parse_observation_id(text))}
        if len(subjects) > 1:
            raise bad("_id: ids of one patient only", "not-supported")
        subject = subjects.pop() if subjects else None
    mark = cursor_of(used)
    cursor = None if mark is None else parse_observation_id(mark)
    if mark is not None and (cursor is None or cursor.subject != subject):
        raise _bad_cursor()
    return Search(
        subject,
        frozenset(listed) if listed else None,
        [tokens_of(value, "code") for value in values_of(used, "code")],
        dates_of(used),
        is_vital_signs(used),
        count_of(used, "_count", COUNT_DEFAULT, COUNT_MAX),
        cursor,
        [(name, value) for name, value in used if name != CURSOR],
    )


LASTN: Final = frozenset({"patient", "subject", "code", "category", "date", "max"})


class LastN(NamedTuple):
    """A ``$lastn``: the newest ``most`` of each group of codes."""

    search: Search
    most: int


def lastn(items: Iterable[tuple[str, str]], base_url: str, *, strict: bool) -> LastN:
    """Return a $lastn; raise Problem (R4: a patient and a category or code are required)."""
    used = sorted_out(items, LASTN, strict=strict)
    subject = patient_of(used, base_url)
    if subject is None:
        raise bad("patient: $lastn needs a patient", "required")
    if values_of(used, "date"):
        raise bad("date: not supported by $lastn here; search Observation by date", "not-supported")
    if not values_of(used, "code", "category"):
        raise bad("category: $lastn needs a category or a code", "required")
    search = Search(
        subject,
        None,
        [tokens_of(value, "code") for value in values_of(used, "code")],
        [],
        is_vital_signs(used),
        COUNT_MAX,
        None,
        used,
    )
    return LastN(search, count_of(used, "max", 1, LASTN_MAX))
