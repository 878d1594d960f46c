"""REST over a real Redis and a played archive."""

from typing import Any

import msgspec
import pytest

from cloud.records import AlertEvent

NOW = 1_790_000_000_000  # 2026-09-21T14:13:20Z
VITAL_SIGNS = "category=vital-signs"


def filled(ward: Any, make: Any, names: Any) -> None:
    ada, bea, cam = names
    ward.write(
        ward.identity(ada, "Ada Ng", "ICU", "4", "M1"),
        ward.identity(bea, "Bea Oh", "HDU", "2", "M2"),
        ward.samples(
            ada,
            make("heart_rate", 71, -1000),
            make("heart_rate", 72),
            make("spo2", 97),
            make("nibp_systolic", 120, -5000),
            make("nibp_diastolic", 80, -5000),
        ),
        ward.samples(bea, make("heart_rate", 90)),
        ward.samples(cam, make("heart_rate", 50)),
    )


def ids(answer: Any) -> list[str]:
    body = answer.json()
    assert body["resourceType"] == "Bundle", body
    return [entry["resource"]["id"] for entry in body.get("entry", [])]


def outcome(answer: Any) -> tuple[int, str]:
    body = answer.json()
    assert body["resourceType"] == "OperationOutcome"
    assert answer.headers["content-type"] == "application/fhir+json"
    return answer.status_code, body["issue"][0]["code"]


# who may ask


@pytest.mark.parametrize(
    ("path", "resource"),
    [
        ("/fhir/Patient?identifier=M1", "Patient"),
        ("/fhir/Patient/{ada}", "Patient"),
        ("/fhir/Observation?patient={ada}", "Observation"),
        ("/fhir/Observation/{ada}.heart-rate.mu8jtr4o", "Observation"),
        ("/fhir/Observation/$lastn?patient={ada}&category=vital-signs", "Observation"),
        ("/fhir/DetectedIssue?patient={ada}", "DetectedIssue"),
        ("/fhir/DetectedIssue/ep-1", "DetectedIssue"),
    ],
)
def test_without_token_401_and_without_scope_403(
    ward: Any, make: Any, names: Any, path: str, resource: str
) -> None:
    filled(ward, make, names)
    path = path.format(ada=names[0])
    other = "Patient" if resource != "Patient" else "Observation"
    expired = ward.token(lifetime_s=-60)
    for header in ("", "Basic dTpw", "Bearer ", "Bearer junk", f"Bearer {expired}"):
        answer = ward.get(path, headers={"Authorization": header})
        assert outcome(answer) == (401, "login")
        assert answer.headers["www-authenticate"].startswith("Bearer")
    narrow = ward.token(scope=f"user/{other}.rs")
    assert outcome(ward.get(path, headers={"Authorization": f"Bearer {narrow}"})) == (
        403,
        "forbidden",
    )
    right = ward.token(scope=f"user/{resource}.rs")
    answer = ward.get(path, headers={"Authorization": f"Bearer {right}"})
    assert answer.status_code in {200, 404}


def test_a_token_of_a_ward_sees_that_ward_only(ward: Any, make: Any, names: Any) -> None:
    filled(ward, make, names)
    ada, bea, cam = names
    icu = {"Authorization": f"Bearer {ward.token(wards=('ICU',))}"}
    assert ward.get(f"/fhir/Patient/{ada}", headers=icu).status_code == 200
    for other in (bea, cam):
        assert outcome(ward.get(f"/fhir/Patient/{other}", headers=icu)) == (404, "not-found")
        assert ids(ward.get(f"/fhir/Observation?patient={other}", headers=icu)) == []
        last = f"/fhir/Observation/$lastn?patient={other}&{VITAL_SIGNS}"
        assert ids(ward.get(last, headers=icu)) == []
        [ident] = ids(ward.get(last))
        assert ward.get(f"/fhir/Observation/{ident}", headers=icu).status_code == 404
        assert ward.get(f"/fhir/Observation/{ident}").status_code == 200
    assert ids(ward.get("/fhir/Patient?identifier=M2", headers=icu)) == []
    assert ids(ward.get("/fhir/Patient?identifier=M2")) == [bea]


