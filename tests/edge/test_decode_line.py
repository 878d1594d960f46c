"""A line means exactly one thing, or it is refused whole with its reason."""

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.decode_line import Said, decode, parse_number
from edge.normalize import Measure
from edge.refusal import Reason, Refuse, Refused
from vitals import limits
from vitals.codes import BY_ALIAS, BY_NAME, Site, Status


def _say(line: str) -> Said:
    said = decode(line.encode())
    assert isinstance(said, Said), said
    return said


def _values(line: str) -> dict[str, float | None]:
    names = {vital.index: name for name, vital in BY_NAME.items()}
    return {names[m.vital]: m.number for m in _say(line).measures}


def _reason(line: bytes | str) -> tuple[str, str]:
    refused = decode(line.encode() if isinstance(line, str) else line)
    assert isinstance(refused, Refused), refused
    return refused.reason.value, refused.field


def test_the_form_typed_into_nc_is_taken_as_it_is() -> None:
    assert _values("heart_rate=78, oxygen=95%") == {"heart_rate": 78, "spo2": 95}


def test_a_full_line_says_all_it_says() -> None:
    said = _say(
        'device=bed-12 mrn=M000123 name="Ada \\"X\\" Ng" dob=1970-01-01 sex=F bed=12 ward=W1'
        " heart_rate=78, oxygen=95%, temperature=36.9C, resp=16, bp=120/80"
        " time=2026-11-23T10:00:00Z reply=yes"
    )
    assert said.device == "bed-12"
    assert said.patient == {
        "mrn": "M000123",
        "name": 'Ada "X" Ng',
        "birth_date": "1970-01-01",
        "sex": "female",
        "bed": "12",
        "ward": "W1",
    }
    assert said.time == datetime(2026, 11, 23, 10, tzinfo=UTC)
    assert said.reply is True
    assert [(m.vital, m.number, m.unit) for m in said.measures] == [
        (0, 78, ""),
        (2, 95, "%"),
        (4, 36.9, "Cel"),
        (3, 16, ""),
        (5, 120, ""),
        (6, 80, ""),
    ]


@pytest.mark.parametrize("alias", sorted(BY_ALIAS))
def test_every_alias_of_the_table_is_taken_in_any_case(alias: str) -> None:
    value = "A" if BY_ALIAS[alias].name == "consciousness" else "50"
    for spelling in (alias, alias.upper()):
        (measure,) = _say(f"{spelling}={value}").measures
        assert measure.vital == BY_ALIAS[alias].index


