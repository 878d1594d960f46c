"""``healthsync cloud fhir``: what decode prints goes in, Bundles come out."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle

from cloud import fhir_command
from cloud.fhir.ids import is_subject, parse_observation_id
from healthsync.cli import main
from healthsync.runtime.exits import Exit

LINE: dict[str, Any] = {
    "kind": "reading", "device": "bed-12", "patient": "M000123", "bed": None, "vital": "spo2",
    "value": 97, "unit": "%", "site": None, "channel": 0, "time": "2026-11-23T10:00:00.000Z",
    "time_source": "device", "status": "ok", "reason": None,
}  # fmt: skip


class Converted:
    def __init__(self, *lines: dict[str, Any] | bytes, ndjson: bool = False) -> None:
        data = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in lines]
        out, errors = io.StringIO(), io.StringIO()
        self.code = fhir_command.convert(io.BytesIO(b"\n".join(data)), out, errors, ndjson=ndjson)
        self.made = [json.loads(line) for line in out.getvalue().splitlines()]
        self.errors = errors.getvalue().splitlines()

    @property
    def observations(self) -> list[dict[str, Any]]:
        return [entry["resource"] for bundle in self.made for entry in bundle["entry"]]


def test_what_decode_prints_becomes_bundles_by_the_real_commands() -> None:
    """The two commands in a pipe, as a person types them."""
    typed = (
        b"device=bed-12 mrn=M000123 hr=78, spo2=95%, temp=36.9C, bp=120/80 acvpu=C"
        b" time=2026-11-23T10:00:00Z\nspo2=? time=2026-11-23T10:00:01Z\n"
    )
    program = [sys.executable, "-m", "healthsync.cli"]
    decoded = subprocess.run(
        [*program, "edge", "decode", "--ack"], input=typed, capture_output=True, check=True,
        timeout=60,
    )  # fmt: skip
    made = subprocess.run(
        [*program, "cloud", "fhir"], input=decoded.stdout, capture_output=True, check=True,
        timeout=60,
    )  # fmt: skip
    assert made.stderr == b""
    bundles = [Bundle.model_validate_json(line) for line in made.stdout.splitlines()]
    assert [len(bundle.entry) for bundle in bundles] == [5, 1]
    for name in (b"M000123", b"bed-12"):
        assert name not in made.stdout


def test_halves_of_a_pressure_meet_and_other_times_and_devices_do_not() -> None:
    half = LINE | {"vital": "nibp_systolic", "value": 120, "unit": "mm[Hg]"}
    other = half | {"vital": "nibp_diastolic", "value": 80}
    later = other | {"time": "2026-11-23T10:00:01.000Z"}
    done = Converted(half, other, later, half, other | {"device": "bed-13"})
    # Of one patient at one time, but by two devices: two measurements.
    values = [
        [part.get("valueQuantity", {}).get("value") for part in body["component"]]
        for body in done.observations
    ]
    assert values == [[120, 80], [None, 80], [120, None], [None, 80]]
    assert len(done.made) == 4
    assert done.observations[2]["device"] != done.observations[3]["device"]


def test_ndjson_is_one_resource_a_line() -> None:
    done = Converted(LINE, LINE | {"vital": "heart_rate", "unit": "/min"}, ndjson=True)
    assert [body["resourceType"] for body in done.made] == ["Observation"] * 2
    assert (done.code, done.errors) == (Exit.OK, [])


def test_ids_are_hashes_of_names_and_the_same_every_time() -> None:
    (body,) = Converted(LINE).observations
    found = parse_observation_id(body["id"])
    assert found is not None
    assert found.subject == fhir_command.pseudonym("patient", "M000123")
    device = body["device"]["reference"].removeprefix("Device/")
    assert device == fhir_command.pseudonym("device", "bed-12")
    assert is_subject(device)
    (nobody,) = Converted(LINE | {"patient": None}).observations
    assert nobody["subject"] != body["subject"]
    assert nobody["subject"]["reference"] != f"Patient/{device}"


def test_a_value_has_site_channel_status_and_decimals() -> None:
    (body,) = Converted(
        LINE | {"vital": "temperature", "value": 37, "unit": "Cel", "site": "oral", "channel": 2,
                "status": "questionable"}
    ).observations  # fmt: skip
    assert body["id"].endswith(".s1.c2")
    assert body["interpretation"] == [{"text": "questionable"}]
    assert body["valueQuantity"]["value"] == 37.0


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (b"nix", "no JSON object; give lines"),
        (b"\xff{}", "no JSON object; give lines"),
        (b"[1]", "the object: missing, or of another kind"),
        (b"{}", "the object: missing, or of another kind"),
        (b" " * 20 + b"x" * fhir_command.LINE_BYTES_MAX, "over 16384 bytes"),
        ({"kind": "reading "}, "kind: not reading"),
        (LINE | {"value": "x"}, "value: missing, or of another kind"),
        (LINE | {"channel": None}, "channel: missing, or of another kind"),
        (LINE | {"vital": "spO2"}, "vital: no such vital sign"),
        (LINE | {"vital": None}, "vital: no such vital sign"),
        (LINE | {"unit": "mm[Hg]"}, "unit: spo2 is in %; convert"),
        (LINE | {"status": "fine"}, "status: write one of ok, missing"),
        (LINE | {"site": "toe"}, "site: write one of oral"),
        (LINE | {"channel": -1}, "channel: write a number from 0 to 65535"),
        (LINE | {"channel": 65536}, "channel: write a number from 0 to 65535"),
        (LINE | {"value": 100.5}, "value: spo2 is 0 to 100 %"),
        (LINE | {"status": "missing"}, "value: a reading that is missing has none"),
        (LINE | {"time": None}, "time: write UTC"),
        (LINE | {"time": "2026-11-23T10:00:00"}, "time: write UTC"),
        (LINE | {"time": "soon"}, "time: write UTC"),
        (LINE | {"time": "1969-12-31T23:59:59.999Z"}, "time: write one after 1970"),
        ({"kind": "rejected", "reason": "bad-number", "field": "spo2"}, "the gateway refused"),
    ],
)
def test_a_wrong_line_is_told_by_number_and_the_rest_is_printed(
    wrong: dict[str, Any] | bytes, said: str
) -> None:
    done = Converted(LINE, b"", wrong, LINE)
    assert len(done.observations) == 2
    (told,) = done.errors
    assert told.startswith(f"healthsync: line 3: {said}")
    assert done.code == Exit.DEGRADED


def test_a_message_names_fields_and_no_content() -> None:
    secret = "Ada-Ng-1950"
    for field in LINE:
        done = Converted(LINE | {field: secret})
        assert not any(secret in line for line in done.errors), field


def test_the_longest_line_is_read() -> None:
    line = json.dumps(LINE).encode()
    exact = line + b" " * (fhir_command.LINE_BYTES_MAX - len(line))
    assert Converted(exact, LINE).code == Exit.OK
    over = Converted(exact + b" ", LINE)
    assert (over.code, len(over.made)) == (Exit.DEGRADED, 1)


def test_a_bundle_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir_command, "GROUP_MAX", 3)
    lines = [LINE | {"channel": at} for at in range(7)]
    assert [len(bundle["entry"]) for bundle in Converted(*lines).made] == [3, 3, 1]


def test_answers_are_passed_over_and_alarms_of_devices_are_counted() -> None:
    done = Converted(LINE, {"kind": "ack", "text": "ok"}, {"kind": "device_alert", "value": 3})
    assert (len(done.made), done.code) == (1, Exit.OK)
    (told,) = done.errors
    assert re.match("healthsync: 1 alarms of devices are not printed", told)


def test_empty_input_is_nothing_and_no_input_is_said(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert Converted().made == []
    assert main(["cloud", "fhir", str(tmp_path / "none")]) == Exit.USAGE
    assert "No such file" in capsys.readouterr().err
    good = tmp_path / "readings.jsonl"
    good.write_text(json.dumps(LINE) + "\n")
    assert main(["cloud", "fhir", "--ndjson", str(good)]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["valueQuantity"]["value"] == 97
