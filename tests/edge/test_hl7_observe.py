"""What a row says of its value, whose it is, when it was, and which sensor's."""

from zoneinfo import ZoneInfo

import pytest

from edge.hl7_map import NO_MAP
from edge.hl7_naming import NO_VITAL
from edge.hl7_observe import READINGS_MAX
from edge.hl7_row import ROW_CHARS_MAX, ROWS_REMEMBERED, Rows, marks
from edge.refusal import Reason
from tests.edge.hl7_messages import (
    GOOD,
    HR,
    NOW,
    STAMP,
    decode,
    message,
    obx,
    readings,
    refusal,
    report,
    setting,
    values,
)
from vitals.codes import VITALS, Absence, Status, TimeSource

HOUR_MS = 3_600_000


def _state(flags: str, result: str, value: str = "78") -> tuple[float | None, int, int]:
    (reading,) = readings(
        message(*GOOD[:2], obx("147842", value, "264864", f"|{flags}|||{result}"))
    )
    return reading.value, reading.status, reading.reason


OK, MISSING, TEST = Status.OK, Status.MISSING, Status.TEST


@pytest.mark.parametrize(
    ("flags", "result", "state"),
    [
        ("", "R", (78, OK, 0)),
        ("", "F", (78, OK, 0)),
        ("", "", (78, OK, 0)),
        ("N", "C", (78, OK, 0)),
        ("HH", "P", (78, OK, 0)),
        ("VAL", "F", (78, OK, 0)),
        ("ALACT", "R", (78, OK, 0)),
        (">", "R", (78, OK, 0)),
        ("<", "R", (78, OK, 0)),
        ("INV", "X", (None, MISSING, Absence.INVALID)),
        ("INV", "R", (None, MISSING, Absence.INVALID)),
        ("NAV", "X", (None, MISSING, Absence.UNAVAILABLE)),
        ("BUSY", "X", (None, MISSING, Absence.BUSY)),
        ("OFF", "", (None, MISSING, Absence.OFF)),
        ("NI", "R", (None, MISSING, Absence.UNKNOWN)),
        ("", "X", (None, MISSING, Absence.NO_VALUE)),
        ("", "N", (None, MISSING, Absence.NO_VALUE)),
        ("", "I", (None, MISSING, Absence.NO_VALUE)),
        ("QUES", "R", (78, Status.QUESTIONABLE, 0)),
        ("EARLY", "R", (78, Status.QUESTIONABLE, 0)),
        ("TEST", "R", (78, TEST, 0)),
        ("DEMO", "R", (78, TEST, 0)),
        ("CAL", "R", (78, Status.CALIBRATION, 0)),
        ("ALINH", "R", (78, Status.ALARM_INHIBITED, 0)),
        ("L~PM~QUES", "R", (78, Status.QUESTIONABLE, 0)),
        (" ques ", " r ", (78, Status.QUESTIONABLE, 0)),
        ("QUES^Questionable^HL7", "R", (78, Status.QUESTIONABLE, 0)),
        ("QUES~INV", "R", (None, MISSING, Absence.INVALID)),
        ("QUES", "X", (None, MISSING, Absence.NO_VALUE)),
        ("ALINH~QUES", "R", (78, Status.QUESTIONABLE, 0)),
        ("ALINH~NAV", "R", (None, MISSING, Absence.UNAVAILABLE)),
        ("DEMO~NAV", "X", (None, TEST, Absence.UNAVAILABLE)),
        ("TEST~QUES~ALINH", "R", (78, TEST, 0)),
        ("CAL~INV", "X", (None, Status.CALIBRATION, Absence.INVALID)),
    ],
)
def test_states_follow_the_tables(
    flags: str, result: str, state: tuple[float | None, int, int]
) -> None:
    assert _state(flags, result) == state


def test_a_state_does_not_make_a_value_of_nothing() -> None:
    assert _state("QUES", "R", "") == (None, MISSING, Absence.NO_VALUE)
    assert _state("ALINH", "R", "-100") == (None, MISSING, Absence.SENTINEL)
    assert _state("TEST", "R", "") == (None, TEST, Absence.NO_VALUE)


@pytest.mark.parametrize("result", ["D", "W", "d"])
def test_withdrawn_rows_are_left_out_and_counted(result: str) -> None:
    found = report(message(*GOOD, obx("150456", "95", "%", f"||||{result}")))
    assert len(found.parts[0].readings) == 1
    assert found.ignored == 1
    assert (
        refusal(message(*GOOD[:2], obx("150456", "95", "%", f"||||{result}"))).reason
        == Reason.HL7_NO_READING
    )


