"""Decodes one line of the line protocol (edge/PROTOCOL.md).

Law: pure; forgiving in spelling, strict in meaning. A line means exactly one thing or it is
refused whole: a comma for a decimal point, a doubled field, an unknown word never become a value.
"""

import contextlib
import json
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime
from functools import lru_cache
from typing import Final, NoReturn, TypeVar

import msgspec

from edge.normalize import UNITS, Measure
from edge.refusal import Reason, Refuse, Refused
from vitals import limits
from vitals.codes import BY_ALIAS, BY_NAME, SITE_ALIAS, VITALS, Consciousness, Site, Status

T = TypeVar("T")

_PATIENT: Final = {
    "mrn": "mrn",
    "name": "name",
    "dob": "birth_date",
    "birth_date": "birth_date",
    "sex": "sex",
    "gender": "sex",
    "bed": "bed",
    "ward": "ward",
}
_SEX: Final = {"m": "male", "f": "female", "o": "other", "u": "unknown"}
_STATUS: Final = {
    "ok": Status.OK,
    "test": Status.TEST,
    "demo": Status.TEST,
    "calibration": Status.CALIBRATION,
}
_REPLY: Final = {"yes": True, "no": False}
_NIBP: Final = tuple(BY_NAME[f"nibp_{part}"].index for part in ("systolic", "diastolic", "mean"))
_ABP: Final = tuple(BY_NAME[f"abp_{part}"].index for part in ("systolic", "diastolic", "mean"))
PRESSURES: Final = {"bp": _NIBP, "nibp": _NIBP, "abp": _ABP, "art": _ABP, "ibp": _ABP}
"""Fields that hold systolic/diastolic, perhaps (mean)."""
_VITAL_OF: Final = {alias: vital.index for alias, vital in BY_ALIAS.items()}
_TEMPERATURE: Final = BY_NAME["temperature"].index
_CONSCIOUSNESS: Final = BY_NAME["consciousness"].index
_ACVPU: Final = {level.name[0]: float(level) for level in Consciousness}

MISSING: Final = frozenset({"", "-", "--", "---", "?"})
"""What devices write for "no value"."""

_NUMBER: Final = re.compile(r"([+-]?(?:[0-9]{1,12}(?:\.[0-9]{0,9})?|\.[0-9]{1,9}))(.*)", re.DOTALL)
_PRESSURE: Final = re.compile(r"([^/()]*)/([^/()a-zA-Z]*)(?:\(([^()/]*)\))?([a-zA-Z\[\]]*)")
# Possessive, and begun at a separator only: backtracking made one line of 8 KiB cost 3 s.
_TOKEN: Final = re.compile(r'(?<![^\s,])(?:[^\s,="]++="(?:[^"\\]|\\["\\])*+"|[^\s,"]++)(?=[\s,]|$)')
_DAY: Final = re.compile(r"\d{4}(?:-\d\d-\d\d|\d{4})", re.ASCII)
_MOMENT: Final = re.compile(
    r"\d{4}(?:-\d\d-\d\d|\d{4})[Tt ]"
    r"(?:\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?|\d{4}(?:\d\d(?:[.,]\d{1,9})?)?)"
    r"(?:Z|[+-]\d\d(?::?\d\d)?)?",
    re.ASCII,
)
"""`datetime.fromisoformat` alone takes 10.5 for ten o'clock and half a second, and any character
between day and time, a digit too."""
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_KEY_CHARS_SHOWN: Final = 32
VALUES_MAX: Final = 1024
"""Written values remembered with their meaning, under 0.5 MB: only what was accepted is, and that
has at most some 90 characters. Known lines are read by their words and do not come here."""
_NOT_SHOWN: Final = re.compile(r"[^!-~]")


class Said(msgspec.Struct, frozen=True):
    """What one line says. None means "not mentioned", which is not "empty"."""

    device: str | None = None
    patient: dict[str, str] = {}
    """Fields of `vitals.reading.Patient` that were mentioned."""
    measures: tuple[Measure, ...] = ()
    time: datetime | None = None
    """Perhaps without a zone."""
    status: int = Status.OK
    reply: bool | None = None


def decode(line: bytes) -> Said | Refused | None:
    """Return what the line says, why it is refused, or None for a blank line."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        return Refused(Reason.NOT_UTF8, "", "send the line as UTF-8 text")
    try:
        _check_text(text)
        fields = _json_fields(text) if text.startswith("{") else _fields(text)
        return _say(fields) if fields else None
    except Refuse as refuse:
        return refuse.refused


def _shown(key: str) -> str:
    """Return a sender's key fit for a reply: short, printable ASCII (no line of its own)."""
    return _NOT_SHOWN.sub("?", key[:_KEY_CHARS_SHOWN])