@pytest.mark.parametrize(
    ("line", "values"),
    [
        ("hr=78 bpm", {"heart_rate": 78}),
        ("hr=78bpm,rr=16/min", {"heart_rate": 78, "resp_rate": 16}),
        ("hr=+78.", {"heart_rate": 78}),
        ("temp=.5", {"temperature": 0.5}),
        ("cvp=-3", {"cvp_mean": -3}),
        ("bp=120/80(93)", {"nibp_systolic": 120, "nibp_diastolic": 80, "nibp_mean": 93}),
        ("bp=16/10.6kPa", {"nibp_systolic": 16, "nibp_diastolic": 10.6}),
        ("bp=120/80(93)mmHg", {"nibp_systolic": 120, "nibp_diastolic": 80, "nibp_mean": 93}),
        ("bp=", {"nibp_systolic": None, "nibp_diastolic": None}),
        ("bp=--/--", {"nibp_systolic": None, "nibp_diastolic": None}),
        ("bp=120/--", {"nibp_systolic": 120, "nibp_diastolic": None}),
        ("abp=120/80", {"abp_systolic": 120, "abp_diastolic": 80}),
        ("spo2=,hr=1", {"spo2": None, "heart_rate": 1}),
        ("spo2=-", {"spo2": None}),
        ("spo2=--", {"spo2": None}),
        ("spo2=?", {"spo2": None}),
        ("acvpu=C", {"consciousness": 1}),
        ("acvpu=u", {"consciousness": 4}),
        ("hr=78 hr=78 heart_rate=78", {"heart_rate": 78}),
        ('{"device":"bed-12","heart_rate":78}', {"heart_rate": 78}),
        ('{"hr":78.50,"spo2":null,"bp":"120/80"}',
         {"heart_rate": 78.5, "spo2": None, "nibp_systolic": 120, "nibp_diastolic": 80}),
        ("\t hr=78 \t", {"heart_rate": 78}),
    ],
)  # fmt: skip
def test_values_and_units_in_every_spelling(line: str, values: dict[str, float | None]) -> None:
    assert _values(line) == values


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"heart_rate=\xff", ("not-utf8", "")),
        (b"\x16\x03\x01\x02\x00", ("binary", "")),
        ("hello", ("no-fields", "")),
        ("hello world", ("no-fields", "")),
        ("temperature=36,9C", ("bad-field", "temperature")),
        ("hr=78 and spo2=95", ("bad-field", "hr")),
        ('name="Ada hr=78', ("bad-field", "")),
        ("hart_rate=78", ("unknown-field", "hart_rate")),
        ("hr\u0085x=1 a=2", ("no-fields", "")),
        ("hr=78 hr=79", ("duplicate-field", "hr")),
        ("hr=78 heart_rate=79", ("duplicate-field", "heart_rate")),
        ("device=a device=b", ("duplicate-field", "device")),
        ("temp=36C temp=37C@oral site=oral", ("duplicate-field", "site")),
        ("hr=seventy", ("bad-number", "heart_rate")),
        ("hr=NaN", ("bad-number", "heart_rate")),
        ("hr=inf", ("bad-number", "heart_rate")),
        ("hr=-Infinity", ("bad-number", "heart_rate")),
        ("hr=7.8.9", ("bad-number", "heart_rate")),
        ("hr=1234567890123", ("bad-number", "heart_rate")),
        ("hr=٧٨", ("bad-number", "heart_rate")),
        ("bp=120", ("bad-number", "bp")),
        ("bp=120/80/60", ("bad-number", "bp")),
        ("bp=120mmHg/80mmHg", ("bad-number", "bp")),
        ("hr=1e2", ("bad-unit", "heart_rate")),
        ("hr=78furlong", ("bad-unit", "heart_rate")),
        ("time=yesterday hr=78", ("bad-time", "time")),
        ("time=2026-11-23 hr=78", ("bad-time", "time")),
        ("time=2026-13-01T00:00:00Z hr=78", ("bad-time", "time")),
        ("time=2026-11-23910:00:00Z hr=78", ("bad-time", "time")),
        ("time=2026-11-23T10.5 hr=78", ("bad-time", "time")),
        ("time=2026-11-23T10 hr=78", ("bad-time", "time")),
        ("time=2026-W47-1T10:00 hr=78", ("bad-time", "time")),
        ("time=2026-11-23T10:00:00+24:00 hr=78", ("bad-time", "time")),
        ("time=٢026-11-23T10:00 hr=78", ("bad-time", "time")),
        ("acvpu=X", ("bad-value", "consciousness")),
        ("temp=37@elbow", ("bad-value", "site")),
        ("status=broken hr=1", ("bad-value", "status")),
        ("reply=maybe hr=1", ("bad-value", "reply")),
        ("sex=robot hr=1", ("bad-value", "sex")),
        ("dob=01.02.1970 hr=1", ("bad-value", "dob")),
        ("dob=1970-13-01 hr=1", ("bad-value", "dob")),
        ("dob=1970-W01-1 hr=1", ("bad-value", "dob")),
        ("dob=1970-01-01T00:00 hr=1", ("bad-value", "dob")),
        ("device= hr=1", ("bad-value", "device")),
        ("name=" + "x" * 257, ("bad-value", "name")),
        (" ".join(f"hr={i}" for i in range(65)), ("too-many-fields", "")),
        ('{"hr":78', ("bad-json", "")),
        ('{"hr":78} {"hr":79}', ("bad-json", "")),
        ('{"hr":[78]}', ("bad-json", "hr")),
        ('{"hr":{"value":78}}', ("bad-json", "hr")),
        ('{"a":' + "[" * 5000, ("bad-json", "")),
        ('{"hr":NaN}', ("bad-number", "")),
        ('{"hr":-Infinity}', ("bad-number", "")),
        ('{"hr":1e2}', ("bad-unit", "heart_rate")),
        ('{"hr":"78 bpm"}', ("bad-unit", "heart_rate")),
        ('{"hr":78}x', ("bad-json", "")),
        ('"hr"=78', ("bad-field", "")),
        ('name="a"b hr=1', ("bad-field", "")),
        ('name="a\\n" hr=1', ("bad-field", "")),
        ("hr=78. bpm", ("bad-field", "hr")),
        ("bp=120/80 mmHg", ("bad-field", "bp")),
        ("acvpu=1", ("bad-value", "consciousness")),
        ('{"hr":78,"hr":79}', ("duplicate-field", "hr")),
        ('{"hr":true}', ("bad-number", "heart_rate")),
        ('{"name":"\\ud800"}', ("not-utf8", "")),
        ('{"name":"a\\u0000b"}', ("binary", "name")),
        ('{"x\\ny":1}', ("unknown-field", "x?y")),
        ("{}", ("no-fields", "")),
    ],
)  # fmt: skip
def test_what_is_refused_and_why(line: bytes | str, reason: tuple[str, str]) -> None:
    assert _reason(line) == reason


