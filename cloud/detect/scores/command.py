"""``healthsync score news2|qsofa|shock [FILE]``: a score of each JSON line, as detect computes it.

Law: every line is answered by one line, in order. A line that is wrong is answered by what is wrong
with it and what to do; nothing is guessed, clamped or renamed. Everything in a line is of now, so
that nothing is stale. Answers hold a score, never a name; a refusal names a field, never its value.

Input, one JSON object a line:

================  ===========================================================================
field             value
================  ===========================================================================
a vital's name    a number in its unit (`vitals.codes`); null or left out: not measured
consciousness     ``A`` ``C`` ``V`` ``P`` ``U``, or their small letters
oxygen            true or false; left out: o2_flow and fio2 tell, or nobody knows
spo2_scale        1 (also when left out) or 2, as a clinician decided
age_years         a number; under 16 NEWS2 does not apply
pregnant          true or false; NEWS2 does not apply
================  ===========================================================================

Output: ``total`` (null when anything is missing), ``bounds`` [lowest, highest] (of the shock index
null when there is no value), ``sub_scores``, ``band``, ``missing``, and ``not_applicable`` where a
score is not for this patient. A refusal: ``line``, ``error``; on stderr too.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, BinaryIO, Final, Literal, TextIO

from cloud.detect.scores import news2, qsofa, shock
from cloud.detect.scores.parameters import (
    AIR_FIO2,
    Charted,
    Score,
    Snapshot,
    charted_value,
)
from healthsync.runtime.exits import Exit
from healthsync.runtime.lines import add_file, numbered, read
from vitals.codes import BY_ALIAS, BY_NAME, VITALS, Consciousness

LINE_BYTES_MAX: Final = 16 * 1024
"""Room for every field many times over; a longer line is no set of observations."""
AGE_YEARS_MAX: Final = 150
ADULT_FROM_YEARS: Final = 16
"""NEWS2 is not for patients under 16 (RCP 2017)."""

_NOW_MS: Final = 0
"""Everything in a line is of one time; which one does not matter."""
_CONSCIOUSNESS: Final = {level.name[0]: level for level in Consciousness}
_OTHERS: Final = ("oxygen", "spo2_scale", "age_years", "pregnant")


class Wrong(Exception):
    """A line that gives no score; says why and what to do."""


def register(parser: argparse.ArgumentParser) -> None:
    """Add one subcommand a score."""
    scores = parser.add_subparsers(dest="score", required=True, metavar="SCORE")
    for name, text in (
        ("news2", "National Early Warning Score 2 (RCP 2017)"),
        ("qsofa", "quick SOFA (Sepsis-3, 2016)"),
        ("shock", "shock index: pulse by systolic pressure"),
    ):
        sub = scores.add_parser(name, help=text, description=text)
        add_file(sub)
        sub.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Answer every line; return OK when all were right, DEGRADED when one was not."""
    scored = ANSWERS[options.score]
    return read(options.file, lambda stream: answer(stream, scored, sys.stdout, sys.stderr))


Answer = dict[str, Any]


def answer(
    stream: BinaryIO, scored: Callable[[Snapshot], Answer], out: TextIO, errors: TextIO
) -> int:
    """Write one answer a line that is not blank, each as soon as it is known."""
    code = Exit.OK
    for number, line in numbered(stream, LINE_BYTES_MAX):
        try:
            made = scored(snapshot_of(line))
        except Wrong as wrong:
            code = Exit.DEGRADED
            made = {"line": number, "error": str(wrong)}
            print(f"healthsync: line {number}: {wrong}", file=errors)
        out.write(json.dumps(made) + "\n")
        out.flush()
    return code


def snapshot_of(line: bytes) -> Snapshot:
    """Return what a line says; raise Wrong."""
    said = _object(line)
    values: dict[int, Charted] = {}
    for name, value in said.items():
        if name == "consciousness":
            if value is not None:
                values[BY_NAME[name].index] = Charted(_consciousness(value), _NOW_MS)
        elif name in BY_NAME:
            if value is not None:
                values[BY_NAME[name].index] = Charted(_number(name, value), _NOW_MS)
        elif name not in _OTHERS:
            raise Wrong(_unknown(name))
    oxygen = _boolean(said, "oxygen")
    _agree(values, oxygen=oxygen)
    age = said.get("age_years")
    return Snapshot(
        values,
        None if oxygen is None else Charted(int(oxygen), _NOW_MS),
        _scale(said),
        under_16=age is not None and _age(age) < ADULT_FROM_YEARS,
        pregnant=_boolean(said, "pregnant") is True,
    )


