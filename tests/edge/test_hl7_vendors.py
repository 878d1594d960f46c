"""Messages in the manner of each vendor: its codes, its time, its modes, its mistakes."""

from datetime import UTC as PLAIN_UTC
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from edge.hl7_map import load
from edge.refusal import Reason
from edge.setting import Setting
from tests.edge.hl7_messages import (
    DATA,
    EXAMPLE_MAP,
    NOW,
    UTC,
    codes,
    readings,
    report,
    sample,
    sent,
    setting,
)
from vitals.codes import VITALS, Absence, Site, Status, TimeSource
from vitals.reading import Patient

TOKYO = ZoneInfo("Asia/Tokyo")


def _mapped(zone: ZoneInfo = UTC) -> Setting:
    return setting("W9", zone, load(EXAMPLE_MAP))


def _said(name: str, under: Setting | None = None) -> list[tuple[str, float | None, str]]:
    """Return vital, value rounded, and the device's time of day in UTC."""
    return [
        (
            VITALS[r.vital].name,
            None if r.value is None else round(r.value, 2),
            datetime.fromtimestamp(r.time_ms / 1000, PLAIN_UTC).strftime("%H:%M:%S"),
        )
        for r in readings(sample(name), under)
    ]


def _modes(name: str, under: Setting | None = None) -> list[str]:
    entry = sent(sample(name), under)[-1]
    return [one.partition("|")[0] for one in codes(entry)]


def test_a_ge_monitor_has_two_arterial_lines_and_kilopascals() -> None:
    found = report(sample("ge-b40.hl7"))
    assert found.parts[0].device == "080019FFFE123456"
    assert found.patient == Patient("GE0001", "Berta Test", bed="V2", ward="SURGERY")
    assert _said("ge-b40.hl7") == [
        (name, value, "10:45:00")
        for name, value in (
            ("abp_systolic", 112),
            ("abp_diastolic", 76),
            ("abp_mean", 95),
            ("pulse_rate", 80),
            ("abp_systolic", 110),
            ("heart_rate", 80),
            ("etco2", 38.25),
        )
    ]
    assert [r.channel for r in found.parts[0].readings] == [0, 0, 0, 0, 1, 0, 0]
    assert (found.ignored, found.refused) == (5, ())
    assert _modes("ge-b40.hl7") == ["AA"]


def test_a_ge_monitor_without_a_zone_is_in_the_sites() -> None:
    assert _said("ge-b40.hl7", setting("", TOKYO))[0] == ("abp_systolic", 112, "01:45:00")


def test_a_mindray_gateway_leaves_the_patient_to_the_bed_and_the_cuff_its_time() -> None:
    found = report(sample("mindray-egateway.hl7"))
    assert found.parts[0].device == "00A037009A000005"
    assert found.patient == Patient(bed="Bed5", ward="ICU")
    assert _said("mindray-egateway.hl7") == [
        ("heart_rate", 72, "10:45:00"),
        ("spo2", 98, "10:45:00"),
        ("perfusion_index", 3.46, "10:45:00"),
        ("temperature", 36.8, "10:45:00"),
        ("temperature", 34.9, "10:45:00"),
        ("nibp_systolic", 118, "10:30:00"),
        ("nibp_diastolic", 76, "10:30:00"),
        ("resp_rate", None, "10:45:00"),
    ]
    last = found.parts[0].readings[-1]
    assert (last.status, last.reason) == (Status.MISSING, Absence.SENTINEL)
    assert [r.channel for r in found.parts[0].readings] == [0, 0, 0, 0, 1, 0, 0, 0]
    assert found.parts[0].readings[0].time_ms % 1000 == 250  # no dot before the fraction
    assert _modes("mindray-egateway.hl7") == ["CA"]


def test_mindrays_older_codes_mean_something_by_the_mapping_only() -> None:
    assert sent(sample("mindray-pds.hl7"))[0].rejected[0].reason == Reason.HL7_NO_READING
    assert _said("mindray-pds.hl7", _mapped()) == [
        ("heart_rate", 60, "10:04:55"),
        ("resp_rate", 20, "10:04:55"),
        ("spo2", None, "10:04:55"),
        ("nibp_systolic", 115, "09:59:00"),
        ("nibp_diastolic", 74, "09:59:00"),
        ("temperature", 37.1, "10:04:55"),
    ]
    found = report(sample("mindray-pds.hl7"), _mapped())
    assert (found.parts[0].device, found.ignored) == ("Mindray/ICU-Bed7", 1)
    assert _modes("mindray-pds.hl7", _mapped()) == ["AA"]


