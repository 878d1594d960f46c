"""A vendor's mapping adds meaning to codes that have none, and a wrong file is refused whole."""

from pathlib import Path

import pytest

from edge.hl7_map import CHARS_MAX, ENTRIES_MAX, NO_MAP, load
from edge.hl7_naming import NO_VITAL, named, unit
from edge.refusal import Reason
from edge.setting import Setting
from tests.edge.hl7_messages import (
    EXAMPLE_MAP,
    GOOD,
    message,
    obx,
    readings,
    refusal,
    report,
    setting,
)
from vitals.codes import BY_NAME, VITALS, Site
from vitals.errors import ConfigError


def _under(folder: Path, text: str) -> Setting:
    path = folder / "map.toml"
    path.write_text(text, encoding="utf-8")
    return setting(vendor=load(path))


def _wrong(folder: Path, text: str) -> str:
    with pytest.raises(ConfigError) as error:
        _under(folder, text)
    return str(error.value)


CODE = '[[code]]\ncode = "{}"\nvital = "{}"\n'


def test_a_local_code_means_what_the_file_says(tmp_path: Path) -> None:
    under = _under(tmp_path, CODE.format("L-9", "spo2") + CODE.format("l-8", "heart_rate"))
    raw = message(*GOOD[:2], obx("l-9^x^99X", "95", "%"), obx("L-8", "60"), obx("L-7", "1"))
    assert [(VITALS[r.vital].name, r.value) for r in readings(raw, under)] == [
        ("spo2", 95),
        ("heart_rate", 60),
    ]
    assert report(raw, under).ignored == 1
    assert refusal(raw).reason == Reason.HL7_NO_READING


def test_a_code_may_be_of_one_system_and_one_sender_only(tmp_path: Path) -> None:
    under = _under(
        tmp_path,
        CODE.format("1", "spo2")
        + CODE.format("1", "heart_rate")
        + 'system = "99A"\n'
        + CODE.format("1", "pulse_rate")
        + 'sender = "AA"\n'
        + CODE.format("1", "resp_rate")
        + 'sender = "mon"\nsystem = "99a"\n'
        + CODE.format("2", "resp_rate")
        + 'sender = "Else"\n',
    )

    def meant(code: str, application: str) -> str | None:
        raw = message(*GOOD[:2], obx(code, "20")).replace(b"Mon^AA^EUI-64", application.encode())
        found = named(code, "^", under.vendor, under.vendor.listed(application.split("^")[:2]))
        if found.vital == NO_VITAL:
            assert refusal(raw, under).reason == Reason.HL7_NO_READING
            return None
        (reading,) = readings(raw, under)
        assert reading.vital == found.vital
        return VITALS[found.vital].name

    assert meant("1^x^99B", "Other") == "spo2"
    assert meant("1", "Other") == "spo2"
    assert meant("1^x^99A", "Other") == "heart_rate"
    assert meant("1^x^99B", "X^aa") == "pulse_rate"
    assert meant("1^x^99A", "X^AA") == "pulse_rate"
    assert meant("1^x^99A", "Mon^X") == "resp_rate"
    assert meant("1^x^99B", "Mon^X") == "spo2"
    assert meant("2", "Other") is None
    assert meant("2", "else") == "resp_rate"
    assert meant("2", "x^ELSE") == "resp_rate"
    assert meant("2", "x^y^else") is None


def test_blanks_around_an_entry_mean_nothing(tmp_path: Path) -> None:
    text = CODE.format(" L1 ", "spo2") + 'system = " 99A "\nsender = " Mon "\n'
    under = _under(tmp_path, text)
    assert len(readings(message(*GOOD[:2], obx("L1^x^99A", "95")), under)) == 1


def test_a_site_and_a_unit_go_with_a_code(tmp_path: Path) -> None:
    under = _under(tmp_path, CODE.format("T1", "temperature") + 'site = "oral"\nunit = "[degF]"\n')
    for units, value in (("", 37.0), ("warm", 37.0), ("F", 37.0), ("C", None)):
        (reading,) = readings(message(*GOOD[:2], obx("T1", "98.6", units)), under)
        assert (reading.value, reading.site) == (value, Site.ORAL)
    wrong = message(*GOOD[:2], obx("T1", "98.6", "mmHg"))
    assert refusal(wrong, under).field == "OBX[1]-6"
    coded = message(*GOOD[:2], obx("T1", "98.6", "1^warm^MDC"))
    assert refusal(coded, under).field == "OBX[1]-6", "a code of a real system is no vendor's word"


