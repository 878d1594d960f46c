"""Facets of an alarm are found by code or number, and say one of a closed set or nothing."""

import pytest

from edge.hl7_facets import ident, limits_of
from edge.hl7_map import load
from tests.edge.hl7_messages import EXAMPLE_MAP, STAMP, alert, message, setting
from vitals.codes import BY_NAME

UUID = "3f1d0e52-5c5f-4a9f-8a43-0123456789ab"
OBR = f"OBR|1||77^Mon|196616^MDC_EVT_ALARM^MDC|||{STAMP}"


def _alarm(*rows: str, obr: str = OBR) -> bytes:
    return message("PID|||M1^^^H^MR", obr, *rows, kind="ORU^R40^ORU_R40")


def _row(code: str, facet: int | str, value: str = "", rest: str = "", kind: str = "ST") -> str:
    return f"OBX|1|{kind}|{code}|1.1.0.0.{facet}|{value}|{rest}"


EVENT = _row("196670^MDC_EVT_LO^MDC", 1, "SpO2 low")
FACETS = [
    ("68481^MDC_ATTR_EVENT_PHASE^MDC", "68165", 3, "phase"),
    ("68482^MDC_ATTR_ALARM_STATE^MDC", "68166", 4, "state"),
    ("68483^MDC_ATTR_ALARM_INACTIVATION_STATE^MDC", "68167", 5, "inactivation"),
    ("68484^MDC_ATTR_ALARM_PRIORITY^MDC", "68168", 6, "priority"),
    ("68485^MDC_ATTR_ALERT_TYPE^MDC", "^MDC_ATTR_ALERT_TYPE", 7, "kind"),
]
VALUES = {
    "phase": {word: word for word in ("start", "continue", "end", "update")},
    "state": {word: word for word in ("off", "inactive", "active", "latched")},
    "inactivation": {
        word: word
        for word in (
            "enabled",
            "audio-paused",
            "audio-off",
            "alarm-paused",
            "alarm-off",
            "alert-acknowledged",
        )
    },
    "priority": {
        "PH": "high",
        "PM": "medium",
        "PL": "low",
        "PN": "none",
        "PI": "none",
        "PU": "unknown",
    },
    "kind": {"SP": "physiological", "ST": "technical", "SA": "advisory"},
}


@pytest.mark.parametrize(("code", "older", "number", "field"), FACETS)
def test_every_facet_is_found_by_code_older_code_name_or_number(
    code: str, older: str, number: int, field: str
) -> None:
    refid = code.split("^")[1]
    for said, word in VALUES[field].items():
        for row in (
            _row(code, 9, said),
            _row(older, 9, said),
            _row(code.split("^")[0], 9, said),
            _row(f"^{refid.lower()}^MDC", 9, said),
            _row(f"^{refid}^MDC", 9, said),
            _row("", number, said),
            _row("99^vendor's own^L", number, said.upper()),
            _row(code, 9, f"17^{said}^MDC", kind="CWE"),
        ):
            assert getattr(alert(_alarm(EVENT, row)), field) == word, row


@pytest.mark.parametrize(("code", "older", "number", "field"), FACETS)
def test_a_facet_with_any_other_word_says_nothing(
    code: str, older: str, number: int, field: str
) -> None:
    found = alert(_alarm(EVENT, _row(code, number, "Ada Ng"), _row(older, number, "20")))
    assert getattr(found, field) == ""


def test_the_code_of_a_facet_goes_before_its_number() -> None:
    found = alert(_alarm(EVENT, _row("68482^MDC_ATTR_ALARM_STATE^MDC", 3, "latched")))
    assert (found.phase, found.state) == ("", "latched")


def test_a_measured_value_is_no_facet_whatever_its_number() -> None:
    metric = "OBX|1|NM|150456^MDC_PULS_OXIM_SAT_O2^MDC|1.1.1.{}|95|262688"
    for number in (1, 3, 6):
        found = alert(_alarm(EVENT, metric.format(number)))
        assert (found.event, found.phase, found.priority, found.vital) == (196670, "", "", None)


@pytest.mark.parametrize("path", ["3", "", "1.1.", "1.1.33", "1.1.0", "1.1.8", "1.1.x"])
def test_a_number_is_a_facets_only_behind_a_path(path: str) -> None:
    assert alert(_alarm(EVENT, f"OBX|1|ST|9|{path}|start")).phase == ""
    assert alert(_alarm(EVENT, "OBX|1|ST|9|1.3|start")).phase == "start"


@pytest.mark.parametrize("code", [65536, 69965, 528391])
def test_a_device_or_profile_row_is_no_facet_whatever_its_number(code: int) -> None:
    assert alert(_alarm(EVENT, f"OBX|1|ST|{code}|1.1.1.3|start")).phase == ""
    assert alert(_alarm(EVENT, "OBX|1|ST|65535|1.1.1.3|start")).phase == "start"


def test_priority_and_kind_stand_in_obx_8_too_and_the_facet_goes_before() -> None:
    flagged = _row("196670^MDC_EVT_LO^MDC", 1, "", "||L~PM~SP")
    assert (alert(_alarm(flagged)).priority, alert(_alarm(flagged)).kind) == (
        "medium",
        "physiological",
    )
    facet = _row("68484", 6, "PH")
    for rows in ((flagged, facet), (facet, flagged)):
        assert alert(_alarm(*rows)).priority == "high"


SOURCE = "OBX|1|NM|{}|1.1.0.0.2|{}|{}|{}|"


