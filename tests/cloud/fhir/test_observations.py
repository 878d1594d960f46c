"""Observations: golden ones, and what holds for every one."""

import json
from typing import Any

import pytest
from fhir.resources.R4B.observation import Observation
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.fhir import observations
from cloud.fhir.ids import parse_observation_id
from tests.cloud.fhir.rows import AT, DEVICE, SUBJECT, reading, readings
from vitals.codes import SITE_LOINC, VITALS, Consciousness, Site, Status
from vitals.columns import Source, pack
from vitals.reading import Reading


def built(*readings: Reading) -> list[dict[str, Any]]:
    made = observations.of_rows(SUBJECT, DEVICE, readings)
    bodies = [json.loads(one.body) for one in made]
    assert [one.id for one in made] == [body["id"] for body in bodies]
    for body in bodies:
        Observation.model_validate(body)
    return bodies


def one(*readings: Reading) -> dict[str, Any]:
    (body,) = built(*readings)
    return body


def test_spo2_carries_both_loinc_codes_and_mdc() -> None:
    assert one(reading("spo2", 97)) == {
        "resourceType": "Observation",
        "id": f"{SUBJECT}.spo2.mwt3h340",
        "meta": {"profile": ["http://hl7.org/fhir/StructureDefinition/oxygensat"]},
        "status": "final",
        "category": [
            {
                "coding": [
                    {
                        "system": "http://terminology.hl7.org/CodeSystem/observation-category",
                        "code": "vital-signs",
                    }
                ]
            }
        ],
        "code": {
            "coding": [
                {"system": "http://loinc.org", "code": "2708-6"},
                {"system": "http://loinc.org", "code": "59408-5"},
                {"system": "urn:iso:std:iso:11073:10101", "code": "150456"},
            ],
            "text": "Oxygen saturation",
        },
        "subject": {"reference": f"Patient/{SUBJECT}"},
        "effectiveDateTime": "2026-11-23T10:00:00.000Z",
        "valueQuantity": {
            "value": 97,
            "unit": "%",
            "system": "http://unitsofmeasure.org",
            "code": "%",
        },
        "device": {"reference": f"Device/{DEVICE}"},
    }


@pytest.mark.parametrize(
    ("vital", "value", "written"),
    [
        ("temperature", 37.0, "37.0"),
        ("perfusion_index", 2.4, "2.40"),
        ("heart_rate", 78.0, "78"),
        ("cvp_mean", -3.0, "-3"),
        ("cvp_mean", -0.4, "0"),
        ("o2_flow", 2.0, "2.0"),
    ],
)
def test_a_value_is_written_with_its_decimals(vital: str, value: float, written: str) -> None:
    (made,) = observations.of_rows(SUBJECT, DEVICE, [reading(vital, value)])
    assert f'"value":{written},'.encode() in made.body


def test_pressures_of_one_moment_are_one_observation() -> None:
    body = one(
        reading("nibp_systolic", 120), reading("nibp_diastolic", 80), reading("nibp_mean", 93)
    )
    assert body["code"]["coding"][0]["code"] == "85354-9"
    assert "valueQuantity" not in body
    assert [
        (part["code"]["coding"][0]["code"], part["valueQuantity"]["value"])
        for part in body["component"]
    ] == [("8480-6", 120), ("8462-4", 80), ("8478-0", 93)]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "unknown"),
        ([reading("nibp_diastolic", None, Status.MISSING)], "temp-unknown"),
        ([reading("nibp_diastolic", None, Status.IMPLAUSIBLE)], "error"),
    ],
)
def test_a_missing_half_says_why(rows: list[Reading], reason: str) -> None:
    systolic, diastolic = one(reading("nibp_systolic", 120), *rows)["component"]
    assert systolic["valueQuantity"]["value"] == 120
    assert "valueQuantity" not in diastolic
    assert diastolic["dataAbsentReason"]["coding"][0]["code"] == reason


def test_cuff_and_arterial_line_stay_apart_and_so_do_moments_and_channels() -> None:
    bodies = built(
        reading("nibp_systolic", 120),
        reading("abp_systolic", 125),
        reading("nibp_systolic", 121, at=AT + 1),
        reading("nibp_systolic", 122, channel=1),
    )
    assert len({body["id"] for body in bodies}) == 4


