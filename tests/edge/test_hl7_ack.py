"""Each message is acknowledged in the mode it asks for, for itself, with the place of an error."""

import pytest

from edge.hl7 import answer, envelope
from edge.refusal import Reason, Refused
from tests.edge.hl7_messages import GOOD, NOW, message

BAD = Refused(Reason.HL7_CONFLICT, "OBX[3]-5", "one number, without repetitions or parts")


def _said(msh: str, refused: Refused | None = None, *, reject: bool = False) -> list[str]:
    known = envelope(message(*GOOD, msh=msh))
    return [one.decode() for one in answer(known, refused, "ID", NOW, reject=reject)]


def _codes(modes: str, refused: Refused | None = None, *, reject: bool = False) -> list[str]:
    said = _said(f"|MSG1|P|2.6|||{modes}", refused, reject=reject)
    for one in said:
        assert one.split("\r")[1].split("|")[2] == "MSG1"
    return [one.split("\r")[1].split("|")[1] for one in said]


@pytest.mark.parametrize(
    ("modes", "good", "bad"),
    [
        ("|", ["AA"], ["AE"]),
        ('""|""', ["AA"], ["AE"]),
        ("NE|NE", [], []),
        ("AL|NE", ["CA"], ["CE"]),
        ("SU|NE", ["CA"], []),
        ("ER|NE", [], ["CE"]),
        ("NE|AL", ["AA"], ["AE"]),
        ("NE|SU", ["AA"], []),
        ("NE|ER", [], ["AE"]),
        ("AL|AL", ["CA", "AA"], ["CE", "AE"]),
        ("AL|ER", ["CA"], ["CE", "AE"]),
        ("SU|SU", ["CA", "AA"], []),
        ("ER|ER", [], ["CE", "AE"]),
        ("AL|", ["CA"], ["CE"]),
        ("|AL", ["AA"], ["AE"]),
        ("|ER", [], ["AE"]),
        ("ALWAYS|NE", ["CA"], ["CE"]),
    ],
)
def test_the_answer_follows_the_mode_asked_for(modes: str, good: list[str], bad: list[str]) -> None:
    assert _codes(modes) == good
    assert _codes(modes, BAD) == bad
    rejected = [code.replace("E", "R") for code in bad]
    assert _codes(modes, Refused(Reason.HL7_TYPE, "MSH-9", "x")) == rejected
    assert _codes(modes, BAD, reject=True) == rejected


def test_a_positive_answer_is_these_bytes() -> None:
    (said,) = _said("|MSG1|P|2.6")
    assert said == (
        "MSH|^~\\&|healthsync||Mon^AA^EUI-64|Fac|20261123100000+0000||ACK^R01^ACK|ID|P|2.6\r"
        "MSA|AA|MSG1\r"
    )


@pytest.mark.parametrize(
    ("modes", "own"), [("|", []), ("AL|", ["NE", "NE"]), ("|AL", ["NE", "NE"])]
)
def test_an_answer_says_that_it_wants_none_where_the_mode_lets_it(
    modes: str, own: list[str]
) -> None:
    (said,) = _said(f"|MSG1|P|2.6|||{modes}")
    assert said.split("\r")[0].split("|")[14:] == own


def test_two_answers_have_two_control_ids() -> None:
    ids = [one.split("|")[9] for one in _said("|MSG1|P|2.6|||AL|AL")]
    assert ids == ["ID-C", "ID-A"]


def test_an_answer_goes_back_the_way_the_message_came() -> None:
    raw = b"MSH|^~\\&|FROM|F|TO|T|||ORU^R40^ORU_R40|M|T|2.5|||AL|NE||8859/1\r"
    (said,) = answer(envelope(raw), None, "ID", NOW)
    fields = said.decode().split("\r")[0].split("|")
    assert fields[2:6] == ["TO", "T", "FROM", "F"]
    assert fields[8:12] == ["ACK^R40^ACK", "ID-C", "T", "2.5"]
    assert fields[14:] == ["NE", "NE", "", "8859/1"], "an answer is never answered"


def test_an_answer_echoes_bytes_of_any_set_and_other_delimiters() -> None:
    raw = "MSH#@!*$#Zoë#F###x##ORU@R01#Mé#P#2.6\r".encode("latin-1")
    (said,) = answer(envelope(raw), BAD, "ID", NOW)
    assert said.startswith("MSH#@!*$#healthsync##Zoë#F#".encode("latin-1"))
    assert "\rMSA#AE#Mé\r".encode("latin-1") in said
    assert b"\rERR##OBX@3@5#102@Data type error@HL70357#E####hl7-conflict OBX[3]-5: " in said