def test_a_philips_monitor_has_codes_of_its_own_and_its_time_in_obr_15() -> None:
    found = report(sample("philips-mdil.hl7"), _mapped())
    assert found.parts[0].device == "EfficiaCM/10.0.0.9"
    assert found.patient == Patient("PM0009", "Dora Muster", sex="female", ward="W9")
    assert _said("philips-mdil.hl7", _mapped()) == [
        (name, value, "10:04:30")
        for name, value in (
            ("heart_rate", 60),
            ("spo2", 96),
            ("resp_rate", 20),
            ("pulse_rate", 59),
            ("nibp_systolic", 121),
            ("temperature", 37.2),
            ("temperature", 36.6),
        )
    ]
    assert [r.site for r in found.parts[0].readings[-2:]] == [Site.CORE, Site.NONE]
    assert _modes("philips-mdil.hl7", _mapped()) == ["AA"]


def test_philips_pcd_names_each_vital_twice_and_doubts_one() -> None:
    found = report(sample("philips-pcd.hl7"))
    assert found.parts[0].device == "00095CFFFE741952"
    assert found.patient == Patient("PX0042", "Zo\\ Straße", "1955-01-02", "female", "5", "ICU")
    assert [(VITALS[r.vital].name, r.value, r.status) for r in found.parts[0].readings] == [
        ("spo2", 95, Status.QUESTIONABLE),
        ("heart_rate", 77, Status.OK),
        ("abp_systolic", 122, Status.OK),
        ("cvp_mean", None, Status.MISSING),
    ]
    assert found.parts[0].readings[-1].reason == Absence.UNAVAILABLE
    assert _said("philips-pcd.hl7")[0][2] == "04:35:00"  # +0530
    assert _modes("philips-pcd.hl7") == ["CA"]


def test_a_masimo_demo_is_a_test_and_a_day_is_no_time() -> None:
    found = report(sample("masimo-radical.hl7"))
    assert found.parts[0].device == "00A0370098006640"
    assert {(r.status, r.time_source, r.time_ms) for r in found.parts[0].readings} == {
        (Status.TEST, TimeSource.RECEIVED, NOW)
    }
    assert [(VITALS[r.vital].name, r.value) for r in found.parts[0].readings] == [
        ("spo2", 97),
        ("pulse_rate", 64),
        ("perfusion_index", 3.06),
        ("resp_rate", 12),
    ]


def test_a_comen_monitor_has_one_wrong_unit_and_two_ways_to_say_nothing() -> None:
    found = report(sample("comen-nc5.hl7"))
    assert found.parts[0].device == "NC5/W2-3"
    assert [(VITALS[r.vital].name, r.value, r.reason) for r in found.parts[0].readings] == [
        ("heart_rate", 81, 0),
        ("pulse_rate", 80, 0),
        ("spo2", None, Absence.NO_VALUE),
        ("nibp_systolic", 130, 0),
        ("nibp_diastolic", 85, 0),
        ("resp_rate", None, Absence.SENTINEL),
    ]
    (refused,) = found.refused
    assert (refused.reason, refused.field) == (Reason.HL7_CONFLICT, "OBX[6]-6")
    assert _modes("comen-nc5.hl7") == ["AA"]


def test_a_nihon_kohden_monitor_is_read_in_the_sites_time() -> None:
    under = _mapped(TOKYO)
    found = report(sample("nihon-kohden.hl7"), under)
    assert found.parts[0].device == "NIHON KOHDEN/BED-001"
    assert found.patient == Patient("NK0003", "Emil Muster", bed="BED-001", ward="W9")
    assert _said("nihon-kohden.hl7", under) == [
        ("spo2", 97, "10:05:00"),
        ("pulse_rate", 71, "10:05:00"),
        ("nibp_systolic", 124, "09:55:00"),
        ("nibp_diastolic", 79, "09:55:00"),
        ("nibp_mean", 94, "09:55:00"),
    ]
    assert _modes("nihon-kohden.hl7", under) == ["AA"]


def test_the_contradictions_seen_in_the_field_never_become_values() -> None:
    raw = sample("conflicts.hl7")
    found = report(raw)
    assert [(VITALS[r.vital].name, r.value) for r in found.parts[0].readings] == [("resp_rate", 14)]
    assert [one.field for one in found.refused] == [
        "OBX[1]-3.2",  # 150456 said to be the carbon dioxide
        "OBX[2]-2",  # 150456 as a waveform
        "OBX[3]-3.1",  # 150457 said to be the pulse
        "OBX[4]-6",  # 268160 said to be Fahrenheit
    ]
    (entry,) = sent(raw)
    assert codes(entry) == ["CA|X-9", "AA|X-9"]
    assert [one.raw for one in entry.rejected if one.raw] == [raw]
    assert len(entry.rejected) > 1


@pytest.mark.parametrize("path", sorted((DATA / "own").iterdir()), ids=lambda path: path.stem)
def test_line_ends_of_any_kind_mean_the_same(path: object) -> None:
    name = str(path).rpartition("/")[2]
    raw = sample(name)
    with_lf = report(raw.replace(b"\r", b"\n"), _mapped())
    with_both = report(raw.replace(b"\r", b"\r\n"), _mapped())
    assert with_lf == with_both == report(raw, _mapped())
