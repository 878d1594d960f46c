"""What edge/PROTOCOL.md says is so: its grammar in both directions, its tables, its examples."""

import json
import random
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edge
from edge import normalize, skew
from edge.admission import Caller
from edge.bedside import LineTalk, reply
from edge.decode_line import PRESSURES, Said, decode, moment
from edge.normalize import UNITS, Measure, settle
from edge.refusal import Reason, Refused
from edge.setting import Setting
from tests.edge.abnf import Grammar
from vitals import limits
from vitals.codes import BY_ALIAS, VITALS, Absence, Status, TimeSource
from vitals.reading import DeviceAlert

PAGE = Path(str(edge.__file__)).with_name("PROTOCOL.md").read_text(encoding="utf-8")


def _block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(found)


GRAMMAR = Grammar(_block("abnf"))


LINE = re.compile(GRAMMAR.node("line").pattern())
FIELDS = sorted(name for name in GRAMMAR.rules if name.endswith("-field"))
IMPOSSIBLE = {Reason.BAD_TIME, Reason.BAD_VALUE}
"""A 13th month: the grammar says that a day must be one of the calendar."""


def _decode(line: str) -> Said | Refused | None:
    return decode(line.encode())


def _taken(line: str) -> bool:
    """Tell whether a line becomes readings: decoded and settled."""
    entries = LineTalk(Caller(""), Setting()).receive(line.encode() + b"\n", 0)
    return bool(entries) and not entries[0].rejected


def test_every_rule_is_used_and_every_kind_of_field_is_listed() -> None:
    assert set(GRAMMAR.rules) <= GRAMMAR.asked_for()
    assert sorted(re.findall(r"[a-z]+-field", GRAMMAR.rules["field"])) == FIELDS


@pytest.mark.parametrize("name", FIELDS)
def test_what_a_rule_makes_is_taken(name: str) -> None:
    rng, node, taken = random.Random(name), GRAMMAR.node(name), 0
    for _ in range(300):
        field = node.make(rng)
        found = _decode(field)
        if isinstance(found, Refused) and name in {"time-field", "birth-field"}:
            assert found.reason in IMPOSSIBLE
            continue
        assert isinstance(found, Said), (field, found)
        assert _taken(field), field
        taken += 1
    assert taken >= 30


def test_what_the_grammar_makes_is_taken_or_contradicts_itself() -> None:
    rng, node, taken = random.Random(1), GRAMMAR.node("fields"), 0
    for _ in range(1500):
        line = node.make(rng)
        found = _decode(line)
        if isinstance(found, Refused):
            assert found.reason in {Reason.DUPLICATE_FIELD, *IMPOSSIBLE}, (line, found)
        taken += isinstance(found, Said)
    assert taken >= 500


def test_an_object_of_the_grammar_is_read_as_json() -> None:
    rng, node = random.Random(2), GRAMMAR.node("object")
    for _ in range(1000):
        line = node.make(rng)
        assert json.loads(line, parse_int=str, parse_float=str, strict=False) is not None
        found = _decode(line)
        assert not isinstance(found, Refused) or found.reason != Reason.BAD_JSON, line


_PIECES = st.sampled_from(
    [*"\",=@/(){}[]:.+-% \t\\#\u00a0\u2003\u00e5_", "hr", "HR", "=78", "78", "bp=120/80", "(93)",
     "temp=36.9", "C", "\u00b0F", "@oral", "kPa", "mmHg", "bpm", "name=", '"Ada Ng"', "mrn=M1",
     "device=", "dob=1970-01-01", "time=2026-11-23T10:00:00Z", "time=", "T10:00", "20261123",
     "+01:00", "sex=F", "site=ear", "acvpu=a", "status=test", "reply=yes", "--", "?", "null",
     "true", '{"hr":', '"hr"', "1e5", "\\u0041", "spo2=", "ward=x"]
)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(st.lists(_PIECES, max_size=8).map("".join))
def test_what_is_taken_is_in_the_grammar(line: str) -> None:
    if _taken(line) or _decode(line) is None:
        assert LINE.fullmatch(line), line


