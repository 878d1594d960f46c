"""A device's own alarms are passed on in coded words, its signs of life are none."""

import pytest

from edge.hl7_alarm import ALERTS_MAX, TIMEOUT_MS_DEFAULT, TIMEOUT_MS_MAX, TIMEOUT_MS_MIN
from edge.refusal import Reason
from tests.edge.hl7_messages import (
    ADDRESS,
    NOW,
    STAMP,
    alert,
    codes,
    message,
    refusal,
    report,
    sample,
    sent,
)
from vitals import columns, limits
from vitals.codes import BY_NAME, Status, TimeSource
from vitals.columns import Source
from vitals.reading import DeviceAlert, Patient

R40 = "ORU^R40^ORU_R40"
UUID = "3f1d0e52-5c5f-4a9f-8a43-0123456789ab"
OBR = f"OBR|1||77^Mon|196616^MDC_EVT_ALARM^MDC|||{STAMP}"
HR = BY_NAME["heart_rate"].index


def _alarm(*rows: str, obr: str = OBR, msh: str = "|MSG1|P|2.6") -> bytes:
    return message("PID|||M1^^^H^MR", obr, *rows, msh=msh, kind=R40)


def _row(code: str, facet: int | str, value: str = "", rest: str = "", kind: str = "ST") -> str:
    return f"OBX|1|{kind}|{code}|1.1.0.0.{facet}|{value}|{rest}"


EVENT = _row("196670^MDC_EVT_LO^MDC", 1, "SpO2 low")


def test_mindray_raises_a_technical_alarm_of_low_priority() -> None:
    found = report(sample("mindray-alarm.hl7"))
    assert found.patient == Patient("MI0005", bed="Bed5", ward="ICU")
    assert found.parts[0].device == "00A037009A000005"
    assert alert(sample("mindray-alarm.hl7")) == DeviceAlert(
        196680,
        "MDC_EVT_LEAD_OFF",
        1_795_430_698_000,
        NOW,
        phase="start",
        state="active",
        inactivation="audio-paused",
        priority="low",
        kind="technical",
        id="MINDRAY_EGATEWAY-90071",
        source=147842,
        vital=HR,
        time_source=TimeSource.DEVICE,
    )


def test_masimo_keeps_an_alarm_alive_with_its_value_and_limit() -> None:
    assert report(sample("masimo-alarm.hl7")).parts[0].device == "2000009264"
    assert alert(sample("masimo-alarm.hl7")) == DeviceAlert(
        196674,
        "MDC_EVT_LO_VAL_LT_LIM",
        NOW + 316_790,
        NOW,
        phase="continue",
        state="active",
        inactivation="enabled",
        priority="high",
        kind="physiological",
        id="6bb8a383-8a42-4c74-ad2e-98d0aab5cb9b",
        source=150456,
        vital=BY_NAME["spo2"].index,
        value=88,
        low=90,
        time_source=TimeSource.DEVICE,
    )


def test_ge_has_an_event_of_its_own_and_the_older_codes() -> None:
    assert report(sample("ge-mural-alarm.hl7")).parts[0].device == "GE_Mural_DH_NM"
    assert alert(sample("ge-mural-alarm.hl7")) == DeviceAlert(
        0,
        "MDCX_EVT_ALERT_ADVISORY",
        NOW + 300_275,
        NOW,
        phase="update",
        state="latched",
        inactivation="alert-acknowledged",
        priority="medium",
        kind="advisory",
        id="56eb716f-ce7a-3b85-909c-a09d31fe324f",
        time_source=TimeSource.DEVICE,
    )


def test_draeger_ends_an_alarm_under_the_name_it_began_with() -> None:
    end = alert(sample("draeger-alarm.hl7"))
    assert (end.phase, end.state, end.id) == ("end", "inactive", UUID)
    assert (end.event, end.priority, end.kind) == (196648, "high", "physiological")
    assert (end.source, end.vital, end.value, end.low, end.high) == (147842, HR, 141, 50, 120)
    start = sample("draeger-alarm.hl7").replace(b"|1^3f1d", b"|0^3f1d").replace(b"^0&3f1d", b"")
    start = start.replace(b"0e52-5c5f-4a9f-8a43-0123456789ab&0000000000000001&EUI-64\r", b"\r")
    assert alert(start).id == UUID


def test_alarms_are_acknowledged_as_alarms() -> None:
    (entry,) = sent(sample("masimo-alarm.hl7"))
    assert entry.source == Source("2000009264")
    assert len(entry.alerts) == 1
    assert entry.readings == ()
    assert codes(entry) == ["CA|2ca4f8b3-0866-4060-b57a-63fb554c0001"]
    assert entry.answer is not None
    assert b"||ACK^R40^ACK|" in entry.answer(None)


