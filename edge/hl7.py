"""HL7 v2 observations (ORU^R01, IHE PCD-01) into measures, and the acknowledgement of each message.

Law: pure. An answer carries the control id of its own message and is made for its own outcome;
a message without a control id gets none, because it could be taken for a neighbour's. An OBX
whose code, value type and unit contradict each other is set aside, never guessed; codes that are
no vital sign here are counted and passed over. Sources: HL7 v2.6 chapters 2, 3, 7; IHE PCD TF 2.
"""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Final, NamedTuple

import msgspec

from edge import normalize
from edge.decode_line import MISSING, parse_number
from edge.normalize import MDC_UNITS, UNITS, Measure
from edge.refusal import Reason, Refuse, Refused
from vitals import limits
from vitals.codes import BY_MDC, SITE_LOINC, SITE_MDC, VITALS, Status
from vitals.reading import Patient, Reading

READINGS_MAX: Final = 2000
"""Readings of one message: a full PCD-01 report has under a hundred."""

_CHARSETS: Final = {
    "": "utf-8",
    "ASCII": "ascii",
    "UNICODE": "utf-8",
    "UNICODE UTF-8": "utf-8",
    "8859/1": "latin-1",
    "8859/15": "iso-8859-15",
}
_SEX: Final = {"M": "male", "F": "female", "O": "other", "A": "other", "U": "unknown"}
_TS: Final = re.compile(
    r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(?:(\d\d)(?:\.?(\d{1,9}))?)?([+-]\d{4}|Z)?"
)
_DATE: Final = re.compile(r"(\d{4})(\d\d)(\d\d)")
_STATUS: Final = {
    "QUES": Status.QUESTIONABLE,
    "TEST": Status.TEST,
    "DEMO": Status.TEST,
    "CAL": Status.CALIBRATION,
    "INV": Status.MISSING,
    "NAV": Status.MISSING,
    "OFF": Status.MISSING,
}
"""OBX-8 codes (IHE PCD TF 2, table B.8-3)."""

_BY_LOINC: Final = {
    code: vital.index
    for vital in reversed(VITALS)  # a cuff's code wins over the arterial line's same code
    for code in (vital.loinc, *vital.loinc_also)
    if code
} | {code: next(v.index for v in VITALS if v.name == "temperature") for code in SITE_LOINC.values()}
_SITE_OF_LOINC: Final = {code: site for site, code in SITE_LOINC.items()}

_ERROR_CODES: Final = {
    Reason.HL7_TYPE: "200^Unsupported message type^HL70357",
    Reason.HL7_REQUIRED: "101^Required field missing^HL70357",
    Reason.HL7_NO_READING: "101^Required field missing^HL70357",
    Reason.SPOOL_FULL: "207^Application internal error^HL70357",
    Reason.SPOOL_FAILED: "207^Application internal error^HL70357",
}
_ERROR_OTHER: Final = "102^Data type error^HL70357"


class Envelope(msgspec.Struct, frozen=True):
    """What an answer needs of MSH. ``control`` empty: there is nothing to answer to."""

    field: str = "|"
    encoding: str = "^~\\&"
    application: str = ""
    facility: str = ""
    processing: str = "P"
    version: str = "2.6"
    control: str = ""
    accept: str = ""
    """MSH-15."""
    final: str = ""
    """MSH-16."""
    charset: str = "utf-8"


class Report(msgspec.Struct, frozen=True):
    """One usable message: device, patient, readings, and what was left out of it."""

    device: str
    patient: Patient | None
    readings: tuple[Reading, ...]
    refused: tuple[Refused, ...]
    """OBX in conflict with themselves."""
    ignored: int
    """OBX of codes that are no vital sign here."""


class _Message(NamedTuple):
    segments: list[list[str]]
    component: str
    repeat: str
    escape: str
    sub: str

    def parts(self, text: str) -> list[str]:
        return text.split(self.component)


def _at(fields: list[str], index: int) -> str:
    return fields[index] if index < len(fields) else ""