def test_metadata_is_open_and_names_what_is_served(ward: Any) -> None:
    answer = ward.get("/fhir/metadata", headers={"Authorization": ""})
    body = answer.json()
    assert body["resourceType"] == "CapabilityStatement"
    assert {r["type"] for r in body["rest"][0]["resource"]} == {
        "Observation",
        "Patient",
        "DetectedIssue",
    }


def test_every_answer_carries_the_security_headers_and_allows_no_other_origin(ward: Any) -> None:
    for path in ("/fhir/metadata", "/fhir/Nothing", "/ward", "/elsewhere"):
        answer = ward.get(path, headers={"Origin": "https://evil.example"})
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "access-control-allow-origin" not in answer.headers


def test_what_is_not_served_is_refused_in_fhirs_words(ward: Any) -> None:
    assert outcome(ward.get("/fhir/Encounter")) == (404, "not-supported")
    assert outcome(ward.get("/elsewhere")) == (404, "not-found")
    assert outcome(ward.ask("DELETE", "/fhir/Patient/x")) == (405, "not-supported")
    assert outcome(ward.get("/fhir/metadata", headers={"Accept": "application/fhir+xml"})) == (
        406,
        "not-supported",
    )
    assert outcome(ward.get("/fhir/metadata?_format=xml")) == (406, "not-supported")


# Patient


def test_a_patient_is_found_by_record_number(ward: Any, make: Any, names: Any) -> None:
    filled(ward, make, names)
    body = ward.get("/fhir/Patient?identifier=urn:healthsync:mrn|M1").json()
    patient = body["entry"][0]["resource"]
    assert patient["id"] == names[0]
    assert patient["identifier"][0]["value"] == "M1"
    assert patient["name"] == [{"text": "Ada Ng"}]
    assert ids(ward.get("/fhir/Patient?identifier=M1,M2")) == list(names[:2])
    assert ids(ward.get("/fhir/Patient?identifier=urn:else|M1")) == []
    assert ids(ward.get("/fhir/Patient?identifier=M404")) == []
    assert outcome(ward.get("/fhir/Patient")) == (400, "required")


def test_a_device_without_a_patient_is_a_patient_without_a_name(
    ward: Any, make: Any, names: Any
) -> None:
    filled(ward, make, names)
    assert ward.get(f"/fhir/Patient/{names[2]}").json() == {
        "resourceType": "Patient",
        "id": names[2],
    }
    assert outcome(ward.get(f"/fhir/Patient/{'f' * 32}")) == (404, "not-found")


# Observation


def test_observations_come_newest_first_as_whole_resources(
    ward: Any, make: Any, names: Any
) -> None:
    filled(ward, make, names)
    body = ward.get(f"/fhir/Observation?patient=Patient/{names[0]}").json()
    times = [e["resource"]["effectiveDateTime"] for e in body["entry"]]
    assert times == sorted(times, reverse=True)
    assert len(times) == 4  # systolic and diastolic are one
    panel = body["entry"][-1]["resource"]
    assert {c["valueQuantity"]["value"] for c in panel["component"]} == {120, 80}
    assert body["link"] == [
        {
            "relation": "self",
            "url": f"https://ward.example/fhir/Observation?patient=Patient/{names[0]}",
        }
    ]


