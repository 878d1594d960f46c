"""``healthsync score``: a real process, lines in, lines out."""

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.detect.scores import command
from cloud.detect.scores.command import LINE_BYTES_MAX, answer
from healthsync import cli
from healthsync.runtime.exits import Exit

FULL = {
    "heart_rate": 78, "spo2": 97, "resp_rate": 16, "temperature": 36.8, "nibp_systolic": 120,
    "oxygen": False, "consciousness": "A",
}  # fmt: skip


def ask(*lines: Any, score: str = "news2") -> tuple[list[dict[str, Any]], list[str], int]:
    """Return answers, errors and the exit code; a line is text, or an object."""
    text = b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
    )
    out, errors = io.StringIO(), io.StringIO()
    code = answer(io.BytesIO(text), command.ANSWERS[score], out, errors)
    return list(map(json.loads, out.getvalue().splitlines())), errors.getvalue().splitlines(), code


def one(line: Any, score: str = "news2") -> dict[str, Any]:
    answers, errors, code = ask(line, score=score)
    assert errors == []
    assert code == Exit.OK
    assert len(answers) == 1
    return answers[0]


def refused(line: Any) -> str:
    answers, errors, code = ask(FULL, line, FULL)
    assert code == Exit.DEGRADED
    assert len(answers) == 3
    assert answers[0] == answers[2]
    assert answers[1].keys() == {"line", "error"}
    assert answers[1]["line"] == 2
    assert errors == [f"healthsync: line 2: {answers[1]['error']}"]
    return str(answers[1]["error"])


