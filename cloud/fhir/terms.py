"""Code systems and concepts: how a vital, a status or a site is said in FHIR.

Law: every code comes from the code table or from the source named beside it. A code that no
primary source confirms is never sent under a public system: such a vital carries its MDC terms, a
code of our own system and text (standards: LOINC codes marked unverified in vitals/codes.py).
"""

from typing import Any, Final

from cloud.fhir.ids import PANELS
from vitals.codes import BY_NAME, SITE_LOINC, SITE_MDC, Consciousness, Site, Status, Vital

Json = dict[str, Any]

LOINC: Final = "http://loinc.org"
MDC: Final = "urn:iso:std:iso:11073:10101"
UCUM: Final = "http://unitsofmeasure.org"
SNOMED: Final = "http://snomed.info/sct"
CATEGORY: Final = "http://terminology.hl7.org/CodeSystem/observation-category"
ABSENT: Final = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
ACT_REASON: Final = "http://terminology.hl7.org/CodeSystem/v3-ActReason"
OBSERVATION_VALUE: Final = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue"
INTERPRETATION: Final = "http://terminology.hl7.org/CodeSystem/v3-ObservationInterpretation"
IDENTIFIER_TYPE: Final = "http://terminology.hl7.org/CodeSystem/v2-0203"
PROFILE: Final = "http://hl7.org/fhir/StructureDefinition/"

BASE: Final = "https://healthsync.invalid/fhir"
"""Names our resources where no server's address is known (RFC 2606: never resolves)."""

ALARM_LIMITS: Final[Json] = {"text": "alarm limits"}
"""referenceRange.type. Text only: HL7's referencerange-meaning has no code for alarm limits, and
``normal`` would be a claim about the person that nobody made."""

LOCAL_VITAL: Final = "urn:healthsync:vital"
LOCAL_ACVPU: Final = "urn:healthsync:acvpu"
LOCAL_KIND: Final = "urn:healthsync:alert-kind"
LOCAL_TAG: Final = "urn:healthsync:tag"
LOCAL_QUALITY: Final = "urn:healthsync:quality"
LOCAL_ACTION: Final = "urn:healthsync:alert-action"
LOCAL_SCORE: Final = "urn:healthsync:score"
LOCAL_MRN: Final = "urn:healthsync:mrn"
LOCAL_DEVICE: Final = "urn:healthsync:device"

PANEL_LOINC: Final = "85354-9"
"""Blood pressure panel with all children optional (profile bp, fixed)."""

PANEL_TEXT: Final = {
    "nibp": "Blood pressure (cuff)",
    "abp": "Blood pressure (arterial line)",
}
PANEL_MDC: Final = {"nibp": 150020}
"""MDC_PRESS_BLD_NONINV; the arterial line is told by the MDC codes of its components."""

PROFILES: Final = {
    "heart_rate": "heartrate",
    "spo2": "oxygensat",
    "resp_rate": "resprate",
    "temperature": "bodytemp",
    "nibp": "bp",
    "abp": "bp",
}
"""R4 vital-signs profile of a vital; every other one claims the base profile ``vitalsigns``."""

ACVPU_SNOMED: Final = {
    Consciousness.ALERT: "248234008",
    Consciousness.VOICE: "300202002",
    Consciousness.PAIN: "450847001",
    Consciousness.UNRESPONSIVE: "422768004",
}
"""As used by two published guides each (V: one). New confusion has no agreed code: local only."""

ACVPU_TEXT: Final = {
    Consciousness.ALERT: "Alert",
    Consciousness.CONFUSION: "New confusion",
    Consciousness.VOICE: "Responds to voice",
    Consciousness.PAIN: "Responds to pain",
    Consciousness.UNRESPONSIVE: "Unresponsive",
}

SCORE_SNOMED: Final = {
    "news2": "1104051000000101",
    "news2.resp_rate": "1104301000000104",
    "news2.spo2": "1104311000000102",
    "news2.oxygen": "1104331000000105",
    "news2.systolic": "1104341000000101",
    "news2.pulse": "1104351000000103",
    "news2.consciousness": "1104361000000100",
    "news2.temperature": "1104371000000107",
}
"""SNOMED CT, United Kingdom edition (NEWS2 guide of Synanetics); of SpO2 that of scale 1 only."""

_SITE_TERM: Final = {site: code for code, site in SITE_MDC.items()}