def test_a_result_status_of_no_table_is_a_conflict() -> None:
    refused = refusal(message(*GOOD[:2], obx("150456", "95", "%", "||||Q")))
    assert (refused.reason, refused.field) == (Reason.HL7_CONFLICT, "OBX[1]-11")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", Absence.NO_VALUE),
        ('""', Absence.NO_VALUE),
        ("---", Absence.NO_VALUE),
        (" ", Absence.NO_VALUE),
        ("-1", Absence.SENTINEL),
        ("-100", Absence.SENTINEL),
        ("-10000", Absence.SENTINEL),
        ("-999", Absence.SENTINEL),
        ("-99.9", Absence.SENTINEL),
        ("8388607", Absence.SENTINEL),
        ("400", Absence.OUT_OF_RANGE),
    ],
)
def test_no_value_is_a_reading_with_the_reason(value: str, reason: int) -> None:
    assert _state("", "F", value)[::2] == (None, reason)


@pytest.mark.parametrize("value", ["78.5", "+78", "078", " 78 ", "78."])
def test_numbers_are_read_as_hl7_writes_them(value: str) -> None:
    assert _state("", "R", value)[0] in {78, 78.5}


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        (obx("147842", "78bpm", "264864"), "5", Reason.BAD_NUMBER),
        (obx("147842", "7,8", "264864"), "5", Reason.BAD_NUMBER),
        (obx("147842", "nan", "264864"), "5", Reason.BAD_NUMBER),
        (obx("147842", "1e2", "264864"), "5", Reason.BAD_NUMBER),
        (obx("147842", "1" * 13, "264864"), "5", Reason.BAD_NUMBER),
        (obx("147842", "7" * 500, "264864"), "5", Reason.BAD_NUMBER),
        (obx("147842", "78~79", "264864"), "5", Reason.HL7_CONFLICT),
        (obx("147842", "78^bpm", "264864"), "5", Reason.HL7_CONFLICT),
        ("OBX|1|SN|147842|1|^78|264864", "2", Reason.HL7_CONFLICT),
        ("OBX|1|NA|150456|1|96^97|262688", "2", Reason.HL7_CONFLICT),
        ("OBX|1|ST|150456|1|97|262688", "2", Reason.HL7_CONFLICT),
        ("OBX|1|ST|150456|1||262688", "2", Reason.HL7_CONFLICT),
        ("OBX|1||150456|1|97|262688", "2", Reason.HL7_CONFLICT),
        (obx("147842", "", "furlongs"), "6", Reason.HL7_CONFLICT),
    ],
)
def test_a_row_at_odds_with_itself_says_where(row: str, field: str, reason: Reason) -> None:
    refused = refusal(message(*GOOD[:2], obx("1^X^L", "1"), row))
    assert (refused.reason, refused.field) == (reason, f"OBX[2]-{field}")
    assert "78" not in refused.detail


def test_a_vital_sign_without_type_and_value_was_not_measured() -> None:
    (reading,) = readings(message(*GOOD[:2], "OBX|1||150456^SpO2^MDC|1.1.1.1|||||||X"))
    assert (reading.value, reading.reason) == (None, Absence.NO_VALUE)


@pytest.mark.parametrize("cut", range(1, 17))
def test_rows_may_end_anywhere(cut: int) -> None:
    row = "|".join(f"OBX|1|NM|147842|1|78|264864|||||R|||{STAMP}".split("|")[:cut])
    found = decode(message(*GOOD, row))
    assert not isinstance(found, tuple)
    assert len(found.parts[0].readings) == (1 if cut < 4 else 2)


def test_a_row_that_ends_with_its_flags_is_read_with_them() -> None:
    (reading,) = readings(message(*GOOD[:2], "OBX|1|NM|147842|1|78|264864||QUES"))
    assert (reading.value, reading.status) == (78, Status.QUESTIONABLE)


@pytest.mark.parametrize("processing", ["D", "T", "T^A"])
def test_a_trial_message_is_a_test_whatever_its_rows_say(processing: str) -> None:
    raw = message(*GOOD, obx("150456", "", "%", "|CAL"), msh=f"|MSG1|{processing}|2.6")
    assert {r.status for r in readings(raw)} == {TEST}


