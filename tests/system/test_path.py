"""A reading's way from a typed line to FHIR, on real servers."""

import json
import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from tests.system.box import ROOT, Box, until

pytestmark = pytest.mark.system


def test_the_whole_system_is_ready_in_time(box: Box) -> None:
    assert box.start_s <= 25, f"took {box.start_s:.1f} s"
    assert box.command("onebox", "status").returncode == 0


def test_info_tells_what_scripts_need(box: Box) -> None:
    wanted = {
        "line_port",
        "line_tls_port",
        "mllp_port",
        "mllp_tls_port",
        "fhir_url",
        "ward_url",
        "ca_file",
        "token",
        "metrics",
        "services",
    }
    assert wanted <= set(box.info)
    assert all({"pid", "port"} == set(row) for row in box.info["services"].values())


def test_the_simplest_line_typed_into_nc_is_accepted_as_it_stands(box: Box) -> None:
    before = spooled(box)
    done = subprocess.run(
        [
            "bash",
            "-c",
            f"printf 'heart_rate=78, oxygen=95%%\\n' | nc -N 127.0.0.1 {box.info['line_port']}",
        ],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    until(lambda: spooled(box) >= before + 2, 5, "both readings to be spooled")


def spooled(box: Box) -> int:
    """Return how many readings the gateway ever spooled, as an operator would ask."""
    from onebox import scrape

    samples = scrape.scrape(box.info["metrics"]["edge"])
    return int(scrape.total(samples, "healthsync_edge_readings_total"))


def test_a_line_with_a_patient_is_found_by_its_record_number(box: Box) -> None:
    answer = box.say(
        'device=bed-71 mrn=SYS000071 name="Zora Quill" dob=1950-02-03 sex=female bed=71 ward=W1'
        " heart_rate=71, oxygen=97%, resp=15, temperature=36.8C, bp=121/82 reply=yes\n"
    )
    assert answer.splitlines()[-1] == "ok"
    subject = box.subject("SYS000071")
    patient = box.entries("Patient?identifier=SYS000071")[0]
    assert patient["name"][0]["text"] == "Zora Quill"
    latest: dict[str, object] = {}

    def there() -> bool:
        found = box.entries(f"Observation/$lastn?patient={subject}&category=vital-signs")
        latest.clear()
        for observation in found:
            for coding in observation["code"]["coding"]:
                latest[coding["code"]] = observation
        return {"8867-4", "2708-6", "9279-1", "8310-5", "85354-9"} <= set(latest)

    until(there, 15, "all five vital signs")
    heart = latest["8867-4"]
    assert isinstance(heart, dict)
    assert heart["valueQuantity"]["value"] == 71
    assert heart["subject"]["reference"] == f"Patient/{subject}"
    assert "Zora" not in json.dumps(latest)


def test_falling_oxygen_saturation_raises_one_alert_after_ten_seconds(box: Box) -> None:
    start = datetime.now(UTC) - timedelta(seconds=25)
    lines = [
        f'device=bed-72 mrn=SYS000072 name="Alda Rusk" bed=72 ward=W1 oxygen={value}%'
        f" time={(start + timedelta(seconds=at)).isoformat().replace('+00:00', 'Z')} reply=yes"
        for at, value in enumerate([96] * 5 + [84] * 15)
    ]
    answer = box.say("\n".join(lines) + "\n")
    assert answer.split() == ["ok"] * 20
    subject = box.subject("SYS000072")
    until(lambda: len(box.entries(f"DetectedIssue?patient={subject}")) > 0, 20, "the alert")
    issues = box.entries(f"DetectedIssue?patient={subject}")
    assert len(issues) == 1
    assert issues[0]["severity"] == "high"
    assert "84<90" in json.dumps(issues[0])


def test_nine_seconds_below_the_limit_raise_nothing(box: Box) -> None:
    start = datetime.now(UTC) - timedelta(seconds=25)
    values = [96] * 5 + [84] * 9 + [96] * 6
    lines = [
        f"device=bed-73 mrn=SYS000073 oxygen={value}%"
        f" time={(start + timedelta(seconds=at)).isoformat().replace('+00:00', 'Z')} reply=yes"
        for at, value in enumerate(values)
    ]
    assert box.say("\n".join(lines) + "\n").split() == ["ok"] * 20
    subject = box.subject("SYS000073")
    until(
        lambda: len(box.entries(f"Observation?patient={subject}&code=2708-6&_count=50")) == 20,
        20,
        "all twenty observations",
    )
    assert box.entries(f"DetectedIssue?patient={subject}") == []


def test_observations_stay_searchable_when_they_leave_the_live_window_for_the_archive(
    box: Box,
) -> None:
    assert box.audit().returncode == 0, "archive and live agree first"
    subject = box.subject("SYS000073")
    found = box.entries(f"Observation?patient={subject}&code=2708-6&_count=50")
    assert len(found) == len({o["id"] for o in found}) == 20, "merged without repeats"
    day = found[0]["effectiveDateTime"][:10]
    assert len(box.entries(f"Observation?patient={subject}&date={day}&_count=50")) >= 1
    assert box.entries(f"Observation?patient={subject}&date=lt2020-01-01") == []


def test_every_live_resource_is_valid_by_hl7s_validator(box: Box) -> None:
    box.say(
        'device=bed-74 mrn=SYS000074 name="Ewa Lind" dob=1961-07-08 sex=female bed=74 ward=W1'
        " heart_rate=71, pulse=70, oxygen=, resp=15, temperature=36.8C@oral, bp=121/82(95),"
        " etco2=35, fio2=40, o2_flow=2, perfusion_index=1.5, cvp=8, consciousness=V\n"
    )
    subjects = [box.subject(mrn) for mrn in ("SYS000071", "SYS000072", "SYS000074")]
    until(lambda: len(box.entries(f"Observation?patient={subjects[2]}")) >= 10, 15, "observations")
    resources = [box.rest("metadata")[1]]
    for subject in subjects:
        resources += box.entries(f"Observation?patient={subject}&_count=100")
        resources += box.entries(f"DetectedIssue?patient={subject}")
        resources.append(box.rest(f"Patient/{subject}")[1])
    resources.append(box.rest("Observation?patient=x&date=never")[1])
    kinds = {resource["resourceType"] for resource in resources}
    assert {
        "Observation",
        "DetectedIssue",
        "Patient",
        "CapabilityStatement",
        "OperationOutcome",
    } <= kinds
    java = shutil.which("java") or "java"
    done = subprocess.run(
        [java, "-cp", f"{ROOT}/.tools/validator/*", str(ROOT / "onebox/validator/Validate.java")],
        input="\n".join(json.dumps(r) for r in resources) + "\n",
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


def test_hl7_messages_arrive_by_the_same_way(box: Box) -> None:
    import socket

    stamp = datetime.now(UTC).strftime("%Y%m%d%H%M%S+0000")
    message = "\r".join(
        (
            f"MSH|^~\\&|MON|W1|||{stamp}||ORU^R01^ORU_R01|SYS-1|P|2.6|||AL|NE",
            "PID|||SYS000075^^^H^MR||Quist^Ivo",
            "PV1||I|W1^^75",
            f"OBR|1||F1|182777000^monitoring of patient^SCT|||{stamp}",
            f"OBX|1|NM|147842^MDC_ECG_HEART_RATE^MDC|1.0.0.1|66|264864^MDC_DIM_BEAT_PER_MIN^MDC|||||R|||{stamp}",
            f"OBX|2|NM|150456^MDC_PULS_OXIM_SAT_O2^MDC|1.0.0.2|98|262688^MDC_DIM_PERCENT^MDC|||||R|||{stamp}",
        )
    )
    with socket.create_connection(("127.0.0.1", box.info["mllp_port"]), 5) as sock:
        sock.sendall(b"\x0b" + message.encode() + b"\x1c\r")
        sock.settimeout(10)
        answer = b""
        while not answer.endswith(b"\x1c\r"):
            chunk = sock.recv(65536)
            assert chunk, "the gateway hung up before its answer"
            answer += chunk
    assert b"MSA|CA|SYS-1" in answer
    subject = box.subject("SYS000075")
    until(lambda: len(box.entries(f"Observation?patient={subject}")) == 2, 15, "both observations")


def test_lines_come_in_over_tls_too(box: Box) -> None:
    import socket

    with (
        socket.create_connection(("127.0.0.1", box.info["line_tls_port"]), 5) as plain,
        box.context().wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        assert sock.version() == "TLSv1.3"
        assert (sock.cipher() or ("",))[0] == "TLS_AES_256_GCM_SHA384"
        sock.sendall(b"device=bed-76 mrn=SYS000076 heart_rate=61 reply=yes\n")
        sock.settimeout(10)
        assert sock.recv(100) == b"ok\n"
    assert box.subject("SYS000076")


def test_the_ward_page_is_served_and_its_state_needs_a_sign_in(box: Box) -> None:
    import http.client
    import urllib.parse

    url = urllib.parse.urlsplit(box.info["ward_url"])
    client = http.client.HTTPSConnection(
        url.hostname or "", url.port, timeout=10, context=box.context()
    )
    client.request("GET", "/ward")
    page = client.getresponse()
    assert page.status == 200
    assert b"<html" in page.read().lower()
    client.request("GET", "/ward/state")
    refused = client.getresponse()
    refused.read()
    assert refused.status == 401
    secret = box.info["sign_in"]
    client.request(
        "POST",
        "/ward/signin",
        urllib.parse.urlencode({"user": secret["user"], "password": secret["password"]}),
        {"Content-Type": "application/x-www-form-urlencoded"},
    )
    signed = client.getresponse()
    signed.read()
    cookie = signed.getheader("Set-Cookie") or ""
    assert "HttpOnly" in cookie
    assert "Secure" in cookie
    client.request("GET", "/ward/state", headers={"Cookie": cookie.split(";")[0]})
    state = client.getresponse()
    body = state.read().decode()
    assert state.status == 200
    assert "71" in body
    client.close()