@pytest.mark.parametrize(
    ("row", "source", "vital", "value", "low", "high"),
    [
        (SOURCE.format("150456", "88", "262688", "90-100"), 150456, "spo2", 88, 90, 100),
        (SOURCE.format("150456", "88", "262688", "> 90"), 150456, "spo2", 88, 90, None),
        (SOURCE.format("150456", "8388607", "262688", ">90"), 150456, "spo2", None, 90, None),
        (SOURCE.format("150456", "", "262688", "75 - 90"), 150456, "spo2", None, 75, 90),
        (SOURCE.format("150456", "88", "266016", "90-100"), 150456, "spo2", None, None, None),
        (SOURCE.format("150456^MDC_TEMP^MDC", "88", "", ""), 150456, None, None, None, None),
        (SOURCE.format("158776^MDC_HDIALY^MDC", "88", "", "1-2"), 158776, None, None, None, None),
        (SOURCE.format("8867-4^HR^LN", "150", "/min", "<140"), 0, "heart_rate", 150, None, 140),
        (SOURCE.format("150344", "102.2", "266560", "95-100.4"), 150344, "temperature", 39, 35, 38),
        (SOURCE.format("150456", "88", "262688", "90") + "INV", 150456, "spo2", None, None, None),
        (SOURCE.format("150456", "88", "262688", "") + "|||X", 150456, "spo2", None, None, None),
        (SOURCE.format("150456", "88", "262688", "") + "|||D", 150456, "spo2", None, None, None),
        (SOURCE.format("150456", " 88 ", "262688", " "), 150456, "spo2", 88, None, None),
        (SOURCE.format("150456", " ", "262688", ""), 150456, "spo2", None, None, None),
        (_row("68480^SRC^MDC", 2, "147842^MDC_ECG_HEART_RATE^MDC"), 147842, "heart_rate")
        + (None,) * 3,
        (_row("68164", 2, "GE_Mural_DH_NM"), 0, None, None, None, None),
        (_row("", 2, "147842"), 147842, "heart_rate", None, None, None),
    ],
)
def test_the_source_is_a_code_and_its_value_agrees_with_it(
    row: str,
    source: int,
    vital: str | None,
    value: float | None,
    low: float | None,
    high: float | None,
) -> None:
    found = alert(_alarm(EVENT, row))
    index = None if vital is None else BY_NAME[vital].index
    assert (found.source, found.vital) == (source, index)
    assert (found.value, found.low, found.high) == (value, low, high)


def test_the_first_measured_source_is_the_one_it_is_about() -> None:
    rows = (
        _row("196670", 1, "150456^MDC_PULS_OXIM_SAT_O2^MDC"),
        _row("68480", 2, "147842"),
        SOURCE.format("149530", "40", "264864", "50-120"),
        SOURCE.format("150456", "88", "262688", "90-100"),
    )
    assert alert(_alarm(rows[0])).source == 150456
    assert alert(_alarm(*rows[:2])).source == 147842
    assert (alert(_alarm(*rows)).source, alert(_alarm(*rows)).value) == (149530, 40)


def test_a_source_may_be_a_vendors_own_code() -> None:
    row = SOURCE.format("0002-4bb8^SpO2^MDIL", "88", "0004-0220^%^MDIL", "90-100")
    found = alert(_alarm(EVENT, row), setting(vendor=load(EXAMPLE_MAP)))
    assert (found.source, found.vital, found.value) == (0, BY_NAME["spo2"].index, 88)


@pytest.mark.parametrize(
    ("text", "low", "high"),
    [
        ("90-100", "90", "100"),
        ("75 - 90", "75", "90"),
        ("-5-20", "-5", "20"),
        ("-10--5", "-10", "-5"),
        (">98", "98", ""),
        (">=98", "98", ""),
        ("<120", "", "120"),
        ("35.5-38", "35.5", "38"),
        ("98", "", ""),
        ("none", "", ""),
        ("", "", ""),
        ("1-2-3", "", ""),
        ("1" + " " * 37 + "-2", "1", "2"),
        ("1" + " " * 38 + "-2", "", ""),
    ],
)
def test_limits_are_read_in_every_form_seen(text: str, low: str, high: str) -> None:
    assert limits_of(text) == (low, high)


@pytest.mark.parametrize(
    ("obr", "name"),
    [
        ("OBR|1||77^Mon", "Mon-77"),
        ("OBR|1||77", "77"),
        ("OBR|1|5^P|", "P-5"),
        (f"OBR|1||3^{UUID}^X", UUID),
        ("OBR|1||abc-1^Mon", "abc-1"),
        ("OBR|1||77^Mon" + "|" * 26 + "^76&Mon&X", "Mon-76"),
        ("OBR|1||77^Mon" + "|" * 26 + "75^", "75"),
        ("OBR|1||" + "|" * 26 + "p1&x^f1&x", "f1"),
        ("OBR|1||", ""),
        ("OBR|1||" + "a" * 64, "a" * 64),
    ],
)
def test_an_alarm_is_called_by_its_first_report(obr: str, name: str) -> None:
    fields = (obr.split("|") + [""] * 30)[:30]
    fields[4] = "196616"
    assert alert(_alarm(EVENT, obr="|".join(fields))).id == name


def test_a_name_that_may_hold_anything_is_told_by_its_digest() -> None:
    names = {ident("Ada Ng", ""), ident("Ada  Ng", ""), ident("a" * 65, ""), ident("{1:2}", "")}
    assert len(names) == 4
    for name in names:
        assert len(name) == 18
        assert name.startswith("h-")
    assert ident("Ada Ng", "") == ident("Ada Ng", "x")
