"""The acknowledgement of each message: original and enhanced mode (HL7 v2.6 section 2.9).

Law: pure. An answer carries the control id of its own message and is made for its own outcome; a
message without a control id gets none, because it could be taken for a neighbour's, and an
acknowledgement gets none, because two parties would answer each other for ever. An error names a
place and a reason, never a value.
"""

import re
from datetime import UTC, datetime
from typing import Final

from edge.hl7_message import Envelope, filled
from edge.refusal import Reason, Refused

OURSELVES: Final = "healthsync"

ANSWERS: Final = frozenset({"ACK", "MCF"})
"""MSH-9 of what is an answer itself (MCF: delayed acknowledgement of HL7 v2.2)."""

_CODES: Final = {
    Reason.HL7_REQUIRED: ("101", "Required field missing"),
    Reason.HL7_NO_READING: ("101", "Required field missing"),
    Reason.HL7_CHARSET: ("103", "Table value not found"),
    Reason.HL7_REPEAT_CONFLICT: ("205", "Duplicate key identifier"),
    Reason.UNKNOWN_DEVICE: ("204", "Unknown key identifier"),
    Reason.HL7_FRAMING: ("100", "Segment sequence error"),
    Reason.HL7_TOO_LONG: ("207", "Application internal error"),
    Reason.HL7_TOO_MANY: ("207", "Application internal error"),
    Reason.SPOOL_FULL: ("207", "Application internal error"),
    Reason.SPOOL_FAILED: ("207", "Application internal error"),
}
_TYPE_CODES: Final = {
    "MSH-9": ("200", "Unsupported message type"),
    "MSH-9.2": ("201", "Unsupported event code"),
    "MSH-11": ("202", "Unsupported processing id"),
    "MSH-12": ("203", "Unsupported version id"),
}
_SEQUENCE: Final = ("100", "Segment sequence error")
_OTHER: Final = ("102", "Data type error")
"""HL7 table 0357 by reason, and by field where one reason has several."""

_PLACE: Final = re.compile(r"([A-Z][A-Z0-9]{2})(?:\[(\d+)\])?(?:-(\d+)(?:\.(\d+))?)?")
"""A field as refusals name it: OBX[3]-5, MSH-9.2, OBR."""

_EVENT: Final = re.compile(r"[A-Z0-9]{1,8}")
_OLD: Final = re.compile(r"2(\.[0-4](\.\d)?)?")
"""Versions whose ERR has one field only."""


def answer(
    known: Envelope,
    refused: Refused | None,
    own_id: str,
    now_ms: int,
    *,
    reject: bool = False,
) -> list[bytes]:
    """Return the acknowledgements to send, unframed; empty when the sender wants none.

    Original mode (MSH-15 and -16 both blank): AA, AE, AR. Enhanced mode: CA, CE, CR by MSH-15 and
    AA, AE, AR by MSH-16, each under its condition AL, NE, ER, SU. ``reject``: never send it again
    (AR, CR), as for a type that is not taken.
    """
    if not known.control or known.kind in ANSWERS:
        return []
    kind = "A"
    if refused is not None:
        kind = "R" if reject or refused.reason == Reason.HL7_TYPE else "E"
    if not known.accept and not known.final:
        return [_acknowledge(known, "A" + kind, refused, own_id, now_ms)]
    return [
        _acknowledge(known, mode + kind, refused, f"{own_id}-{mode}", now_ms)
        for mode, condition in (("C", known.accept), ("A", known.final))
        if _wants(condition, good=refused is None)
    ]


def _wants(condition: str, *, good: bool) -> bool:
    if condition == "SU":
        return good
    if condition == "ER":
        return not good
    # Blank beside a condition is "never"; a word of no table is taken as "always": a sender that
    # waits in vain would send the message for ever.
    return bool(condition) and condition != "NE"


def _acknowledge(
    known: Envelope, code: str, refused: Refused | None, own_id: str, now_ms: int
) -> bytes:
    mark, component = known.field, known.encoding[0]
    at = datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%d%H%M%S+0000")
    event = known.event if _EVENT.fullmatch(known.event) else "R01"
    enhanced = "NE" if known.accept or known.final else ""
    msh = [
        "MSH",
        known.encoding,
        known.receiver or OURSELVES,
        known.receiver_facility,
        known.application,
        known.facility,
        at,
        "",
        component.join(("ACK", event, "ACK")),
        own_id,
        known.processing,
        known.version,
        "",
        "",
        enhanced,
        enhanced,
        "",
        known.charset,
    ]
    while not msh[-1]:
        msh.pop()
    old = _OLD.fullmatch(known.version.split(component)[0]) is not None
    msa = ["MSA", code, known.control]
    segments = [mark.join(msh)]
    if refused is None:
        segments.append(mark.join(msa))
    else:
        text = _escaped(known, f"{refused.reason} {refused.field}: {refused.detail}")
        if old:
            msa.append(text)
        segments += [mark.join(msa), mark.join(_error(known, refused, text, old=old))]
    return ("\r".join(segments) + "\r").encode("latin-1", "replace")


def _error(known: Envelope, refused: Refused, text: str, *, old: bool) -> list[str]:
    component, _, _, sub = tuple(filled(known.encoding))
    number, words = _code(refused)
    place = _place(refused.field)
    if old:  # ERR-1 is segment^sequence^field^code until HL7 v2.4
        code = sub.join((number, words, "HL70357"))
        return ["ERR", component.join([*[*place, "", "", ""][:3], code])]
    return [
        "ERR",
        "",
        component.join(place),
        component.join((number, words, "HL70357")),
        "E",
        "",
        "",
        "",
        text,
    ]


def _code(refused: Refused) -> tuple[str, str]:
    if refused.reason == Reason.HL7_TYPE:
        return _TYPE_CODES.get(refused.field, _TYPE_CODES["MSH-9"])
    if refused.reason == Reason.HL7_REQUIRED and "-" not in refused.field:
        return _SEQUENCE
    return _CODES.get(refused.reason, _OTHER)


def _place(field: str) -> list[str]:
    """Return ERR-2 of a refusal's field: segment, its number in the message, field, component."""
    found = _PLACE.fullmatch(field)
    if found is None:
        return []
    place = [found[1], found[2] or "1"]
    if found[3]:
        place.append(found[3])
    if found[4]:
        place += ["1", found[4]]
    return place


def _escaped(known: Envelope, text: str) -> str:
    component, repeat, escape, sub = tuple(filled(known.encoding))
    names = {escape: "E", known.field: "F", component: "S", repeat: "R", sub: "T"}
    return "".join(f"{escape}{names[char]}{escape}" if char in names else char for char in text)
