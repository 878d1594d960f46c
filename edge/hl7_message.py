"""HL7 v2 text: the header that an answer needs, segments, escapes, times.

Law: pure. Any bytes give an envelope; what cannot be read of a message is refused whole with the
segment and field. Delimiters, character set and escapes are the message's own. Sources: HL7 v2.6
sections 2.5 (delimiters), 2.7 (escapes), 2.14.9 (MSH), 2.A.22 (DTM).
"""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final, NamedTuple

import msgspec

from edge import normalize
from edge.refusal import Reason, Refuse
from vitals import limits
from vitals.columns import TIME_MS_MAX

SEGMENTS_MAX: Final = 10_000
"""Segments of one message: a full PCD-01 report has some hundreds; more would hold up others."""

CONTROL_CHARS_MAX: Final = 199
"""MSH-10, HL7 v2.6 section 2.14.9.10; a longer one is not echoed, so it is no control id."""

_CHARSETS: Final = {
    "": "",
    '""': "",
    "ASCII": "ascii",
    "UNICODE": "utf-8",
    "UNICODE UTF-8": "utf-8",
    "UTF-8": "utf-8",
} | {f"8859/{part}": f"iso8859_{part}" for part in range(1, 17) if part != 12}  # there is no 12
"""MSH-18 (HL7 table 0211) -> codec; UNICODE without more is UTF-8 wherever MLLP can carry it."""

_DEFAULTS: Final = "^~\\&"
_NOT_TAKEN: Final = "?"
_HEX: Final = re.compile(r"X((?:[0-9A-Fa-f]{2})+)")
_TIME: Final = re.compile(
    r"(\d{4})(\d\d)(\d\d)(\d\d)(\d\d)(?:(\d\d)(?:\.?(\d{1,9}))?)?"
    r"(Z|[+-]\d\d(?::?\d\d)?)?",
    re.ASCII,
)
_TIME_CHARS_MAX: Final = 40
"""A time with nine digits of a second and a zone has 30."""
_ZONE_MAX: Final = timedelta(hours=14)
"""The furthest zone there is (Kiribati)."""
_TIMES_REMEMBERED: Final = 1024


class Envelope(msgspec.Struct, frozen=True):
    """What an answer needs of MSH. ``control`` empty: there is nothing to answer to.

    Texts are the header's bytes as Latin-1, so that an answer echoes them byte for byte.
    """

    field: str = "|"
    encoding: str = _DEFAULTS
    """MSH-2; empty: no usable MSH."""
    application: str = ""
    """MSH-3."""
    facility: str = ""
    """MSH-4."""
    receiver: str = ""
    """MSH-5."""
    receiver_facility: str = ""
    """MSH-6."""
    kind: str = ""
    """MSH-9, first component."""
    event: str = ""
    """MSH-9, second component."""
    control: str = ""
    """MSH-10."""
    processing: str = "P"
    """MSH-11."""
    version: str = "2.6"
    """MSH-12."""
    accept: str = ""
    """MSH-15."""
    final: str = ""
    """MSH-16."""
    charset: str = ""
    """MSH-18."""


def at(fields: list[str], index: int) -> str:
    """Return one field of a segment, empty when it ends before."""
    return fields[index] if index < len(fields) else ""


def _set(text: str) -> str:
    """Return a field's text without blanks; HL7's null is nothing."""
    text = text.strip()
    return "" if text == '""' else text


def filled(encoding: str) -> str:
    """Return component, repetition, escape and subcomponent mark; the usual ones for those left."""
    return (encoding + _DEFAULTS[len(encoding) :])[:4]


def envelope(raw: bytes) -> Envelope:
    """Return what can be said of the sender even when the rest is unusable."""
    raw = raw.lstrip(b"\r\n")
    end = min((place for place in (raw.find(b"\r"), raw.find(b"\n")) if place >= 0), default=None)
    head = raw[:end].decode("latin-1")
    if not head.startswith("MSH") or len(head) < 5 or head[3].isalnum() or head[3].isspace():
        return Envelope(encoding="")
    fields = head.split(head[3])
    marks = fields[1]
    if not marks or any(mark.isalnum() or mark.isspace() for mark in marks):
        return Envelope(encoding="")
    if len({head[3], *filled(marks)}) != 5:
        return Envelope(encoding="")
    component = marks[0]
    kind = [part.strip() for part in at(fields, 8).split(component, 2)[:2]]
    control = at(fields, 9)
    return Envelope(
        head[3],
        marks,
        at(fields, 2),
        at(fields, 3),
        at(fields, 4),
        at(fields, 5),
        kind[0],
        kind[1] if len(kind) > 1 else "",
        control if _set(control) and len(control) <= CONTROL_CHARS_MAX else "",
        _set(at(fields, 10)) or "P",
        _set(at(fields, 11)) or "2.6",
        _set(at(fields, 14)),
        _set(at(fields, 15)),
        at(fields, 17).strip(),
    )


