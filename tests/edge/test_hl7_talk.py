"""Each message of a connection is answered for itself, once durable, to whom it may be."""

import ipaddress
from datetime import UTC, datetime

import pytest

from edge.admission import Admission
from edge.mllp import block
from edge.refusal import Reason
from edge.skew import SKEW_MS_MIN, Skews
from tests.edge.hl7_messages import (
    ADDRESS,
    GOOD,
    HR,
    NOW,
    STAMP,
    answers,
    codes,
    message,
    obx,
    sample,
    sent,
    setting,
    talk,
)
from vitals import limits
from vitals.codes import TimeSource
from vitals.columns import Source
from vitals.reading import Patient

MDS = "OBX|1||69965^MDS^MDC|{0}.0.0.0|||||||X|||||||dev-{0}"
TWO = message(*GOOD[:2], MDS.format(1), HR, MDS.format(2), HR.replace("|1.1.", "|2.1."))


def test_a_message_is_one_entry_of_its_device_and_patient() -> None:
    (entry,) = sent(message(*GOOD))
    assert entry.source == Source(f"AA/{ADDRESS}", patient=Patient("M1", ward="W9"))
    assert [r.value for r in entry.readings] == [78]
    assert (entry.message, entry.ignored, entry.rejected, entry.alerts) == (True, 0, (), ())
    assert entry.size == 16
    assert codes(entry) == ["AA|MSG1"]


def test_codes_passed_over_are_counted() -> None:
    (entry,) = sent(message(*GOOD, obx("148065^X^MDC", "0"), obx("150020^X^MDC", "0")))
    assert entry.ignored == 2


def test_a_message_of_two_devices_is_two_entries_and_one_answer_at_the_end() -> None:
    bad = obx("150456", "95", "mmHg")
    first, last = sent(TWO + bad.encode())
    assert [one.source and one.source.device for one in (first, last)] == ["dev-1", "dev-2"]
    assert (first.answer, first.rejected, first.message, first.part) == (None, (), False, True)
    assert (last.message, last.part) == (True, False), "one message is counted once"
    assert codes(last) == ["AA|MSG1"]
    assert [one.reason for one in last.rejected] == ["hl7-conflict"]
    assert last.size == 16 + len(last.rejected[0].raw)


def test_a_positive_answer_waits_for_the_disk_and_a_negative_one_says_why() -> None:
    (entry,) = sent(message(*GOOD))
    assert entry.answer is not None
    assert b"MSA|AE|MSG1" in entry.answer(Reason.SPOOL_FULL)
    assert b"nothing was kept" in entry.answer(Reason.SPOOL_FAILED)
    (refused,) = sent(message("OBR|1"))
    assert refused.answer is not None
    assert b"hl7-no-reading" in refused.answer(None)
    assert b"spool-full" in refused.answer(Reason.SPOOL_FULL)


def test_each_of_several_messages_is_answered_for_itself() -> None:
    bad = message("OBR|1", msh="|BAD1|P|2.6")
    typed = message(*GOOD, msh="|BAD2|P|2.6", kind="ADT^A01")
    entries = talk().receive(block(bad) + block(message(*GOOD)) + block(typed), NOW)
    assert [codes(entry) for entry in entries] == [["AE|BAD1"], ["AA|MSG1"], ["AR|BAD2"]]
    assert [one.raw for one in entries[0].rejected + entries[2].rejected] == [bad, typed]


def test_an_error_says_why_without_saying_who() -> None:
    raw = message("PID|||SECRET||SECRET", "OBR|1", obx("147842", "SECRET", "264864"))
    (entry,) = sent(raw)
    (said,) = answers(entry)
    assert "\rERR||OBX^1^5|102^Data type error^HL70357|E||||bad-number OBX[1]-5: " in said
    assert "SECRET" not in said
    assert "SECRET" not in entry.rejected[0].detail


def test_bytes_that_are_no_message_are_kept_and_get_no_answer() -> None:
    first, second = talk().receive(b"GET / HTTP/1.1\r\n" + block(b"nonsense"), NOW)
    assert [one.rejected[0].reason for one in (first, second)] == ["hl7-framing", "hl7-no-msh"]
    assert (first.answer, first.rejected[0].raw) == (None, b"GET / HTTP/1.1\r\n")
    assert first.rejected[0].device == f"addr-{ADDRESS}"
    assert second.answer is not None
    assert second.answer(None) == b""


def test_a_message_over_the_limit_is_answered_and_its_head_kept() -> None:
    raw = message(*GOOD, "NTE|1|" + "x" * limits.HL7_MESSAGE_BYTES_MAX)
    (entry,) = sent(raw)
    assert codes(entry) == ["AE|MSG1"]
    (reject,) = entry.rejected
    assert (reject.reason, reject.raw_bytes) == ("hl7-too-long", len(raw))
    assert reject.raw == raw[: limits.QUARANTINE_RAW_BYTES_MAX]