def test_one_observation_is_read_by_its_id_from_either_source(
    ward: Any, make: Any, names: Any
) -> None:
    filled(ward, make, names)
    ward.archive.put(names[0], make("spo2", 93, -9_000_000))
    for ident in ids(ward.get(f"/fhir/Observation?patient={names[0]}")):
        answer = ward.get(f"/fhir/Observation/{ident}")
        assert answer.json()["id"] == ident
    gone = ident.replace("spo2", "resp-rate")
    for path in (f"/fhir/Observation/{gone}", "/fhir/Observation/nothing"):
        assert outcome(ward.get(path)) == (404, "not-found")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("code=8867-4", 2),
        ("code=http://loinc.org|8867-4", 2),
        ("code=8867-4,http://loinc.org|59408-5", 3),
        ("code=urn:iso:std:iso:11073:10101|150456", 1),
        ("code=http://loinc.org|150456", 0),
        ("code=|8867-4", 0),
        ("code=http://loinc.org|", 4),
        ("code=85354-9", 1),
        ("code=8480-6", 0),  # a component's code is not Observation.code
        ("code=8867-4&code=2708-6", 0),
        ("code=1234-5", 0),
        ("category=vital-signs&code=2708-6", 1),
        ("category=laboratory", 0),
        ("category=laboratory,vital-signs", 4),
        ("date=2026-09-21", 4),
        ("date=ge2026-09-21T14:13:20Z", 2),
        ("date=lt2026-09-21T14:13:20Z", 2),
        ("date=ge2026-09-21T14:13:19Z&date=lt2026-09-21T14:13:20Z", 1),
        ("date=2027", 0),
        ("colour=green", 4),
    ],
)
def test_search_parameters_choose(ward: Any, make: Any, names: Any, text: str, count: int) -> None:
    filled(ward, make, names)
    assert len(ids(ward.get(f"/fhir/Observation?patient={names[0]}&{text}"))) == count


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "required"),
        ("patient=a/b", "invalid"),
        ("patient={ada}&patient={bea}", "not-supported"),
        ("patient={ada}&date=yesterday", "value"),
        ("patient={ada}&date=ap2026", "value"),
        ("patient={ada}&_count=0", "value"),
        ("patient={ada}&_count=many", "value"),
        ("patient={ada}&code=8867-4,", "invalid"),
        ("patient={ada}&code:in=x", "not-supported"),
        ("patient={ada}&_cursor=%21%21", "value"),
        ("patient={ada}&code=", "invalid"),
    ],
)
def test_wrong_values_are_refused(ward: Any, make: Any, names: Any, text: str, code: str) -> None:
    path = "/fhir/Observation?" + text.format(ada=names[0], bea=names[1])
    assert outcome(ward.get(path)) == (400, code)


def test_strict_handling_refuses_unknown_parameters(ward: Any, names: Any) -> None:
    path = f"/fhir/Observation?patient={names[0]}&colour=green"
    assert ward.get(path).status_code == 200
    strict = {"Prefer": "handling=strict"}
    assert outcome(ward.get(path, headers=strict)) == (400, "not-supported")


def pages(ward: Any, path: str) -> list[list[str]]:
    found = []
    while path:
        body = ward.get(path).json()
        found.append([e["resource"]["id"] for e in body.get("entry", [])])
        links = {link["relation"]: link["url"] for link in body["link"]}
        path = links.get("next", "")
    return found


def test_pages_neither_skip_nor_repeat_over_live_and_archive(
    ward: Any, make: Any, names: Any
) -> None:
    ada = names[0]
    # three hours, a value every 7 s; the last hour live, archived up to half an hour ago
    every = [make("heart_rate", 60 + at % 50, -at * 7000) for at in range(1500)]
    ward.archive.put(ada, *(r for r in every if r.time_ms <= NOW - 1_800_000))
    live = [r for r in every if r.time_ms >= NOW - 3_600_000]
    for at in range(0, len(live), 40):
        ward.write(ward.samples(ada, *live[at : at + 40]))
    # ties on one time: two vitals and two channels
    ward.write(ward.samples(ada, *(make("spo2", 90 + c, -70_000, channel=c) for c in range(5))))
    whole = pages(ward, f"/fhir/Observation?patient={ada}&_count=1000")
    assert [len(page) for page in whole] == [1000, 505]
    everything = whole[0] + whole[1]
    assert len(set(everything)) == 1505
    for count in (97, 333):
        small = pages(ward, f"/fhir/Observation?patient={ada}&_count={count}")
        assert all(len(page) == count for page in small[:-1])
        assert [ident for page in small for ident in page] == everything


def test_a_page_goes_on_where_it_was_though_new_readings_arrive(
    ward: Any, make: Any, names: Any
) -> None:
    ada = names[0]
    ward.write(ward.samples(ada, *(make("heart_rate", 70, -at * 1000) for at in range(6))))
    first = ward.get(f"/fhir/Observation?patient={ada}&_count=3").json()
    ward.write(ward.samples(ada, make("heart_rate", 80, 1000), make("heart_rate", 81, 2000)))
    link = next(link["url"] for link in first["link"] if link["relation"] == "next")
    rest = ids(ward.get(link))
    assert len(rest) == 3
    assert not set(rest) & {e["resource"]["id"] for e in first["entry"]}


