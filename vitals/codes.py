"""The code table: every vital sign, once.

Every other place that needs a LOINC or MDC code, a unit, a plausible range or a name on the line
reads this table. Sources: LOINC and profiles, HL7 FHIR R4 4.0.1 vital-signs profiles; MDC,
ISO/IEEE 11073-10101 context-free codes (partition * 65536 + term); plausible ranges, the
MIMIC-Extract valid ranges (MIT), widened to what a monitor can display where that is wider.
Outside ``low``..``high`` a number is no measurement; inside, it is never clamped.

Codes marked ``# unverified`` were not found in a primary source and are not sent as LOINC until
they are (``loinc_verified`` is False: FHIR leaves carry text and the local code instead).
"""

from enum import IntEnum
from typing import Final

import msgspec


class Vital(msgspec.Struct, frozen=True):
    """One kind of measurement.

    ``decimals`` digits after the point are kept on disk and on the wire; ``continuous`` tells a
    value that a monitor repeats every second from one that is taken now and then (staleness).
    """

    index: int
    name: str
    display: str
    short: str
    loinc: str
    loinc_also: tuple[str, ...]
    mdc: tuple[int, ...]
    unit: str
    low: float
    high: float
    decimals: int
    continuous: bool
    aliases: tuple[str, ...]
    loinc_verified: bool = True


# fmt: off
VITALS: Final = (
    Vital(0, "heart_rate", "Heart rate", "HR", "8867-4", (), (147842,), "/min",
          0, 390, 0, True, ("hr", "heartrate", "heart-rate", "ecg_hr", "bpm")),
    Vital(1, "pulse_rate", "Pulse rate", "PR", "8889-8", (),
          (149530, 149514, 149546, 149522, 149538), "/min",
          0, 390, 0, True, ("pulse", "pr", "pulserate")),
    Vital(2, "spo2", "Oxygen saturation", "SpO2", "2708-6", ("59408-5",), (150456,), "%",
          0, 100, 0, True, ("oxygen", "oxygen_saturation", "sao2", "o2sat", "sat", "spo2%")),
    Vital(3, "resp_rate", "Respiratory rate", "RR", "9279-1", (),
          (151562, 151570, 151578, 151594, 151658), "/min",
          0, 300, 0, True, ("rr", "resp", "respiration", "respiratory_rate", "resp-rate")),
    Vital(4, "temperature", "Body temperature", "Temp", "8310-5", (),
          (150344, 150364, 150368, 188420, 188424, 150392, 150372, 150388, 188496), "Cel",
          14.2, 47, 1, False, ("temp", "body_temperature", "t")),
    Vital(5, "nibp_systolic", "Systolic blood pressure (cuff)", "SYS", "8480-6", (),
          (150021, 150301, 150017), "mm[Hg]",
          0, 375, 0, False, ("sys", "sbp", "systolic", "nibp_sys")),
    Vital(6, "nibp_diastolic", "Diastolic blood pressure (cuff)", "DIA", "8462-4", (),
          (150022, 150302, 150018), "mm[Hg]",
          0, 375, 0, False, ("dia", "dbp", "diastolic", "nibp_dia")),
    Vital(7, "nibp_mean", "Mean blood pressure (cuff)", "MAP", "8478-0", (),
          (150023, 150303, 150019), "mm[Hg]",
          0, 375, 0, False, ("map", "mean", "nibp_map")),
    Vital(8, "abp_systolic", "Systolic blood pressure (arterial line)", "ABPs", "8480-6", (),
          (150033, 150037), "mm[Hg]",
          0, 375, 0, True, ("abp_sys", "art_sys", "ibp_sys")),
    Vital(9, "abp_diastolic", "Diastolic blood pressure (arterial line)", "ABPd", "8462-4", (),
          (150034, 150038), "mm[Hg]",
          0, 375, 0, True, ("abp_dia", "art_dia", "ibp_dia")),
    Vital(10, "abp_mean", "Mean blood pressure (arterial line)", "ABPm", "8478-0", (),
          (150035, 150039), "mm[Hg]",
          0, 375, 0, True, ("abp_map", "art_mean", "ibp_mean")),
    Vital(11, "cvp_mean", "Central venous pressure", "CVP", "60985-9", (),
          (150087, 150084), "mm[Hg]",
          -50, 100, 0, True, ("cvp",)),
    Vital(12, "etco2", "End-tidal carbon dioxide", "EtCO2", "19891-1", (),
          (151708, 151712, 151728), "mm[Hg]",
          0, 150, 0, True, ("et_co2", "end_tidal_co2")),
    Vital(13, "fio2", "Inspired oxygen fraction", "FiO2", "3150-0", (),
          (152196,), "%",
          15, 100, 0, True, ("fi_o2", "o2_inspired"), loinc_verified=False),
    Vital(14, "o2_flow", "Inhaled oxygen flow rate", "O2", "3151-8", (),
          (), "L/min",
          0, 120, 1, False, ("o2", "oxygen_flow", "flow")),
    Vital(15, "perfusion_index", "Perfusion index", "PI", "", (),
          (150488, 150448), "%",
          0, 100, 2, True, ("pi", "perf"), loinc_verified=False),
    Vital(16, "consciousness", "Level of consciousness (ACVPU)", "ACVPU", "67775-7", (),
          (), "{score}",
          0, 4, 0, False, ("avpu", "acvpu", "loc")),
)
# fmt: on
"""In the order of their index. The index is stored: it only grows, an entry is never reused."""