def envelope(raw: bytes) -> Envelope:
    """Return what can be said of the sender even when the rest is unusable."""
    head = raw.lstrip(b"\r\n").split(b"\r", 1)[0].split(b"\n", 1)[0].decode("latin-1")
    if not head.startswith("MSH") or len(head) < 8 or head[3].isalnum():
        return Envelope(encoding="")
    fields = head.split(head[3])
    charset = _CHARSETS.get(_at(fields, 17).split(fields[1][1:2] or "~")[0].strip(), "")
    return Envelope(
        head[3],
        _at(fields, 1),
        _at(fields, 2),
        _at(fields, 3),
        _at(fields, 10) or "P",
        _at(fields, 11) or "2.6",
        _at(fields, 9)[:199],
        _at(fields, 14).strip(),
        _at(fields, 15).strip(),
        charset,
    )


def decode(
    raw: bytes, known: Envelope, address: str, ward: str, zone: tzinfo, received_ms: int
) -> Report | Refused:
    """Return the readings of one message, or why it is refused whole."""
    try:
        return _report(_split(raw, known), known, address, ward, zone, received_ms)
    except Refuse as refuse:
        return refuse.refused


def _split(raw: bytes, known: Envelope) -> _Message:
    if not known.encoding or not raw.lstrip(b"\r\n").startswith(b"MSH"):
        raise Refuse(Reason.HL7_NO_MSH, "MSH", "start the message with an MSH segment")
    if not known.charset:
        raise Refuse(Reason.HL7_CHARSET, "MSH-18", "use UNICODE UTF-8, 8859/1 or ASCII")
    try:
        text = raw.decode(known.charset)
    except UnicodeDecodeError:
        if known.charset != "utf-8":
            raise Refuse(Reason.HL7_CHARSET, "MSH-18", "text and MSH-18 disagree") from None
        text = raw.decode("latin-1")  # no charset named, or wrongly: PID is text, not meaning
    marks = (known.encoding + "^~\\&"[len(known.encoding) :])[:4]
    lines = (line.strip("\r") for line in re.split(r"[\r\n]+", text))
    segments = [line.split(known.field) for line in lines if line]
    return _Message(segments, *marks)


def _report(
    message: _Message, known: Envelope, address: str, ward: str, zone: tzinfo, received_ms: int
) -> Report:
    msh = message.segments[0]
    kind = message.parts(_at(msh, 8))[:2]
    if kind != ["ORU", "R01"]:
        raise Refuse(Reason.HL7_TYPE, "MSH-9", "send ORU^R01")
    if not known.version.startswith("2"):
        raise Refuse(Reason.HL7_TYPE, "MSH-12", "send HL7 version 2")
    if not known.control:
        raise Refuse(Reason.HL7_REQUIRED, "MSH-10", "give every message a control id")
    patient, place, device = Patient(), "", ""
    group_time = ""
    seen_request = False
    found: list[tuple[Measure, str]] = []
    refused: list[Refused] = []
    ignored = 0
    channels: dict[tuple[int, int], list[str]] = {}
    for fields in message.segments:
        match fields[0]:
            case "PID":
                patient = _patient(message, fields)
            case "PV1":
                place = _at(fields, 3)
            case "OBR":
                seen_request, group_time = True, _at(fields, 7)
            case "OBX":
                device = device or _clean(message, message.parts(_at(fields, 18))[0])
                try:
                    measure = _measure(message, fields)
                except Refuse as refuse:
                    refused.append(refuse.refused)
                    continue
                if measure is None:
                    ignored += 1
                    continue
                of_kind = channels.setdefault((measure.vital, measure.site), [])
                of_kind.append(_at(fields, 4))
                measure = measure._replace(channel=len(of_kind) - 1)
                found.append((measure, _at(fields, 14) or group_time))
    if not seen_request:
        raise Refuse(Reason.HL7_REQUIRED, "OBR", "put an OBR before the OBX")
    if len(found) > READINGS_MAX:
        raise Refuse(Reason.HL7_TOO_MANY, "OBX", f"at most {READINGS_MAX} readings a message")
    readings: list[Reading] = []
    for measure, time in found:
        try:
            moment = _moment(time, zone) if time else None
            readings += normalize.readings([measure], moment, received_ms)
        except Refuse as refuse:
            refused.append(refuse.refused)
    if not readings:
        if refused:
            raise Refuse(*refused[0])
        raise Refuse(Reason.HL7_NO_READING, "OBX-3", "no OBX holds a vital sign known here")
    patient = _placed(message, patient, place, ward)
    return Report(
        device or _sender(message, msh, place) or f"addr-{address}",
        None if patient == Patient() else patient,
        tuple(readings),
        tuple(refused),
        ignored,
    )