# -- times --------------------------------------------------------------------------------------


def _times(*segments: str, zone: str = "UTC") -> list[tuple[int, int]]:
    found = report(message(*segments), setting("", ZoneInfo(zone)))
    return [(r.time_ms - NOW, r.time_source) for part in found.parts for r in part.readings]


DEVICE, RECEIVED = TimeSource.DEVICE, TimeSource.RECEIVED


def test_a_rows_own_time_goes_before_its_groups() -> None:
    old = obx("150021", "120", "266016", "||||R|||20261123093000+0000")
    assert _times(GOOD[1], HR, old) == [(0, DEVICE), (-HOUR_MS // 2, DEVICE)]


def test_a_compound_rows_time_is_its_childrens_if_they_say_none() -> None:
    assert _times(
        "OBR|1||||||20261123100000+0000",
        "OBX|1||69965^MDS^MDC|1.0.0.0|||||||X|||20261123080000+0000",
        "OBX|2||150020^MDC_PRESS_BLD_NONINV^MDC|1.0.1|||||||X|||20261123090000+0000",
        obx("150021", "120", "266016", path="1.0.1.1"),
        obx("150022", "80", "266016", "||||R|||20261123093000+0000", path="1.0.1.2"),
        obx("150456", "95", "262688", path="1.0.2.1"),
        obx("150456", "95", "262688", path="2.0.1.1"),
        "OBR|2||||||20261123100000+0000",
        obx("150023", "90", "266016", path="1.0.1.3"),
    ) == [
        (-HOUR_MS, DEVICE),
        (-HOUR_MS // 2, DEVICE),
        (-2 * HOUR_MS, DEVICE),
        (0, DEVICE),
        (0, DEVICE),
    ]


def test_a_containing_row_without_a_time_leaves_it_to_the_group() -> None:
    for said in ("", '""', " "):
        compound = f"OBX|1||150020^^MDC|1.0.1|||||||X|||{said}"
        child = obx("150021", "120", "266016", path="1.0.1.1")
        assert _times(GOOD[1], compound, child) == [(0, DEVICE)]


def test_a_row_with_a_value_contains_nothing() -> None:
    metric = obx("148065", "0", "", "||||R|||20261123090000", path="1.0.1")
    wave = metric.replace("|NM|", "|NA|")
    child = obx("150021", "120", "266016", path="1.0.1.1")
    assert _times(GOOD[1], metric, wave, child) == [(0, DEVICE)]


def test_a_channel_row_with_trailing_zeros_contains_its_metrics() -> None:
    assert _times(
        GOOD[1],
        "OBX|1||69855^CHAN^MDC|1.10.1.0|||||||X|||20261123090000+0000",
        obx("150033", "120", "266016", path="1.10.1.1"),
        obx("150033", "120", "266016", path="1.1.1.1"),
        obx("150033", "120", "266016", path="1.10.10.1"),
    ) == [(-HOUR_MS, DEVICE), (0, DEVICE), (0, DEVICE)]


def test_a_group_without_a_time_in_obr_7_may_have_it_in_obr_15() -> None:
    assert _times("OBR|1" + "|" * 14 + "20261123090000+0000", HR) == [(-HOUR_MS, DEVICE)]
    assert _times('OBR|1||||||""' + "|" * 8 + "20261123090000", HR) == [(-HOUR_MS, DEVICE)]
    assert _times("OBR|1" + "|" * 14 + "blood^venous", HR) == [(0, RECEIVED)]
    both = "OBR|1||||||20261123080000" + "|" * 8 + "20261123090000"
    assert _times(both, HR) == [(-2 * HOUR_MS, DEVICE)]


@pytest.mark.parametrize("said", ["20261123", "yesterday", "20261323100000"])
def test_a_time_that_places_nothing_costs_the_time_not_the_reading(said: str) -> None:
    row = obx("147842", "78", "264864", f"||||R|||{said}")
    assert _times("OBR|1||||||20261123090000", row) == [(0, RECEIVED)]
    assert _times(f"OBR|1||||||{said}", HR) == [(0, RECEIVED)]


def test_a_group_does_not_inherit_the_time_of_the_one_before() -> None:
    assert _times(GOOD[1], HR, "OBR|2", HR) == [(0, DEVICE), (0, RECEIVED)]


def test_a_time_without_a_zone_is_the_sites() -> None:
    assert _times("OBR|1||||||20261123110000", HR, zone="Europe/Berlin") == [(0, DEVICE)]


# -- channels -----------------------------------------------------------------------------------


def _channels(*segments: str) -> list[tuple[str, float | None, int]]:
    found = report(message(*segments))
    return [
        (VITALS[r.vital].name, r.value, r.channel) for part in found.parts for r in part.readings
    ]


def test_sensors_of_one_kind_are_told_apart_by_their_order() -> None:
    t1 = obx("150344", "36.9", "268192", path="1.1.1.1")
    t2 = obx("150344", "35.1", "268192", path="1.1.2.1")
    site = obx("188420", "37.1", "268192", path="1.1.3.1")
    assert _channels(GOOD[1], t1, t2, site) == [
        ("temperature", 36.9, 0),
        ("temperature", 35.1, 1),
        ("temperature", 37.1, 0),
    ]
    same = [row.replace("1.1.2.1", "1.1.1.1") for row in (t1, t2)]
    assert [channel for _, _, channel in _channels(GOOD[1], *same)] == [0, 1]


def test_a_sensor_keeps_its_channel_when_the_one_before_has_no_usable_value() -> None:
    good = obx("150344", "35.1", "268192", path="1.1.2.1")
    for bad in (
        obx("150344", "36.9", "furlongs"),
        obx("150344", "36.9x", "268192"),
        obx("150344", "36.9", "268192", "||||D"),
    ):
        assert _channels(GOOD[1], bad, good) == [("temperature", 35.1, 1)]


def test_one_object_in_two_groups_is_one_channel() -> None:
    first = obx("150456", "95", "262688", path="1.1.1.1")
    other = obx("150456", "90", "262688", path="1.2.1.1")
    channels = [c for _, _, c in _channels("OBR|1", first, other, "OBR|2", other, first, first)]
    assert channels == [0, 1, 1, 0, 2]
    again = [c for _, _, c in _channels("OBR|1", first, first, "OBR|2", first)]
    assert again == [0, 1, 0]
    empty = obx("150456", "95", "262688", path="")
    assert [c for _, _, c in _channels("OBR|1", empty, "OBR|2", empty)] == [0, 1]


# -- bounds -------------------------------------------------------------------------------------


def test_a_message_has_a_bounded_number_of_readings() -> None:
    assert len(readings(message("OBR|1", *[HR] * READINGS_MAX))) == READINGS_MAX
    refused = refusal(message("OBR|1", *[HR] * (READINGS_MAX + 1)))
    assert (refused.reason, refused.field) == (Reason.HL7_TOO_MANY, f"OBX[{READINGS_MAX + 1}]")


def test_a_message_has_a_bounded_number_of_conflicts() -> None:
    bad = obx("147842", "x", "264864")
    assert len(report(message("OBR|1", HR, *[bad] * READINGS_MAX)).refused) == READINGS_MAX
    refused = refusal(message("OBR|1", HR, *[bad] * (READINGS_MAX + 1)))
    assert (refused.reason, refused.field) == (Reason.HL7_TOO_MANY, f"OBX[{READINGS_MAX + 2}]")


def test_what_is_remembered_of_rows_is_bounded() -> None:
    rows = Rows("^", "~", NO_MAP, ())
    for at in range(ROWS_REMEMBERED):
        assert rows.learn(("NM", f"{at}^X", "", "", "")).vital == NO_VITAL
    assert len(rows) == ROWS_REMEMBERED
    rows.learn(("NM", "one more", "", "", ""))
    assert len(rows) == 1
    exact = ("NM", "x" * (ROW_CHARS_MAX - 2), "", "", "")
    rows.learn(exact)
    assert rows.get(exact) is not None
    rows.learn(("NM", "y" * (ROW_CHARS_MAX - 1), "", "", ""))
    assert len(rows) == 2


def test_marks_of_other_delimiters_are_split_by_them() -> None:
    assert marks("L!QUES@x", "R", "@", "!").status == Status.QUESTIONABLE
    assert marks("L~QUES^x", "R", "@", "!").status == Status.OK


def test_values_of_other_messages_are_not_mistaken_for_this_ones() -> None:
    for value in ("78", "79", "80", "78"):
        assert values(message(*GOOD[:2], obx("147842", value, "264864"))) == [
            ("heart_rate", float(value))
        ]
