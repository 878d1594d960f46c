"""The code table against a second writing of it, taken from the standards."""

import pytest

from vitals import codes, columns
from vitals.codes import (
    BY_ALIAS,
    BY_MDC,
    BY_NAME,
    SITE_ALIAS,
    SITE_LOINC,
    SITE_MDC,
    VITALS,
    Absence,
    Consciousness,
    Site,
    Status,
)

# The seventeen vitals in the order of their stored index: a change orphans stored data.
NAMES = [
    "heart_rate",
    "pulse_rate",
    "spo2",
    "resp_rate",
    "temperature",
    "nibp_systolic",
    "nibp_diastolic",
    "nibp_mean",
    "abp_systolic",
    "abp_diastolic",
    "abp_mean",
    "cvp_mean",
    "etco2",
    "fio2",
    "o2_flow",
    "perfusion_index",
    "consciousness",
]

# LOINC and units: FHIR R4 4.0.1 vital-signs profiles (fixed codes heartrate, resprate, bodytemp,
# oxygensat, bp); 8889-8, 8478-0, 19891-1, 60985-9, 3151-8, 67775-7: MII ICU module, US Core, IHE.
# MDC: ISO/IEEE 11073-10101 context-free codes; the first of each is what a monitor sends first.
GOLDEN = {
    "heart_rate": ("8867-4", "/min", {147842}),
    "pulse_rate": ("8889-8", "/min", {149530, 149514, 149546, 149522, 149538}),
    "spo2": ("2708-6", "%", {150456}),
    "resp_rate": ("9279-1", "/min", {151562, 151570, 151578, 151594, 151658}),
    "temperature": (
        "8310-5",
        "Cel",
        {150344, 150364, 150368, 188420, 188424, 150392, 150372, 150388, 188496},
    ),
    "nibp_systolic": ("8480-6", "mm[Hg]", {150021, 150301, 150017}),
    "nibp_diastolic": ("8462-4", "mm[Hg]", {150022, 150302, 150018}),
    "nibp_mean": ("8478-0", "mm[Hg]", {150023, 150303, 150019}),
    "abp_systolic": ("8480-6", "mm[Hg]", {150033, 150037}),
    "abp_diastolic": ("8462-4", "mm[Hg]", {150034, 150038}),
    "abp_mean": ("8478-0", "mm[Hg]", {150035, 150039}),
    "cvp_mean": ("60985-9", "mm[Hg]", {150087, 150084}),
    "etco2": ("19891-1", "mm[Hg]", {151708, 151712, 151728}),
    "fio2": ("3150-0", "%", {152196}),
    "o2_flow": ("3151-8", "L/min", set[int]()),
    "perfusion_index": ("", "%", {150488, 150448}),
    "consciousness": ("67775-7", "{score}", set[int]()),
}


def test_the_seventeen_vitals_stand_in_their_stored_order() -> None:
    assert [vital.name for vital in VITALS] == NAMES
    assert [vital.index for vital in VITALS] == list(range(17))
    assert list(BY_NAME) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_codes_and_units_are_those_of_the_standards(name: str) -> None:
    vital = BY_NAME[name]
    assert (vital.loinc, vital.unit, set(vital.mdc)) == GOLDEN[name]


def test_oxygen_saturation_carries_the_pulse_oximetry_code_beside_its_fixed_one() -> None:
    assert BY_NAME["spo2"].loinc_also == ("59408-5",)
    assert all(not vital.loinc_also for vital in VITALS if vital.name != "spo2")


def test_ecg_and_pleth_rates_never_share_a_code() -> None:
    assert BY_NAME["heart_rate"].loinc != BY_NAME["pulse_rate"].loinc
    assert not set(BY_NAME["heart_rate"].mdc) & set(BY_NAME["pulse_rate"].mdc)


def test_end_tidal_co2_is_the_pressure_not_the_ratio() -> None:
    assert "19889-5" not in {vital.loinc for vital in VITALS}


def test_only_the_two_pressure_families_share_loinc_codes() -> None:
    users: dict[str, list[str]] = {}
    for vital in VITALS:
        for code in filter(None, (vital.loinc, *vital.loinc_also)):
            users.setdefault(code, []).append(vital.name)
    shared = {code: names for code, names in users.items() if len(names) > 1}
    assert shared == {
        "8480-6": ["nibp_systolic", "abp_systolic"],
        "8462-4": ["nibp_diastolic", "abp_diastolic"],
        "8478-0": ["nibp_mean", "abp_mean"],
    }


