"""Delimiters, character sets, escapes and times are the message's own."""

from datetime import UTC as PLAIN_UTC
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from edge.hl7_message import CONTROL_CHARS_MAX, SEGMENTS_MAX, envelope, moment, split
from edge.refusal import Reason
from tests.edge.hl7_messages import GOOD, HR, UTC, message, refusal, report, values
from vitals import limits
from vitals.columns import TIME_MS_MAX


def _name(text: str, msh: str = "|MSG1|P|2.6", encoding: str = "utf-8") -> str:
    raw = message(f"PID|||M1||{text}", *GOOD[1:], msh=msh).decode().encode(encoding)
    patient = report(raw).patient
    assert patient is not None
    return patient.name


def test_the_header_tells_all_an_answer_needs() -> None:
    raw = b"MSH|^~\\&|A|B|C|D|||ORU^R01^X|ID|T|2.5^X|||AL|NE||8859/1\rPID"
    known = envelope(raw)
    assert (known.application, known.facility) == ("A", "B")
    assert (known.receiver, known.receiver_facility) == ("C", "D")
    assert (known.kind, known.event, known.control) == ("ORU", "R01", "ID")
    assert (known.processing, known.version, known.charset) == ("T", "2.5^X", "8859/1")
    assert (known.accept, known.final) == ("AL", "NE")


def test_what_a_header_leaves_out_is_the_usual() -> None:
    known = envelope(b"MSH|^~\\&")
    assert (known.processing, known.version, known.control) == ("P", "2.6", "")
    assert (known.accept, known.final, known.kind, known.event) == ("", "", "", "")
    assert envelope(b'MSH|^~\\&|||||||||""|""|||""|""').accept == ""


def test_other_delimiters_are_taken_as_declared() -> None:
    raw = message(*GOOD, "PID|||M2^^^H^MR||A\\S\\B\\F\\C\\T\\D\\R\\E\\E\\F^X", *GOOD[1:])
    swapped = raw.translate(bytes.maketrans(b"|^~\\&", b"#@*!$"))
    assert [part.readings for part in report(swapped).parts] == [
        part.readings for part in report(raw).parts
    ]
    patient = report(swapped).parts[1].patient
    assert patient is not None
    assert patient.name == "X A@B#C$D*E!F"


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"MSH",
        b"MSH|",
        b"MSHA^~\\&",
        b"MSH ^~\\&",
        b"MSH||x",
        b"MSH|a~\\&|x",
        b"MSH|^ \\&|x",
        b"MSH|^^\\&|x",
        b"MSH|~|x",  # the repetition mark left out is ~ too
        b"PID|||M1\rMSH|^~\\&|",
        b"\xff\xfeM\x00S\x00H\x00",
    ],
)
def test_without_a_usable_header_there_is_nothing_to_answer(head: bytes) -> None:
    assert envelope(head).encoding == ""
    assert refusal(head).reason == Reason.HL7_NO_MSH


def test_a_long_control_id_is_no_control_id() -> None:
    good = message(*GOOD, msh=f"|{'x' * CONTROL_CHARS_MAX}|P|2.6")
    assert envelope(good).control == "x" * CONTROL_CHARS_MAX
    bad = message(*GOOD, msh=f"|{'x' * (CONTROL_CHARS_MAX + 1)}|P|2.6")
    assert envelope(bad).control == ""
    refused = refusal(bad)
    assert (refused.reason, refused.field) == (Reason.HL7_REQUIRED, "MSH-10")


@pytest.mark.parametrize(
    ("charset", "codec"),
    [
        ("", "utf-8"),
        ('""', "utf-8"),
        ("UNICODE UTF-8", "utf-8"),
        ("unicode utf-8", "utf-8"),
        ("UNICODE", "utf-8"),
        ("8859/1", "latin-1"),
        ("8859/2", "iso8859_2"),
        ("8859/9", "iso8859_9"),
        ("8859/15", "iso8859_15"),
        ("8859/1~8859/1", "latin-1"),
        ("~8859/1", "utf-8"),
        (" 8859/15 ~ 8859/1 ", "iso8859_15"),
    ],
)
def test_text_is_in_the_set_the_message_names(charset: str, codec: str) -> None:
    msh = f"|MSG1|P|2.6||||||{charset}"
    assert _name("Müller", msh, codec) == "Müller"


