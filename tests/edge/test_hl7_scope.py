"""A row is its own patient's and its own device's, or nobody's."""

import pytest

from tests.edge.hl7_messages import ADDRESS, GOOD, HR, STAMP, message, obx, report, setting
from vitals import limits
from vitals.codes import VITALS
from vitals.reading import Patient


def _patient(*segments: str, ward: str = "W9") -> Patient | None:
    return report(message(*segments, *GOOD[1:]), setting(ward)).patient


@pytest.mark.parametrize(
    ("ids", "mrn"),
    [
        ("9^^^H^VN~M7^^^H^MR", "M7"),
        ("P5^^^H^PI~M7^^^H^MR ", "M7"),
        ("P5^^^H^PI~M7^^^H^mr", "M7"),
        ("9^^^H^VN~P5^^^H^PI ", "P5"),
        ("9^^^H^VN~8^^^H^AN", "9"),
        ("^^^H^MR~P5^^^H^PI", "P5"),
        ("M7", "M7"),
        (" M7 ^^^H^mr", "M7"),
        ("A\\T\\B^^^H^MR", "A&B"),
        ('""', ""),
        ("", ""),
    ],
)
def test_the_medical_record_number_goes_before_every_other(ids: str, mrn: str) -> None:
    patient = _patient(f"PID|||{ids}||Ng^Ada")
    assert patient is not None
    assert patient.mrn == mrn


def test_a_patients_name_sex_and_birth_are_kept_beside() -> None:
    patient = _patient("PID|||M1^^^H^MR||Ng&van^Ada^B^^^^L~Nick^Name||19700101123000|F")
    assert patient == Patient("M1", "Ada B Ng", "1970-01-01", "female", "", "W9")


@pytest.mark.parametrize(
    ("born", "date"),
    [("19700101", "1970-01-01"), ("19700230", ""), ("1970", ""), ("", ""), ('""', "")],
)
def test_a_birth_date_is_one_or_nothing(born: str, date: str) -> None:
    patient = _patient(f"PID|||M1||X||{born}")
    assert patient is not None
    assert patient.birth_date == date


@pytest.mark.parametrize(
    ("sex", "meant"),
    [("M", "male"), ("f", "female"), ("O", "other"), ("A", "other"), ("U", "unknown"), ("N", "")],
)
def test_sexes_are_those_of_fhir(sex: str, meant: str) -> None:
    patient = _patient(f"PID|||M1||X|||{sex}")
    assert patient is not None
    assert patient.sex == meant


@pytest.mark.parametrize(
    ("place", "ward", "bed"),
    [
        ("ICU^^5^XYZ HOSPITAL", "ICU", "5"),
        ("ICU^^79874", "ICU", "79874"),
        ("3 WEST ICU^3001^1", "3 WEST ICU", "3001-1"),
        ("^^ICU&Bed5&3232241659&0&0", "ICU", "Bed5"),
        ("^^BED-001^10.0.0.1:1", "W9", "BED-001"),
        ("ICU&1.2.3&ISO^R1&x^B2&y", "ICU", "R1-B2"),
        ("B1", "B1", ""),
        ("CU1^^9042^HOSP1~OLD^^1", "CU1", "9042"),
        ("IC\\T\\U^^5", "IC&U", "5"),
    ],
)
def test_beds_are_read_in_every_form_seen(place: str, ward: str, bed: str) -> None:
    assert _patient(f"PV1||I|{place}") == Patient(bed=bed, ward=ward)
    assert _patient("PID|||", f"PV1||I|{place}") == Patient(bed=bed, ward=ward)


@pytest.mark.parametrize("place", ["^^", "", "^^&&"])
def test_without_identifier_and_bed_there_is_no_patient(place: str) -> None:
    assert _patient("PID|||", f"PV1||I|{place}") is None
    assert _patient() is None


def test_every_patient_of_a_message_has_their_own_rows() -> None:
    found = report(
        message(
            "PID|||M1^^^H^MR",
            "PV1||I|A^^1",
            GOOD[1],
            "OBX|1||69965^MDS^MDC|1.0.0.0|||||||X|||20261123080000||||dev-1",
            HR,
            "PID|||M2^^^H^MR",
            obx("150456", "95", "262688"),
            "OBR|2",
            obx("147842", "60", "264864"),
        )
    )
    first, second = found.parts
    assert found.patient == first.patient == Patient("M1", bed="1", ward="A")
    assert second.patient == Patient("M2", ward="W9")
    assert (first.device, second.device) == ("dev-1", f"AA/{ADDRESS}")
    assert [r.value for r in first.readings] == [78]
    assert [(VITALS[r.vital].name, r.channel) for r in second.readings] == [
        ("spo2", 0),
        ("heart_rate", 0),
    ]
    assert {r.time_source for r in second.readings} == {0}, "the first one's OBR is not theirs"


# -- devices ------------------------------------------------------------------------------------

MDS = "OBX|1||69965^MDC_DEV_MON_PHYSIO_MULTI_PARAM_MDS^MDC|{}|||||||X|||||||{}"


def _devices(*segments: str) -> list[tuple[str, int]]:
    return [(part.device, len(part.readings)) for part in report(message(*segments)).parts]