def listed_loinc() -> list[str]:
    listed = {v.loinc for v in VITALS if v.loinc} | {"59408-5", *SITE_LOINC.values()}
    return sorted(listed)


@pytest.mark.parametrize("code", listed_loinc())
def test_loinc_check_digits_are_right(code: str) -> None:
    # The Luhn sum: from the right, every other digit doubled and its digits added.
    number, check = code.split("-")
    doubled = [int(d) * (2 if at % 2 == 0 else 1) for at, d in enumerate(reversed(number))]
    total = sum(n // 10 + n % 10 for n in doubled)
    assert (10 - total % 10) % 10 == int(check)


def test_only_what_was_not_found_in_a_source_is_marked_unverified() -> None:
    assert [vital.name for vital in VITALS if not vital.loinc_verified] == [
        "fio2",
        "perfusion_index",
    ]


def test_every_mdc_code_names_one_vital() -> None:
    listed = [code for vital in VITALS for code in vital.mdc]
    assert len(listed) == len(set(listed)) == len(BY_MDC)
    assert BY_MDC[150456].name == "spo2"
    assert BY_MDC[150301].name == "nibp_systolic"


def test_every_alias_names_one_vital_and_is_written_as_the_decoder_looks_it_up() -> None:
    assert len(BY_ALIAS) == sum(1 + len(vital.aliases) for vital in VITALS)
    assert all(alias == alias.strip().lower() and " " not in alias for alias in BY_ALIAS)
    assert all("=" not in alias and "," not in alias for alias in BY_ALIAS)


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("heart_rate", "heart_rate"),
        ("oxygen", "spo2"),
        ("resp", "resp_rate"),
        ("temp", "temperature"),
        ("pulse", "pulse_rate"),
        ("sys", "nibp_systolic"),
        ("dia", "nibp_diastolic"),
    ],
)
def test_the_names_people_type_are_known(alias: str, name: str) -> None:
    assert BY_ALIAS[alias].name == name


@pytest.mark.parametrize("name", NAMES)
def test_ranges_are_ranges_and_their_ends_survive_storage(name: str) -> None:
    vital = BY_NAME[name]
    assert vital.low < vital.high
    for end in (vital.low, vital.high):
        stored = columns.scaled(vital.index, end)
        assert stored is not None
        assert stored / codes.decimal_scale(vital) == end


def test_scales_are_powers_of_ten() -> None:
    assert codes.decimal_scale(BY_NAME["temperature"]) == 10
    assert codes.decimal_scale(BY_NAME["perfusion_index"]) == 100
    assert codes.decimal_scale(BY_NAME["heart_rate"]) == 1


def test_temperature_sites_have_the_codes_of_the_standards() -> None:
    assert SITE_LOINC == {
        Site.ORAL: "8331-1",
        Site.RECTAL: "8332-9",
        Site.TYMPANIC: "8333-7",
        Site.AXILLARY: "8328-7",
        Site.BLADDER: "8334-5",
        Site.CORE: "8329-5",
        Site.OESOPHAGEAL: "60836-4",
    }
    assert set(SITE_MDC) <= set(BY_NAME["temperature"].mdc)
    assert SITE_MDC[188424] is Site.ORAL
    assert SITE_ALIAS["ear"] is Site.TYMPANIC
    assert Site.NONE not in SITE_ALIAS.values()


def test_stored_numbers_of_sites_states_and_consciousness_never_move() -> None:
    assert [(m.name, m.value) for m in Status] == [
        ("OK", 0),
        ("MISSING", 1),
        ("QUESTIONABLE", 2),
        ("TEST", 3),
        ("CALIBRATION", 4),
        ("IMPLAUSIBLE", 5),
        ("ALARM_INHIBITED", 6),
    ]
    assert [m.name for m in Absence] == [
        "NONE",
        "NO_VALUE",
        "INVALID",
        "UNAVAILABLE",
        "BUSY",
        "OFF",
        "UNKNOWN",
        "SENTINEL",
        "OUT_OF_RANGE",
    ]
    assert [m.name for m in Consciousness] == [
        "ALERT",
        "CONFUSION",
        "VOICE",
        "PAIN",
        "UNRESPONSIVE",
    ]
    assert [m.value for m in Site] == list(range(9))
    assert (Site.ORAL, Site.CORE, Site.SKIN) == (1, 6, 8)