def test_a_process_answers_every_line_and_tells_by_its_exit_code() -> None:
    lines = [json.dumps(FULL), "{", json.dumps({"spo2": 91.5, "o2_flow": 2})]
    ended = subprocess.run(
        [sys.executable, "-m", "healthsync.cli", "score", "news2"],
        input="\n".join(lines), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == Exit.DEGRADED
    first, second, third = map(json.loads, ended.stdout.splitlines())
    assert first == {
        "total": 0,
        "bounds": [0, 0],
        "sub_scores": dict.fromkeys(
            ["resp_rate", "spo2", "oxygen", "systolic", "pulse", "consciousness", "temperature"], 0
        ),
        "band": "low",
        "missing": [],
    }
    assert second["line"] == 2
    assert third == {
        "total": None,
        "bounds": [4, 19],
        "sub_scores": {"spo2": 2, "oxygen": 2},
        "band": None,
        "missing": ["resp_rate", "systolic", "pulse", "consciousness", "temperature"],
    }
    assert ended.stderr.splitlines() == [
        'healthsync: line 2: not JSON; give one object a line, such as {"spo2": 96}'
    ]


def test_of_a_file_and_all_right(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(json.dumps(FULL | {"resp_rate": 30}))
    assert cli.main(["score", "qsofa", str(file)]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["total"] == 1
    assert cli.main(["score", "qsofa", str(tmp_path / "none")]) == Exit.USAGE
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize("letter", "ACVPUacvpu")
def test_consciousness_by_its_letter(letter: str) -> None:
    points = one(FULL | {"consciousness": letter})["sub_scores"]["consciousness"]
    assert points == (0 if letter in "Aa" else 3)


@pytest.mark.parametrize(
    ("said", "points"),
    [
        ({"oxygen": True}, 2),
        ({"oxygen": False}, 0),
        ({"o2_flow": 0.5}, 2),
        ({"o2_flow": 0.01}, 2),
        ({"o2_flow": 0}, 0),
        ({"fio2": 22}, 2),
        ({"fio2": 21}, 0),
        ({"fio2": 21.2}, 2),
        ({"fio2": 40, "o2_flow": 0}, 2),
        ({"oxygen": True, "fio2": 40, "o2_flow": 0}, 2),
        ({"oxygen": False, "fio2": 21, "o2_flow": 0}, 0),
        ({"oxygen": None}, None),
        ({}, None),
    ],
)
def test_oxygen_as_charted_or_as_a_flow_says(said: dict[str, Any], points: int | None) -> None:
    got = one({name: value for name, value in FULL.items() if name != "oxygen"} | said)
    assert got["sub_scores"].get("oxygen") == points
    assert got["missing"] == ([] if points is not None else ["oxygen"])


@pytest.mark.parametrize(("scale", "points"), [(None, 3), (1, 3), (2, 0)])
def test_the_scale_is_1_unless_given(scale: int | None, points: int) -> None:
    assert one(FULL | {"spo2": 90, "spo2_scale": scale})["sub_scores"]["spo2"] == points


@pytest.mark.parametrize(
    ("number", "points"),
    [
        (b"35.05", 1), (b"35.04", 3), (b"35.049999999999999999999999999999999999999", 3),
        (b"39.05", 2),
    ],
)  # fmt: skip
def test_numbers_are_rounded_as_written_not_as_binary(number: bytes, points: int) -> None:
    got = one(b'{"temperature": ' + number + b"}")
    assert got["sub_scores"] == {"temperature": points}


def test_whatever_is_null_is_not_measured_and_other_vitals_are_let_be() -> None:
    assert one({"spo2": None, "nibp_diastolic": 80, "etco2": 35, "consciousness": None}) == one({})


def test_not_for_children_nor_for_pregnant_patients() -> None:
    for said, word in (
        ({"age_years": 15.9}, "under_16"), ({"age_years": 0}, "under_16"),
        ({"pregnant": True}, "pregnant"),
    ):  # fmt: skip
        got = one(FULL | said)
        assert (got["total"], got["band"], got["not_applicable"]) == (None, None, word)
    for fine in ({"age_years": 16}, {"pregnant": False}, {"age_years": 150}):
        assert one(FULL | fine) == one(FULL)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ({"sbp": 120}, ["'sbp'", "nibp_systolic"]),
        ({"systolic": 120}, ["'systolic'", "nibp_systolic"]),
        ({"HR": 80}, ["'HR'", "heart_rate"]),
        ({"nope": 1}, ["'nope'", "vitals/codes.py"]),
        ({"n" * 100: 1}, ["n" * 40 + "'"]),
        ({"spo2": "97"}, ["spo2 is not a number", "%"]),
        ({"spo2": True}, ["spo2 is not a number"]),
        ({"spo2": [97]}, ["spo2 is not a number"]),
        (b'{"spo2": NaN}', ["spo2 is not a number"]),
        (b'{"spo2": Infinity}', ["spo2 is not a number"]),
        ({"spo2": 101}, ["spo2 is outside 0 to 100 %"]),
        ({"spo2": -1}, ["spo2 is outside"]),
        (b'{"spo2": 1e999999}', ["spo2 is outside"]),
        ({"temperature": 98.6}, ["temperature is outside 14.2 to 47 Cel", "unit"]),
        ({"fio2": 0.4}, ["fio2 is outside 15 to 100 %"]),
        ({"consciousness": "X"}, ["consciousness", "A, C, V, P, U"]),
        ({"consciousness": "ALERT"}, ["consciousness"]),
        ({"consciousness": ""}, ["consciousness"]),
        ({"consciousness": 0}, ["consciousness"]),
        ({"oxygen": 1}, ["oxygen is neither true nor false"]),
        ({"oxygen": "no"}, ["oxygen is neither"]),
        ({"pregnant": "no"}, ["pregnant is neither"]),
        ({"oxygen": False, "o2_flow": 2}, ["oxygen contradicts"]),
        ({"oxygen": False, "fio2": 40}, ["oxygen contradicts"]),
        ({"oxygen": True, "o2_flow": 0}, ["oxygen contradicts"]),
        ({"spo2_scale": 3}, ["spo2_scale is neither 1 nor 2"]),
        ({"spo2_scale": True}, ["spo2_scale is neither"]),
        ({"spo2_scale": "2"}, ["spo2_scale is neither"]),
        ({"age_years": -1}, ["age_years"]),
        ({"age_years": 151}, ["age_years"]),
        ({"age_years": "12"}, ["age_years"]),
        (b'{"spo2": 97, "spo2": 80}', ["twice"]),
        (b"[1]", ["not a JSON object"]),
        (b"97", ["not a JSON object"]),
        (b"{", ["not JSON"]),
        (b"\xff{}", ["not JSON"]),
        (b"[" * 10_000, ["not JSON"]),
    ],
)
def test_what_is_wrong_is_named_with_the_next_step(line: Any, words: list[str]) -> None:
    said = refused(line)
    for word in words:
        assert word in said


def test_a_refusal_does_not_repeat_the_value() -> None:
    assert "4711" not in refused({"heart_rate": 4711})
    assert "4711" not in refused({"heart_rate": "4711"})


def test_a_line_as_long_as_may_be_and_one_longer() -> None:
    fill = LINE_BYTES_MAX - len(b"{}")
    assert one(b"{" + b" " * fill + b"}") == one({})
    assert "16384 bytes" in refused(b"{" + b" " * (fill + 1) + b"}")
    assert "16384 bytes" in refused(b"{" + b" " * (LINE_BYTES_MAX * 3) + b"}")


def test_blank_lines_are_counted_but_not_answered() -> None:
    answers, _, code = ask(b"", b"{}", b"  ", b"!")
    assert [min(got) for got in answers] == ["band", "error"]
    assert answers[1]["line"] == 4
    assert code == Exit.DEGRADED


def test_qsofa_and_shock_in_the_same_form() -> None:
    got = one({"resp_rate": 22, "abp_systolic": 100}, "qsofa")
    assert got == {
        "total": None, "bounds": [2, 3], "sub_scores": {"resp_rate": 1, "systolic": 1},
        "band": "high", "missing": ["consciousness"],
    }  # fmt: skip
    got = one({"pulse_rate": 120, "abp_systolic": 100}, "shock")
    assert got == {
        "total": 1.2, "bounds": [1.2, 1.2], "sub_scores": {}, "band": "high", "missing": [],
    }  # fmt: skip
    got = one({"pulse_rate": 120}, "shock")
    assert (got["total"], got["bounds"], got["missing"]) == (None, None, ["systolic"])


_ANY: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, False, 0, 1, 2, 21, 36.8, 97, 1e300, -1, float("nan"), "A", "u", "", [], {}, [1]]
)
_FIELDS = st.sampled_from([*FULL, "spo2_scale", "age_years", "pregnant", "o2_flow", "x"])


@given(st.lists(st.dictionaries(_FIELDS, _ANY, max_size=4) | st.binary(max_size=40), max_size=6))
def test_whatever_comes_every_line_is_answered(lines: list[Any]) -> None:
    lines = [line.replace(b"\n", b"") if isinstance(line, bytes) else line for line in lines]
    blank = sum(isinstance(line, bytes) and not line.strip() for line in lines)
    for score in command.ANSWERS:
        answers, errors, code = ask(*lines, score=score)
        assert len(answers) == len(lines) - blank
        assert len(errors) == sum("error" in got for got in answers)
        assert (code == Exit.DEGRADED) == bool(errors)
