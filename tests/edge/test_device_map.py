"""The map of devices fills what nobody said, and contradicts nobody."""

import pytest

from edge.admission import Caller
from edge.bedside import LineTalk
from edge.device_map import DeviceMap, Known, with_units
from edge.hl7_talk import Hl7Talk
from edge.mllp import block
from edge.normalize import Measure
from edge.setting import Setting
from tests.edge.hl7_messages import GOOD, message
from vitals.codes import BY_NAME
from vitals.columns import Source
from vitals.reading import Patient

NOW = 1_795_428_000_000
TEMPERATURE = BY_NAME["temperature"].index
MAP = DeviceMap(
    {
        "mon-7": Known("12", "W2"),
        "mon-8": Known("13"),
        "thermo": Known(units={TEMPERATURE: "[degF]"}),
    }
)


@pytest.mark.parametrize(
    ("device", "said", "filled"),
    [
        ("mon-7", None, Patient(bed="12", ward="W2")),
        ("mon-8", None, Patient(bed="13", ward="W1")),
        ("thermo", None, None),
        ("other", None, None),
        ("mon-7", Patient(mrn="M1"), Patient(mrn="M1", bed="12", ward="W2")),
        ("mon-7", Patient(mrn="M1", ward="W1"), Patient(mrn="M1", bed="12", ward="W2")),
        ("mon-7", Patient(mrn="M1", ward="W9"), Patient(mrn="M1", bed="12", ward="W9")),
        ("mon-7", Patient(mrn="M1", bed="40"), Patient(mrn="M1", bed="40", ward="W1")),
        ("mon-7", Patient(bed="12"), Patient(bed="12", ward="W2")),
        ("other", Patient(mrn="M1"), Patient(mrn="M1", ward="W1")),
    ],
)
def test_what_was_said_stands_and_the_rest_is_filled(
    device: str, said: Patient | None, filled: Patient | None
) -> None:
    assert MAP.fill(device, said, "W1") == filled


def test_a_name_never_decides_who_is_in_a_bed() -> None:
    filled = MAP.fill("mon-7", Patient(name="Ada Ng"), "W1")
    assert filled == Patient(name="Ada Ng", bed="12", ward="W2")


def test_a_bare_number_has_its_devices_unit_and_no_other_number() -> None:
    units = {TEMPERATURE: "[degF]"}
    bare, said, none = (
        Measure(TEMPERATURE, 98.6),
        Measure(TEMPERATURE, 37.0, "Cel"),
        Measure(TEMPERATURE, None),
    )
    heart = Measure(0, 78)
    assert with_units([bare, said, none, heart], units) == (
        bare._replace(unit="[degF]"),
        said,
        none,
        heart,
    )


def _talk(setting: Setting) -> LineTalk:
    return LineTalk(Caller("10.0.0.7"), setting)


def _says(talk: LineTalk, line: str) -> tuple[Patient | None, list[float | None]]:
    (entry,) = talk.receive(f"{line}\n".encode(), NOW)
    assert entry.source is not None
    return entry.source.patient, [r.value for r in entry.readings]


def test_a_lines_device_is_in_its_bed_from_the_first_word_on() -> None:
    talk = _talk(Setting("W1", devices=MAP))
    assert _says(talk, "device=mon-7 hr=78") == (Patient(bed="12", ward="W2"), [78])
    assert _says(talk, "hr=79") == (Patient(bed="12", ward="W2"), [79])
    assert _says(talk, "mrn=M1 hr=80") == (Patient("M1", bed="12", ward="W2"), [80])
    assert _says(talk, "device=other hr=81") == (None, [81])


def test_bare_numbers_of_one_device_are_in_its_unit_known_words_or_not() -> None:
    setting = Setting("W1", devices=MAP)
    thermo, other = _talk(setting), _talk(setting)
    for _ in range(3):  # the second time the words are known
        assert _says(other, "device=a temp=36.5") == (None, [36.5])
        assert _says(thermo, "device=thermo temp=98.6") == (None, [37.0])
        assert _says(thermo, "temp=98.6") == (None, [37.0])
        assert _says(thermo, "temp=37C hr=70") == (None, [37.0, 70])
        assert _says(thermo, '{"temp": 98.6}') == (None, [37.0])


def test_another_map_is_used_with_the_next_line() -> None:
    setting = Setting("W1")
    talk = _talk(setting)
    assert _says(talk, "device=mon-7 mrn=M1 hr=78") == (Patient("M1", ward="W1"), [78])
    setting.devices = MAP
    assert _says(talk, "hr=78") == (Patient("M1", bed="12", ward="W2"), [78])
    setting.devices = DeviceMap({"mon-7": Known(units={0: "/min"})})
    assert _says(talk, "hr=78") == (Patient("M1", ward="W1"), [78])


def test_an_hl7_device_is_in_its_bed_too() -> None:
    setting, caller = Setting("W1"), Caller("10.0.0.7")

    def says(number: str) -> Source:
        raw = block(message(*GOOD, msh=f"|{number}|P|2.6"))
        (entry,) = Hl7Talk(caller, setting).receive(raw, NOW)
        assert entry.source is not None
        return entry.source

    before = says("1")
    assert before.patient == Patient("M1", ward="W1")
    setting.devices = DeviceMap({before.device: Known("12", "W2")})
    assert says("2").patient == Patient("M1", bed="12", ward="W2")
