"""What the names beside a code mean: MDC REFIDs, LOINC codes, unit codes, events.

Law: tables only. Codes of vital signs and their units stand in `vitals.codes` and
`edge.normalize`; here is only what HL7 v2 says beside them, so that a message which contradicts
itself is seen. Sources: ISO/IEEE 11073-10101 (REFIDs, dimensions, events), LOINC.
"""

from typing import Final

from edge.normalize import MDC_UNITS, UNITS
from vitals.codes import BY_MDC, BY_NAME, SITE_LOINC, SITE_MDC, VITALS

_REFIDS: Final = {
    147842: ("ECG_HEART_RATE", "ECG_CARD_BEAT_RATE"),
    149530: ("PULS_OXIM_PULS_RATE",),
    149514: ("PULS_RATE",),
    149546: ("PULS_RATE_NON_INV",),
    149522: ("BLD_PULS_RATE_INV",),
    149538: ("PLETH_PULS_RATE",),
    150456: ("PULS_OXIM_SAT_O2",),
    151562: ("RESP_RATE",),
    151570: ("AWAY_RESP_RATE",),
    151578: ("TTHOR_RESP_RATE",),
    151594: ("CO2_RESP_RATE",),
    151658: ("PLETH_RESP_RATE", "PULS_OXIM_PLETH_RESP_RATE"),  # the second as Masimo writes it
    150344: ("TEMP",),
    150364: ("TEMP_BODY",),
    150368: ("TEMP_CORE",),
    188420: ("TEMP_RECT",),
    188424: ("TEMP_ORAL",),
    150392: ("TEMP_TYMP",),
    150372: ("TEMP_ESOPH",),
    150388: ("TEMP_SKIN",),
    188496: ("TEMP_AXIL",),
    150021: ("PRESS_BLD_NONINV_SYS",),
    150301: ("PRESS_CUFF_SYS",),
    150017: ("PRESS_BLD_SYS",),
    150022: ("PRESS_BLD_NONINV_DIA",),
    150302: ("PRESS_CUFF_DIA",),
    150018: ("PRESS_BLD_DIA",),
    150023: ("PRESS_BLD_NONINV_MEAN",),
    150303: ("PRESS_CUFF_MEAN",),
    150019: ("PRESS_BLD_MEAN",),
    150033: ("PRESS_BLD_ART_SYS",),
    150037: ("PRESS_BLD_ART_ABP_SYS",),
    150034: ("PRESS_BLD_ART_DIA",),
    150038: ("PRESS_BLD_ART_ABP_DIA",),
    150035: ("PRESS_BLD_ART_MEAN",),
    150039: ("PRESS_BLD_ART_ABP_MEAN",),
    150087: ("PRESS_BLD_VEN_CENT_MEAN",),
    150084: ("PRESS_BLD_VEN_CENT",),
    151708: ("CONC_AWAY_CO2_ET",),
    151712: ("CONC_AWAY_CO2_EXP",),
    151728: ("AWAY_CO2_ET",),
    152196: ("CONC_AWAY_O2_INSP",),
    150488: ("BLD_PERF_INDEX",),
    150448: ("PULS_OXIM_PERF_REL",),
}
"""MDC code of the code table -> its REFIDs without ``MDC_``."""

REFIDS: Final = {
    name: (BY_MDC[code].index, int(SITE_MDC.get(code, 0)))
    for code, names in _REFIDS.items()
    for name in names
}
"""REFID without ``MDC_`` -> (vital, site)."""

_ACVPU: Final = BY_NAME["consciousness"].index
"""Its numbers are this project's own, no LOINC answer: not taken as a number from HL7."""


def _by_loinc() -> dict[str, tuple[tuple[int, ...], int]]:
    found: dict[str, tuple[int, ...]] = {}
    for vital in VITALS:
        if vital.loinc_verified and vital.index != _ACVPU:
            for code in (vital.loinc, *vital.loinc_also):
                found[code] = (*found.get(code, ()), vital.index)
    temperature = (BY_NAME["temperature"].index,)
    return {code: (vitals, 0) for code, vitals in found.items() if code} | {
        code: (temperature, int(site)) for site, code in SITE_LOINC.items()
    }


LOINC: Final = _by_loinc()
"""LOINC -> (vitals it may mean, site). Cuff and arterial line share one; alone it means a cuff."""

LOINC_SYSTEMS: Final = frozenset({"", "LN", "LNC", "LOINC", "HTTP://LOINC.ORG"})
"""OBX-3.3 of a LOINC code, in capitals; LN is HL7 table 0396's."""

BEATS: Final = "{beats}/min"
BREATHS: Final = "{breaths}/min"
"""Rates that say what is counted; ``/min`` is either."""

_RATES: Final = {
    "beats/min": BEATS,
    "{beats}/min": BEATS,
    "{beat}/min": BEATS,
    "breaths/min": BREATHS,
    "{breaths}/min": BREATHS,
    "{breath}/min": BREATHS,
    "resp/min": BREATHS,
    "{resp}/min": BREATHS,
}
UNIT_SPELLINGS: Final = UNITS | _RATES | {"1/min": "/min"}
"""Spelling in lower case -> unit, rates told apart."""

UNIT_CODES: Final = MDC_UNITS | {264864: BEATS, 264928: BREATHS}
"""MDC unit code -> unit, rates told apart."""

UNIT_REFIDS: Final = {
    "MDC_DIM_PERCENT": "%",
    "MDC_DIM_BEAT_PER_MIN": BEATS,
    "MDC_DIM_RESP_PER_MIN": BREATHS,
    "MDC_DIM_KILO_PASCAL": "kPa",
    "MDC_DIM_MMHG": "mm[Hg]",
    "MDC_DIM_FAHR": "[degF]",
    "MDC_DIM_DEGC": "Cel",
    "MDC_DIM_L_PER_MIN": "L/min",
}

_PULSES: Final = frozenset({BY_NAME["heart_rate"].index, BY_NAME["pulse_rate"].index})


def _takes(vital: int, unit: str) -> tuple[str, ...]:
    if unit == "/min":
        return ("/min", BEATS if vital in _PULSES else BREATHS)
    return {"Cel": ("Cel", "[degF]"), "mm[Hg]": ("mm[Hg]", "kPa")}.get(unit, (unit,))


TAKES: Final = tuple(_takes(vital.index, vital.unit) for vital in VITALS)
"""Per vital: the units it is taken in, those of `edge.normalize.settle`, rates told apart."""

EVENTS: Final = {
    196616: "MDC_EVT_ALARM",
    196648: "MDC_EVT_HI",
    196652: "MDC_EVT_HI_VAL_GT_LIM",
    196670: "MDC_EVT_LO",
    196674: "MDC_EVT_LO_VAL_LT_LIM",
    196680: "MDC_EVT_LEAD_OFF",
}
"""MDC event code (partition 3) -> REFID, for a sender that gives the code alone."""

EVENT_FIRST: Final = 196_608
EVENT_LAST: Final = 262_143
"""Partition 3 of MDC, events: 3 * 65536 and the 65535 terms above."""

assert set(_REFIDS) == set(BY_MDC)  # noqa: S101
assert set(UNIT_CODES.values()) <= set(UNIT_REFIDS.values())  # noqa: S101


def number_of(text: str) -> int:
    """Return a code of up to nine digits, -1 for anything else (other scripts' digits too)."""
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 10 else -1


def is_mdc(system: str) -> bool:
    """Tell whether OBX-3.3 in capitals is MDC, or says nothing."""
    return not system or "MDC" in system or "11073" in system