def test_half_a_message_is_kept_when_the_connection_ends() -> None:
    one = talk()
    assert (one.half(), one.held_bytes(), one.leave(NOW)) == (False, 0, None)
    assert one.receive(b"\x0b", NOW) == []
    assert (one.half(), one.held_bytes(), one.leave(NOW)) == (True, 1, None)
    assert one.receive(b"MSH|^~", NOW) == []
    assert (one.half(), one.held_bytes()) == (True, 7)
    entry = one.leave(NOW)
    assert entry is not None
    assert (entry.rejected[0].reason, entry.rejected[0].raw) == ("hl7-framing", b"MSH|^~")
    assert entry.answer is None


def test_a_byte_at_a_time_means_the_same() -> None:
    stream = b"junk" + block(message(*GOOD)) + block(sample("ge-b40.hl7")) + b"\x0bhalf"
    whole, one = talk().receive(stream, NOW), talk()
    single = [entry for byte in stream for entry in one.receive(bytes([byte]), NOW)]
    assert [(e.source, e.readings, e.rejected) for e in single] == [
        (e.source, e.readings, e.rejected) for e in whole
    ]
    assert len(whole) == 3


def test_readings_and_alarms_get_the_time_of_a_clock_that_is_off() -> None:
    under, off_ms = setting(), 600_000
    device = b"OBX|1|||1" + b"|" * 14 + b"2000009264\rOBR|1||||||"
    for second in range(10):
        at = NOW + 1000 * second
        stamp, number = _stamp(at - off_ms), str(second).encode()
        said = message(*GOOD, msh=f"|R{second}|P|2.6").replace(STAMP.encode(), stamp)
        alarm = sample("masimo-alarm.hl7").replace(b"20261123100516.790+0000", stamp)
        one = talk(under)
        (reading,) = one.receive(block(said.replace(b"OBR|1||||||", device)), at)
        (alert,) = one.receive(block(alarm.replace(b"554c0001", b"554c000" + number)), at)
        assert reading.source is not None
        assert alert.source is not None
        assert reading.source.device == alert.source.device == "2000009264"
    times = [(r.time_ms - r.received_ms, r.time_source) for r in reading.readings]
    times += [(a.time_ms - a.received_ms, a.time_source) for a in alert.alerts]
    assert times == [(0, TimeSource.CORRECTED)] * 2


def _stamp(at_ms: int) -> bytes:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y%m%d%H%M%S+0000").encode()


@pytest.mark.parametrize(
    ("at_ms", "source"),
    [
        (NOW, TimeSource.DEVICE),
        (NOW - 86_400_000, TimeSource.DEVICE),
        (NOW + SKEW_MS_MIN, TimeSource.DEVICE),
        (NOW + SKEW_MS_MIN + 1000, TimeSource.RECEIVED),
        (1_577_836_800_000, TimeSource.DEVICE),
        (978_307_199_000, TimeSource.RECEIVED),
    ],
)
def test_an_alarm_is_never_of_the_future_nor_of_a_clock_never_set(
    at_ms: int, source: TimeSource
) -> None:
    raw = sample("masimo-alarm.hl7").replace(b"20261123100516.790+0000", _stamp(at_ms))
    (entry,) = sent(raw)
    (alert,) = entry.alerts
    assert alert.time_source == source
    assert alert.time_ms == (at_ms if source == TimeSource.DEVICE else NOW)
    assert entry.size > 100


@pytest.mark.parametrize(("ahead_ms", "kept"), [(2000, True), (3000, False), (60_000, False)])
def test_an_alarm_of_a_slow_clock_is_not_moved_into_the_future(
    ahead_ms: int, *, kept: bool
) -> None:
    class Slow(Skews):
        def skew_ms(self, device: str) -> int | None:
            return 600_000

    under = setting()
    under.skews = Slow()
    stamp = _stamp(NOW - 600_000 + ahead_ms)
    raw = sample("masimo-alarm.hl7").replace(b"20261123100516.790+0000", stamp)
    (entry,) = sent(raw, under)
    (alert,) = entry.alerts
    assert alert.time_ms == NOW + (ahead_ms if kept else 0)
    assert alert.time_source == (TimeSource.CORRECTED if kept else TimeSource.RECEIVED)


# -- watchdogs ----------------------------------------------------------------------------------


def test_a_watchdog_is_answered_and_kept_as_nothing() -> None:
    under = setting()
    (entry,) = sent(sample("draeger-watchdog.hl7"), under)
    assert (entry.source, entry.readings, entry.alerts, entry.rejected) == (None, (), (), ())
    assert entry.message
    assert codes(entry) == ["CA|1f0e1c7a-0000-4000-8000-000000000002"]
    ((source, lost),) = under.watchdogs.overdue(NOW + 60_000)
    assert source == Source("d-17", patient=Patient("DR0001", bed="9042", ward="CU1"))
    assert lost.phase == "start"
    back, last = sent(sample("draeger-watchdog.hl7"), under)
    assert (back.source, [one.phase for one in back.alerts], back.answer) == (source, ["end"], None)
    assert codes(last) == codes(entry), "the same watchdog again is another sign of life"