def test_sets_of_other_scripts_are_decoded_by_their_own_part() -> None:
    assert _name("Ж", "|MSG1|P|2.6||||||8859/5", "iso8859_5") == "Ж"
    assert _name("Ω", "|MSG1|P|2.6||||||8859/7", "iso8859_7") == "Ω"


@pytest.mark.parametrize(
    "charset", ["KLINGON", "UNICODE UTF-16", "8859/12", "8859/17", "8859/1~ISO IR87", "~ISO IR87"]
)
def test_a_set_not_taken_is_refused_in_words(charset: str) -> None:
    refused = refusal(message(*GOOD, msh=f"|MSG1|P|2.6||||||{charset}"))
    assert (refused.reason, refused.field) == (Reason.HL7_CHARSET, "MSH-18")
    assert "UNICODE UTF-8, ASCII or 8859/1 to 8859/16" in refused.detail


@pytest.mark.parametrize("charset", ["ASCII", "UNICODE UTF-8"])
def test_bytes_outside_the_named_set_are_refused(charset: str) -> None:
    raw = message("PID|||M1||Zo\xeb", *GOOD[1:], msh=f"|MSG1|P|2.6||||||{charset}")
    refused = refusal(raw.decode().encode("latin-1"))
    assert (refused.reason, refused.field) == (Reason.HL7_CHARSET, "MSH-18")


def test_without_a_named_set_text_that_is_not_utf_8_is_latin_1() -> None:
    assert _name("Zoë", encoding="latin-1") == "Zoë"
    assert _name("Zoë", encoding="utf-8") == "Zoë"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("O\\T\\Neil", "O&Neil"),
        ("a\\F\\b\\S\\c\\R\\d\\E\\e", "a|b^c~d\\e"),
        ("Stra\\XC39F\\e", "Straße"),
        ("a\\X41\\b", "aAb"),
        ("a\\X4\\b", "a b"),
        ("a\\Xzz\\b", "a b"),
        ("a\\.br\\b", "a b"),
        ("a\\.sp+2\\b", "a b"),
        ("a\\H\\b\\N\\c", "abc"),
        ("a\\C2842\\b", "a b"),
        ("a\\Zvendor\\b", "a b"),
        ("a\\E", "a\\E"),
        ("a\tb\x00c\u202ed", "a b c d"),
        ('""', ""),
        ("x" * 300, "x" * limits.TEXT_CHARS_MAX),
    ],
)
def test_escapes_are_resolved(text: str, meant: str) -> None:
    assert _name(text) == meant


def test_an_escape_in_hexadecimal_is_in_the_messages_own_set() -> None:
    assert _name("Stra\\XDF\\e", "|MSG1|P|2.6||||||8859/1") == "Straße"
    assert _name("Stra\\XFF\\e") == "Stra\ufffde"


def test_a_very_long_text_is_cut_before_it_costs_anything() -> None:
    assert len(_name("\\X" + "41" * 400_000 + "\\")) <= limits.TEXT_CHARS_MAX
    assert _name(" " * 8 * limits.TEXT_CHARS_MAX + "x") == ""
    assert _name(" " * (8 * limits.TEXT_CHARS_MAX - 1) + "x") == "x"


def test_blank_lines_and_any_line_ends_are_passed_over() -> None:
    raw = b"\r\n" + message(*GOOD).replace(b"\r", b"\r\n\r\n")
    assert values(raw) == [("heart_rate", 78)]
    assert values(message(*GOOD).replace(b"\r", b"\n")) == [("heart_rate", 78)]


def test_a_message_has_a_bounded_number_of_segments() -> None:
    def raw(count: int) -> bytes:
        return message(*GOOD, *["NTE|1"] * (count - 4))

    assert len(split(raw(SEGMENTS_MAX), envelope(raw(5))).segments) == SEGMENTS_MAX
    assert refusal(raw(SEGMENTS_MAX + 1)).reason == Reason.HL7_TOO_MANY


def test_two_messages_in_one_block_are_not_taken_for_one() -> None:
    refused = refusal(message(*GOOD) + message(*GOOD, msh="|MSG2|P|2.6"))
    assert (refused.reason, refused.field) == (Reason.HL7_FRAMING, "MSH[2]")


