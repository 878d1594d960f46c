"""Observation templates: made and checked by ``fhir.resources``, each once, when first needed.

Law: the only place where an Observation's shape is written. Each template is a model that
``fhir.resources`` accepted, dumped, and cut at its slots. A slot that is missing or stands out of
order is an AssertionError, not a wrong resource later; the tests make every template there is.
There are as many as the code table, `ranges.SHAPES` and `ranges.FLAGS` allow, and no more: alarm
limits are slots, so a limit of a patient's own costs no template.

Every Observation begins alike, so that what changes from one sample to the next stands together::

    OPEN id TO_SUBJECT subject TO_TIME instant TO_DEVICE device fixed value

``fixed`` runs to the end of ``code``; ``value`` is the rest: referenceRange, value or reason,
interpretation, or components. Text is ASCII: characters are bytes, which the joins rely on.
"""

import json
from functools import cache
from typing import Final, NamedTuple

from fhir.resources.R4B.observation import Observation

from cloud.fhir import ranges, terms
from cloud.fhir.ids import PANELS
from cloud.fhir.terms import Json
from vitals.codes import BY_NAME, VITALS, Consciousness, Status, Vital

VALUED: Final = frozenset(
    {Status.OK, Status.QUESTIONABLE, Status.TEST, Status.CALIBRATION, Status.ALARM_INHIBITED}
)
"""Statuses whose value is sent; the others say why there is none."""

JUDGED: Final = VALUED - {Status.TEST, Status.CALIBRATION}
"""Statuses whose value is compared with alarm limits: a test's never is."""

TEMPERATURE: Final = BY_NAME["temperature"].index
CONSCIOUSNESS: Final = BY_NAME["consciousness"].index

OPEN: Final = '{"resourceType":"Observation","id":"'
TO_SUBJECT: Final = '","subject":{"reference":"Patient/'
TO_TIME: Final = '"},"effectiveDateTime":"'
TO_DEVICE: Final = '","device":{"reference":"Device/'
COMPONENTS: Final = ',"component":['
COMPONENTS_END: Final = "]}"

_ID, _SUBJECT, _DEVICE = "slot-id", "slot-subject", "slot-device"
_TIME, _VALUE = "2001-02-03T04:05:06.789Z", 123454321
_LOW, _HIGH, _RANGE = 123454323, 123454327, "slot-range"

# After the head above. FHIR gives JSON's properties no order.
_ORDER: Final = (
    "resourceType", "id", "subject", "effectiveDateTime", "device", "meta", "status", "category",
    "code", "referenceRange", "valueQuantity", "valueCodeableConcept", "dataAbsentReason",
    "interpretation", "component",
)  # fmt: skip


class Template(NamedTuple):
    """What stands around an Observation's or a component's slots, and the bare codes it carries.

    ``name`` is the vital's, or the panel's; a panel's codes are without those of its components.
    ``after`` is None where there is no number: then ``before`` is all of the value.
    """

    name: str
    fixed: str
    before: str
    after: str | None
    codes: frozenset[str]

    def ranged(self, shown: ranges.Shown) -> "Template":
        """Return the template with its alarm limits filled in."""
        before = self.before
        if shown.shape & ranges.LOW_SHOWN:
            before = _fill(before, str(_LOW), shown.low)
        if shown.shape & ranges.HIGH_SHOWN:
            before = _fill(before, str(_HIGH), shown.high)
        if shown.shape:
            before = _fill(before, _RANGE, shown.text)
        return self._replace(before=before)


def _fill(text: str, slot: str, value: str) -> str:
    assert text.count(slot) == 1  # noqa: S101 - as in _cut
    return text.replace(slot, value)


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


def _quantity(vital: Vital, value: int) -> Json:
    unit = "bpm" if vital.unit == "/min" and vital.name != "resp_rate" else vital.unit
    shown = {"Cel": "°C", "mm[Hg]": "mmHg", "/min": "breaths/min"}.get(unit, unit)
    return {"value": value, "unit": shown, "system": terms.UCUM, "code": vital.unit}


def _range(vital: Vital, shape: int) -> Json:
    out: Json = {"type": terms.ALARM_LIMITS, "text": _RANGE}
    if shape & ranges.LOW_SHOWN:
        out["low"] = _quantity(vital, _LOW)
    if shape & ranges.HIGH_SHOWN:
        out["high"] = _quantity(vital, _HIGH)
    return out