def test_a_local_unit_means_what_the_file_says(tmp_path: Path) -> None:
    text = '[[unit]]\nspelling = "prozent"\nunit = "%"\n'
    under = _under(tmp_path, text + '[[unit]]\nspelling = "17"\nunit = "%"\nsender = "Mon"\n')
    for units in ("Prozent", "x^PROZENT", "17^x^99X", "%^prozent"):
        (reading,) = readings(message(*GOOD[:2], obx("150456", "95", units)), under)
        assert reading.value == 95
    elsewhere = message(*GOOD[:2], obx("150456", "95", "17")).replace(b"Mon^AA", b"Xon^AA")
    assert refusal(elsewhere, under).field == "OBX[1]-6"
    disagreeing = message(*GOOD[:2], obx("150456", "95", "prozent^mmHg"))
    assert refusal(disagreeing, under).field == "OBX[1]-6"


def test_a_mapped_code_must_agree_with_what_stands_beside_it(tmp_path: Path) -> None:
    under = _under(tmp_path, CODE.format("L1", "spo2"))

    def field(code: str) -> str:
        return refusal(message(*GOOD[:2], obx(code, "95")), under).field

    assert field("L1^MDC_ECG_HEART_RATE^99X") == "OBX[1]-3.2"
    assert field("L1^x^99X^147842^MDC_ECG_HEART_RATE^MDC") == "OBX[1]-3"
    agreeing = obx("L1^MDC_PULS_OXIM_SAT_O2^99X^150456^MDC_PULS_OXIM_SAT_O2^MDC", "95")
    assert len(readings(message(*GOOD[:2], agreeing), under)) == 1


def test_a_refid_sent_as_a_code_may_be_mapped_to_what_it_means(tmp_path: Path) -> None:
    row = message(*GOOD[:2], obx("MDC_ECG_HEART_RATE^^MDC", "60"))
    assert refusal(row).field == "OBX[1]-3.1"
    under = _under(tmp_path, CODE.format("MDC_ECG_HEART_RATE", "heart_rate"))
    assert readings(row, under)[0].value == 60
    assert "another vital sign" in _wrong(tmp_path, CODE.format("MDC_ECG_HEART_RATE", "spo2"))


@pytest.mark.parametrize("code", ["150456", "8867-4", "59408-5", "8331-1"])
def test_a_code_of_the_code_table_is_never_mapped(tmp_path: Path, code: str) -> None:
    said = _wrong(tmp_path, CODE.format("L1", "spo2") + CODE.format(code, "spo2"))
    assert "[[code]] number 2" in said
    assert f"{code} is an MDC or LOINC code already; remove it" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (CODE.format("L1", "sp02"), "did you mean 'spo2'?"),
        (CODE.format("L1", "zzz"), "see vitals/codes.py"),
        (CODE.format("L1", "consciousness"), "no vital sign 'consciousness'"),
        (CODE.format("", "spo2"), "code is empty"),
        (CODE.format("  ", "spo2"), "code is empty"),
        (CODE.format("a^b", "spo2"), "write one component"),
        (CODE.format("x" * (CHARS_MAX + 1), "spo2"), f"at most {CHARS_MAX} characters"),
        (CODE.format("L1", "spo2") * 2, "L1 is mapped twice"),
        (CODE.format("L1", "spo2") + CODE.format("l1", "spo2"), "l1 is mapped twice"),
        (CODE.format("L1", "spo2") + 'site = "oral"', "site is for a temperature"),
        (CODE.format("L1", "temperature") + 'site = "nose"', "site is for a temperature, one of"),
        (CODE.format("L1", "spo2") + 'unit = "mmHg"', "spo2 is measured in %"),
        (CODE.format("L1", "spo2") + 'unit = "furlong"', "unit 'furlong' is not known"),
        (CODE.format("L1", "resp_rate") + 'unit = "{beats}/min"', "is measured in /min"),
        (CODE.format("L1", "spo2") + 'vitals = "x"', "did you mean `vital`?"),
        ('[[codes]]\ncode = "L1"', "did you mean `code`?"),
        ('[[code]]\nvital = "spo2"', "code"),
        ("[[code]]\ncode = 101\n", "Expected `str`"),
        ('[[unit]]\nspelling = "%"\nunit = "%"', "% is known already"),
        ('[[unit]]\nspelling = "MMHG"\nunit = "kPa"', "MMHG is known already"),
        ('[[unit]]\nspelling = "262688"\nunit = "kPa"', "262688 is known already"),
        ('[[unit]]\nspelling = "mdc_dim_mmhg"\nunit = "kPa"', "mdc_dim_mmhg is known already"),
        ('[[unit]]\nspelling = "x"\nunit = "y"', "unit 'y' is not known"),
        ('[[unit]]\nspelling = "x"\nunit = "%"\n' * 2, "x is mapped twice"),
        ('[[unit]]\nspelling = " "\nunit = "%"', "spelling is empty"),
        ('[[unit]]\nspelling = "x"\nunit = "%"\nsendr = "x"', "did you mean `sender`?"),
        ("[[code", "not valid TOML"),
    ],
)
def test_a_wrong_file_says_where_and_what_next(tmp_path: Path, text: str, said: str) -> None:
    found = _wrong(tmp_path, text)
    assert said in found
    assert "map.toml" in found