def _clean(message: _Message, text: str) -> str:
    """Return a text without its escapes (HL7 v2.6 section 2.7) and control characters."""
    escape = message.escape
    if escape and escape in text:
        marks = {"F": "|", "S": message.component, "T": message.sub, "R": message.repeat, "E": "\\"}
        pattern = re.escape(escape) + r"([^" + re.escape(escape) + r"]*)" + re.escape(escape)
        text = re.sub(pattern, lambda found: marks.get(found[1], " "), text)
    printable = "".join(char if char.isprintable() else " " for char in text)
    return printable.strip()[: limits.TEXT_CHARS_MAX]


def _patient(message: _Message, pid: list[str]) -> Patient:
    ids = [message.parts(one) for one in _at(pid, 3).split(message.repeat)]
    ids = [one for one in ids if one[0].strip()]
    best = next((one for one in ids if _at(one, 4).strip() == "MR"), ids[0] if ids else [""])
    name = message.parts(_at(pid, 5).split(message.repeat)[0])
    family = name[0].split(message.sub)[0]
    full = " ".join(part for part in (_at(name, 1), _at(name, 2), family) if part and part != '""')
    born = _DATE.match(_at(pid, 7))
    return Patient(
        mrn=_clean(message, best[0]),
        name=_clean(message, full),
        birth_date=_birth_date(born),
        sex=_SEX.get(_at(pid, 8).strip().upper()[:1], ""),
    )


def _birth_date(found: re.Match[str] | None) -> str:
    if found is None:
        return ""
    try:
        return datetime(int(found[1]), int(found[2]), int(found[3]), tzinfo=UTC).date().isoformat()
    except ValueError:
        return ""


def _placed(message: _Message, patient: Patient, place: str, ward: str) -> Patient:
    unit, room, bed = [*message.parts(place.split(message.repeat, 1)[0]), "", "", ""][:3]
    subs = [part for part in bed.split(message.sub) if part]
    if len(subs) > 1 and not unit:  # Mindray: unit & bed & numbers, all in the third component
        unit, bed = subs[0], subs[1]
    else:
        bed = subs[0] if subs else ""
    where = "-".join(_clean(message, part) for part in (room, bed) if part)
    unit = _clean(message, unit.split(message.sub)[0])
    if not patient.mrn and not where and not unit:
        return patient
    return msgspec.structs.replace(patient, bed=where, ward=unit or ward)


def _sender(message: _Message, msh: list[str], place: str) -> str:
    """Return a device name where OBX-18 has none: the sender, and the bed it speaks for."""
    parts = [part for part in message.parts(_at(msh, 2))[:2] if part]
    if not parts:
        return ""
    spoken_for = re.sub(r"[^0-9A-Za-z]+", "-", place).strip("-")
    return _clean(message, parts[-1]) + (f"/{spoken_for[:64]}" if spoken_for else "")


def _vital(parts: list[str]) -> tuple[int, int, int] | None:
    """Return (vital, site, MDC code or 0) of OBX-3, from its first or its alternate triplet."""
    for code in (_at(parts, 0).strip(), _at(parts, 3).strip()):
        if code.isdigit() and len(code) < 10 and int(code) in BY_MDC:
            mdc = int(code)
            return BY_MDC[mdc].index, int(SITE_MDC.get(mdc, 0)), mdc
        if code in _BY_LOINC:
            return _BY_LOINC[code], int(_SITE_OF_LOINC.get(code, 0)), 0
    return None


def _measure(message: _Message, obx: list[str]) -> Measure | None:
    """Return what one OBX says, None for one that is no vital sign; raise Refuse on conflict."""
    found = _vital(message.parts(_at(obx, 3)))
    if found is None or _at(obx, 11) in {"D", "W"}:  # deleted, or posted as wrong
        return None
    vital, site, _ = found
    name = VITALS[vital].name
    kind, text, result = _at(obx, 2), _at(obx, 5).strip(), _at(obx, 11)
    if not kind and not text:
        return None  # a row of the containment tree, not of a value
    if kind != "NM":
        raise Refuse(Reason.HL7_CONFLICT, name, "OBX-2 of a vital sign is NM")
    unit = _unit(message, name, _at(obx, 6))
    marks = {_STATUS[mark] for mark in _at(obx, 8).split(message.repeat) if mark in _STATUS}
    status = max(marks, default=Status.OK)
    if result == "X" or Status.MISSING in marks or text in MISSING or text == '""':
        return Measure(vital, None, unit, site, 0, status if status >= Status.TEST else Status.OK)
    return Measure(vital, parse_number(name, text), unit, site, 0, status)