def test_what_is_taken_after_one_change_is_in_the_grammar() -> None:
    rng, taken = random.Random(3), 0
    for name in ("fields", "object"):
        node = GRAMMAR.node(name)
        for _ in range(4000):
            line = node.make(rng)
            at = rng.randint(0, len(line))
            put = rng.choice(["", *'=,"@ .9x(\t-\\'])
            changed = line[:at] + put + line[at + rng.randint(0, 1) :]
            if isinstance(_decode(changed), Said):
                assert LINE.fullmatch(changed), changed
                taken += 1
    assert taken >= 500


def test_the_grammar_names_every_alias_and_no_other() -> None:
    names = [GRAMMAR.rules[f"{kind}-name"] for kind in
             ("rate", "percent", "flow", "pressure", "temp", "acvpu")]  # fmt: skip
    assert sorted(re.findall(r'"([^"]+)"', " ".join(names))) == sorted(BY_ALIAS)
    assert re.findall(r'"([^"]+)"', GRAMMAR.rules["pair-name"]) == list(PRESSURES)


# A plain model -------------------------------------------------------------------------------

_numbers = st.decimals(-50, 400, places=2, allow_nan=False).map(str)
_by_unit: dict[str, list[str]] = {}
for _written, _ucum in UNITS.items():
    _by_unit.setdefault(_ucum, []).append(_written)
_CONVERTED = {"Cel": "[degF]", "mm[Hg]": "kPa"}


@st.composite
def _one(draw: st.DrawFn) -> tuple[str, Measure]:
    vital = draw(st.sampled_from([v for v in VITALS if v.name != "consciousness"]))
    name = draw(st.sampled_from([vital.name, *vital.aliases]))
    number = draw(_numbers)
    ucum = draw(st.sampled_from([vital.unit, _CONVERTED.get(vital.unit, vital.unit), ""]))
    written = draw(st.sampled_from(_by_unit[ucum])) if ucum else ""
    form = draw(st.sampled_from(["{}{}", '"{}{}"', "{} {}", '"{}" {}']))
    if not ucum:
        form = form.replace(" {}", "{}")
    field = f"{name.swapcase()}={form.format(number, written.upper())}"
    return field, Measure(vital.index, float(number), ucum)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(_one(), min_size=1, max_size=6, unique_by=lambda one: one[1].vital),
    st.sampled_from([" ", ", ", ",", "  ,\t"]),
)
def test_a_valid_line_means_what_a_plain_reading_of_it_means(
    ones: list[tuple[str, Measure]], sep: str
) -> None:
    said = _decode(sep.join(field for field, _ in ones))
    assert said == Said(measures=tuple(measure for _, measure in ones))


@settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "device": st.text('abc-\u00e5 ,"\\', min_size=1).filter(str.strip),
            "mrn": st.text("M1 '=", max_size=5),
            "name": st.text(max_size=20).filter(lambda t: t.isprintable() and t.strip() == t),
            "bed": st.integers(0, 99),
            "heart_rate": st.integers(0, 300),
            "spo2": st.none() | st.integers(0, 100),
            "temp": st.decimals(20, 45, places=1, allow_nan=False).map(float),
            "reply": st.booleans(),
        },
    ).filter(bool)
)
def test_an_object_means_what_its_fields_mean(fields: dict[str, str | float | bool | None]) -> None:
    def plain(value: str | float | bool | None) -> str:
        if value is None or isinstance(value, bool):
            return {None: "", True: "yes", False: "no"}[value]
        if isinstance(value, str):
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        return str(value)

    line = " ".join(f"{key}={plain(value)}" for key, value in fields.items())
    assert _decode(json.dumps(fields)) == _decode(line)
    assert isinstance(_decode(line), Said)


# Tables and numbers --------------------------------------------------------------------------


def test_the_table_of_vital_signs_is_the_code_table() -> None:
    rows = [
        f"| `{v.name}` | {', '.join(f'`{a}`' for a in v.aliases)} | {v.unit} |"
        f" {v.low:g} to {v.high:g} | {v.decimals} |"
        for v in VITALS
    ]
    assert "\n".join(rows) in PAGE