def test_a_missing_file_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file; correct hl7_map, or leave it out"):
        load(tmp_path / "none.toml")


def test_a_file_has_a_bounded_number_of_entries(tmp_path: Path) -> None:
    text = "".join(CODE.format(f"L{at}", "spo2") for at in range(ENTRIES_MAX))
    assert len(_under(tmp_path, text).vendor) == ENTRIES_MAX
    assert f"over {ENTRIES_MAX} entries" in _wrong(tmp_path, text + CODE.format("M", "spo2"))
    one_unit = '[[unit]]\nspelling = "x"\nunit = "%"\n'
    assert f"over {ENTRIES_MAX} entries" in _wrong(tmp_path, text + one_unit)
    assert len(_under(tmp_path, CODE.format("L", "spo2") + one_unit).vendor) == 2
    longest = "x" * CHARS_MAX
    assert len(_under(tmp_path, CODE.format(longest, "spo2")).vendor) == 1


PHILIPS = {
    "4182": "heart_rate",
    "4bb8": "spo2",
    "5000": "resp_rate",
    "4822": "pulse_rate",
    "480a": "pulse_rate",
    "4a05": "nibp_systolic",
    "4a06": "nibp_diastolic",
    "4a07": "nibp_mean",
    "4a15": "abp_systolic",
    "4a16": "abp_diastolic",
    "4a17": "abp_mean",
    "4b60": "temperature",
    "f0c7": "temperature",
}
NIHON = {
    "007000": "spo2",
    "007001": "pulse_rate",
    "009000": "nibp_systolic",
    "009001": "nibp_diastolic",
    "009002": "nibp_mean",
}
MINDRAY = {
    "101": "heart_rate",
    "151": "resp_rate",
    "160": "spo2",
    "161": "pulse_rate",
    "170": "nibp_systolic",
    "171": "nibp_diastolic",
    "200": "temperature",
    "250": "etco2",
    "500": "abp_systolic",
    "502": "abp_diastolic",
}


def test_the_example_knows_the_vendors_it_is_for() -> None:
    vendor = load(EXAMPLE_MAP)

    def meant(code: str, *sender: str) -> str | None:
        found = named(code, "^", vendor, vendor.listed([*sender]))
        return None if found.vital == NO_VITAL else VITALS[found.vital].name

    for term, name in PHILIPS.items():
        assert meant(f"0002-{term.upper()}^x^MDIL") == name
        assert meant(f"0002-{term}^x^99X") is None
    for code, name in NIHON.items():
        assert (meant(code, "NIHON KOHDEN"), meant(code, "Else")) == (name, None)
    for code, name in MINDRAY.items():
        assert (meant(code, "Mindray"), meant(code)) == (name, None)
    units = {"0220": "spo2", "0aa0": "pulse_rate", "0ae0": "resp_rate", "0f20": "nibp_mean"}
    for term, name in (units | {"17a0": "temperature", "1710": "temperature"}).items():
        index = BY_NAME[name].index
        found = unit(index, f"0004-{term}^?^MDIL", "^", vendor, (), "")
        assert not found.conflict
        assert unit(index, f"0004-{term}^?^MDIL", "^", NO_MAP, (), "").conflict


def test_a_pulse_in_breaths_is_a_conflict_by_the_example_too() -> None:
    under = setting(vendor=load(EXAMPLE_MAP))
    raw = message(*GOOD[:2], obx("0002-4182^HR^MDIL", "60", "0004-0ae0^rpm^MDIL"))
    assert refusal(raw, under).field == "OBX[1]-6"
