"""Code, name, system, second triplet and unit must agree; what is merely unknown is passed over."""

import pytest

from edge import hl7_naming
from edge.hl7_codes import LOINC, REFIDS, TAKES, UNIT_CODES, UNIT_REFIDS, UNIT_SPELLINGS, number_of
from edge.hl7_map import NO_MAP
from edge.hl7_naming import NO_VITAL, REMEMBERED_CHARS_MAX, named, unit
from edge.normalize import settle
from edge.refusal import Reason, Refuse
from tests.edge.hl7_messages import GOOD, HR, message, obx, refusal, report, values
from vitals.codes import BY_MDC, BY_NAME, VITALS, Site


def _named(text: str) -> tuple[str, int] | None:
    found = named(text, "^", NO_MAP, ())
    assert not found.conflict, found.conflict
    return None if found.vital == NO_VITAL else (VITALS[found.vital].name, found.site)


def _component(text: str) -> int | None:
    found = named(text, "^", NO_MAP, ())
    assert found.vital == NO_VITAL
    return found.component if found.conflict else None


@pytest.mark.parametrize("code", sorted(BY_MDC))
def test_every_code_of_the_table_is_known_with_and_without_a_system(code: int) -> None:
    name = BY_MDC[code].name
    assert _named(f"{code}^^MDC") == _named(str(code))
    found = _named(f"{code}^^MDC")
    assert found is not None
    assert found[0] == name


@pytest.mark.parametrize("refid", sorted(REFIDS))
def test_every_refid_agrees_with_some_code_and_with_no_other_vitals(refid: str) -> None:
    vital, site = REFIDS[refid]
    agreeing = {
        code for code in BY_MDC if not named(f"{code}^MDC_{refid}^MDC", "^", NO_MAP, ()).conflict
    }
    assert agreeing
    assert {BY_MDC[code].index for code in agreeing} == {vital}
    assert any(_named(f"{code}^MDC_{refid}^MDC") == (VITALS[vital].name, site) for code in agreeing)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("8867-4^Heart rate^LN", ("heart_rate", 0)),
        ("59408-5", ("spo2", 0)),
        ("2708-6^SpO2^LOINC", ("spo2", 0)),
        ("8480-6^Systolic^LN", ("nibp_systolic", 0)),
        ("8480-6^Systolic^LN^150033^MDC_PRESS_BLD_ART_SYS^MDC", ("abp_systolic", 0)),
        ("150033^MDC_PRESS_BLD_ART_SYS^MDC^8480-6^Systolic^LN", ("abp_systolic", 0)),
        ("8480-6^MDC_PRESS_BLD_ART_SYS^LN", ("abp_systolic", 0)),
        ("8310-5^T^LN^188424^MDC_TEMP_ORAL^MDC", ("temperature", Site.ORAL)),
        ("8332-9^Rectal^LN^150344^MDC_TEMP^MDC", ("temperature", Site.RECTAL)),
        ("150344^MDC_TEMP_SKIN^MDC", ("temperature", Site.SKIN)),
        ("X^local^99X^150456^MDC_PULS_OXIM_SAT_O2^MDC", ("spo2", 0)),
        ("149522^PULS_RATE^MDC", ("pulse_rate", 0)),
        ("149522^MDC_PULS_RATE^MDC", ("pulse_rate", 0)),
        ("150017^MDC_PRESS_BLD_NONINV_SYS^MDC", ("nibp_systolic", 0)),
        ("147842^HR in bpm^MDC", ("heart_rate", 0)),
        ("147842^mdc_ecg_heart_rate^mdc", ("heart_rate", 0)),
        (" 147842 ^ MDC_ECG_HEART_RATE ^ MDC ", ("heart_rate", 0)),
        ("147842^^ISO/IEEE 11073-10101", ("heart_rate", 0)),
        ("147842^HR^MDC^a^b^c^1.0^1.0^as the device writes it", ("heart_rate", 0)),
        ("148065^MDC_ECG_V_P_C_CNT^MDC", None),
        ("150020^MDC_PRESS_BLD_NONINV^MDC", None),
        ("TEMP^Temperature^99X", None),
        ("T1^TEMP^99X", None),
        ("67775-7^Level of responsiveness^LN", None),  # its number is no number of ours
        ("3150-0^FiO2^LN", None),  # not verified: vitals/codes.py
        ("", None),
        ("^^^^^", None),
        ("１４７８４２", None),
        ("²", None),
    ],
)
def test_what_is_named(text: str, meant: tuple[str, int] | None) -> None:
    assert _named(text) == meant


