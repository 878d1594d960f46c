"""What the facets of an alarm may say (IHE PCD-04): closed sets of codes and words.

Law: pure tables and pure functions of a text; nothing free ever comes out of them. Sources: IHE PCD
TF 2 section 3.4 and appendix B (facets, OBX-4, OBX-8), ISO/IEEE 11073-10101 (codes); the older
facet codes as GE and Draeger send them.
"""

import hashlib
import re
from typing import Final

from edge import normalize
from edge.decode_line import parse_number
from edge.hl7_codes import EVENT_FIRST, EVENT_LAST, number_of
from edge.refusal import Refuse

EVENT, SOURCE, PHASE, STATE, INACTIVATION, PRIORITY, KIND, TIMEOUT = range(1, 9)
"""Facets; the first seven are the last number of OBX-4."""

FACETS: Final = {
    68480: SOURCE,
    68481: PHASE,
    68482: STATE,
    68483: INACTIVATION,
    68484: PRIORITY,
    68485: KIND,
    68164: SOURCE,
    68165: PHASE,
    68166: STATE,
    68167: INACTIVATION,
    68168: PRIORITY,
    67860: TIMEOUT,
}
"""MDC code -> facet; 6816x are the older ones. 67860 is MDC_ATTR_CONFIRM_TIMEOUT."""

FACET_REFIDS: Final = {
    "MDC_ATTR_ALERT_SOURCE": SOURCE,
    "MDC_ATTR_EVENT_PHASE": PHASE,
    "MDC_ATTR_ALARM_STATE": STATE,
    "MDC_ATTR_ALERT_STATE": STATE,
    "MDC_ATTR_ALARM_INACTIVATION_STATE": INACTIVATION,
    "MDC_ATTR_ALARM_PRIORITY": PRIORITY,
    "MDC_ATTR_ALERT_TYPE": KIND,
    "MDC_ATTR_CONFIRM_TIMEOUT": TIMEOUT,
}

WORDS: Final = {
    PHASE: {word: word for word in ("start", "continue", "end", "update")},
    STATE: {word: word for word in ("off", "inactive", "active", "latched")},
    INACTIVATION: {
        word: word
        for word in (
            "enabled",
            "audio-paused",
            "audio-off",
            "alarm-paused",
            "alarm-off",
            "alert-acknowledged",
        )
    },
    PRIORITY: {
        "ph": "high",
        "pm": "medium",
        "pl": "low",
        "pn": "none",
        "pi": "none",
        "pu": "unknown",
        "high": "high",
        "medium": "medium",
        "low": "low",
    },
    KIND: {"sp": "physiological", "st": "technical", "sa": "advisory"},
}
"""Facet -> what may stand in OBX-5, or in OBX-8 for the last two, in lower case -> our word."""

FIELDS: Final = {
    PHASE: "phase",
    STATE: "state",
    INACTIVATION: "inactivation",
    PRIORITY: "priority",
    KIND: "kind",
}
REFID: Final = re.compile(r"MDC[A-Z]{0,4}_[A-Z0-9_]{1,55}")
"""Name of an event that may be kept: at most 63 characters (vitals/columns.py)."""
_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_LIMITS: Final = re.compile(r"\s*([<>]=?|-?\d+(?:\.\d+)?\s*-)?\s*(-?\d+(?:\.\d+)?)\s*", re.ASCII)
_LIMITS_CHARS_MAX: Final = 40
TIME_UNITS_MS: Final = {264320: 1000, 264338: 1, 264352: 60_000}
"""MDC_DIM_SEC, MDC_DIM_MILLI_SEC, MDC_DIM_MIN; seconds where none is named."""

_PRIVATE: Final = 1024
"""Partitions of MDC (code // 65536) from here on are a vendor's own."""


def facet_of(code: int, refid: str, path: str) -> int:
    """Return a row's facet, 0 for none: by its code, its REFID, else the last number of OBX-4.

    A row of a measured value is at most the source: its own number in OBX-4 may be any.
    """
    facet = FACETS.get(code, 0) or FACET_REFIDS.get(refid, 0)
    if facet:
        return facet
    if EVENT_FIRST <= code <= EVENT_LAST:
        return EVENT
    last = path.rpartition(".")[2]
    if "." not in path or len(last) != 1 or not "1" <= last <= "7":
        return 0
    facet = int(last)
    partition = code >> 16 if code >= 0 else 0
    if facet == SOURCE:
        return facet
    if partition == 0 or partition >= _PRIVATE:
        return facet
    return 0


def ident(entity: str, space: str) -> str:
    """Return an alarm's name for our records: letters, digits and ``._-`` only.

    A number alone names nothing without its name space. Draeger counts reports in it (0, 1, …)
    and puts the alarm's UUID into the name space: that is the name then. What has other
    characters, or is longer than 64, is told by its digest.
    """
    if space and number_of(entity) >= 0:
        entity = space if _UUID.fullmatch(space) else f"{space}-{entity}"
    if _ID.fullmatch(entity):
        return entity
    return "h-" + hashlib.blake2b(entity.encode("utf-8", "replace"), digest_size=8).hexdigest()


def limits_of(text: str) -> tuple[str, str]:
    """Return lower and upper limit of OBX-7 (``90-100``, ``75 - 90``, ``>98``, ``<85``) as text."""
    found = _LIMITS.fullmatch(text) if len(text) <= _LIMITS_CHARS_MAX else None
    if found is None or not found[1]:
        return "", ""
    if found[1][0] == ">":
        return found[2], ""
    if found[1][0] == "<":
        return "", found[2]
    return found[1].rstrip("- \t"), found[2]


def value_of(vital: int, text: str, ucum: str) -> float | None:
    """Return a number in the table's unit; None when it is none, or out of the table's range."""
    if not text.strip():
        return None
    try:
        return normalize.settle(vital, parse_number("", text.strip()), ucum)[0]
    except Refuse:
        return None
