"""Every other resource: golden, accepted by fhir.resources, and nothing made up."""

import json
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.capabilitystatement import CapabilityStatement
from fhir.resources.R4B.detectedissue import DetectedIssue
from fhir.resources.R4B.device import Device
from fhir.resources.R4B.operationoutcome import OperationOutcome
from fhir.resources.R4B.patient import Patient as FhirPatient

from cloud.fhir import observations, resources
from cloud.records import AlertEvent, Identity
from vitals.reading import Patient, Reading

SUBJECT, DEVICE = "0123456789abcdef" * 2, "f" * 32
AT = 1_795_428_000_000


def alert(**changes: Any) -> AlertEvent:
    base: dict[str, Any] = {
        "episode": "ab" * 16,
        "subject": SUBJECT,
        "kind": "threshold",
        "vital": "spo2",
        "priority": "high",
        "state": "active",
        "text": "SpO2 84<90",
        "limit": 90.0,
        "worst": 84.0,
        "began_ms": AT,
        "raised_ms": AT + 10_000,
        "at_ms": AT + 10_000,
        "policy": "default-1",
    }
    return AlertEvent(**(base | changes))


def identity(**fields: str) -> Identity:
    return Identity(SUBJECT, Patient(**fields), DEVICE, "edge-1", AT)


def test_a_patient_says_what_is_known() -> None:
    body = json.loads(
        resources.patient(
            identity(mrn="M1", name='Ada "x"\x00 Ng', birth_date="1950-02-03", sex="female")
        )
    )
    FhirPatient.model_validate(body)
    assert body["identifier"][0]["value"] == "M1"
    assert body["identifier"][0]["type"]["coding"][0]["code"] == "MR"
    assert body["name"] == [{"text": 'Ada "x"  Ng'}]
    assert (body["gender"], body["birthDate"]) == ("female", "1950-02-03")


@pytest.mark.parametrize("birth_date", ["", "1950", "1950-02-31", "19500203", "soon"])
def test_what_is_not_known_of_a_patient_is_left_out(birth_date: str) -> None:
    body = json.loads(resources.patient(identity(birth_date=birth_date, sex="F", name=" \n")))
    assert body == {"resourceType": "Patient", "id": SUBJECT}


def test_an_episode_is_preliminary_until_it_ends() -> None:
    running = json.loads(resources.detected_issue(alert(evidence=[f"{SUBJECT}.spo2.mwt3h340"])))
    ended = json.loads(resources.detected_issue(alert(state="ended", ended_ms=AT + 20_000)))
    for body in (running, ended):
        DetectedIssue.model_validate(body)
    assert (running["status"], ended["status"]) == ("preliminary", "final")
    assert running["id"] == ended["id"] == "ab" * 16
    assert "end" not in running["identifiedPeriod"]
    assert ended["identifiedPeriod"]["end"] == "2026-11-23T10:00:20.000Z"
    assert running["evidence"][0]["detail"][0]["reference"].startswith("Observation/")


def test_a_retrospective_finding_is_tagged() -> None:
    body = json.loads(resources.detected_issue(alert(retrospective=True)))
    assert body["meta"]["tag"][0]["code"] == "retrospective"
    assert "meta" not in json.loads(resources.detected_issue(alert()))


def test_a_searchset_joins_bodies_and_links() -> None:
    built = observations.of_rows(SUBJECT, DEVICE, [Reading(2, 97, AT, AT)])
    entries = [(f"Observation/{one.id}", one.body) for one in built]
    outcome = resources.operation_outcome("warning", "not-supported", "x")
    listed = [*entries, ("OperationOutcome", outcome)]
    made = resources.searchset("https://h/fhir/", "https://h/s", "https://h/n", listed, 1)
    bundle = json.loads(made)
    Bundle.model_validate(bundle)
    assert bundle["entry"][0]["fullUrl"] == f"https://h/fhir/{entries[0][0]}"
    assert [entry["search"]["mode"] for entry in bundle["entry"]] == ["match", "outcome"]
    assert [link["relation"] for link in bundle["link"]] == ["self", "next"]


def test_an_empty_searchset_has_no_entry_and_no_next() -> None:
    bundle = json.loads(resources.searchset("https://h", "https://h/s", None, [], None))
    assert bundle == {
        "resourceType": "Bundle",
        "type": "searchset",
        "link": [{"relation": "self", "url": "https://h/s"}],
    }


def test_a_transaction_puts_each_under_its_own_id() -> None:
    built = observations.of_rows(SUBJECT, DEVICE, [Reading(2, 97, AT, AT), Reading(0, 70, AT, AT)])
    made = resources.transaction([(f"Observation/{one.id}", one.body) for one in built])
    Bundle.model_validate_json(made)
    requests = [entry["request"] for entry in json.loads(made)["entry"]]
    assert requests == [{"method": "PUT", "url": f"Observation/{one.id}"} for one in built]


def test_the_rest_is_accepted_too() -> None:
    Device.model_validate_json(resources.device(DEVICE))
    OperationOutcome.model_validate_json(resources.operation_outcome("error", "invalid", ""))
    made = resources.capability_statement("https://h/fhir/", "0.1.0", "2026-11-23T10:00:00Z")
    CapabilityStatement.model_validate_json(made)
    assert json.loads(made)["fhirVersion"] == "4.0.1"


@pytest.mark.parametrize("ident", ["", "a b", "x" * 65, 'a"'])
def test_an_id_that_is_none_is_refused(ident: str) -> None:
    with pytest.raises(ValueError):
        resources.device(ident)