@pytest.mark.parametrize(
    ("text", "component"),
    [
        ("150456^MDC_CO2_ET^MDC", 2),
        ("150456^MDC_PULS_OXIM_PULS_RATE^MDC", 2),
        ("150456^RESP_RATE^MDC", 2),
        ("150456^MDC_NOT_A_REFID^MDC", 2),
        ("150457^MDC_PULS_OXIM_PULS_RATE^MDC", 1),
        ("150457^PULS_OXIM_PULS_RATE^MDC", 1),
        ("MDC_ECG_HEART_RATE^^MDC", 1),
        ("mdc_ecg_heart_rate", 1),
        ("HR^MDC_ECG_HEART_RATE^99X", 1),
        ("147842^MDC_ECG_HEART_RATE^LN", 3),
        ("147842^HR^99X", 3),
        ("8867-4^Heart rate^99X", 3),
        ("8867-4^MDC_PULS_RATE^LN", 2),
        ("8867-4^HR^LN^149530^MDC_PULS_OXIM_PULS_RATE^MDC", 0),
        ("147842^^MDC^2708-6^^LN", 0),
        ("X^local^99X^150456^MDC_ECG_HEART_RATE^MDC", 5),
        ("188424^MDC_TEMP_RECT^MDC", 2),
        ("8331-1^Oral^LN^188420^MDC_TEMP_RECT^MDC", 0),
    ],
)
def test_what_contradicts_itself_says_where(text: str, component: int) -> None:
    assert _component(text) == component


def test_a_conflict_leaves_the_other_rows_and_a_positive_answer() -> None:
    bad = obx("150456^MDC_CO2_ET^MDC", "35", "266016")
    found = report(message(*GOOD[:2], bad, HR))
    assert [r.value for r in found.parts[0].readings] == [78]
    (refused,) = found.refused
    assert (refused.reason, refused.field) == (Reason.HL7_CONFLICT, "OBX[1]-3.2")


def test_a_message_of_conflicts_alone_is_refused_as_the_first_of_them() -> None:
    bad = obx("150457^MDC_PULS_RATE^MDC", "1")
    refused = refusal(message(*GOOD[:2], obx("1^X^L", "1"), bad, obx("150456", "1", "mmHg")))
    assert (refused.reason, refused.field) == (Reason.HL7_CONFLICT, "OBX[2]-3.1")


def _unit(name: str, text: str) -> str:
    found = unit(BY_NAME[name].index, text, "^", NO_MAP, (), "")
    return "!" if found.conflict else found.ucum


