"""A line of known words means what the plain decoder says it means, and costs a bounded memory."""

import tracemalloc
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import bedside, words
from edge.admission import Caller
from edge.bedside import LineTalk
from edge.entry import Entry
from edge.moment import MARKED, Row, layout_of
from edge.setting import Setting
from edge.words import WORD_CHARS_MAX, WORDS_MAX, Words
from vitals.codes import BY_ALIAS, VITALS, Absence, Status
from vitals.columns import scaled

NOW = 1_795_428_000_000


def _rows(line: str, known: Words | None = None) -> list[tuple[object, ...]] | None:
    """Return the rows without the scaled value, which is a matter of the others."""
    read = (known or Words()).read(line)
    return None if read is None else [_plain(row) for row in read[0]]


def _plain(row: Row) -> tuple[object, ...]:
    *plain, stored = row
    assert stored == scaled(row[0], row[1])
    return tuple(plain)


def test_a_known_word_is_settled() -> None:
    assert _rows("hr=78, oxygen=95%, temp=36.9C@oral bp=120/-1 cvp=-999 rr=999") == [
        (0, 78, 0, 0, 0, 0),
        (2, 95, 0, 0, 0, 0),
        (4, 36.9, 0, 1, 0, 0),
        (5, 120, 0, 0, 0, 0),
        (6, None, Status.MISSING, 0, 0, Absence.SENTINEL),
        (11, None, Status.MISSING, 0, 0, Absence.SENTINEL),
        (3, None, Status.IMPLAUSIBLE, 0, 0, Absence.OUT_OF_RANGE),
    ]


def test_commas_without_spaces_and_spaces_without_commas_are_the_same() -> None:
    for line in (
        "hr=78,rr=16",
        "hr=78, rr=16",
        "hr=78 rr=16",
        " ,hr=78,, rr=16 ,",
        "hr=78 , rr=16",
    ):
        assert _rows(line) == [(0, 78, 0, 0, 0, 0), (3, 16, 0, 0, 0, 0)], line


@pytest.mark.parametrize(
    "line",
    [
        "hr=78 hr=79",
        "hr=78 hr=78",
        "temp=36@oral temp=37@rectal",
        "hr=78 bpm",
        "hr=78\trr=16",
        "hr=78\u00a0rr=16",
        "hr=78\x0brr=16",
        "h\u0131=78",
        "hr=x",
        "hr=78kPa",
        "hello",
        "foo=1",
        "device=a hr=78",
        "mrn= hr=78",
        "status=test hr=78",
        "site=oral temp=36",
        "reply=yes hr=78",
        "TIME=2026-11-23T10:00:00Z hr=1",
        "time=2026-11-23T10:00:00,5 hr=1",
        "time=2026-11-23T10:00:00Z time=2026-11-23T10:00:00Z hr=1",
        '{"hr":78}',
    ],
)
def test_what_needs_more_than_known_words_is_left_to_the_plain_decoder(line: str) -> None:
    assert Words().read(line) is None


def test_the_time_is_handed_on_as_it_is_written() -> None:
    for line, time in (
        ("hr=78 time=2026-11-23T10:00:00Z,", "2026-11-23T10:00:00Z"),
        ("time= hr=1", ""),
        ("hr=1", None),
    ):
        read = Words().read(line)
        assert read is not None
        assert read[1] == time


def test_the_layout_tells_what_a_line_speaks_of_and_not_in_which_order() -> None:
    lines = ["hr=78", "rr=16", "hr=78 rr=16", "temp=37", "temp=37@oral", "temp=37@rectal"]
    found = {line: read[2] for line in lines if (read := Words().read(line)) is not None}
    assert len(set(found.values())) == len(lines)
    again = Words().read("rr=12, hr=40")
    assert again is not None
    assert again[2] == found["hr=78 rr=16"]
    assert found["hr=78 rr=16"] == 1 << 0 | 1 << 3
    assert not layout_of((0, 78, 0, 0, 0, 0, 78)) & MARKED
    for status, site, channel, reason in ((1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)):
        assert layout_of((0, 78, status, site, channel, reason, 78)) & MARKED


@pytest.mark.parametrize("line", ["", " ", ",", ", ,"])
def test_a_blank_line_has_no_rows(line: str) -> None:
    assert _rows(line) == []


