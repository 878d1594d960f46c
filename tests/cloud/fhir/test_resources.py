"""Every other resource: golden, accepted by fhir.resources, and nothing made up."""

import json
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from fhir.resources.R4B.capabilitystatement import CapabilityStatement
from fhir.resources.R4B.detectedissue import DetectedIssue
from fhir.resources.R4B.device import Device
from fhir.resources.R4B.observation import Observation
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


def test_a_latched_episode_waits_for_somebody_and_is_not_final() -> None:
    body = json.loads(resources.detected_issue(alert(state="latched", ended_ms=AT + 20_000)))
    DetectedIssue.model_validate(body)
    assert body["status"] == "preliminary"
    assert [tag["code"] for tag in body["meta"]["tag"]] == ["latched"]


def test_what_was_done_is_said_without_who_and_why() -> None:
    made = resources.detected_issue(
        alert(
            acknowledged_ms=AT + 15_000, acknowledged_by="nurse-7", who="nurse-8",
            why="Ada is eating", shelved_until_ms=AT + 600_000,
        )
    )  # fmt: skip
    body = json.loads(made)
    DetectedIssue.model_validate(body)
    assert [(done["action"]["text"], done.get("date")) for done in body["mitigation"]] == [
        ("acknowledged", "2026-11-23T10:00:15.000Z"),
        ("shelved until 2026-11-23T10:10:00.000Z", None),
    ]
    for secret in (b"nurse-7", b"nurse-8", b"Ada"):
        assert secret not in made
    assert "mitigation" not in json.loads(resources.detected_issue(alert()))


def test_doubts_standing_and_suppression_are_tags() -> None:
    body = json.loads(
        resources.detected_issue(
            alert(quality=["flat_line", "motion"], standing=True, suppressed_by="cd" * 16)
        )
    )
    DetectedIssue.model_validate(body)
    assert [(tag["system"], tag["code"]) for tag in body["meta"]["tag"]] == [
        ("urn:healthsync:tag", "standing"),
        ("urn:healthsync:tag", "suppressed"),
        ("urn:healthsync:quality", "flat_line"),
        ("urn:healthsync:quality", "motion"),
    ]


def test_an_alert_leaves_in_a_bundle_and_a_gateways_does_not() -> None:
    made = resources.issue_bundle(alert())
    assert made is not None
    Bundle.model_validate_json(made)
    (entry,) = json.loads(made)["entry"]
    assert entry["request"] == {"method": "PUT", "url": f"DetectedIssue/{'ab' * 16}"}
    assert entry["resource"] == json.loads(resources.detected_issue(alert()))
    gateways = alert(kind="gateway", subject="edge-1", vital="")
    assert resources.issue_bundle(gateways) is None
    body = json.loads(resources.detected_issue(gateways))
    assert "patient" not in body
    assert body["code"]["text"] == "gateway"


SUB_SCORES = {
    "resp_rate": 0, "spo2": 1, "oxygen": 0, "systolic": 0, "pulse": 1, "consciousness": 0,
    "temperature": 1,
}  # fmt: skip


def test_a_score_says_its_total_its_parts_and_what_it_rests_on() -> None:
    rests = [f"{SUBJECT}.spo2.mwt3h340"]
    made = resources.score(SUBJECT, AT, "news2", 3, (3, 3), SUB_SCORES, evidence=rests)
    body = json.loads(made)
    Observation.model_validate(body)
    assert body["id"] == f"{SUBJECT}.news2.mwt3h340"
    assert body["valueInteger"] == 3
    assert [c["code"] for c in body["code"]["coding"]] == ["news2", "1104051000000101"]
    said = {c["code"]["coding"][0]["code"]: c["valueInteger"] for c in body["component"]}
    assert said == {f"news2.{name}": points for name, points in SUB_SCORES.items()}
    assert body["derivedFrom"] == [{"reference": f"Observation/{rests[0]}"}]
    assert not {"dataAbsentReason", "note"} & body.keys()


def test_an_incomplete_score_has_no_value_and_says_its_bounds() -> None:
    known = {name: n for name, n in SUB_SCORES.items() if name != "temperature"}
    missing = [("temperature", "stale")]
    body = json.loads(resources.score(SUBJECT, AT, "news2", None, (2, 5), known, missing))
    Observation.model_validate(body)
    assert not [key for key in body if key.startswith("value")]
    assert body["dataAbsentReason"]["text"] == "incomplete"
    assert body["note"] == [{"text": "between 2 and 5; missing: temperature stale"}]
    temperature = body["component"][-1]
    assert temperature["code"]["coding"][0]["code"] == "news2.temperature"
    assert temperature["dataAbsentReason"]["text"] == "stale"
    assert "valueInteger" not in temperature


def test_a_total_of_nothing_is_a_value() -> None:
    body = json.loads(resources.score(SUBJECT, AT, "qsofa", 0, (0, 0), {"resp_rate": 0}))
    assert body["valueInteger"] == body["component"][0]["valueInteger"] == 0


def test_a_ratio_is_a_quantity() -> None:
    body = json.loads(resources.score(SUBJECT, AT, "shock", 0.93, None, {}))
    Observation.model_validate(body)
    assert (body["valueQuantity"]["value"], body["valueQuantity"]["code"]) == (0.93, "1")
    assert "component" not in body


def test_spo2_on_scale_2_does_not_carry_the_code_of_scale_1() -> None:
    made = resources.score(SUBJECT, AT, "news2", 1, (1, 1), {"spo2": 1}, spo2_scale=2)
    (component,) = json.loads(made)["component"]
    assert component["code"] == {
        "coding": [{"system": "urn:healthsync:score", "code": "news2.spo2-scale-2"}],
        "text": "spo2, scale 2",
    }


@pytest.mark.parametrize(("subject", "name"), [(SUBJECT, "mews"), ("M000123", "news2")])
def test_a_score_that_cannot_be_named_is_refused(subject: str, name: str) -> None:
    with pytest.raises(ValueError):
        resources.score(subject, AT, name, 0, (0, 0), {})


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