def _check_text(text: str) -> None:
    if _CONTROL.search(text):
        raise Refuse(Reason.BINARY, "", "control characters; is this TLS, or another protocol?")


def _fields(text: str) -> list[tuple[str, str]]:
    if '"' in text:
        tokens = _TOKEN.findall(text)
        if re.sub(r"[\s,]", "", _TOKEN.sub("", text)):
            raise Refuse(Reason.BAD_FIELD, "", "a quotation mark is not closed or out of place")
    else:
        tokens = text.replace(",", " ").split()
    fields = []
    for token in tokens:
        key, equals, value = token.partition("=")
        if equals and key:
            fields.append((key, _unquote(value) if value[:1] == '"' else value))
        elif fields and _continues(fields[-1], token):
            fields[-1] = (fields[-1][0], fields[-1][1] + token)
        elif not fields:
            raise Refuse(Reason.NO_FIELDS, "", "write fields as key=value")
        else:
            raise Refuse(
                Reason.BAD_FIELD,
                _shown(fields[-1][0]),
                "a word without = follows it; write decimals with a point, quote text with spaces",
            )
    return fields


def _continues(field: tuple[str, str], token: str) -> bool:
    """Tell whether ``token`` is the unit of the number before it, as in ``heart_rate=78 bpm``."""
    key, value = field
    return token.lower() in UNITS and key.lower() in _VITAL_OF and value[-1:].isdigit()


def _unquote(value: str) -> str:
    return re.sub(r"\\(.)", r"\1", value[1:-1])


def _no_constant(_constant: str) -> NoReturn:
    raise Refuse(Reason.BAD_NUMBER, "", "NaN and Infinity are no values")


# Made once: json.loads would make one for every line, a third of the whole cost.
_JSON: Final = json.JSONDecoder(
    object_pairs_hook=list, parse_constant=_no_constant, parse_float=str, parse_int=str
)


def _json_fields(text: str) -> list[tuple[str, str]]:
    try:
        pairs = _JSON.decode(text)
    except (ValueError, RecursionError):
        raise Refuse(Reason.BAD_JSON, "", "write one JSON object on the line") from None
    fields = []
    for key, value in pairs:
        if isinstance(value, str):
            fields.append((key, value))
        elif value is None:
            fields.append((key, ""))
        elif isinstance(value, bool):
            fields.append((key, "yes" if value else "no"))
        else:
            raise Refuse(Reason.BAD_JSON, _shown(key), "values are texts or numbers")
    if not fields:
        raise Refuse(Reason.NO_FIELDS, "", "the JSON object is empty")
    try:
        "".join(key + value for key, value in fields).encode()
    except UnicodeEncodeError:  # a lone surrogate written as an escape
        raise Refuse(Reason.NOT_UTF8, "", "an escape in the text is half a character") from None
    return fields


def _say(fields: Iterable[tuple[str, str]]) -> Said:
    listed = list(fields)
    if len(listed) > limits.LINE_FIELDS_MAX:
        raise Refuse(Reason.TOO_MANY_FIELDS, "", f"at most {limits.LINE_FIELDS_MAX} fields a line")
    measures: dict[tuple[int, int], Measure] = {}
    texts: dict[str, str] = {}
    for written, value in listed:
        key = written if written in _VITAL_OF else written.lower()
        vital = _VITAL_OF.get(key)
        if vital is not None:
            found: tuple[Measure, ...] = (_measure(vital, value),)
        elif key in PRESSURES:
            found = _pressure(key, value)
        else:
            _text(texts, key, value)
            continue
        for measure in found:
            at = (measure.vital, measure.site)
            if measures.setdefault(at, measure) != measure:
                _duplicate(key)
    return _said(texts, tuple(measures.values()))


def _duplicate(key: str) -> NoReturn:
    raise Refuse(Reason.DUPLICATE_FIELD, key, "one line, one value a field")


def _text(texts: dict[str, str], key: str, value: str) -> None:
    name = _PATIENT.get(key, key)
    if key not in _PATIENT and key not in _OTHERS:
        raise Refuse(Reason.UNKNOWN_FIELD, _shown(key), "no such vital sign or field")
    if len(value) > limits.TEXT_CHARS_MAX:
        raise Refuse(Reason.BAD_VALUE, key, f"at most {limits.TEXT_CHARS_MAX} characters")
    if _CONTROL.search(value):
        raise Refuse(Reason.BINARY, key, "control characters in a text")
    if texts.setdefault(name, value.strip()) != value.strip():
        _duplicate(key)