def test_words_are_read_once_and_then_known(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Words()
    expected = _rows("hr=78, bp=120/80", known)
    monkeypatch.setattr(words, "decode", None)
    assert _rows("hr=78, bp=120/80", known) == expected
    with pytest.raises(TypeError):
        _rows("hr=79", known)


def test_words_are_bounded_and_those_in_use_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    known = Words(words_max=100)
    for number in range(1000):
        assert _rows(f"map={number / 4} hr=78", known) is not None
        assert len(known) <= 200
    monkeypatch.setattr(words, "decode", None)
    assert _rows("hr=78 map=249.75", known) == [(0, 78, 0, 0, 0, 0), (7, 249.75, 0, 0, 0, 0)]


def test_a_word_is_one_field_and_not_a_long_one() -> None:
    known = Words()
    at = "bp=120/80" + "," * (WORD_CHARS_MAX - 9)
    for line in (at, at + ",", "hr=78,rr=16", "spo2=95\ttemp=36", "," * 8192):
        known.read(line)
    remembered = set(known._known)
    assert {at, "bp=120/80", "hr=78", "rr=16"} < remembered
    assert not {at + ",", "hr=78,rr=16", "spo2=95\ttemp=36"} & remembered
    assert max(map(len, remembered)) == WORD_CHARS_MAX


def test_a_degree_sign_and_quotation_marks_are_known_too() -> None:
    assert _rows('temp=36.9\u00b0C, hr="78"') == [(4, 36.9, 0, 0, 0, 0), (0, 78, 0, 0, 0, 0)]


def test_words_that_only_an_attacker_sends_hold_a_few_megabytes() -> None:
    known = Words()
    tracemalloc.start()
    try:
        for number in range(2 * WORDS_MAX - 4):
            known.read(f"bp={number}.000000001/{number}.0(0.0)mmHg,,,,,,,,,")
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(known) > 2 * WORDS_MAX - 8
    assert held < 8 * 1024 * 1024


# The short way and the plain way ---------------------------------------------------------


class Plain(LineTalk):
    """Takes the plain way with every line."""

    __slots__ = ()

    def _quick(self, line: bytes, received_ms: int) -> Entry | None:
        return None


def _entries(talk: LineTalk, lines: list[str]) -> list[tuple[object, ...]]:
    found = talk.receive("".join(line + "\n" for line in lines).encode(), NOW)
    return [(e.source, e.readings, e.rejected, e.size, e.answer and e.answer(None)) for e in found]


def _both(lines: list[str]) -> None:
    quick, plain = (
        talk(Caller("10.0.0.9"), Setting("W1", ZoneInfo("Europe/Berlin")))
        for talk in (LineTalk, Plain)
    )
    for line in lines * 2:  # the second time the words and the prefix are known
        assert _entries(quick, [line]) == _entries(plain, [line]), line


NAMING = ["device=a", "device=b", "mrn=M1", "mrn=M2", "mrn=", "name=Ada", 'name="Ada Ng"',
          'name="A \\" hr=5"', "dob=1970-01-01", "sex=f", "bed=3", "bed=", "ward=W2", "ward=",
          "DEVICE=a", "name=\u00c5sa", "name=x\u00a0hr=5", "device=a\u2003rr=4"]  # fmt: skip
SAYING = ["hr=78", "hr=79", "HR=78", "oxygen=95%", "temp=36.9C@oral", "temp=98F", "bp=120/80",
          "bp=1/2(3)", "bp=--/--", "rr=-1", "rr=",
          "cvp=kPa", "hr=78bpm", "hr=1e2", 'hr="78"', "spo2=?"]  # fmt: skip
OTHER = ["bpm", "C", "site=ear", "site=", "status=test", "status=ok", "reply=yes", "reply=no", '"',
         "time=2026-11-23T10:00:00Z", "time=2026-11-23T10:00:00", "time=x", "time=", "hello", "=",
         "time=2026-11-23T10:00:00,5", "x=1", "\t", "\x0b", "\u0085",
         "\u00e5", "{", "a=b=c"]  # fmt: skip

_words = st.one_of(
    st.sampled_from(SAYING), st.sampled_from(SAYING + NAMING), st.sampled_from(OTHER + NAMING)
)
_line = st.builds(
    lambda head, rest, sep: sep.join([*head, *rest]),
    st.sampled_from([[], [], ["device=a", "mrn=M1"], ["device=a", 'name="Ada Ng"', "bed=3"]]),
    st.lists(_words, max_size=6),
    st.sampled_from([" ", ", ", ",", "  ", " ,"]),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(_line, min_size=1, max_size=6))
def test_the_short_way_ends_in_the_same_as_the_plain_one(lines: list[str]) -> None:
    _both(lines)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(sorted(BY_ALIAS)), max_size=6), st.integers(-1000, 1000))
def test_every_alias_goes_both_ways(names: list[str], number: int) -> None:
    _both([" ".join(f"{name}={number / 10}" for name in names)])


@pytest.mark.parametrize(
    "line", ["device=a mrn=M1 hr=78", "device=a hr=78 mrn=M1", "hr=1 device=b"]
)
def test_naming_words_are_followed_wherever_they_stand(line: str) -> None:
    _both([line, "hr=2", "device=a mrn=M1 hr=3", "mrn=M2 hr=4", "device=a mrn=M1 hr=5"])


def test_a_long_prefix_is_read_again_each_time() -> None:
    name = "x" * bedside.PREFIX_BYTES_MAX
    _both([f"device=a name={name} hr=1", f"device=a name={name} hr=2", "hr=3"])


def test_a_usual_line_takes_the_short_way(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = LineTalk(Caller("10.0.0.9"), Setting())
    for line in (
        "device=bed-12 mrn=M000123 heart_rate=78, oxygen=95%, temperature=36.9C, bp=120/80",
        'device=bed-12 mrn=M000123 name="Ada Ng" bed=3 hr=78 time=2026-11-23T10:00:00Z',
        "hr=78,rr=16",
    ):
        first = _entries(talk, [line])
        with monkeypatch.context() as patched:
            patched.setattr(bedside, "decode", None)
            assert _entries(talk, [line]) == first


def test_a_plain_line_in_between_does_not_end_the_short_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    talk = LineTalk(Caller("10.0.0.9"), Setting())
    first = _entries(talk, ["device=a mrn=M1 hr=78"])
    _entries(talk, ["hr=79 bpm"])
    monkeypatch.setattr(bedside, "decode", None)
    assert _entries(talk, ["device=a mrn=M1 hr=78"]) == first


def test_there_is_a_bit_for_every_vital_sign() -> None:
    """A vital said twice is found by its bit: no two may share one."""
    known = Words()
    for vital in VITALS:
        value = "A" if vital.name == "consciousness" else "50"
        known.read(f"{vital.name}={value}")
        assert known.read(f"{vital.name}={value} {vital.name}={value}") is None
    names = " ".join(f"{v.name}=50" for v in VITALS if v.name != "consciousness")
    assert len(_rows(names, known) or []) == len(VITALS) - 1
