"""Messages of the field give their readings; each is answered for itself."""

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import hl7
from edge.admission import Caller
from edge.entry import Entry
from edge.hl7_talk import Hl7Talk
from edge.mllp import block
from edge.refusal import Reason, Refused
from edge.setting import Setting
from vitals.codes import VITALS, Site, Status, TimeSource
from vitals.reading import Patient

DATA = Path(__file__).with_name("data")
NOW = 1_795_428_000_000
UTC = ZoneInfo("UTC")


def _decode(raw: bytes) -> hl7.Report | Refused:
    return hl7.decode(raw, hl7.envelope(raw), "10.0.0.9", "W9", UTC, NOW)


def _report(raw: bytes) -> hl7.Report:
    found = _decode(raw)
    assert isinstance(found, hl7.Report), found
    return found


def _values(report: hl7.Report) -> list[tuple[str, float | None, int]]:
    return [(VITALS[r.vital].name, r.value, r.status) for r in report.readings]


def _message(*segments: str, msh: str = "|MSG1|P|2.6") -> bytes:
    head = f"MSH|^~\\&|Mon^AA^EUI-64|Fac|||20261123100000+0000||ORU^R01^ORU_R01{msh}"
    return "\r".join((head, *segments, "")).encode()


def _obx(code: str, value: str, unit: str = "", rest: str = "") -> str:
    return f"OBX|1|NM|{code}|1.1.1.1|{value}|{unit}|{rest}"


GOOD = ("PID|||M1^^^H^MR", "OBR|1||||||20261123100000+0000", _obx("147842", "78", "264864"))


def test_a_monitors_report_gives_every_vital_sign_it_holds() -> None:
    report = _report((DATA / "pcd01_valid-pcd01-request2.hl7v2").read_bytes())
    assert _values(report) == [
        ("heart_rate", 60, 0),
        ("abp_mean", 92, 0),
        ("abp_systolic", 120, 0),
        ("abp_diastolic", 80, 0),
        ("pulse_rate", 60, 0),
    ]
    assert report.ignored == 4
    assert report.device == "080019FFFF4F6AC0/3-WEST-ICU-3001-1"
    assert report.patient == Patient("AB60001", "ALBERT BROOKS", bed="3001-1", ward="3 WEST ICU")


def test_fahrenheit_and_its_site_come_through() -> None:
    report = _report((DATA / "wan_valid-thermometer-continua-wan.hl7v2").read_bytes())
    (reading,) = report.readings
    assert reading.value is not None
    assert (round(reading.value, 3), reading.site) == (37.0, Site.ORAL)
    assert report.device == "0123456789ABCDEF"


def test_doubted_deleted_and_unknown_values_are_told_apart() -> None:
    report = _report((DATA / "pcd01_valid-pcd01-MaximumRequest2.hl7").read_bytes())
    assert _values(report) == [("nibp_systolic", 140, Status.QUESTIONABLE), ("nibp_mean", 100, 0)]
    assert report.patient is not None
    assert report.patient.birth_date == "1977-04-04"


@pytest.mark.parametrize(
    ("name", "vitals"),
    [
        ("pcd01_valid-pcd01-request.hl7v2", ["nibp_systolic", "nibp_diastolic", "nibp_mean"]),
        ("wan_valid-bp-continua-wan.hl7v2", ["nibp_systolic", "nibp_diastolic", "nibp_mean"]),
        ("wan_valid-oximeter-continua-wan.hl7v2", ["spo2"]),
    ],
)
def test_continua_devices_are_understood(name: str, vitals: list[str]) -> None:
    report = _report((DATA / name).read_bytes())
    assert [value[0] for value in _values(report)] == vitals


def test_a_scale_measures_nothing_known_here() -> None:
    refused = _decode((DATA / "wan_valid-scale-continua-wan.hl7v2").read_bytes())
    assert isinstance(refused, Refused)
    assert refused.reason == Reason.HL7_NO_READING