@pytest.mark.parametrize(
    "code",
    ["196616^MDC_EVT_ALARM^MDC^x", "1^a^b"],
)
@pytest.mark.parametrize(
    "profile",
    [
        "",
        "|||||||||IHE_PCD_ACM_001^IHE PCD^1.3.6.1.4.1.19376.1.6.1.4.1^ISO",
        "|||||||||IHE_PCD_ACM_001^IHE PCD^1.3.6.1.4.1.19376.1.6.4.4^ISO",
    ],
)
def test_alarms_of_any_profile_id_are_taken(code: str, profile: str) -> None:
    raw = _alarm(EVENT, obr=f"OBR|1||7|{code}|||{STAMP}", msh=f"|MSG1|P|2.6{profile}")
    assert (alert(raw).event, alert(raw).name) == (196670, "MDC_EVT_LO")


@pytest.mark.parametrize(
    ("row", "event", "name"),
    [
        (_row("196616^MDC_EVT_ALARM^MDC", 1, "196680^MDC_EVT_LEAD_OFF^MDC"), 196680, ""),
        (_row("196616", 1, "196648"), 196648, "MDC_EVT_HI"),
        (_row("196616", 1, "56^E7^MDC^^^^^^Pump empty"), 56, "-"),
        (_row("196616", 1, "Pump empty"), 196616, "MDC_EVT_ALARM"),
        (_row("196616", 1, "MDC_EVT_LO"), 196616, "MDC_EVT_LO"),
        (_row("196670^anything", 1, "Ada Ng is ill"), 196670, "MDC_EVT_LO"),
        (_row("0^MDCX_EVT_X^MDC", 1, "words"), 0, "MDCX_EVT_X"),
        (_row("^Ada Ng^L", 1, "words"), 196616, "MDC_EVT_ALARM"),
        (_row("262143^MDC_EVT_LAST^MDC", 9, "words"), 262143, "MDC_EVT_LAST"),
        (_row("196608^ MDC_EVT_FIRST ^MDC", 9, "words"), 196608, "MDC_EVT_FIRST"),
        (_row("0^words^L", 1, "196680^x"), 196680, "MDC_EVT_LEAD_OFF"),
        (_row("67108865^MDCX_EVT_OWN^MDC", 1, "words"), 67108865, "MDCX_EVT_OWN"),
        (_row("196670^MDC_" + "A" * 55, 1), 196670, "MDC_" + "A" * 55),
        (_row("196670^MDC_" + "A" * 56, 1), 196670, "MDC_EVT_LO"),
    ],
)
def test_an_event_is_a_code_and_a_refid_and_never_a_text(row: str, event: int, name: str) -> None:
    found = alert(_alarm(row))
    expected = {"": "MDC_EVT_LEAD_OFF", "-": ""}.get(name, name)
    assert (found.event, found.name) == (event, expected)


def test_an_alarm_without_an_event_row_is_still_an_alarm() -> None:
    for rows in ((), ("OBX|1||69965^MDS^MDC|1.0.0.0|||||||X|||||||dev-1",)):
        found = alert(_alarm(*rows))
        assert (found.event, found.name, found.time_ms) == (196616, "MDC_EVT_ALARM", NOW)
        device = "dev-1" if rows else f"AA/{ADDRESS}"
        assert report(_alarm(*rows)).parts[0].device == device


def test_an_alarm_named_in_its_group_alone_keeps_that_name() -> None:
    found = alert(_alarm(obr="OBR|1||7|196700^MDC_EVT_OWN^MDC"))
    assert (found.event, found.name) == (196700, "MDC_EVT_OWN")
    assert alert(_alarm(obr="OBR|1||7|196680^Leads off, Ada^MDC")).name == "MDC_EVT_LEAD_OFF"


def test_an_alarm_without_an_event_is_its_rows_devices() -> None:
    mds = "OBX|1||69965^MDS^MDC|{0}.0.0.0|||||||X|||||||dev-{0}"
    raw = _alarm(mds.format(1), EVENT, OBR, mds.format(2), _row("68481", 3, "end"))
    assert [part.device for part in report(raw).parts] == ["dev-1", "dev-2"]


def test_a_group_that_is_no_alarm_is_refused_as_that() -> None:
    metric = "OBX|1|NM|147842^MDC_ECG_HEART_RATE^MDC|1.1.1.1|78|264864"
    refused = refusal(_alarm(metric, obr="OBR|1||7|182777000^monitoring^SCT"))
    assert (refused.reason, refused.field) == (Reason.HL7_NO_READING, "OBR-4")
    refused = refusal(message(EVENT, kind=R40))
    assert (refused.reason, refused.field) == (Reason.HL7_REQUIRED, "OBR")


@pytest.mark.parametrize(
    ("rows", "msh", "status"),
    [
        ((EVENT,), "P", Status.OK),
        ((EVENT,), "T", Status.TEST),
        ((EVENT,), "D", Status.TEST),
        ((_row("196670", 1, "", "||L~TEST"),), "P", Status.TEST),
        ((_row("196670", 1, "", "||DEMO"),), "P", Status.TEST),
        ((_row("196670", 1, "", "||CAL"),), "P", Status.CALIBRATION),
        ((_row("196670", 1, "", "||QUES"),), "P", Status.OK),
    ],
)
def test_trials_are_marked(rows: tuple[str, ...], msh: str, status: Status) -> None:
    assert alert(_alarm(*rows, msh=f"|MSG1|{msh}|2.6")).status == status