def coding(system: str, code: str) -> Json:
    """Return one Coding. Displays are left to the concept's text: LOINC changes its own."""
    return {"system": system, "code": code}


def loincs(vital: Vital, site: int = 0) -> tuple[str, ...]:
    """Return the LOINC codes a reading is sent with; none when the table's is unverified."""
    if not vital.loinc_verified:
        return ()
    beside = (SITE_LOINC[Site(site)],) if Site(site) in SITE_LOINC else ()
    return (vital.loinc, *vital.loinc_also, *beside)


def concept(vital: Vital, site: int = 0) -> Json:
    """Return the CodeableConcept of a vital: LOINC first, then our own, then MDC."""
    codings = [coding(LOINC, code) for code in loincs(vital, site)]
    if not codings:
        codings.append(coding(LOCAL_VITAL, vital.name))
    term = _SITE_TERM.get(Site(site)) if site else None
    if term is None and vital.mdc:
        term = vital.mdc[0]
    if term is not None:
        codings.append(coding(MDC, str(term)))
    where = f" ({Site(site).name.lower()})" if site else ""
    return {"coding": codings, "text": vital.display + where}


def panel_concept(panel: str) -> Json:
    """Return the CodeableConcept of ``nibp`` or ``abp``."""
    codings = [coding(LOINC, PANEL_LOINC)]
    if panel in PANEL_MDC:
        codings.append(coding(MDC, str(PANEL_MDC[panel])))
    return {"coding": codings, "text": PANEL_TEXT[panel]}


def acvpu(level: Consciousness) -> Json:
    """Return the CodeableConcept of a level of consciousness."""
    codings = [coding(LOCAL_ACVPU, level.name.lower())]
    if level in ACVPU_SNOMED:
        codings.insert(0, coding(SNOMED, ACVPU_SNOMED[level]))
    return {"coding": codings, "text": ACVPU_TEXT[level]}


def score(name: str, text: str) -> Json:
    """Return the CodeableConcept of a score: our own code first, then SNOMED CT's if known."""
    codings = [coding(LOCAL_SCORE, name)]
    if name in SCORE_SNOMED:
        codings.append(coding(SNOMED, SCORE_SNOMED[name]))
    return {"coding": codings, "text": text}


def sub_score(name: str, parameter: str, spo2_scale: int = 1) -> Json:
    """Return the CodeableConcept of one parameter's points; SpO2 on scale 2 says so."""
    text = parameter.replace("_", " ")
    if parameter == "spo2" and spo2_scale != 1:
        codings = [coding(LOCAL_SCORE, f"{name}.spo2-scale-{spo2_scale}")]
        return {"coding": codings, "text": f"{text}, scale {spo2_scale}"}
    return score(f"{name}.{parameter}", text)


def absent(reason: str) -> Json:
    """Return the CodeableConcept of a dataAbsentReason."""
    return {"coding": [coding(ABSENT, reason)]}


ABSENT_REASON: Final = {Status.MISSING: "temp-unknown", Status.IMPLAUSIBLE: "error"}
"""Why a status has no value; any other status without one is ``unknown``."""


def security(statuses: frozenset[Status]) -> list[Json]:
    """Return meta.security of an Observation whose parts have these statuses.

    IHE DEC OBX-8 to FHIR (HL7 POCD mapping): QUES UNCERTREL, INV UNRELIABLE, TEST and DEMO HTEST,
    CAL UNCERTREL. Calibration is marked HTEST too, so that whoever filters tests filters it.
    """
    labels = []
    if statuses & {Status.TEST, Status.CALIBRATION}:
        labels.append(coding(ACT_REASON, "HTEST"))
    if Status.IMPLAUSIBLE in statuses:
        labels.append(coding(OBSERVATION_VALUE, "UNRELIABLE"))
    elif statuses & {Status.QUESTIONABLE, Status.CALIBRATION}:
        labels.append(coding(OBSERVATION_VALUE, "UNCERTREL"))
    return labels


def codes_of(code: Json) -> frozenset[str]:
    """Return the bare codes of a CodeableConcept."""
    return frozenset(entry["code"] for entry in code["coding"])


assert all(part in BY_NAME for parts in PANELS.values() for part in parts)  # noqa: S101
assert set(ACVPU_TEXT) == set(Consciousness)  # noqa: S101