@pytest.mark.parametrize("line", [b"", b"   ", b"\t", b",,"])
def test_a_blank_line_says_nothing(line: bytes) -> None:
    assert decode(line) is None


def test_a_site_is_for_temperatures_only_and_the_nearer_one_wins() -> None:
    said = _say("temp=37 hr=78 site=rectal")
    assert [m.site for m in said.measures] == [Site.RECTAL, Site.NONE]
    (measure,) = _say("temp=36.9C@oral site=rectal").measures
    assert measure == Measure(4, 36.9, "Cel", Site.ORAL)


def test_status_covers_the_line() -> None:
    assert _say("hr=1 status=demo").status == Status.TEST
    assert _say("hr=1 status=calibration").status == Status.CALIBRATION


def test_empty_and_unmentioned_are_two_things() -> None:
    assert _say("mrn= hr=1").patient == {"mrn": ""}
    assert _say("hr=1").patient == {}


def test_no_detail_repeats_what_was_sent() -> None:
    for line in ("hr=SECRET", "sex=SECRET hr=1", "dob=SECRET", "time=SECRET", "bp=SECRET/1"):
        refused = decode(line.encode())
        assert isinstance(refused, Refused)
        assert "SECRET" not in refused.detail + refused.field


@pytest.mark.parametrize(
    ("written", "hour"),
    [
        ("2026-11-23T10:00", 10),
        ("20261123T1000Z", 10),
        ("20261123T100000.123456789Z", 10),
        ("2026-11-23t10:00:00.5+01", 9),
        ("2026-11-23T10:00:00-0130", 11),
        ('"2026-11-23 10:00:00,25Z"', 10),
    ],
)
def test_times_in_every_form(written: str, hour: int) -> None:
    said = _say(f"hr=1 time={written}").time
    assert said is not None
    assert (said if said.tzinfo is None else said.astimezone(UTC)).hour == hour


def test_a_plain_number_has_nothing_after_it() -> None:
    assert parse_number("x", "-12.50") == -12.5
    for text in ("12.5%", "12 ", "1e2", "", "NaN", "1.2.3"):
        with pytest.raises(Refuse):
            parse_number("x", text)


def test_a_key_is_shown_short_and_in_printable_ascii() -> None:
    assert _reason("k" * 33 + "=1") == ("unknown-field", "k" * 32)
    assert _reason("\u00e5=1") == ("unknown-field", "?")


def test_a_day_is_told_as_iso_8601() -> None:
    assert _say("dob=19700102 hr=1").patient == {"birth_date": "1970-01-02"}


@pytest.mark.parametrize(
    "line",
    [
        "name=" + "a" * 8000 + '"',
        'a="' + "x" * 8000,
        'a="' * 2600,
        'a="' + "\\\\" * 4000,
        "bp=" + "(" * 8000,
        "a" * 8000,
        " ," * 4000 + '"',
        "{" + '"a":1,' * 1300,
        '{"a":' * 1600,
    ],
)
def test_no_line_costs_more_than_its_length(line: str) -> None:
    """A regular expression that begins again at every byte took 3 s for one of these."""
    began = time.process_time()
    assert isinstance(decode(line.encode()), Refused)
    assert time.process_time() - began < 0.25


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=120))
def test_noise_is_answered_never_raised(noise: bytes) -> None:
    assert isinstance(decode(noise), Said | Refused | None)


_words = st.sampled_from(
    ["hr=", "78", "spo2=95%", ",", " ", '"', "name=", "{", "}", "bp=1/2", "(3)", "@oral", "=", "\\"]
)


@settings(max_examples=500, deadline=None)
@given(st.lists(_words, max_size=12))
def test_shuffled_grammar_is_answered_never_raised(words: list[str]) -> None:
    found = decode("".join(words).encode())
    assert isinstance(found, Said | Refused | None)
    if isinstance(found, Refused):
        assert found.reason in Reason


def test_every_reason_is_described_in_the_protocol_page() -> None:
    from pathlib import Path

    import edge

    page = Path(str(edge.__file__)).with_name("PROTOCOL.md").read_text(encoding="utf-8")
    missing = [reason.value for reason in Reason if f"`{reason.value}`" not in page]
    assert not missing
    assert str(limits.LINE_FIELDS_MAX) in page