@pytest.mark.parametrize(
    ("msh", "kind", "field"),
    [
        ("|MSG1|P|2.6", "ADT^A01", "MSH-9"),
        ("|MSG1|P|2.6", "", "MSH-9"),
        ("|MSG1|P|2.6", "ORU^W01", "MSH-9.2"),
        ("|MSG1|P|3.0", "ORU^R01", "MSH-12"),
        ("|MSG1|P|25", "ORU^R01", "MSH-12"),
        ("|MSG1|X|2.6", "ORU^R01", "MSH-11"),
        ("||P|2.6", "ORU^R01", "MSH-10"),
        ('|""|P|2.6', "ORU^R01", "MSH-10"),
    ],
)
def test_a_header_not_taken_says_where(msh: str, kind: str, field: str) -> None:
    refused = refusal(message(*GOOD, msh=msh, kind=kind))
    assert refused.field == field
    assert refused.reason == (Reason.HL7_REQUIRED if field == "MSH-10" else Reason.HL7_TYPE)


@pytest.mark.parametrize("version", ["2", "2.1", "2.3.1", "2.5^DEU", "2.8", ""])
def test_every_version_2_is_taken(version: str) -> None:
    assert values(message(*GOOD, msh=f"|MSG1|P|{version}")) == [("heart_rate", 78)]


@pytest.mark.parametrize("kind", ["ORU^R01^ORU_R01", "ORU^R01", "ORU", " ORU ^ R01 "])
def test_the_structure_and_the_old_type_without_event_may_be_left_out(kind: str) -> None:
    assert values(message(*GOOD, kind=kind)) == [("heart_rate", 78)]


def test_rows_need_a_group() -> None:
    refused = refusal(message(GOOD[0], HR))
    assert (refused.reason, refused.field) == (Reason.HL7_REQUIRED, "OBR")


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("20261123100000+0000", "2026-11-23 10:00:00.000"),
        ("20261123100000", "2026-11-23 09:00:00.000"),  # the site's zone
        ("20260723100000", "2026-07-23 08:00:00.000"),  # and its summer
        ("202611231000", "2026-11-23 09:00:00.000"),
        ("20261123100000.5", "2026-11-23 09:00:00.500"),
        ("20261123100000.0000+0530", "2026-11-23 04:30:00.000"),
        ("20260124124738000+0800", "2026-01-24 04:47:38.000"),
        ("20260124124738250+0800", "2026-01-24 04:47:38.250"),
        ("20261123100000.123456789-0330", "2026-11-23 13:30:00.123"),
        ("20261123100000Z", "2026-11-23 10:00:00.000"),
        ("20261123100000+01:00", "2026-11-23 09:00:00.000"),
        ("20261123100000+01", "2026-11-23 09:00:00.000"),
        (" 20261123100000+0000 ", "2026-11-23 10:00:00.000"),
        ("20261123100000+1400", "2026-11-22 20:00:00.000"),
        ("19700101000000Z", "1970-01-01 00:00:00.000"),
        ("99991231235959Z", "9999-12-31 23:59:59.000"),
        ("20261123100000Z" + " " * 25, "2026-11-23 10:00:00.000"),
    ],
)
def test_times_are_read_in_every_form_seen(text: str, utc: str) -> None:
    ms = moment(text, ZoneInfo("Europe/Berlin"))
    assert ms is not None
    at = datetime.fromtimestamp(ms / 1000, PLAIN_UTC)
    assert at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] == utc


def test_the_last_moment_that_fits_a_frame_is_one() -> None:
    assert moment("99991231235959.999Z", UTC) == TIME_MS_MAX


@pytest.mark.parametrize(
    "text",
    [
        "20261123",
        "2026112310",
        "",
        "yesterday",
        "20261323100000",
        "20260230100000",
        "20261123246000",
        "20261123100060",
        "20261123100000+1500",
        "20261123100000+9999",
        "00010101000000+1400",
        "19691231235959+0000",
        "99991231235959-1400",
        "20261123100000Z" + " " * 26,
        "２０２６１１２３１００００００",  # digits of another script
    ],
)
def test_what_places_nothing_in_time_is_none(text: str) -> None:
    assert moment(text, UTC) is None