def test_a_page_link_of_another_patient_is_refused(ward: Any, make: Any, names: Any) -> None:
    ada, bea, _ = names
    ward.write(ward.samples(ada, *(make("heart_rate", 70, -at * 1000) for at in range(6))))
    first = ward.get(f"/fhir/Observation?patient={ada}&_count=3").json()
    link = next(link["url"] for link in first["link"] if link["relation"] == "next")
    assert outcome(ward.get(link.replace(ada, bea, 1))) == (400, "value")


def test_what_is_live_and_archived_is_one(ward: Any, make: Any, names: Any) -> None:
    ada = names[0]
    both = [
        make("heart_rate", 70, -1000),
        make("nibp_systolic", 120, -1000),
        make("nibp_diastolic", 80, -1000),
    ]
    ward.write(ward.samples(ada, *both))
    ward.archive.put(ada, *both)
    assert len(ids(ward.get(f"/fhir/Observation?patient={ada}"))) == 2


def test_halves_of_a_pressure_in_two_sources_are_one_panel(
    ward: Any, make: Any, names: Any
) -> None:
    ada = names[0]
    ward.write(ward.samples(ada, make("nibp_systolic", 120, -1000)))
    ward.archive.put(ada, make("nibp_diastolic", 80, -1000))
    [entry] = ward.get(f"/fhir/Observation?patient={ada}").json()["entry"]
    values = [c["valueQuantity"]["value"] for c in entry["resource"]["component"]]
    assert values == [120, 80]


def test_an_archive_that_is_down_is_no_answer_rather_than_part_of_one(
    ward: Any, make: Any, names: Any
) -> None:
    filled(ward, make, names)
    ward.archive.down = True
    ident = ids(ward.get(f"/fhir/Observation/$lastn?patient={names[0]}&{VITAL_SIGNS}"))[0]
    for path in (f"/fhir/Observation?patient={names[0]}", f"/fhir/Observation/{ident}"):
        answer = ward.get(path)
        assert outcome(answer) == (503, "transient")
        assert "archive" in answer.json()["issue"][0]["diagnostics"]


def test_a_redis_that_is_down_is_said_so(ward: Any, names: Any, redis_process: Any) -> None:
    redis_process.stop()
    try:
        assert outcome(ward.get(f"/fhir/Patient/{names[0]}")) == (503, "transient")
        assert outcome(ward.get(f"/fhir/Observation?patient={names[0]}")) == (503, "transient")
    finally:
        redis_process.start()


# $lastn


def lastn(ward: Any, names: Any, text: str) -> list[str]:
    return ids(ward.get(f"/fhir/Observation/$lastn?patient={names[0]}&{text}"))


def test_lastn_gives_the_newest_of_each_group(ward: Any, make: Any, names: Any) -> None:
    filled(ward, make, names)
    found = lastn(ward, names, VITAL_SIGNS)
    assert [ident.split(".")[1] for ident in found] == ["heart-rate", "spo2", "nibp"]
    assert lastn(ward, names, "code=8867-4") == found[:1]
    assert len(lastn(ward, names, f"{VITAL_SIGNS}&max=2")) == 4


def test_lastn_returns_ties_beyond_max(ward: Any, make: Any, names: Any) -> None:
    ward.write(
        ward.samples(
            names[0],
            make("temperature", 37.1, site=1),
            make("temperature", 37.9, site=2),
            make("temperature", 36.0, -60_000, site=1),
        )
    )
    assert len(lastn(ward, names, "code=8310-5")) == 2
    assert len(lastn(ward, names, "code=8310-5&max=2")) == 2
    assert len(lastn(ward, names, "code=8310-5&max=3")) == 3


def test_lastn_joins_groups_that_share_a_code(ward: Any, make: Any, names: Any) -> None:
    # a cuff and an arterial line are both 85354-9: one group, whose newest is the line's
    ward.write(
        ward.samples(
            names[0],
            make("nibp_systolic", 120, -9000),
            make("nibp_diastolic", 80, -9000),
            make("abp_systolic", 118),
            make("abp_diastolic", 79),
        )
    )
    assert [i.split(".")[1] for i in lastn(ward, names, VITAL_SIGNS)] == ["abp"]


def test_lastn_knows_the_newest_beyond_the_live_window(
    ward: Any, make: Any, names: Any, redis_process: Any
) -> None:
    ward.write(ward.samples(names[0], make("temperature", 37.0, -60_000)))
    client = redis_process.client()
    for key in client.keys("recent:*"):
        client.delete(key)
    client.close()
    assert len(lastn(ward, names, f"{VITAL_SIGNS}&max=3")) == 1