@pytest.mark.parametrize("kind", ["ACK^R01^ACK", "ACK", "MCF^R01"])
def test_an_answer_is_never_answered(kind: str) -> None:
    known = envelope(message(msh="|MSG1|P|2.6|||AL|AL", kind=kind))
    assert answer(known, None, "ID", NOW) == answer(known, BAD, "ID", NOW) == []


@pytest.mark.parametrize("control", ["", '""', " ", "x" * 200])
def test_without_a_control_id_there_is_no_answer(control: str) -> None:
    assert _said(f"|{control}|P|2.6") == []


def test_an_event_of_no_form_is_not_echoed() -> None:
    known = envelope(message(kind="ORU^<evil>"))
    assert b"ACK^R01^ACK" in answer(known, None, "ID", NOW)[0]


@pytest.mark.parametrize(
    ("reason", "field", "place", "code"),
    [
        (Reason.HL7_CONFLICT, "OBX[3]-5", "OBX^3^5", "102"),
        (Reason.HL7_CONFLICT, "OBX[12]-3.2", "OBX^12^3^1^2", "102"),
        (Reason.BAD_NUMBER, "OBX[1]-5", "OBX^1^5", "102"),
        (Reason.HL7_TYPE, "MSH-9", "MSH^1^9", "200"),
        (Reason.HL7_TYPE, "MSH-9.2", "MSH^1^9^1^2", "201"),
        (Reason.HL7_TYPE, "MSH-11", "MSH^1^11", "202"),
        (Reason.HL7_TYPE, "MSH-12", "MSH^1^12", "203"),
        (Reason.HL7_REQUIRED, "MSH-10", "MSH^1^10", "101"),
        (Reason.HL7_REQUIRED, "OBR", "OBR^1", "100"),
        (Reason.HL7_FRAMING, "MSH[2]", "MSH^2", "100"),
        (Reason.HL7_CHARSET, "MSH-18", "MSH^1^18", "103"),
        (Reason.HL7_NO_READING, "OBX-3", "OBX^1^3", "101"),
        (Reason.HL7_REPEAT_CONFLICT, "MSH-10", "MSH^1^10", "205"),
        (Reason.UNKNOWN_DEVICE, "", "", "204"),
        (Reason.HL7_TOO_LONG, "", "", "207"),
        (Reason.HL7_TOO_MANY, "OBX[2001]", "OBX^2001", "207"),
        (Reason.SPOOL_FULL, "", "", "207"),
        (Reason.SPOOL_FAILED, "heart_rate", "", "207"),
    ],
)
def test_an_error_says_where_and_what(reason: Reason, field: str, place: str, code: str) -> None:
    (said,) = _said("|MSG1|P|2.6", Refused(reason, field, "what would be right"))
    _, msa, err, _ = said.split("\r")
    assert len(msa.split("|")) == 3
    fields = err.split("|")
    assert (fields[0], fields[1], fields[2]) == ("ERR", "", place)
    assert fields[3].startswith(f"{code}^")
    assert fields[3].endswith("^HL70357")
    assert fields[4] == "E"
    assert fields[8] == f"{reason} {field}: what would be right"


def test_before_version_2_5_an_error_has_one_field_and_the_words_stand_in_msa() -> None:
    for version in ("2.1", "2.3.1", "2.4", "2"):
        (said,) = _said(f"|MSG1|P|{version}", BAD)
        assert said.split("\r")[1:] == [
            "MSA|AE|MSG1|hl7-conflict OBX[3]-5: one number, without repetitions or parts",
            "ERR|OBX^3^5^102&Data type error&HL70357",
            "",
        ]
    (said,) = _said("|MSG1|P|2.3", Refused(Reason.SPOOL_FULL, "", "x"))
    assert "\rERR|^^^207&Application internal error&HL70357\r" in said
    assert "\rERR||" in _said("|MSG1|P|2.5", BAD)[0]


def test_words_are_escaped_by_the_messages_marks() -> None:
    refused = Refused(Reason.HL7_TYPE, "MSH-9", "a^b|c~d\\e&f")
    (said,) = _said("|MSG1|P|2.6", refused)
    assert said.endswith("hl7-type MSH-9: a\\S\\b\\F\\c\\R\\d\\E\\e\\T\\f\r")