def test_an_mds_row_names_the_device_of_its_subtree() -> None:
    assert _devices(
        GOOD[1],
        MDS.format("1.0.0.0", "dev-1^GE"),
        MDS.format("2.0.0.0", "dev-2"),
        obx("147842", "78", "264864", path="1.1.1.1"),
        obx("150456", "95", "262688", path="2.1.1.1"),
        obx("150456", "95", "262688", path="1.1.1.2"),
        obx("150456", "95", "262688", path="10.1.1.2"),
    ) == [("dev-1", 3), ("dev-2", 1)]


def test_two_devices_number_their_sensors_each_for_itself() -> None:
    spo2 = [obx("150456", "95", "262688", path=f"{mds}.1.1.1") for mds in (1, 2, 1)]
    found = report(message(GOOD[1], MDS.format("1", "dev-1"), MDS.format("2", "dev-2"), *spo2))
    assert [[r.channel for r in part.readings] for part in found.parts] == [[0, 1], [0]]


def test_unnamed_devices_that_are_taken_for_one_do_not_share_a_channel() -> None:
    found = report(
        message(
            GOOD[1],
            obx("150456", "95", "262688", "||||R|||||||dev-1", path="1.1.1.1"),
            obx("150456", "90", "262688", path="2.1.1.1"),
        )
    )
    (part,) = found.parts
    assert [(r.value, r.channel) for r in part.readings] == [(95, 0), (90, 1)]


def test_a_row_of_a_metric_names_the_device_only_where_nothing_else_does() -> None:
    sensor = obx("150456", "95", "262688", "||||R|||||||sensor-9")
    assert _devices(GOOD[1], sensor, HR) == [("sensor-9", 2)]
    assert _devices(GOOD[1], MDS.format("1", "dev-1"), sensor) == [("dev-1", 1)]
    assert _devices(GOOD[1], sensor, MDS.format("1", "dev-1")) == [("dev-1", 1)]


def test_the_same_number_in_another_group_may_be_another_device() -> None:
    assert _devices(
        "OBR|1",
        MDS.format("1", "dev-1"),
        HR,
        "OBR|2",
        MDS.format("1", "dev-2"),
        HR,
        HR,
        "OBR|3",
        HR,
    ) == [("dev-1", 1), ("dev-2", 3)]


def test_the_same_number_again_with_another_name_is_another_device() -> None:
    assert _devices(GOOD[1], MDS.format("1", "dev-1"), HR, MDS.format("1", "dev-2"), HR, HR) == [
        ("dev-1", 1),
        ("dev-2", 2),
    ]


def test_an_empty_name_renames_nothing() -> None:
    assert _devices("OBR|1", MDS.format("1", "dev-1"), HR, "OBR|2", MDS.format("1", "^^"), HR) == [
        ("dev-1", 2)
    ]


@pytest.mark.parametrize(
    ("said", "device"),
    [
        ("0123456789ABCDEF^EUI-64", "0123456789ABCDEF"),
        ("1305815835^123254BCD^0123456789ABCDEF^EUI-64~1305816209^x", "1305815835"),
        ("^^0123456789ABCDEF^EUI-64", "0123456789ABCDEF"),
        ("^Bedside 3", "Bedside 3"),
        ("a\\S\\b", "a^b"),
        ("x" * 300, "x" * limits.TEXT_CHARS_MAX),
    ],
)
def test_a_device_is_called_by_its_first_identifier(said: str, device: str) -> None:
    assert _devices(GOOD[1], MDS.format("1.0.0.0", said), HR) == [(device, 1)]


@pytest.mark.parametrize(
    ("application", "place", "device"),
    [
        ("Mon^AA^EUI-64", "", f"AA/{ADDRESS}"),
        ("Mon", "PV1||I|ICU^^5", "Mon/ICU-5"),
        ("^EfficiaCM", "PV1||I|^^", f"EfficiaCM/{ADDRESS}"),
        ("Mon", "PV1||I|^^BED 1^10.0.0.1:1", "Mon/BED-1"),
        ("", "PV1||I|ICU^^5", f"addr-{ADDRESS}"),
        ("", "", f"addr-{ADDRESS}"),
    ],
)
def test_a_sender_that_names_no_device_stands_for_it_with_its_bed(
    application: str, place: str, device: str
) -> None:
    segments = ([place] if place else []) + [GOOD[1], HR]
    raw = message(*segments).replace(b"Mon^AA^EUI-64", application.encode())
    assert report(raw).parts[0].device == device


def test_a_device_name_is_bounded_and_keeps_its_bed() -> None:
    raw = message("PV1||I|ICU^^5", GOOD[1], HR).replace(b"Mon^AA^EUI-64", b"y" * 400)
    device = report(raw).parts[0].device
    assert len(device) == limits.TEXT_CHARS_MAX
    assert device.endswith("y/ICU-5")


def test_a_bed_in_a_device_name_is_bounded() -> None:
    raw = message(f"PV1||I|ICU^^{'7' * 100}", GOOD[1], HR)
    assert report(raw).parts[0].device == "AA/ICU-" + "7" * 60


def test_a_ward_is_the_gateways_when_the_message_names_none() -> None:
    assert _patient("PID|||M1", ward="") == Patient("M1")
    assert _patient("PID|||M1", ward="W2") == Patient("M1", ward="W2")
    assert STAMP in GOOD[1]