@pytest.mark.parametrize(
    ("obx", "expected"),
    [
        (_obx("8867-4^Heart rate^LN", "78", "/min"), ("heart_rate", 78, Status.OK)),
        (_obx("X^local^99^150456^SPO2^MDC", "95", "262688"), ("spo2", 95, Status.OK)),
        (_obx("59408-5", "95", "%"), ("spo2", 95, Status.OK)),
        (_obx("8480-6", "120", "mm[Hg]"), ("nibp_systolic", 120, Status.OK)),
        (_obx("147842", "", "264864"), ("heart_rate", None, Status.MISSING)),
        (_obx("147842", "78", "264864", "||||X"), ("heart_rate", None, Status.MISSING)),
        (_obx("147842", "78", "264864", "|INV"), ("heart_rate", None, Status.MISSING)),
        (_obx("147842", "78", "264864", "|DEMO"), ("heart_rate", 78, Status.TEST)),
        (_obx("147842", "78", "264864", "|CAL"), ("heart_rate", 78, Status.CALIBRATION)),
        (_obx("147842", "8388607", "264864"), ("heart_rate", None, Status.IMPLAUSIBLE)),
    ],
)
def test_codes_units_and_states_of_one_observation(
    obx: str, expected: tuple[str, float | None, int]
) -> None:
    assert _values(_report(_message("OBR|1", obx))) == [expected]


@pytest.mark.parametrize(
    "obx",
    [
        _obx("150456^MDC_CO2_ET", "35", "266016"),
        _obx("147842", "78", "furlongs"),
        _obx("147842", "78bpm", "264864"),
        "OBX|1|NA|150456|1|1^2^3|262688",
        _obx("147842", "78", "264864", "||||R|||yesterday"),
    ],
)
def test_an_observation_at_odds_with_itself_is_set_aside_and_the_others_are_kept(obx: str) -> None:
    assert isinstance(_decode(_message("OBR|1", obx)), Refused)
    report = _report(_message("OBR|1", obx, _obx("151562", "16", "264928")))
    assert _values(report) == [("resp_rate", 16, Status.OK)]
    assert len(report.refused) == 1


def test_times_come_from_the_observation_else_its_group() -> None:
    report = _report(
        _message(
            "OBR|1||||||20261123100000+0100",
            _obx("147842", "78", "264864"),
            _obx("150456", "95", "262688", "||||R|||20261123085500.250+0000"),
            "OBR|2||||||20261123",
            _obx("151562", "16", "264928"),
        )
    )
    hour = 3_600_000
    assert [(r.time_ms - NOW, r.time_source) for r in report.readings] == [
        (-hour, TimeSource.DEVICE),
        (-hour - 299_750, TimeSource.DEVICE),
        (0, TimeSource.RECEIVED),
    ]


def test_two_sensors_of_a_kind_have_two_channels() -> None:
    report = _report(
        _message("OBR|1", _obx("150344", "36.9", "268192"), _obx("150344", "35.1", "268192"))
    )
    assert [r.channel for r in report.readings] == [0, 1]


def test_the_medical_record_number_comes_first_and_never_a_name_alone() -> None:
    patient = _report(_message("PID|||9^^^H^VN~M7^^^H^MR||Ng^Ada", *GOOD[1:])).patient
    assert patient == Patient("M7", "Ada Ng", ward="W9")


def test_escapes_and_charsets_are_resolved() -> None:
    message = _message("PID|||M1||O\\T\\Neil^Zo\xeb", *GOOD[1:], msh="|MSG1|P|2.6||||||8859/1")
    latin = message.decode().encode("latin-1")
    patient = _report(latin).patient
    assert patient is not None
    assert patient.name == "Zoë O&Neil"


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"hello", Reason.HL7_NO_MSH),
        (b"", Reason.HL7_NO_MSH),
        (b"MSH|", Reason.HL7_NO_MSH),
        (_message(*GOOD).replace(b"ORU^R01", b"ADT^A01"), Reason.HL7_TYPE),
        (_message(*GOOD, msh="|MSG1|P|3.0"), Reason.HL7_TYPE),
        (_message(*GOOD, msh="||P|2.6"), Reason.HL7_REQUIRED),
        (_message(GOOD[0], GOOD[2]), Reason.HL7_REQUIRED),
        (_message("OBR|1"), Reason.HL7_NO_READING),
        (_message(*GOOD, msh="|MSG1|P|2.6||||||KLINGON"), Reason.HL7_CHARSET),
        (_message("OBR|1", *[_obx("147842", "78")] * 2001), Reason.HL7_TOO_MANY),
    ],
)
def test_what_is_refused_whole(raw: bytes, reason: Reason) -> None:
    refused = _decode(raw)
    assert isinstance(refused, Refused)
    assert refused.reason == reason


