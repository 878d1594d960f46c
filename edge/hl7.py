"""HL7 v2 observations (ORU^R01, IHE PCD-01) and alarms (ORU^R40, IHE PCD-04) of one message.

Law: pure; whatever the bytes, a report or a refusal comes back and nothing is raised. A message is
judged alone: types not taken are refused whole, rows in conflict are set aside, codes unknown here
are counted. The specification, with every rule and its source, is edge/HL7.md.
"""

import msgspec

from edge.hl7_ack import answer
from edge.hl7_alarm import Alarms
from edge.hl7_message import Envelope, Message, at, envelope, split
from edge.hl7_observe import Observations, Part
from edge.hl7_scope import Scope
from edge.refusal import Reason, Refuse, Refused
from edge.setting import Setting
from vitals.codes import Status
from vitals.reading import Patient

__all__ = ["Envelope", "Part", "Report", "Watched", "answer", "decode", "envelope"]

_TRIALS = frozenset({"D", "T"})
"""MSH-11 (HL7 table 0103): debugging and training; P is production."""


class Watched(msgspec.Struct, frozen=True):
    """A watchdog message of a device."""

    device: str
    patient: Patient | None
    timeout_ms: int
    leaving: bool
    """It says that it goes: its silence is meant."""


class Report(msgspec.Struct, frozen=True):
    """One usable message: what its devices say, and what was left out of it."""

    parts: tuple[Part, ...]
    """One a device and patient, in the order of their first row; none in a mere watchdog."""
    patient: Patient | None
    """Of the first part."""
    refused: tuple[Refused, ...] = ()
    """OBX in conflict with themselves."""
    ignored: int = 0
    """OBX of codes that are no vital sign here, or withdrawn."""
    watched: tuple[Watched, ...] = ()


def decode(
    raw: bytes, known: Envelope, address: str, setting: Setting, received_ms: int
) -> Report | Refused:
    """Return what one message says, or why it is refused whole."""
    try:
        message = split(raw, known)
        alarms = _check(known)
        return _report(message, known, address, setting, received_ms, alarms=alarms)
    except Refuse as refuse:
        return refuse.refused


def _check(known: Envelope) -> bool:
    """Return whether the message is of alarms; raise Refuse for what is not taken."""
    if known.kind != "ORU":
        raise Refuse(Reason.HL7_TYPE, "MSH-9", "send ORU^R01 or ORU^R40")
    if known.event not in ("R01", "R40", ""):
        raise Refuse(Reason.HL7_TYPE, "MSH-9.2", "send ORU^R01 or ORU^R40")
    component = known.encoding[0]
    version = known.version.split(component)[0].strip()
    if version != "2" and not version.startswith("2."):
        raise Refuse(Reason.HL7_TYPE, "MSH-12", "send HL7 version 2")
    if known.processing.split(component)[0].strip() not in ("P", *_TRIALS):
        raise Refuse(Reason.HL7_TYPE, "MSH-11", "processing id is P, or D or T for a trial")
    if not known.control:
        raise Refuse(
            Reason.HL7_REQUIRED, "MSH-10", "give every message a control id of 1 to 199 characters"
        )
    return known.event == "R40"


def _report(
    message: Message,
    known: Envelope,
    address: str,
    setting: Setting,
    received_ms: int,
    *,
    alarms: bool,
) -> Report:
    said = message.first(at(message.segments[0], 2))[:2]
    senders = setting.vendor.listed([message.clean(part) for part in said])
    scope = Scope(message, address, setting)
    rows = Observations(message, scope, setting, senders)
    alerts = Alarms(message, scope, setting, senders)
    number = 0
    for fields in message.segments:
        match fields[0]:
            case "OBX":
                number += 1
                if alarms:
                    alerts.obx(fields)
                else:
                    rows.obx(fields, number)
            case "OBR":
                scope.obr(fields)
                if alarms:
                    alerts.obr(fields)
            case "PID":
                scope.pid(fields)
            case "PV1":
                scope.pv1(fields)
            case "MSH" if fields is not message.segments[0]:
                raise Refuse(Reason.HL7_FRAMING, "MSH[2]", "one message a block")
    if not scope.groups:
        raise Refuse(Reason.HL7_REQUIRED, "OBR", "put an OBR before the OBX")
    scope.settle()
    status = int(Status.TEST) if known.processing[:1] in _TRIALS else 0
    source = alerts if alarms else rows
    parts = source.parts(received_ms, status)
    watched = tuple(
        Watched(scope.device(one.place), one.place.person.patient, one.timeout_ms, one.leaving)
        for one in alerts.watches()
    )
    if not parts and not watched:
        if rows.refused:
            raise Refuse(*rows.refused[0])
        what = "OBR is an alarm" if alarms else "OBX holds a vital sign known here"
        raise Refuse(Reason.HL7_NO_READING, "OBR-4" if alarms else "OBX-3", f"no {what}")
    return Report(
        parts,
        parts[0].patient if parts else None,
        tuple(rows.refused),
        rows.ignored,
        watched,
    )