def test_every_unit_of_the_page_is_converted_as_it_says_and_none_is_left_out() -> None:
    units = PAGE[PAGE.index("| for | written") : PAGE.index("**No value**")]
    taken = set()
    for row in units.splitlines()[2:]:
        if not row.startswith("|"):
            continue
        _, for_, written, factor, _ = (cell.strip() for cell in row.split("|"))
        vital = next(v for v in VITALS if v.unit == for_ and v.name != "consciousness")
        for unit in re.findall(r"`([^`]+)`", written):
            taken.add(unit.lower())
            middle = (vital.low + vital.high) / 2
            number = {"kPa": middle / 7.5, "(t": middle * 1.8 + 32}.get(
                unit if unit == "kPa" else factor[:2], middle
            )
            expected = {"kPa": number / 0.133322387415, "(t": (number - 32) * 5 / 9}.get(
                unit if unit == "kPa" else factor[:2], number
            )
            value, _, _ = settle(vital.index, number, UNITS[unit.lower()])
            assert value == pytest.approx(expected), unit
    assert taken == set(UNITS) - {"{score}"}


@pytest.mark.parametrize(
    "said",
    [
        f"{limits.LINE_BYTES_MAX} bytes",
        f"{limits.LINE_FIELDS_MAX} fields",
        f"{limits.TEXT_CHARS_MAX} characters",
        f"half a line for {limits.HALF_LINE_S_MAX:g} s",
        f"{limits.LINE_IDLE_S_MAX:g} s of silence",
        f"steadily off by over {skew.SKEW_MS_MIN // 1000} s",
        f"after {skew.STEADY_MS // 1000} s and {skew.STEADY_POINTS} lines",
        f"before {datetime.fromtimestamp(skew.TIME_FLOOR_MS / 1000, UTC).year}",
        "(7010,",
        "(7011)",
    ],
)
def test_every_number_of_the_page_is_the_programs(said: str) -> None:
    assert said in PAGE


def test_every_reason_status_and_source_is_on_the_page() -> None:
    words = [reason.value for reason in Reason]
    words += [status.name.lower() for status in Status]
    words += [source.name.lower() for source in TimeSource]
    words += [a.name.lower().replace("_", "-") for a in Absence if a is not Absence.NONE]
    words += [f"{number:g}" for number in normalize.SENTINELS if number != 8388607]
    missing = [word for word in words if f"`{word}`" not in PAGE and f"{word}" not in PAGE]
    assert not missing
    assert "8388607" in PAGE


def test_every_field_of_an_alert_is_on_the_page() -> None:
    at = PAGE.index("| `device_alert` |")
    row = PAGE[at : PAGE.index("\n", at)]
    renamed = {"time_ms": "time", "received_ms": "received", "kind": "type"}
    for field in DeviceAlert.__struct_fields__:
        assert f"`{renamed.get(field, field)}`" in row


# Examples ------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", _block("line").splitlines())
def test_every_example_is_taken(line: str) -> None:
    assert isinstance(_decode(line), Said)
    assert LINE.fullmatch(line)


@pytest.mark.parametrize("example", _block("refused").splitlines())
def test_every_example_of_a_refusal_is_refused_as_it_says(example: str) -> None:
    line, _, expected = example.rpartition(" -> ")
    found = _decode(line) if "kPa" not in line else None
    if found is None:  # a unit is known by the decoder, and refused where it is settled
        (entry,) = LineTalk(Caller(""), Setting()).receive(line.encode() + b"\n", 0)
        assert reply(entry).startswith(f"rejected {expected}:".encode())
        return
    assert isinstance(found, Refused)
    assert f"{found.reason} {found.field or '-'}" == expected


def test_the_commands_shown_print_what_is_shown() -> None:
    shown = re.split(r"^\$ ", _block("console"), flags=re.MULTILINE)[1:]
    assert shown
    for one in shown:
        command, _, expected = one.partition("\n")
        assert " healthsync " in command
        done = subprocess.run(
            ["sh", "-c", command.replace(" healthsync ", f" {sys.executable} -m healthsync.cli ")],
            capture_output=True,
            text=True,
            check=False,
            timeout=20,
            cwd=Path(str(edge.__file__)).parents[1],
        )
        assert done.stdout == expected
        assert done.returncode == (1 if '"rejected"' in expected else 0)
        assert done.stderr == ""


def test_times_of_the_page_are_times() -> None:
    assert moment("2026-11-23T10:00:00Z") - moment("20261123T090000+0000") == timedelta(hours=1)
