"""Every message of the IPF project gives its readings, or its refusal, and its acknowledgement."""

import pytest

from edge import hl7
from edge.refusal import Reason, Refused
from tests.edge.hl7_messages import DATA, NOW, decode, report, sample, sent
from vitals.codes import VITALS, TimeSource
from vitals.reading import Patient

ZONE_5_H_MS = 5 * 3_600_000
BP_MS = 1_250_157_435_000  # 2009-08-13T09:57:15Z
ACME = Patient("789567", "John Joseph Doe", sex="male", ward="W9")
DEVICE = "0123456789ABCDEF"
TO_ACME = "AcmeInc^ACDE48234567ABCD^EUI-64|"
NIBP = ("nibp_systolic", "nibp_diastolic", "nibp_mean")

NONE_SAID = "hl7-no-reading OBX-3: no OBX holds a vital sign known here"

Row = tuple[str, float | None, int, int, int]
"""Name, value, status, site, device's time in milliseconds."""


def _rows(found: hl7.Report) -> list[Row]:
    (part,) = found.parts
    assert {(r.time_source, r.received_ms, r.channel, r.reason) for r in part.readings} == {
        (TimeSource.DEVICE, NOW, 0, 0)
    }
    return [(VITALS[r.vital].name, r.value, r.status, r.site, r.time_ms) for r in part.readings]


TAKEN: dict[str, tuple[str, Patient, list[Row], int, int]] = {
    "pcd01_valid-pcd01-request.hl7v2": (
        DEVICE,
        ACME,
        [(n, v, 0, 0, BP_MS - ZONE_5_H_MS) for n, v in zip(NIBP, (120, 80, 100), strict=True)],
        2,
        0,
    ),
    "pcd01_valid-pcd01-request2.hl7v2": (
        "080019FFFF4F6AC0/3-WEST-ICU-3001-1",
        Patient("AB60001", "ALBERT BROOKS", bed="3001-1", ward="3 WEST ICU"),
        [
            (name, value, 0, 0, 1_229_006_700_000)
            for name, value in (
                ("heart_rate", 60),
                ("abp_mean", 92),
                ("abp_systolic", 120),
                ("abp_diastolic", 80),
                ("pulse_rate", 60),
            )
        ],
        4,
        0,
    ),
    "pcd01_valid-pcd01-MaximumRequest2.hl7": (
        DEVICE,
        Patient("111222333444", "John Joseph Doe", "1977-04-04", "male", "", "B1"),
        [
            ("nibp_systolic", 140, 2, 0, BP_MS - ZONE_5_H_MS + 10_000),
            ("nibp_mean", 100, 0, 0, BP_MS - ZONE_5_H_MS),
        ],
        5,
        3,
    ),
    "wan_valid-bp-continua-wan.hl7v2": (
        DEVICE,
        ACME,
        [(n, v, 0, 0, BP_MS) for n, v in zip(NIBP, (120, 80, 100), strict=True)],
        4,
        0,
    ),
    "wan_valid-oximeter-continua-wan.hl7v2": (
        DEVICE,
        ACME,
        [("spo2", 80.5, 0, 0, 1_247_641_627_000)],
        2,
        0,
    ),
    "wan_valid-thermometer-continua-wan.hl7v2": (
        DEVICE,
        ACME,
        [("temperature", 37.0, 0, 1, 1_247_641_627_000)],
        1,
        0,
    ),
}

NO_VITAL = [
    "wan_invalid-glucose-continua-wan.hl7v2",
    "wan_valid-fitness-and-activity-continua-wan.hl7v2",
    "wan_valid-fitness-continua-wan.hl7v2",
    "wan_valid-glucose-continua-wan.hl7v2",
    "wan_valid-scale-continua-wan.hl7v2",
]
ANSWERS = [
    "pcd01_valid-pcd01-response.hl7v2",
    "pcd01_valid-pcd01-response2.hl7v2",
    "wan_invalid-wan-response.hl7v2",
    "wan_valid-wan-response.hl7v2",
]