def _codes(modes: str, raw: bytes | None = None, failure: Reason | None = None) -> list[str]:
    message = raw or _message(*GOOD, msh=f"|MSG1|P|2.6|||{modes}")
    (entry,) = Hl7Talk(Caller("10.0.0.9"), Setting("", UTC)).receive(block(message), NOW)
    if entry.answer is None:
        return []
    answers = entry.answer(failure).split(b"\x0b")[1:]
    for answer in answers:
        assert answer.endswith(b"\x1c\r")
    return [answer.split(b"MSA|")[1].split(b"\r")[0].decode() for answer in answers]


@pytest.mark.parametrize(
    ("modes", "good", "bad"),
    [
        ("|", ["AA|MSG1"], ["AE|MSG1"]),
        ("AL|NE", ["CA|MSG1"], ["CE|MSG1"]),
        ("NE|AL", ["AA|MSG1"], ["AE|MSG1"]),
        ("AL|AL", ["CA|MSG1", "AA|MSG1"], ["CE|MSG1", "AE|MSG1"]),
        ("NE|NE", [], []),
        ("ER|NE", [], ["CE|MSG1"]),
        ("SU|NE", ["CA|MSG1"], []),
    ],
)
def test_the_answer_follows_the_mode_asked_for(modes: str, good: list[str], bad: list[str]) -> None:
    assert _codes(modes) == good
    assert _codes(modes, failure=Reason.SPOOL_FULL) == bad


def test_a_type_not_taken_is_rejected_not_failed() -> None:
    raw = _message(*GOOD).replace(b"ORU^R01", b"ADT^A01")
    assert _codes("", raw) == ["AR|MSG1"]


def test_an_error_says_why_without_saying_who() -> None:
    raw = _message("PID|||SECRET||SECRET", "OBR|1", _obx("147842", "SECRET", "264864"))
    (entry,) = Hl7Talk(Caller("10.0.0.9"), Setting("", UTC)).receive(block(raw), NOW)
    assert entry.answer is not None
    answer = entry.answer(None)
    assert b"\rERR|||102^Data type error^HL70357|E||||bad-number heart_rate: " in answer
    assert b"SECRET" not in answer


def test_each_of_two_messages_is_answered_for_itself() -> None:
    bad = _message("OBR|1", msh="|BAD1|P|2.6")
    entries = list(
        Hl7Talk(Caller("10.0.0.9"), Setting("", UTC)).receive(
            block(bad) + block(_message(*GOOD)), NOW
        )
    )
    said = [entry.answer(None) for entry in entries if entry.answer]
    assert b"MSA|AE|BAD1" in said[0]
    assert b"MSA|AA|MSG1" in said[1]
    assert entries[0].rejected[0].raw == bad


def test_bytes_that_are_no_message_get_no_answer() -> None:
    talk = Hl7Talk(Caller("10.0.0.9"), Setting("", UTC))
    entries: list[Entry] = list(talk.receive(b"GET / HTTP/1.1\r\n" + block(b"nonsense"), NOW))
    assert [entry.rejected[0].reason for entry in entries] == ["hl7-framing", "hl7-no-msh"]
    assert entries[0].answer is None
    assert entries[1].answer is not None
    assert entries[1].answer(None) == b""


_files = sorted(path.read_bytes() for path in DATA.glob("*.hl7*"))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(_files), st.integers(0, 3000), st.binary(max_size=12), st.integers(0, 40))
def test_damaged_messages_are_answered_never_raised(
    raw: bytes, at: int, noise: bytes, cut: int
) -> None:
    for entry in Hl7Talk(Caller("a"), Setting("", UTC)).receive(
        block(raw[:at] + noise + raw[at + cut :]), NOW
    ):
        if entry.answer is not None:
            entry.answer(None)
