"""Observation templates: made and checked by ``fhir.resources`` once, at import.

Law: the only place where an Observation's shape is written. Each template is a model that
``fhir.resources`` accepted, dumped, and cut into the pieces between its slots. A slot that is
missing or stands out of order is an AssertionError at import, not a wrong resource later.

Slots, in order: id, subject, time, value (only where there is one), device. A pressure panel has
no value slot and ends open, before its components; a component has a value slot or none.
"""

from typing import Final, NamedTuple

import orjson
from fhir.resources.R4B.observation import Observation

from cloud.fhir import terms
from cloud.fhir.ids import PANELS
from cloud.fhir.terms import Json
from vitals.codes import BY_NAME, VITALS, Consciousness, Site, Status, Vital

VALUED: Final = frozenset(
    {Status.OK, Status.QUESTIONABLE, Status.TEST, Status.CALIBRATION, Status.ALARM_INHIBITED}
)
"""Statuses whose value is sent; the others say why there is none."""

TEMPERATURE: Final = BY_NAME["temperature"].index
CONSCIOUSNESS: Final = BY_NAME["consciousness"].index

_ID, _SUBJECT, _DEVICE = "slot-id", "slot-subject", "slot-device"
_TIME, _VALUE = "2001-02-03T04:05:06.789Z", 123454321


class Template(NamedTuple):
    """The pieces between slots (one more than slots), and the bare codes that they carry.

    ``name`` is the vital's, or the panel's; a panel's codes are without those of its components.
    """

    name: str
    pieces: tuple[str, ...]
    codes: frozenset[str]


def _observation(name: str, code: Json, statuses: frozenset[Status]) -> Json:
    profile = terms.PROFILES.get(name, "vitalsigns")
    meta: Json = {"profile": [terms.PROFILE + profile]}
    if labels := terms.security(statuses):
        meta["security"] = labels
    return {
        "resourceType": "Observation",
        "id": _ID,
        "meta": meta,
        "status": "final",
        "category": [{"coding": [terms.coding(terms.CATEGORY, "vital-signs")]}],
        "code": code,
        "subject": {"reference": f"Patient/{_SUBJECT}"},
        "effectiveDateTime": _TIME,
        "device": {"reference": f"Device/{_DEVICE}"},
    }


def _quantity(vital: Vital) -> Json:
    unit = "bpm" if vital.unit == "/min" and vital.name != "resp_rate" else vital.unit
    shown = {"Cel": "°C", "mm[Hg]": "mmHg", "/min": "breaths/min"}.get(unit, unit)
    return {"value": _VALUE, "unit": shown, "system": terms.UCUM, "code": vital.unit}


def _value(vital: Vital, status: Status, level: Consciousness | None, *, valued: bool) -> Json:
    """Return the part of an Observation or component that depends on its status."""
    if not valued:
        return {"dataAbsentReason": terms.absent(terms.ABSENT_REASON.get(status, "unknown"))}
    out: Json = {}
    if level is not None:
        out["valueCodeableConcept"] = terms.acvpu(level)
    else:
        out["valueQuantity"] = _quantity(vital)
    if status is Status.QUESTIONABLE:
        # Text only: the measurement-status code system belongs to a guide that R4 lacks.
        out["interpretation"] = [{"text": "questionable"}]
    elif status is Status.ALARM_INHIBITED:
        out["interpretation"] = [{"text": "alarms switched off at the device"}]
    return out


def _dump(resource: Json) -> Json:
    """Return the resource as the model that accepted it writes it."""
    dumped: Json = orjson.loads(Observation.model_validate(resource).model_dump_json())
    dumped["effectiveDateTime"] = _TIME  # the model writes microseconds
    return dumped


def _cut(text: str, slots: tuple[str, ...]) -> tuple[str, ...]:
    pieces = []
    for slot in slots:
        assert text.count(slot) == 1  # noqa: S101 - twice, or before its turn: filled wrongly
        before, _, text = text.partition(slot)
        pieces.append(before)
    return (*pieces, text)


def _text(resource: Json) -> str:
    return orjson.dumps(resource).decode()


def _single(vital: Vital, site: int, status: Status, level: int, *, valued: bool) -> Template:
    code = terms.concept(vital, site)
    of_level = Consciousness(level) if vital.index == CONSCIOUSNESS else None
    resource = _observation(vital.name, code, frozenset({status}))
    resource |= _value(vital, status, of_level, valued=valued)
    has_number = valued and of_level is None
    slots = (_ID, _SUBJECT, _TIME, *((str(_VALUE),) if has_number else ()), _DEVICE)
    return Template(vital.name, _cut(_text(_dump(resource)), slots), terms.codes_of(code))


def _part(vital: Vital, status: Status, *, valued: bool) -> Json:
    return {"code": terms.concept(vital)} | _value(vital, status, None, valued=valued)


def _panel_head(panel: str, statuses: frozenset[Status]) -> Template:
    code = terms.panel_concept(panel)
    resource = _observation(panel, code, statuses)
    parts = [_part(BY_NAME[name], Status.OK, valued=True) for name in PANELS[panel]]
    dumped = _dump(resource | {"component": parts})
    del dumped["component"]
    text = _text(dumped)[:-1] + ',"component":['
    return Template(panel, _cut(text, (_ID, _SUBJECT, _TIME, _DEVICE)), terms.codes_of(code))


def _panel_part(panel: str, name: str, status: Status, *, valued: bool) -> Template:
    part = _part(BY_NAME[name], status, valued=valued)
    whole = _observation(panel, terms.panel_concept(panel), frozenset({status}))
    dumped = _dump(whole | {"component": [part]})["component"][0]
    slots = (str(_VALUE),) if valued else ()
    return Template(name, _cut(_text(dumped), slots), terms.codes_of(part["code"]))


SingleKey = tuple[int, int, int, int]
"""Vital, site (0 but for temperature), status, then -1: no value, 0: number, 1..: ACVPU level."""

PartKey = tuple[int, int, bool]
"""Vital of one pressure, status, whether it has a value."""


def _singles() -> dict[SingleKey, Template]:
    parts = {name for names in PANELS.values() for name in names}
    made: dict[SingleKey, Template] = {}
    for vital in VITALS:
        if vital.name in parts:
            continue
        sites = list(Site) if vital.index == TEMPERATURE else [Site.NONE]
        levels = len(Consciousness) if vital.index == CONSCIOUSNESS else 1
        for site in sites:
            for status in Status:
                made[vital.index, site, status, -1] = _single(vital, site, status, 0, valued=False)
                for level in range(levels if status in VALUED else 0):
                    made[vital.index, site, status, level] = _single(
                        vital, site, status, level, valued=True
                    )
    return made


def _parts() -> dict[PartKey, Template]:
    return {
        (BY_NAME[name].index, int(status), valued): _panel_part(panel, name, status, valued=valued)
        for panel, names in PANELS.items()
        for name in names
        for status in Status
        for valued in ((True, False) if status in VALUED else (False,))
    }


def _marks() -> list[frozenset[Status]]:
    """Return every set of statuses that gives a panel different security labels."""
    marking = [Status.QUESTIONABLE, Status.TEST, Status.CALIBRATION, Status.IMPLAUSIBLE]
    return [
        frozenset(status for at, status in enumerate(marking) if bits >> at & 1)
        for bits in range(1 << len(marking))
    ]


SINGLES: Final = _singles()
PARTS: Final = _parts()
HEADS: Final = {(panel, marks): _panel_head(panel, marks) for panel in PANELS for marks in _marks()}
MARKING: Final = frozenset().union(*_marks())
"""Statuses that a panel's head must know of."""