def test_a_device_that_says_it_goes_is_not_missed() -> None:
    under = setting()
    sent(sample("draeger-watchdog.hl7"), under)
    sent(sample("draeger-watchdog.hl7").replace(b"|active|", b"|inactive|"), under)
    assert under.watchdogs.overdue(NOW + 60_000) == []


# -- strangers ----------------------------------------------------------------------------------

HOME = [ipaddress.ip_network("10.1.0.0/16")]


@pytest.mark.parametrize(
    ("policy", "devices", "address", "outcome"),
    [
        ("accept", (), ADDRESS, "AA"),
        ("quarantine", (), ADDRESS, "AE"),
        ("quarantine", ("dev-1",), ADDRESS, "AE"),
        ("quarantine", ("dev-*",), ADDRESS, "AA"),
        ("quarantine", (), "10.1.2.3", "AA"),
        ("refuse", ("dev-1",), ADDRESS, "AR"),
        ("refuse", ("dev-?",), ADDRESS, "AA"),
        ("refuse", (), "10.1.2.3", "AA"),
    ],
)
def test_a_message_is_taken_only_if_every_device_in_it_is(
    policy: str, devices: tuple[str, ...], address: str, outcome: str
) -> None:
    admission = Admission(policy, HOME, devices)  # type: ignore[arg-type]  # any policy, by name
    entries = sent(TWO, setting(admission=admission), admission.caller(address))
    assert codes(entries[-1]) == [f"{outcome}|MSG1"]
    kept = [reject for entry in entries for reject in entry.rejected]
    assert sum(len(entry.readings) for entry in entries) == (2 if outcome == "AA" else 0)
    assert [entry.turned_away for entry in entries] == (
        [False, False] if outcome == "AA" else [outcome == "AR"]
    )
    assert [one.reason for one in kept] == (["unknown-device"] if outcome == "AE" else [])
    if kept:
        assert (kept[0].raw, kept[0].device) == (TWO, "dev-2" if devices else "dev-1")


def test_nothing_is_kept_of_a_refused_strangers_noise() -> None:
    admission = Admission("refuse", HOME, ("dev-1",))
    one = talk(setting(admission=admission), admission.caller(ADDRESS))
    entries = one.receive(b"noise" + block(b"nonsense") + block(message("OBR|1")), NOW)
    assert [entry.turned_away for entry in entries] == [True, True, True]
    assert all(entry.rejected == () and entry.size == 0 for entry in entries)
    assert all(entry.message for entry in entries)
    assert entries[0].answer is None
    assert codes(entries[2]) == ["AR|MSG1"]
    one.receive(b"\x0bhalf", NOW)
    half = one.leave(NOW)
    assert half is not None
    assert half.turned_away


def test_what_is_wrong_with_a_known_devices_message_is_kept_under_refuse_too() -> None:
    admission = Admission("refuse", HOME, ("dev-?",))
    under = setting(admission=admission)
    assert codes(sent(TWO, under, admission.caller(ADDRESS))[-1]) == ["AA|MSG1"]
    (entry,) = sent(TWO.replace(b"|78|", b"|79|"), under, admission.caller(ADDRESS))
    assert codes(entry) == ["AE|MSG1"]
    assert [one.reason for one in entry.rejected] == ["hl7-repeat-conflict"]


def test_a_quarantined_strangers_noise_keeps_its_own_reason() -> None:
    admission = Admission("quarantine", HOME)
    one = talk(setting(admission=admission), admission.caller(ADDRESS))
    entries = one.receive(b"noise" + block(message("OBR|1")), NOW)
    assert [entry.rejected[0].reason for entry in entries] == ["hl7-framing", "hl7-no-reading"]


def test_a_strangers_watchdog_is_not_waited_for() -> None:
    admission = Admission("quarantine", HOME)
    under = setting(admission=admission)
    (entry,) = sent(sample("draeger-watchdog.hl7"), under, admission.caller(ADDRESS))
    assert entry.rejected[0].reason == "unknown-device"
    assert under.watchdogs.overdue(NOW + 60_000) == []


def test_a_refusal_of_a_stranger_stays_one_when_the_disk_fails_but_asks_for_more() -> None:
    admission = Admission("refuse", HOME)
    (entry,) = sent(TWO, setting(admission=admission), admission.caller(ADDRESS))
    assert entry.answer is not None
    assert b"MSA|AR|MSG1" in entry.answer(None)
    assert b"unknown-device" in entry.answer(None)
    assert b"MSA|AE|MSG1" in entry.answer(Reason.SPOOL_FAILED)