def test_no_sample_is_left_out() -> None:
    assert sorted([*TAKEN, *NO_VITAL, *ANSWERS]) == sorted(
        path.name for path in (DATA / "ipf").iterdir()
    )


@pytest.mark.parametrize("name", TAKEN)
def test_a_sample_of_vital_signs_gives_exactly_these(name: str) -> None:
    device, patient, rows, ignored, conflicts = TAKEN[name]
    found = report(sample(name))
    assert _rows(found) == rows
    assert found.parts[0].device == device
    assert found.patient == found.parts[0].patient == patient
    assert (found.ignored, len(found.refused)) == (ignored, conflicts)


def test_codes_that_a_foreign_number_was_put_to_are_conflicts_of_their_rows() -> None:
    refused = report(sample("pcd01_valid-pcd01-MaximumRequest2.hl7")).refused
    assert [(one.reason, one.field) for one in refused] == [
        (Reason.HL7_CONFLICT, f"OBX[{number}]-3.1") for number in (8, 9, 10)
    ]


@pytest.mark.parametrize("name", NO_VITAL)
def test_a_sample_without_a_vital_sign_is_refused_as_that(name: str) -> None:
    refused = decode(sample(name))
    assert refused == Refused(
        Reason.HL7_NO_READING, "OBX-3", "no OBX holds a vital sign known here"
    )


def _acks(name: str) -> list[str]:
    (entry,) = sent(sample(name))
    if entry.answer is None:
        return []
    said = entry.answer(None).split(b"\x0b")[1:]
    return [one.removesuffix(b"\x1c\r").decode() for one in said]


def _msh(text: str) -> list[str]:
    fields = text.split("\r")[0].split("|")
    assert fields[9].endswith("-A")
    fields[9] = "ID"
    return fields


@pytest.mark.parametrize("name", [*TAKEN, *NO_VITAL])
def test_a_sample_is_acknowledged_as_its_header_asks(name: str) -> None:
    (ack,) = _acks(name)
    to = {
        "pcd01_valid-pcd01-request2.hl7v2": "HL7^080019FFFF4F6AC0^EUI-64|MMS",
        "pcd01_valid-pcd01-MaximumRequest2.hl7": TO_ACME + "SendFac^1.2.3.4^ISO",
    }.get(name, TO_ACME)
    ours = "healthsync|"
    charset = "||8859/1" if name in list(TAKEN)[1:3] else ""
    if "Maximum" in name:
        ours = "ReceiveApp^1.2.3.5^ISO|ReceiveFac^1.2.3.6^ISO"
    head = f"MSH|^~\\&|{ours}|{to}|20261123100000+0000||ACK^R01^ACK|ID|P|2.6|||NE|NE{charset}"
    control = "12d15a9:11df9e61347:-7fee:30456965" if "request2" in name else "MSGID1234"
    assert "|".join(_msh(ack)) == head
    rest = ack.split("\r")[1:]
    if name in TAKEN:
        assert rest == [f"MSA|AA|{control}", ""]
    else:
        assert rest == [
            "MSA|AE|MSGID1234",
            "ERR||OBX^1^3|101^Required field missing^HL70357|E||||" + NONE_SAID,
            "",
        ]


@pytest.mark.parametrize("name", ANSWERS)
def test_an_acknowledgement_is_kept_as_refused_and_never_acknowledged(name: str) -> None:
    (entry,) = sent(sample(name))
    assert entry.rejected[0].reason == Reason.HL7_TYPE
    assert entry.rejected[0].raw == sample(name)
    assert entry.answer is not None
    assert entry.answer(None) == b""
    assert entry.answer(Reason.SPOOL_FULL) == b""


def test_a_message_in_conflict_with_itself_is_kept_whole_beside_its_readings() -> None:
    raw = sample("pcd01_valid-pcd01-MaximumRequest2.hl7")
    (entry,) = sent(raw)
    assert len(entry.readings) == 2
    reject, *others = entry.rejected
    assert others, "every conflict is told"
    assert {one.raw for one in others} == {b""}, "the message is kept once"
    assert (reject.reason, reject.field, reject.raw) == ("hl7-conflict", "OBX[8]-3.1", raw)
    assert reject.device == DEVICE
