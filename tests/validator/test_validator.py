"""HL7's reference validator judges every kind of resource we send, in one run of Java."""

import json
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from cloud.fhir import observations, resources
from cloud.fhir.ids import observation_id
from cloud.records import AlertEvent, Identity
from vitals.codes import BY_NAME, VITALS, Consciousness, Site, Status
from vitals.reading import Patient, Reading

pytestmark = pytest.mark.validator

ROOT = Path(__file__).parents[2]
JARS = ROOT / ".tools" / "validator"

SUBJECT, DEVICE = "0123456789abcdef" * 2, "fedcba9876543210" * 2
AT = 1_795_428_000_123
ABSENT = {Status.MISSING, Status.IMPLAUSIBLE}


class Verdict(NamedTuple):
    errors: list[str]
    warnings: list[str]


def _observation(*rows: tuple[str, float | None, Status, int]) -> bytes:
    readings = [
        Reading(BY_NAME[vital].index, value, AT, AT, status, site)
        for vital, value, status, site in rows
    ]
    (built,) = observations.of_rows(SUBJECT, DEVICE, readings)
    return built.body


def _plausible(vital: str) -> float:
    return {"temperature": 36.9, "consciousness": 0, "perfusion_index": 2.45, "fio2": 40}.get(
        vital, 80
    )


def _observations() -> dict[str, bytes]:
    found = {}
    for vital in VITALS:
        for status in Status:
            value = None if status in ABSENT else _plausible(vital.name)
            name = f"{vital.name} {status.name}"
            found[name] = _observation((vital.name, value, status, 0))
    for site in Site:
        found[f"temperature {site.name}"] = _observation(("temperature", 37.0, Status.OK, site))
    for level in Consciousness:
        found[f"acvpu {level.name}"] = _observation(("consciousness", level, Status.OK, 0))
    for panel in ("nibp", "abp"):
        systolic = (f"{panel}_systolic", 120.0, Status.OK, 0)
        diastolic = (f"{panel}_diastolic", 80.0, Status.QUESTIONABLE, 0)
        mean = (f"{panel}_mean", 93.0, Status.OK, 0)
        missing = (f"{panel}_diastolic", None, Status.MISSING, 0)
        found[f"{panel} halves"] = _observation(systolic, diastolic)
        found[f"{panel} whole"] = _observation(systolic, diastolic, mean)
        found[f"{panel} missing half"] = _observation(systolic, missing)
    found["cvp below zero"] = _observation(("cvp_mean", -3.0, Status.OK, 0))
    return found


def _others() -> dict[str, bytes]:
    patient = Patient("M000123", 'Ada "the bed" Ng', "1950-02-03", "female", "bed-12", "w3")
    spo2 = observation_id(SUBJECT, "spo2", AT)
    alert = AlertEvent(
        "ab" * 16, SUBJECT, "threshold", "spo2", "high", "active", "SpO2 84<90", 90, 84,
        AT, AT + 10_000, AT + 10_000, "default-1", evidence=[spo2],
    )  # fmt: skip
    ended = AlertEvent(
        "ab" * 16, SUBJECT, "signal_loss", "spo2", "low", "ended", "SpO2 no signal", 0, 0,
        AT, AT + 10_000, AT + 20_000, "default-1", ended_ms=AT + 15_000, retrospective=True,
    )  # fmt: skip
    base = "https://localhost:8443/fhir"
    entry = (f"Observation/{spo2}", _observation(("spo2", 97.0, Status.OK, 0)))
    outcome = resources.operation_outcome("warning", "not-supported", "unknown parameter")
    return {
        "patient": resources.patient(Identity(SUBJECT, patient, DEVICE, "edge-1", AT)),
        "patient unknown": resources.patient(Identity(SUBJECT, Patient(), DEVICE, "edge-1", AT)),
        "device": resources.device(DEVICE),
        "issue active": resources.detected_issue(alert),
        "issue ended": resources.detected_issue(ended),
        "outcome": resources.operation_outcome("error", "invalid", "date: no such prefix"),
        "searchset": resources.searchset(
            base, f"{base}/Observation?patient={SUBJECT}", f"{base}?page=x",
            [entry, ("OperationOutcome", outcome)], 7,
        ),
        "searchset empty": resources.searchset(base, f"{base}/Observation", None, [], 0),
        "transaction": resources.transaction([entry]),
        "capability": resources.capability_statement(base, "0.1.0", "2026-11-23T10:00:00Z"),
    }  # fmt: skip


GOOD = _observations() | _others()

_SPO2 = GOOD["spo2 OK"]
WRONG = {
    "a unit that is not UCUM": GOOD["temperature OK"].replace(b'"Cel"', b'"Celsius"'),
    "a unit the profile forbids": _SPO2.replace(b'"code":"%"', b'"code":"mm[Hg]"'),
    "SpO2 without 2708-6": _SPO2.replace(b"2708-6", b"20564-1"),
    "an observation of nobody": _SPO2.replace(b'"subject"', b'"focus_"'),
    "a panel without a diastolic": GOOD["nibp halves"].replace(b"8462-4", b"8478-0"),
}


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Verdict]:
    if not any(JARS.glob("hapi-fhir-validation-*.jar")):
        raise FileNotFoundError(
            f"{JARS}: HL7's validator is missing; `make setup` brings it (Maven)"
        )
    given = GOOD | WRONG
    run = subprocess.run(
        ["java", "-Xmx1g", "-cp", f"{JARS}/*", ROOT / "onebox" / "validator" / "Validate.java"],
        input=b"\n".join(given.values()),
        capture_output=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 1, f"the wrong ones must be found: {run.stderr.decode()[-2000:]}"
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    assert [line["at"] for line in lines] == list(range(len(given)))
    return {
        name: Verdict(line["errors"], line["warnings"])
        for name, line in zip(given, lines, strict=True)
    }


@pytest.mark.parametrize("name", GOOD)
def test_what_we_send_has_no_error(verdicts: dict[str, Verdict], name: str) -> None:
    assert verdicts[name].errors == []


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found(verdicts: dict[str, Verdict], name: str) -> None:
    assert WRONG[name] not in GOOD.values()
    assert verdicts[name].errors