BY_NAME: Final = {vital.name: vital for vital in VITALS}
BY_ALIAS: Final = {alias: vital for vital in VITALS for alias in (vital.name, *vital.aliases)}
BY_MDC: Final = {code: vital for vital in VITALS for code in vital.mdc}


class Site(IntEnum):
    """Where a temperature was taken; NONE for everything else or when nobody said."""

    NONE = 0
    ORAL = 1
    RECTAL = 2
    TYMPANIC = 3
    AXILLARY = 4
    BLADDER = 5
    CORE = 6
    OESOPHAGEAL = 7
    SKIN = 8


SITE_LOINC: Final = {
    Site.ORAL: "8331-1",
    Site.RECTAL: "8332-9",
    Site.TYMPANIC: "8333-7",
    Site.AXILLARY: "8328-7",
    Site.BLADDER: "8334-5",
    Site.CORE: "8329-5",
    Site.OESOPHAGEAL: "60836-4",
}
"""Site-specific LOINC codes that stand beside 8310-5 (MII ICU module, CC-BY-4.0)."""

SITE_MDC: Final = {
    150368: Site.CORE,
    188420: Site.RECTAL,
    188424: Site.ORAL,
    150392: Site.TYMPANIC,
    150372: Site.OESOPHAGEAL,
    150388: Site.SKIN,
    188496: Site.AXILLARY,
}
"""MDC temperature terms that name their site."""

SITE_ALIAS: Final = {site.name.lower(): site for site in Site if site is not Site.NONE} | {
    "ear": Site.TYMPANIC,
    "esophageal": Site.OESOPHAGEAL,
    "mouth": Site.ORAL,
}


class Consciousness(IntEnum):
    """ACVPU, in the order of the NEWS2 chart; only ALERT scores 0."""

    ALERT = 0
    CONFUSION = 1
    VOICE = 2
    PAIN = 3
    UNRESPONSIVE = 4


class Status(IntEnum):
    """What a reading is; only OK carries a value that may raise an alarm of this system."""

    OK = 0
    MISSING = 1
    """No value: lead off, probe off, not measured. ``value`` is None."""
    QUESTIONABLE = 2
    """A value the device itself doubts."""
    TEST = 3
    """Test, demonstration or simulated by a technician: never alarms."""
    CALIBRATION = 4
    """Device in calibration: never alarms."""
    IMPLAUSIBLE = 5
    """Outside the table's range. ``value`` is None."""
    ALARM_INHIBITED = 6
    """A real value whose alarms somebody has switched off at the device: shown, never rings."""


class Absence(IntEnum):
    """Why a reading has no value; NONE for every reading that has one."""

    NONE = 0
    NO_VALUE = 1
    """The field is empty, dashes or ``""``, or OBX-11 is X without a word why."""
    INVALID = 2
    """The device calls it invalid (OBX-8 INV)."""
    UNAVAILABLE = 3
    """Not available now (OBX-8 NAV)."""
    BUSY = 4
    """The device has not finished measuring (OBX-8 BUSY)."""
    OFF = 5
    """Measuring is switched off (OBX-8 OFF)."""
    UNKNOWN = 6
    """The device has no information (OBX-8 NI)."""
    SENTINEL = 7
    """A number that vendors send for "no value"."""
    OUT_OF_RANGE = 8
    """Outside the table's range."""


class TimeSource(IntEnum):
    """Whose clock a reading's time of measurement comes from."""

    RECEIVED = 0
    """The gateway's, at receipt: the device said none, or one that can not be."""
    DEVICE = 1
    """The device's, as it said it."""
    CORRECTED = 2
    """The device's, moved by what its clock was seen to be off."""


def decimal_scale(vital: Vital) -> int:
    """Return 10**decimals: values are stored as integers of this scale."""
    return int(10**vital.decimals)


assert all(vital.index == at for at, vital in enumerate(VITALS))  # noqa: S101
assert len(BY_ALIAS) == sum(1 + len(v.aliases) for v in VITALS), "an alias is used twice"  # noqa: S101
assert len(BY_MDC) == sum(len(v.mdc) for v in VITALS), "an MDC code is used twice"  # noqa: S101