def test_every_group_is_an_alarm_and_so_is_every_event_in_it() -> None:
    raw = _alarm(
        EVENT,
        _row("68484", 6, "PH"),
        _row("196680^MDC_EVT_LEAD_OFF^MDC", 1, ""),
        _row("68484", 6, "PL"),
        OBR.replace("77^Mon", "78^Mon"),
        EVENT,
    )
    (part,) = report(raw).parts
    assert [(one.event, one.priority, one.id) for one in part.alerts] == [
        (196670, "high", "Mon-77"),
        (196680, "low", "Mon-77-196680"),
        (196670, "", "Mon-78"),
    ]


def test_alarms_of_two_devices_are_two_parts() -> None:
    mds = "OBX|1||69965^MDS^MDC|{0}.0.0.0|||||||X|||||||dev-{0}"
    raw = _alarm(mds.format(1), EVENT, OBR, mds.format(2), EVENT.replace("|1.1.", "|2.1."))
    assert [(part.device, len(part.alerts)) for part in report(raw).parts] == [
        ("dev-1", 1),
        ("dev-2", 1),
    ]


def test_an_alarms_time_is_its_own_its_groups_or_that_of_receipt() -> None:
    own = EVENT + "||||||||20261123095500+0000"
    assert alert(_alarm(own)).time_ms == NOW - 300_000
    assert alert(_alarm(EVENT)).time_source == TimeSource.DEVICE
    mds = "OBX|1||69965^MDS^MDC|1.0.0.0|||||||X|||20261123095000+0000"
    assert alert(_alarm(mds, EVENT)).time_ms == NOW - 600_000
    none = alert(_alarm(EVENT, obr="OBR|1||7|196616"))
    assert (none.time_ms, none.time_source) == (NOW, TimeSource.RECEIVED)


@pytest.mark.parametrize("result", ["D", "W"])
def test_a_withdrawn_alarm_is_none(result: str) -> None:
    row = _row("196670", 1, "", f"|||||{result}")
    assert refusal(_alarm(row)).reason == Reason.HL7_NO_READING
    assert len(report(_alarm(row, OBR, EVENT)).parts[0].alerts) == 1


def test_a_message_has_a_bounded_number_of_alarms() -> None:
    assert ALERTS_MAX <= limits.FRAME_ALERTS_MAX
    assert len(report(_alarm(EVENT, *[OBR] * (ALERTS_MAX - 1))).parts[0].alerts) == ALERTS_MAX
    assert refusal(_alarm(EVENT, *[OBR] * ALERTS_MAX)).reason == Reason.HL7_TOO_MANY


def test_every_alarm_of_the_samples_fits_a_frame() -> None:
    for name in ("mindray", "masimo", "ge-mural", "draeger"):
        packed = columns.pack([Source("d")], [], [(0, alert(sample(f"{name}-alarm.hl7")))])
        assert columns.decode(columns.encode(packed)).alerts == packed.alerts


# -- watchdogs ----------------------------------------------------------------------------------


def test_a_watchdog_is_a_sign_of_life_and_no_alarm() -> None:
    found = report(sample("draeger-watchdog.hl7"))
    (watched,) = found.watched
    assert found.parts == ()
    assert (watched.device, watched.timeout_ms, watched.leaving) == ("d-17", 5000, False)
    assert watched.patient == Patient("DR0001", bed="9042", ward="CU1")
    leaving = sample("draeger-watchdog.hl7").replace(b"|active|", b"|inactive|")
    assert report(leaving).watched[0].leaving


CONFIRM = "OBX|8|NM|67860^MDC_ATTR_CONFIRM_TIMEOUT^MDC|1.1.1.8|{}|{}"


@pytest.mark.parametrize(
    ("value", "unit", "timeout_ms"),
    [
        ("5", "264320^MDC_DIM_SEC^MDC", 5000),
        ("7.5", "", 7500),
        ("2500", "264338^MDC_DIM_MILLI_SEC^MDC", 2500),
        ("2", "264352^MDC_DIM_MIN^MDC", 120_000),
        ("", "", TIMEOUT_MS_DEFAULT),
        ("soon", "", TIMEOUT_MS_DEFAULT),
        (" 9 ", "", 9000),
        ("0", "", TIMEOUT_MS_MIN),
        ("1", "", TIMEOUT_MS_MIN),
        ("3600", "", TIMEOUT_MS_MAX),
        ("999999", "", TIMEOUT_MS_MAX),
    ],
)
def test_a_watchdog_states_when_the_next_is_due(value: str, unit: str, timeout_ms: int) -> None:
    (watched,) = report(_alarm(EVENT, CONFIRM.format(value, unit))).watched
    assert watched.timeout_ms == timeout_ms


def test_an_alarm_that_wants_to_be_confirmed_is_an_alarm() -> None:
    found = report(_alarm(EVENT, _row("68484", 6, "PH"), CONFIRM.format("5", "")))
    assert found.watched == ()
    assert len(found.parts[0].alerts) == 1