@pytest.mark.parametrize(
    ("status", "labels"),
    [
        (Status.OK, set()),
        (Status.TEST, {"HTEST"}),
        (Status.CALIBRATION, {"HTEST", "UNCERTREL"}),
        (Status.QUESTIONABLE, {"UNCERTREL"}),
    ],
)
@pytest.mark.parametrize("vital", ["spo2", "nibp_systolic", "consciousness"])
def test_a_doubtful_or_test_value_is_labelled(vital: str, status: Status, labels: set[str]) -> None:
    body = one(reading(vital, 1, status))
    assert {label["code"] for label in body["meta"].get("security", [])} == labels
    part = body["component"][0] if "component" in body else body
    assert ("interpretation" in part) == (status is Status.QUESTIONABLE)


@pytest.mark.parametrize(
    ("status", "reason"), [(Status.MISSING, "temp-unknown"), (Status.IMPLAUSIBLE, "error")]
)
def test_no_value_is_said_not_guessed(status: Status, reason: str) -> None:
    body = one(reading("heart_rate", None, status))
    assert "valueQuantity" not in body
    assert body["dataAbsentReason"]["coding"][0]["code"] == reason


@pytest.mark.parametrize("site", SITE_LOINC)
def test_a_site_stands_beside_body_temperature(site: Site) -> None:
    codes = [c["code"] for c in one(reading("temperature", 37, 0, site))["code"]["coding"]]
    assert codes[:2] == ["8310-5", SITE_LOINC[site]]


@pytest.mark.parametrize("vital", [v.name for v in VITALS if not v.loinc_verified])
def test_an_unverified_loinc_code_is_never_sent(vital: str) -> None:
    codings = one(reading(vital, 40))["code"]["coding"]
    assert codings[0] == {"system": "urn:healthsync:vital", "code": vital}
    assert all(c["system"] != "http://loinc.org" for c in codings)


def test_new_confusion_has_text_and_our_own_code_only() -> None:
    value = one(reading("consciousness", Consciousness.CONFUSION))["valueCodeableConcept"]
    assert value == {
        "coding": [{"system": "urn:healthsync:acvpu", "code": "confusion"}],
        "text": "New confusion",
    }


def test_codes_tell_those_of_components_apart() -> None:
    (made,) = observations.of_rows(SUBJECT, DEVICE, [reading("nibp_systolic", 120)])
    assert made.codes - made.component_codes == {"85354-9", "150020"}
    assert {"8480-6", "8462-4"} <= made.component_codes


@pytest.mark.parametrize(("subject", "device"), [("x", DEVICE), (SUBJECT, 'a"b'), ("", "")])
def test_what_is_no_pseudonym_is_refused(subject: str, device: str) -> None:
    with pytest.raises(ValueError):
        observations.of_rows(subject, device, [reading("spo2", 97)])


@settings(deadline=None)
@given(st.lists(readings(), max_size=12))
def test_every_reading_is_found_in_valid_observations_with_distinct_ids(
    rows: list[Reading],
) -> None:
    bodies = built(*rows)
    assert len({body["id"] for body in bodies}) == len(bodies)
    for body in bodies:
        parsed = parse_observation_id(body["id"])
        assert parsed is not None
        parts = body.get("component", [body])
        assert all(
            sum(key.startswith("value") for key in part) + ("dataAbsentReason" in part) == 1
            for part in parts
        )
    columns = pack([Source(DEVICE, SUBJECT)], [(0, row) for row in rows])
    by_subject = observations.of_columns(columns)
    assert by_subject.get(SUBJECT, []) == observations.of_rows(SUBJECT, DEVICE, rows)


def test_columns_of_two_beds_are_kept_apart() -> None:
    other = "1" * 32
    columns = pack(
        [Source(DEVICE, SUBJECT), Source(DEVICE, other)],
        [(0, reading("spo2", 97)), (1, reading("spo2", 91))],
    )
    made = observations.of_columns(columns)
    assert {subject: [one.id[:32] for one in built] for subject, built in made.items()} == {
        SUBJECT: [SUBJECT],
        other: [other],
    }


def test_halves_of_two_devices_are_never_one_measurement() -> None:
    columns = pack(
        [Source(DEVICE, SUBJECT), Source("e" * 32, SUBJECT)],
        [(0, reading("nibp_systolic", 120)), (1, reading("nibp_diastolic", 80))],
    )
    (made,) = observations.of_columns(columns)[SUBJECT]
    body = json.loads(made.body)
    assert body["device"]["reference"] == f"Device/{'e' * 32}"
    assert "dataAbsentReason" in body["component"][0]