_OTHERS: Final = frozenset({"device", "time", "site", "status", "reply"})


def _said(texts: dict[str, str], measures: tuple[Measure, ...]) -> Said:
    device = texts.pop("device", None)
    if device == "":
        raise Refuse(Reason.BAD_VALUE, "device", "give the device a name")
    time = texts.pop("time", None)
    status = _choice(_STATUS, "status", texts.pop("status", "ok") or "ok")
    reply = texts.pop("reply", None)
    site = texts.pop("site", None)
    if site:
        where = _choice(SITE_ALIAS, "site", site)
        measures = tuple(
            m._replace(site=int(where)) if m.vital == _TEMPERATURE and not m.site else m
            for m in measures
        )
        if len({(m.vital, m.site) for m in measures}) != len(measures):
            _duplicate("site")
    if texts.get("sex"):
        word = texts["sex"].lower()
        texts["sex"] = _choice(_SEX | {name: name for name in _SEX.values()}, "sex", word)
    if texts.get("birth_date"):
        texts["birth_date"] = _date(texts["birth_date"])
    return Said(
        device,
        texts,
        measures,
        moment(time) if time else None,
        int(status),
        None if reply is None else _choice(_REPLY, "reply", reply),
    )


def _choice(table: Mapping[str, T], field: str, word: str) -> T:
    found = table.get(word.lower())
    if found is None:
        raise Refuse(Reason.BAD_VALUE, field, "one of: " + ", ".join(sorted(table)))
    return found


def _date(text: str) -> str:
    if _DAY.fullmatch(text):
        with contextlib.suppress(ValueError):
            return date.fromisoformat(text).isoformat()
    raise Refuse(Reason.BAD_VALUE, "dob", "write a date as YYYY-MM-DD")


def moment(text: str) -> datetime:
    """Return a time as ``time=`` carries it, perhaps without a zone; raise Refuse."""
    if _MOMENT.fullmatch(text):
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(text)
    raise Refuse(Reason.BAD_TIME, "time", "write a time as 2026-11-23T10:00:00Z")


def _unit(field: str, text: str) -> str:
    if not text:
        return ""
    unit = UNITS.get(text.lower())
    if unit is None:
        raise Refuse(Reason.BAD_UNIT, field, "the unit is not known here")
    return unit


@lru_cache(maxsize=VALUES_MAX)
def _measure(vital: int, text: str) -> Measure:
    name = VITALS[vital].name
    site = Site.NONE
    if "@" in text and vital == _TEMPERATURE:
        text, _, where = text.partition("@")
        site = _choice(SITE_ALIAS, "site", where)
    if text in MISSING:
        return Measure(vital, None, "", int(site))
    if vital == _CONSCIOUSNESS:
        level = _ACVPU.get(text.upper())
        if level is None:
            raise Refuse(Reason.BAD_VALUE, name, "one of A, C, V, P, U")
        return Measure(vital, level)
    number, unit = _number(name, text)
    return Measure(vital, number, _unit(name, unit), int(site))


def _number(name: str, text: str) -> tuple[float, str]:
    found = _NUMBER.fullmatch(text)
    if found is None:
        raise Refuse(Reason.BAD_NUMBER, name, "write a decimal number such as 36.9")
    if found[2][:1].isdigit() or found[2][:1] == ".":
        raise Refuse(Reason.BAD_NUMBER, name, "too many digits")
    return float(found[1]), found[2]


def parse_number(name: str, text: str) -> float:
    """Return a plain decimal number; raise Refuse. ``name`` is the field's, for the refusal."""
    number, rest = _number(name, text)
    if rest:
        raise Refuse(Reason.BAD_NUMBER, name, "write a decimal number such as 36.9")
    return number


@lru_cache(maxsize=VALUES_MAX)
def _pressure(key: str, text: str) -> tuple[Measure, ...]:
    systolic, diastolic, mean = PRESSURES[key]
    if text in MISSING:
        return Measure(systolic, None), Measure(diastolic, None)
    found = _PRESSURE.fullmatch(text)
    if found is None:
        raise Refuse(Reason.BAD_NUMBER, key, "write systolic/diastolic or systolic/diastolic(mean)")
    unit = _unit(key, found[4])
    parts = [(systolic, found[1]), (diastolic, found[2])]
    if found[3] is not None:
        parts.append((mean, found[3]))
    measures = []
    for vital, part in parts:
        if part in MISSING:
            measures.append(Measure(vital, None))
            continue
        number, rest = _number(key, part)
        if rest:
            raise Refuse(Reason.BAD_NUMBER, key, "write the unit once, at the end")
        measures.append(Measure(vital, number, unit))
    return tuple(measures)