def _object(line: bytes) -> Mapping[str, Any]:
    if len(line.rstrip(b"\r\n")) > LINE_BYTES_MAX:
        raise Wrong(f"longer than {LINE_BYTES_MAX} bytes; give one set of observations a line")
    try:
        said = json.loads(line, parse_float=Decimal, parse_int=Decimal, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise Wrong('not JSON; give one object a line, such as {"spo2": 96}') from error
    if not isinstance(said, dict):
        raise Wrong('not a JSON object; give one a line, such as {"spo2": 96}')
    return said


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise Wrong("a field is given twice; keep one")
    return made


def _unknown(name: str) -> str:
    vital = BY_ALIAS.get(name.lower())
    if vital is not None:
        return f"unknown field {name!r}; did you mean {vital.name}?"
    shown = ascii(name[:40])
    return f"unknown field {shown}; use the names of vitals/codes.py, or {', '.join(_OTHERS)}"


def _number(name: str, value: object) -> int:
    vital = BY_NAME[name]
    if not isinstance(value, Decimal):
        raise Wrong(f"{name} is not a number; give it in {vital.unit} or leave it out")
    try:
        return charted_value(vital, value)
    except ValueError as error:
        raise Wrong(str(error)) from error


def _consciousness(value: object) -> int:
    level = _CONSCIOUSNESS.get(value.upper()) if isinstance(value, str) else None
    if level is None:
        raise Wrong("consciousness is not one of A, C, V, P, U; give the letter or leave it out")
    return level


def _boolean(said: Mapping[str, Any], name: str) -> bool | None:
    value = said.get(name)
    if value is None or isinstance(value, bool):
        return value
    raise Wrong(f"{name} is neither true nor false; give one of them or leave it out")


def _agree(values: Mapping[int, Charted], *, oxygen: bool | None) -> None:
    """Raise Wrong when ``oxygen`` and what flows say different things."""
    flow, fio2 = (values.get(BY_NAME[name].index) for name in ("o2_flow", "fio2"))
    said = []
    if flow is not None:
        said.append(flow.value > 0)
    if fio2 is not None:
        said.append(fio2.value > AIR_FIO2)
    if oxygen is not None and said and any(said) != oxygen:
        raise Wrong("oxygen contradicts o2_flow or fio2; correct one of them")


def _scale(said: Mapping[str, Any]) -> Literal[1, 2]:
    value = said.get("spo2_scale")
    if value is None or (isinstance(value, Decimal) and value == 1):
        return 1
    if isinstance(value, Decimal) and value == 2:
        return 2
    raise Wrong("spo2_scale is neither 1 nor 2; 2 only as a clinician decided")


def _age(value: object) -> Decimal:
    if not isinstance(value, Decimal) or not 0 <= value <= AGE_YEARS_MAX:
        raise Wrong(f"age_years is no number from 0 to {AGE_YEARS_MAX}; correct it or leave it out")
    return value


def _of_points(score: Score) -> Answer:
    made: Answer = {
        "total": score.total,
        "bounds": list(score.bounds),
        "sub_scores": score.sub_scores,
        "band": score.band,
        "missing": [missing.parameter for missing in score.missing],
    }
    if score.not_applicable:
        made["not_applicable"] = score.not_applicable
    return made


def _of_index(index: shock.Index) -> Answer:
    return {
        "total": index.value,
        "bounds": None if index.value is None else [index.value, index.value],
        "sub_scores": {},
        "band": index.band,
        "missing": [missing.parameter for missing in index.missing],
    }


ANSWERS: Final[Mapping[str, Callable[[Snapshot], Answer]]] = {
    "news2": lambda snapshot: _of_points(news2.score(snapshot, _NOW_MS)),
    "qsofa": lambda snapshot: _of_points(qsofa.score(snapshot, _NOW_MS)),
    "shock": lambda snapshot: _of_index(shock.score(snapshot, _NOW_MS)),
}
"""What a line is answered by, by the word on the command line."""

assert not set(_OTHERS) & {vital.name for vital in VITALS}  # noqa: S101