def _codec(known: Envelope) -> str:
    """Return the codec of MSH-18, empty when it names none; raise Refuse.

    Repetitions after the first are sets that escapes may switch to; they must be sets taken here
    too, because text in another could not be told from text in the first.
    """
    repeat = filled(known.encoding)[1]
    codecs = [_CHARSETS.get(one.strip().upper(), _NOT_TAKEN) for one in known.charset.split(repeat)]
    if _NOT_TAKEN in codecs:
        raise Refuse(
            Reason.HL7_CHARSET,
            "MSH-18",
            "send UNICODE UTF-8, ASCII or 8859/1 to 8859/16, no other alternate set",
        )
    return codecs[0]


class Message(NamedTuple):
    """Segments cut into fields, and the marks they are cut by."""

    segments: list[list[str]]
    field: str
    component: str
    repeat: str
    escape: str
    sub: str
    codec: str

    def clean(self, text: str) -> str:
        """Return a text without its escapes, control characters and outer blanks, cut to size."""
        text = text[: 8 * limits.TEXT_CHARS_MAX]
        if self.escape and self.escape in text:
            text = _escaped(self.escape).sub(self._meant, text)
        if not text.isprintable():
            text = "".join(char if char.isprintable() else " " for char in text)
        text = text.strip()
        return "" if text == '""' else text[: limits.TEXT_CHARS_MAX]

    def _meant(self, found: re.Match[str]) -> str:
        said = found[1]
        marks = {
            "F": self.field,
            "S": self.component,
            "T": self.sub,
            "R": self.repeat,
            "E": self.escape,
            "H": "",  # highlighting begins
            "N": "",  # and ends
        }
        if said in marks:
            return marks[said]
        in_hex = _HEX.fullmatch(said)
        if in_hex:
            return bytes.fromhex(in_hex[1]).decode(self.codec or "utf-8", "replace")
        return " "  # .br and its kind, other character sets, a vendor's own

    def first(self, text: str) -> list[str]:
        """Return the components of a field's first repetition."""
        return text.partition(self.repeat)[0].split(self.component)


@lru_cache(maxsize=16)
def _escaped(mark: str) -> re.Pattern[str]:
    one = re.escape(mark)
    return re.compile(f"{one}([^{one}]*){one}")


def split(raw: bytes, known: Envelope) -> Message:
    """Return the message's segments; raise Refuse."""
    if not known.encoding:
        raise Refuse(Reason.HL7_NO_MSH, "MSH", "start the message with an MSH segment")
    codec = _codec(known)
    try:
        text = raw.decode(codec or "utf-8")
    except UnicodeDecodeError:
        if codec:
            raise Refuse(Reason.HL7_CHARSET, "MSH-18", "text and MSH-18 disagree") from None
        text = raw.decode("latin-1")  # none is named: an old sender's text, never its codes
    if "\n" in text:
        text = text.replace("\r\n", "\r").replace("\n", "\r")
    component, repeat, escape, sub = tuple(filled(known.encoding))
    lines = [line for line in text.split("\r") if line]
    if len(lines) > SEGMENTS_MAX:
        raise Refuse(Reason.HL7_TOO_MANY, "", f"at most {SEGMENTS_MAX} segments a message")
    mark = known.field
    segments = [line.split(mark) for line in lines]
    return Message(segments, mark, component, repeat, escape, sub, codec)


def moment(text: str, zone: tzinfo) -> int | None:
    """Return a time in milliseconds of UTC, or None when it places nothing in time.

    Taken with hour and minute at least; ``zone`` where it has none. A day alone (Masimo sends it)
    and what is no time at all are None alike.
    """
    return _moment(text, zone) if len(text) <= _TIME_CHARS_MAX else None


@lru_cache(maxsize=_TIMES_REMEMBERED)
def _moment(text: str, zone: tzinfo) -> int | None:
    found = _TIME.fullmatch(text.strip())
    if found is None:
        return None
    year, month, day, hour, minute = (int(found[place]) for place in range(1, 6))
    micros = int((found[7] or "0")[:6].ljust(6, "0"))
    where: tzinfo = zone
    said = found[8]
    if said == "Z":
        where = UTC
    elif said:
        offset = timedelta(hours=int(said[1:3]), minutes=int(said[3:].lstrip(":") or 0))
        if offset > _ZONE_MAX:
            return None
        where = timezone(-offset if said[0] == "-" else offset)
    try:
        said_at = datetime(year, month, day, hour, minute, int(found[6] or 0), micros, tzinfo=where)
        at_ms = normalize.to_ms(said_at, zone)
    except (ValueError, OverflowError, Refuse):
        return None
    return at_ms if 0 <= at_ms <= TIME_MS_MAX else None
