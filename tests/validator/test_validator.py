"""HL7's reference validator judges every kind of resource we send, in one run of Java."""

import itertools
import json
import os
import subprocess
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from cloud.fhir import chart, observations, resources
from cloud.fhir.ids import observation_id
from cloud.fhir.observations import MINUTE_MS
from cloud.fhir.ranges import Limits
from cloud.records import AlertEvent, Identity
from tests.validator import drawn
from vitals.codes import BY_NAME, VITALS, Consciousness, Site, Status
from vitals.reading import Patient, Reading

pytestmark = pytest.mark.validator

ROOT = Path(__file__).parents[2]
JARS = ROOT / ".tools" / "validator"

RANDOM = int(os.environ.get("HEALTHSYNC_VALIDATOR_RANDOM", "300"))
"""Random resources judged; `make faults` asks for 10,000."""
SEED = int(os.environ.get("HEALTHSYNC_VALIDATOR_SEED", "20261123"))

SUBJECT, DEVICE, AT = drawn.SUBJECT, drawn.DEVICE, drawn.AT
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
    found |= _limited()
    start = AT - AT % MINUTE_MS
    for name in ("spo2", "abp_systolic"):
        reading = Reading(BY_NAME[name].index, 90, start, start)
        (built,) = chart.of({}).minute(SUBJECT, DEVICE, [reading])
        found[f"{name} minute"] = built.body
    found["cvp below zero"] = _observation(("cvp_mean", -3.0, Status.OK, 0))
    return found


def _limited() -> dict[str, bytes]:
    found = {}
    sides = {"both": Limits(90, 100, 85, 120), "low": Limits(90), "high": Limits(None, 100)}
    for name in ("heart_rate", "nibp_systolic"):
        index = BY_NAME[name].index
        for side, limits in sides.items():
            for value in (80.0, 88.0, 95.0, 110.0, 130.0):
                reading = Reading(index, value, AT, AT)
                (built,) = chart.of({index: limits}).rows(SUBJECT, DEVICE, [reading])
                found[f"{name} {value:g} {side}"] = built.body
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
    latched = msgspec.structs.replace(
        alert, state="latched", ended_ms=AT + 15_000, acknowledged_ms=AT + 16_000,
        acknowledged_by="nurse-7", shelved_until_ms=AT + 600_000, quality=["flat_line", "jump"],
        standing=True, suppressed_by="cd" * 16,
    )  # fmt: skip
    news2 = msgspec.structs.replace(ended, kind="news2", vital="", priority="medium")
    gateway = msgspec.structs.replace(alert, kind="gateway", vital="", evidence=[])
    points = {"resp_rate": 0, "spo2": 1, "oxygen": 2, "systolic": 0, "pulse": 1}
    rest = {"consciousness": 0, "temperature": 3}
    missing = [("consciousness", "absent"), ("temperature", "stale")]
    issue = resources.issue_bundle(latched)
    assert issue is not None
    base = "https://localhost:8443/fhir"
    entry = (f"Observation/{spo2}", _observation(("spo2", 97.0, Status.OK, 0)))
    outcome = resources.operation_outcome("warning", "not-supported", "unknown parameter")
    return {
        "patient": resources.patient(Identity(SUBJECT, patient, DEVICE, "edge-1", AT)),
        "patient unknown": resources.patient(Identity(SUBJECT, Patient(), DEVICE, "edge-1", AT)),
        "device": resources.device(DEVICE),
        "issue active": resources.detected_issue(alert),
        "issue ended": resources.detected_issue(ended),
        "issue latched": resources.detected_issue(latched),
        "issue of a score": resources.detected_issue(news2),
        "issue of a gateway": resources.detected_issue(gateway),
        "issue bundle": issue,
        "news2": resources.score(
            SUBJECT, AT, "news2", 7, (7, 7), points | rest, evidence=[spo2], spo2_scale=2
        ),
        "news2 incomplete": resources.score(
            SUBJECT, AT, "news2", None, (4, 10), points, missing, [spo2]
        ),
        "news2 of nothing": resources.score(SUBJECT, AT, "news2", None, None, {}),
        "qsofa": resources.score(SUBJECT, AT, "qsofa", 2, (2, 2), {"resp_rate": 1, "systolic": 1}),
        "shock index": resources.score(SUBJECT, AT, "shock", 0.93, None, {}),
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
    "an interpretation that is none": GOOD["heart_rate 130 both"].replace(b'"HH"', b'"HHH"'),
    "a range without bounds or text": GOOD["heart_rate 95 low"].replace(b'"low":', b'"appliesTo":'),
    "a value beside the reason that there is none": GOOD["news2 incomplete"].replace(
        b'"note"', b'"valueInteger":4,"note"'
    ),
    "an issue with a status of no code": GOOD["issue latched"].replace(b"preliminary", b"latched"),
    "a panel without a diastolic": GOOD["nibp halves"].replace(b"8462-4", b"8478-0"),
}


def _random() -> dict[str, bytes]:
    """Nine Observations of ten, one Bundle of ten."""
    some = RANDOM // 10
    made = itertools.chain(drawn.observations(SEED, RANDOM - some), drawn.bundles(SEED, some))
    return {f"random {at}": resource for at, resource in enumerate(made)}


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Verdict]:
    if not any(JARS.glob("hapi-fhir-validation-*.jar")):
        raise FileNotFoundError(
            f"{JARS}: HL7's validator is missing; `make setup` brings it (Maven)"
        )
    given = GOOD | WRONG | _random()
    run = subprocess.run(
        ["java", "-Xmx1g", "-cp", f"{JARS}/*", ROOT / "onebox" / "validator" / "Validate.java"],
        input=b"\n".join(given.values()),
        capture_output=True,
        timeout=900 + len(given),
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


def test_no_random_resource_has_an_error(verdicts: dict[str, Verdict]) -> None:
    random = {name: found.errors for name, found in verdicts.items() if name.startswith("random")}
    bad = {name: errors for name, errors in random.items() if errors}
    assert not bad, f"seed {SEED}: {list(bad.items())[:3]}"
    assert len(random) >= RANDOM