def _unit(message: _Message, name: str, text: str) -> str:
    parts = message.parts(text)
    code = _at(parts, 0).strip()
    if not any(part.strip() for part in parts):
        return ""
    unit = (
        MDC_UNITS.get(int(code)) if code.isdigit() and len(code) < 10 else UNITS.get(code.lower())
    )
    if unit is None:
        raise Refuse(Reason.HL7_CONFLICT, name, "the unit in OBX-6 is not known for it")
    return unit


def _moment(text: str, zone: tzinfo) -> int | None:
    if _DATE.fullmatch(text.strip()):
        return None  # a day alone places nothing in time (Masimo sends it)
    found = _TS.fullmatch(text.strip())
    if found is None:
        raise Refuse(Reason.BAD_TIME, "OBX-14", "write YYYYMMDDHHMMSS+ZZZZ")
    year, month, day, hour, minute = (int(found[i]) for i in range(1, 6))
    fraction = int((found[7] or "0")[:6].ljust(6, "0"))
    where: tzinfo = zone
    if found[8] == "Z":
        where = UTC
    elif found[8]:
        offset = timedelta(hours=int(found[8][1:3]), minutes=int(found[8][3:]))
        if offset >= timedelta(hours=24):
            raise Refuse(Reason.BAD_TIME, "OBX-14", "the zone is out of range")
        where = timezone(-offset if found[8][0] == "-" else offset)
    try:
        moment = datetime(
            year, month, day, hour, minute, int(found[6] or 0), fraction, tzinfo=where
        )
    except ValueError:
        raise Refuse(Reason.BAD_TIME, "OBX-14", "no such date or time of day") from None
    return normalize.to_ms(moment, zone)


def answer(known: Envelope, refused: Refused | None, own_id: str, now_ms: int) -> list[bytes]:
    """Return the acknowledgements to send, unframed; empty when the sender wants none.

    Original mode (MSH-15 and -16 both blank): AA, AE, AR. Enhanced mode: CA, CE, CR by MSH-15 and
    AA, AE, AR by MSH-16, each under its condition AL, NE, ER, SU (HL7 v2.6 section 2.9).
    """
    if not known.control:
        return []
    kind = "A" if refused is None else "R" if refused.reason == Reason.HL7_TYPE else "E"
    if not known.accept and not known.final:
        return [_acknowledge(known, "A" + kind, refused, own_id, now_ms)]
    wanted = {"AL": True, "SU": refused is None, "ER": refused is not None}
    codes = [
        mode + kind
        for mode, condition in (("C", known.accept), ("A", known.final))
        if wanted.get(condition, False)
    ]
    return [_acknowledge(known, code, refused, f"{own_id}-{code[0]}", now_ms) for code in codes]


def _acknowledge(
    known: Envelope, code: str, refused: Refused | None, own_id: str, now_ms: int
) -> bytes:
    mark = known.field
    at = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%d%H%M%S+0000")
    component = known.encoding[:1] or "^"
    kind = component.join(("ACK", "R01", "ACK"))
    msh = ["MSH", known.encoding, "healthsync", "", known.application, known.facility, at, "", kind]
    msh += [own_id, known.processing, known.version]
    segments = [mark.join(msh), mark.join(("MSA", code, known.control))]
    if refused is not None:
        error = _ERROR_CODES.get(refused.reason, _ERROR_OTHER).replace("^", component)
        text = f"{refused.reason} {refused.field}: {refused.detail}"
        for special in (mark, *known.encoding[:4]):
            text = text.replace(special, " ")
        segments.append(mark.join(("ERR", "", "", error, "E", "", "", "", text)))
    return ("\r".join(segments) + "\r").encode("latin-1", "replace")