def _value(vital: Vital, status: Status, level: int | None, shape: int, flag: str) -> Json:
    """Return the part of an Observation or component that depends on its status and limits."""
    if level is None:
        return {"dataAbsentReason": terms.absent(terms.ABSENT_REASON.get(status, "unknown"))}
    out: Json = {}
    if vital.index == CONSCIOUSNESS:
        out["valueCodeableConcept"] = terms.acvpu(Consciousness(level))
    else:
        out["valueQuantity"] = _quantity(vital, _VALUE)
    if shape:
        out["referenceRange"] = [_range(vital, shape)]
    said: list[Json] = []
    if flag:
        said.append({"coding": [terms.coding(terms.INTERPRETATION, flag)]})
    if status is Status.QUESTIONABLE:
        # Text only: the measurement-status code system belongs to a guide that R4 lacks.
        said.append({"text": "questionable"})
    elif status is Status.ALARM_INHIBITED:
        said.append({"text": "alarms switched off at the device"})
    if said:
        out["interpretation"] = said
    return out


def _dump(resource: Json) -> Json:
    """Return the resource as the model that accepted it writes it."""
    dumped: Json = json.loads(Observation.model_validate(resource).model_dump_json())
    dumped["effectiveDateTime"] = _TIME  # the model writes microseconds
    return _ordered(dumped)


def _ordered(dumped: Json) -> Json:
    assert set(dumped) <= set(_ORDER)  # noqa: S101 - an element would be lost
    return {key: dumped[key] for key in _ORDER if key in dumped}


def _text(resource: Json) -> str:
    return json.dumps(resource, separators=(",", ":"), ensure_ascii=True)


def _cut(text: str, *, numbered: bool) -> tuple[str, str | None]:
    """Return the text before and after the number; after is None when there is none."""
    assert text.count(str(_VALUE)) == numbered  # noqa: S101 - filled wrongly, or not at all
    if not numbered:
        return text, None
    before, _, after = text.partition(str(_VALUE))
    return before, after


def _template(name: str, dumped: Json, *, numbered: bool) -> Template:
    text = _text(dumped)
    fixed = _text({key: dumped[key] for key in _ORDER[: _ORDER.index("code") + 1]})[:-1]
    head = f"{OPEN}{_ID}{TO_SUBJECT}{_SUBJECT}{TO_TIME}{_TIME}{TO_DEVICE}{_DEVICE}"
    assert text.startswith(fixed)  # noqa: S101 - as in _cut
    assert fixed.startswith(head)  # noqa: S101 - as in _cut
    before, after = _cut(text.removeprefix(fixed), numbered=numbered)
    codes = terms.codes_of(dumped["code"])
    return Template(name, fixed.removeprefix(head), before, after, codes)


# Not bounded by number: the arguments are members of closed sets.
@cache
def single(
    vital_index: int, site: int, status: int, level: int | None, shape: int = 0, flag: str = ""
) -> Template:
    """Return the template of an Observation of one value.

    ``level``: None without a value, 0 for a number, or of ACVPU. Raises ValueError.
    """
    vital = VITALS[vital_index]
    resource = _observation(vital.name, terms.concept(vital, site), frozenset({Status(status)}))
    resource |= _value(vital, Status(status), level, shape, flag)
    numbered = level is not None and vital_index != CONSCIOUSNESS
    return _template(vital.name, _dump(resource), numbered=numbered)


@cache
def part(
    vital_index: int, status: int, level: int | None, shape: int = 0, flag: str = ""
) -> Template:
    """Return the template of one pressure, a component; arguments as of `single`."""
    vital = VITALS[vital_index]
    panel = next(panel for panel, names in PANELS.items() if vital.name in names)
    code = terms.concept(vital)
    component = {"code": code} | _value(vital, Status(status), level, shape, flag)
    whole = _observation(panel, terms.panel_concept(panel), frozenset({Status(status)}))
    dumped = _ordered(_dump(whole | {"component": [component]})["component"][0])
    before, after = _cut(_text(dumped), numbered=level is not None)
    return Template(vital.name, "", before, after, terms.codes_of(code))


@cache
def head(panel: str, statuses: frozenset[Status]) -> Template:
    """Return the template of a panel up to its components; ``statuses`` of MARKING at most."""
    parts = [
        {"code": terms.concept(BY_NAME[name])} | _value(BY_NAME[name], Status.OK, 0, 0, "")
        for name in PANELS[panel]
    ]
    resource = _observation(panel, terms.panel_concept(panel), statuses)
    dumped = _dump(resource | {"component": parts})
    del dumped["component"]
    return _template(panel, dumped, numbered=False)._replace(before=COMPONENTS)


MARKING: Final = frozenset(
    {Status.QUESTIONABLE, Status.TEST, Status.CALIBRATION, Status.IMPLAUSIBLE}
)
"""Statuses that give a panel security labels."""