@pytest.mark.parametrize(
    ("name", "text", "ucum"),
    [
        ("heart_rate", "264864^MDC_DIM_BEAT_PER_MIN^MDC", "/min"),
        ("heart_rate", "264864", "/min"),
        ("heart_rate", "/min^/min^UCUM", "/min"),
        ("heart_rate", "{beats}/min^{beats}/min^UCUM", "/min"),
        ("heart_rate", "bpm", "/min"),
        ("heart_rate", "264864^MDC_DIM_BEAT_PER_MIN^MDC^/min^/min^UCUM", "/min"),
        ("heart_rate", "/min^^UCUM^264864^MDC_DIM_BEAT_PER_MIN^MDC", "/min"),
        ("heart_rate", "264864^MDC_DIM_RESP_PER_MIN^MDC", "!"),
        ("heart_rate", "264928^MDC_DIM_RESP_PER_MIN^MDC", "!"),
        ("heart_rate", "%", "!"),
        ("resp_rate", "264928^MDC_DIM_RESP_PER_MIN^MDC", "/min"),
        ("resp_rate", "bpm", "/min"),
        ("resp_rate", "rpm", "/min"),
        ("resp_rate", "264864^MDC_DIM_BEAT_PER_MIN^MDC", "!"),
        ("resp_rate", "{breath}/min", "/min"),
        ("spo2", "262688^MDC_DIM_PERCENT^MDC^%^%^UCUM", "%"),
        ("spo2", "", ""),
        ("spo2", "^^", ""),
        ("spo2", '""', ""),
        ("spo2", "furlongs", "!"),
        ("spo2", "262656^MDC_DIM_DIMLESS^MDC", "!"),
        ("nibp_systolic", "mmHg^Unit", "mm[Hg]"),
        ("nibp_systolic", "mmHg^kPa", "!"),
        ("nibp_systolic", "266016^MDC_DIM_MMHG^MDC^kPa^kPa^UCUM", "!"),
        ("nibp_systolic", "266016^mmHg^99X", "!"),
        ("nibp_systolic", "kPa", "kPa"),
        ("temperature", "268160^MDC_DIM_FAHR^MDC", "!"),
        ("temperature", "268192^MDC_DIM_FAHR^MDC", "!"),
        ("temperature", "268192^MDC_DIM_WARM^MDC", "!"),
        ("temperature", "MDC_DIM_DEGC", "Cel"),
        ("temperature", "CEL^^UCUM", "Cel"),
        ("temperature", "degrees^^UCUM", "!"),
        ("temperature", "degrees^C^ucum", "!"),
        ("temperature", "268192^x^MDC^Cel^x^UCUM^1^2^as it is written", "Cel"),
        ("temperature", "0004-17a0^°C^MDIL", "Cel"),
        ("temperature", "0004-17a0^?^MDIL", "!"),
        ("temperature", "266560", "[degF]"),
        ("o2_flow", "L/min", "L/min"),
    ],
)
def test_a_unit_agrees_with_itself_and_with_the_vital_sign(name: str, text: str, ucum: str) -> None:
    assert _unit(name, text) == ucum


def test_a_unit_not_taken_is_told_apart_from_one_not_known() -> None:
    spo2 = BY_NAME["spo2"].index
    assert unit(spo2, "x", "^", NO_MAP, (), "").conflict == "the unit is not known"
    assert unit(spo2, "kPa", "^", NO_MAP, (), "").conflict == "it is measured in %"


def test_every_unit_taken_is_one_that_values_are_converted_from() -> None:
    for vital, taken in zip(VITALS, TAKES, strict=True):
        for one in taken:
            settle(vital.index, 30.0, hl7_naming._ucum(one))
        for other in {hl7_naming._ucum(one) for one in UNIT_SPELLINGS.values()}:
            if other not in {hl7_naming._ucum(one) for one in taken}:
                with pytest.raises(Refuse):
                    settle(vital.index, 30.0, other)


def test_unit_codes_and_refids_are_of_known_units() -> None:
    known = set(UNIT_SPELLINGS.values())
    assert set(UNIT_CODES.values()) | set(UNIT_REFIDS.values()) <= known


def test_loinc_codes_are_those_of_the_table_that_are_verified() -> None:
    of_table = {
        code: vital
        for vital in VITALS
        if vital.loinc_verified and vital.name != "consciousness"
        for code in (vital.loinc, *vital.loinc_also)
        if code
    }
    assert set(of_table) < set(LOINC)
    for code, vital in of_table.items():
        assert vital.index in LOINC[code][0]


@pytest.mark.parametrize("text", ["", "-1", "1.0", "1234567890", "１", "²", "1 ", "0x1"])
def test_no_code_is_read_from_what_is_no_number(text: str) -> None:
    assert number_of(text) == -1


def test_long_names_are_read_but_not_remembered() -> None:
    hl7_naming._named.cache_clear()
    hl7_naming._unit.cache_clear()
    pad = " " * REMEMBERED_CHARS_MAX
    assert _named("147842^" + pad) == ("heart_rate", 0)
    assert _unit("spo2", "%" + pad) == "%"
    assert hl7_naming._named.cache_info().currsize == 0
    assert hl7_naming._unit.cache_info().currsize == 0
    assert _named("147842^" + pad[7:]) == ("heart_rate", 0)
    assert hl7_naming._named.cache_info().currsize == 1
    assert _unit("spo2", "%" + pad[1:]) == "%"
    assert hl7_naming._unit.cache_info().currsize == 1


def test_a_unit_reaches_the_value() -> None:
    assert values(message(*GOOD[:2], obx("150344", "98.6", "266560"))) == [("temperature", 37.0)]
    assert values(message(*GOOD[:2], obx("150344", "98.6", "268192"))) == [("temperature", None)]