def test_lastn_without_match_is_empty_and_without_category_refused(ward: Any, names: Any) -> None:
    assert lastn(ward, names, VITAL_SIGNS) == []
    base = "/fhir/Observation/$lastn?"
    assert outcome(ward.get(f"{base}patient={names[0]}")) == (400, "required")
    assert outcome(ward.get(f"{base}{VITAL_SIGNS}")) == (400, "required")
    assert outcome(ward.get(f"{base}patient={names[0]}&{VITAL_SIGNS}&date=2026")) == (
        400,
        "not-supported",
    )


# DetectedIssue


def event(subject: str, number: int, state: str = "active") -> AlertEvent:
    at = NOW + number * 1000
    return AlertEvent(
        f"ep-{number}", subject, "threshold", "spo2", "high", state, "SpO2 84<90", 90, 84, at, at,
        at, "p1", ended_ms=at if state == "ended" else None,
    )  # fmt: skip


def test_alert_episodes_are_detected_issues(ward: Any, make: Any, names: Any) -> None:
    filled(ward, make, names)
    ada, bea, _ = names
    ward.write(
        *(ward.alert(event(ada, n, "ended" if n < 3 else "active")) for n in range(5)),
        ward.alert(event(bea, 9)),
    )
    path = f"/fhir/DetectedIssue?patient={ada}"
    newest_first = ["ep-4", "ep-3", "ep-2", "ep-1", "ep-0"]
    assert ids(ward.get(path)) == newest_first
    assert ids(ward.get(f"{path}&status=preliminary")) == ["ep-4", "ep-3"]
    assert ids(ward.get("/fhir/DetectedIssue?_id=ep-1,ep-9")) == ["ep-9", "ep-1"]
    assert [i for page in pages(ward, f"{path}&_count=2") for i in page] == newest_first
    assert outcome(ward.get(f"{path}&status=open")) == (400, "value")
    issue = ward.get("/fhir/DetectedIssue/ep-4").json()
    assert issue["detail"] == "SpO2 84<90"
    assert issue["severity"] == "high"
    assert outcome(ward.get("/fhir/DetectedIssue/ep-404")) == (404, "not-found")
    icu = {"Authorization": f"Bearer {ward.token(wards=('ICU',))}"}
    assert outcome(ward.get("/fhir/DetectedIssue/ep-9", headers=icu)) == (404, "not-found")
    assert ids(ward.get("/fhir/DetectedIssue?_id=ep-1,ep-9", headers=icu)) == ["ep-1"]


def test_an_issue_is_served_at_its_highest_step_and_names_no_user(
    ward: Any, make: Any, names: Any
) -> None:
    filled(ward, make, names)
    one = event(names[0], 1)
    acknowledged = msgspec.structs.replace(
        one, number=2, at_ms=NOW + 60_000, acknowledged_ms=NOW + 60_000, acknowledged_by="lee.k",
        who="lee.k", why="with the patient",
    )  # fmt: skip
    latched = msgspec.structs.replace(one, number=3, state="latched", at_ms=NOW + 2_000)
    for step in (latched, acknowledged, one):
        ward.write(ward.alert(step))
    issue = ward.get("/fhir/DetectedIssue/ep-1").json()
    assert issue["status"] == "preliminary"
    assert [tag["code"] for tag in issue["meta"]["tag"]] == ["latched"]
    assert "mitigation" not in issue
    ward.write(ward.alert(msgspec.structs.replace(acknowledged, number=4)))
    answer = ward.get("/fhir/DetectedIssue/ep-1")
    assert answer.json()["mitigation"][0]["action"]["text"] == "acknowledged"
    assert "lee" not in answer.text
    assert "with the patient" not in answer.text


def test_durations_are_measured_by_route_and_never_by_path(
    ward: Any, make: Any, names: Any
) -> None:
    filled(ward, make, names)
    ward.get(f"/fhir/Patient/{names[0]}")
    label = {"route": "patient-read"}
    assert ward.registry.get_sample_value("healthsync_api_request_seconds_count", label) == 1
    assert not any(
        names[0] in str(sample.labels)
        for family in ward.registry.collect()
        for sample in family.samples
    )
