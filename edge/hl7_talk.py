"""One MLLP connection: blocks in, entries and their acknowledgements out.

Law: sans-IO. Every message is judged alone and answered for itself; bytes that are no message are
quarantined and get no answer, because an answer without a control id could be taken for another
message's. What is answered positively is durable: the answer is made when the entry's fate is
known, and a repeat is answered only when the first one is.
"""

from collections.abc import Iterator
from itertools import count
from typing import Final

import msgspec

from edge import hl7, hl7_repeat
from edge.admission import Caller
from edge.entry import Answer, Entry, accepted, rejection
from edge.hl7_repeat import Sent
from edge.mllp import Junk, MllpReader, Oversize, block
from edge.refusal import Reason, Refused
from edge.setting import Setting
from edge.skew import SKEW_MS_MIN, STEP_MS, TIME_FLOOR_MS
from vitals import limits
from vitals.codes import TimeSource
from vitals.reading import DeviceAlert

_numbers: Final = count(1)
"""Of answers: unique within a run, made longer by the time of receipt."""

_ALERT_BYTES: Final = 256
"""Upper estimate of one device alert in a frame's body before compression."""

_STRANGER: Final = Refused(
    Reason.UNKNOWN_DEVICE, "", "this gateway does not know the device; have it listed"
)


CONFLICTS_MAX: Final = 100
"""Conflicts told of one message; the whole of it is kept with the first."""


class Hl7Talk:
    """One connection's reader. Feed `receive`, end with `leave`."""

    __slots__ = ("_caller", "_reader", "_setting")

    def __init__(self, caller: Caller, setting: Setting) -> None:
        """Take the caller: its address names the device if the message does not."""
        self._caller, self._setting = caller, setting
        self._reader = MllpReader()

    def receive(self, data: bytes, received_ms: int) -> list[Entry]:
        """Return the entries that ``data`` completes, in order.

        A message of several devices makes several; the last of them is the one that is answered.
        """
        self._reader.receive(data)
        entries: list[Entry] = []
        while (event := self._reader.next_event()) is not None:
            if isinstance(event, bytes):
                entries += self._message(event, received_ms)
            elif isinstance(event, Oversize):
                detail = f"at most {limits.HL7_MESSAGE_BYTES_MAX} bytes a message"
                refused = Refused(Reason.HL7_TOO_LONG, "", detail)
                entries.append(self._refuse(refused, event.head, event.total_bytes, received_ms))
            else:
                entries.append(self._junk(event, received_ms))
        return entries

    def held_bytes(self) -> int:
        """Return how many bytes are held of something unfinished: the collector bounds them all."""
        return self._reader.held_bytes()

    def half(self) -> bool:
        """Tell whether a block has begun and not ended, or junk is held."""
        return self._reader.held_bytes() > 0

    def leave(self, received_ms: int) -> Entry | None:
        """Return the unfinished block as refused input, or None; the connection is over."""
        half = self._reader.half()
        return None if half is None else self._junk(half, received_ms)

    def _junk(self, junk: Junk, received_ms: int) -> Entry:
        detail = "send each message as 0x0B message 0x1C 0x0D"
        refused = Refused(Reason.HL7_FRAMING, "", detail)
        if self._turns_away():
            return Entry(None, (), (), 0, message=True, turned_away=True)
        reject = rejection(refused, self._name(), junk.head, junk.total_bytes, received_ms)
        return Entry(None, (), (reject,), len(reject.raw), message=True)

    def _name(self) -> str:
        return f"addr-{self._caller.address}"

    def _turns_away(self, device: str = "") -> bool:
        """Tell whether the policy keeps nothing of a caller that may not be known."""
        admission = self._setting.admission
        return (
            not self._caller.welcome
            and admission.policy == "refuse"
            and not admission.known(device or self._name())
        )

    def _refuse(
        self,
        refused: Refused,
        raw: bytes,
        raw_bytes: int,
        received_ms: int,
        device: str = "",
    ) -> Entry:
        known = hl7.envelope(raw)
        if self._turns_away(device):
            answer = _answer(known, _STRANGER, received_ms, reject=True)
            return Entry(None, (), (), 0, message=True, answer=answer, turned_away=True)
        answer = _answer(known, refused, received_ms)
        reject = rejection(refused, device or self._name(), raw, raw_bytes, received_ms)
        return Entry(None, (), (reject,), len(reject.raw), message=True, answer=answer)

    def _message(self, raw: bytes, received_ms: int) -> Iterator[Entry]:
        setting = self._setting
        known = hl7.envelope(raw)
        content = sent = None
        if known.control:
            content = hl7_repeat.digest(raw)
            sender = hl7_repeat.sender(self._caller.address, known.application, known.facility)
            sent = setting.repeats.find(sender, known.control, received_ms)
            if sent is not None and sent.digest == content:
                yield self._again(known, sent)
                return
        report = hl7.decode(raw, known, self._caller.address, setting, received_ms)
        if isinstance(report, Refused):
            yield self._refuse(report, raw, len(raw), received_ms)
            return
        stranger = self._stranger(report)
        if stranger is not None:
            yield self._refuse(_STRANGER, raw, len(raw), received_ms, stranger)
            return
        if sent is not None:
            detail = "give every message a control id of its own"
            refused = Refused(Reason.HL7_REPEAT_CONFLICT, "MSH-10", detail)
            device = report.parts[0].device if report.parts else ""
            yield self._refuse(refused, raw, len(raw), received_ms, device)
            return
        number = next(_numbers)
        first = None
        if content is not None and report.parts:
            # A watchdog is not remembered: sent again it is another sign of life.
            first = setting.repeats.begin(sender, known.control, content, received_ms, number)
        answer = self._promise(known, received_ms, number, first)
        yield from self._entries(report, raw, received_ms, answer)

    def _stranger(self, report: hl7.Report) -> str | None:
        """Return the name of a device that the policy does not take, None when all are taken."""
        if self._caller.welcome:
            return None
        known = self._setting.admission.known
        names = [part.device for part in report.parts] + [one.device for one in report.watched]
        return next((name for name in names if not known(name)), None)

    def _entries(
        self, report: hl7.Report, raw: bytes, received_ms: int, answer: Answer
    ) -> Iterator[Entry]:
        setting = self._setting
        for one in report.watched:
            source = setting.devices.source(one.device, one.patient, setting.ward)
            alert = setting.watchdogs.heard(
                source, one.timeout_ms, received_ms, leaving=one.leaving
            )
            if alert is not None:
                yield Entry(source, (), (), _ALERT_BYTES, part=True, alerts=(alert,))
        last = Entry(None, (), (), 0, message=True)
        for at, part in enumerate(report.parts, 1):
            readings = setting.skews.date(part.device, part.readings)
            source = setting.devices.source(part.device, part.patient, setting.ward)
            entry = accepted(source, readings, None)
            entry.message = True
            if part.alerts:
                skew_ms = setting.skews.skew_ms(part.device)
                entry.alerts = tuple(_dated(alert, skew_ms) for alert in part.alerts)
                entry.size += _ALERT_BYTES * len(part.alerts)
            if at < len(report.parts):
                entry.message, entry.part = False, True
                yield entry
            else:
                last = entry
        last.ignored, last.answer = report.ignored, answer
        if report.refused:
            # Every conflict in it has the same whole raw input: the first carries it.
            device = report.parts[0].device if report.parts else self._name()
            last.rejected = tuple(
                rejection(one, device, raw if at == 0 else b"", len(raw), received_ms)
                for at, one in enumerate(report.refused[:CONFLICTS_MAX])
            )
            last.size += len(last.rejected[0].raw)
        yield last

    def _promise(
        self, known: hl7.Envelope, received_ms: int, number: int, first: Sent | None
    ) -> Answer:
        repeats = self._setting.repeats
        answer = _answer(known, None, received_ms, number=number)

        def promise(failure: Reason | None) -> bytes:
            if first is not None:
                if failure is None:
                    first.durable = True
                else:
                    repeats.forget(first)
            return answer(failure)

        return promise

    def _again(self, known: hl7.Envelope, sent: Sent) -> Entry:
        """Return the entry of a repeat: no reading, and the first's answer once that is durable."""
        repeats = self._setting.repeats
        answer = _answer(known, None, sent.received_ms, number=sent.number)

        def again(failure: Reason | None) -> bytes:
            if sent.durable:
                return answer(None)
            repeats.forget(sent)  # its fate is not known to be good: the next one is taken as new
            return answer(failure or Reason.SPOOL_FAILED)

        return Entry(None, (), (), 0, message=True, answer=again)


def _answer(
    known: hl7.Envelope,
    refused: Refused | None,
    received_ms: int,
    *,
    number: int = 0,
    reject: bool = False,
) -> Answer:
    own_id = f"{received_ms}-{number or next(_numbers)}"

    def answer(failure: Reason | None) -> bytes:
        said, always = refused, reject
        if failure is not None:
            said, always = Refused(failure, "", "nothing was kept; send it again later"), False
        replies = hl7.answer(known, said, own_id, received_ms, reject=always)
        return b"".join(block(one) for one in replies)

    return answer


def _dated(alert: DeviceAlert, skew_ms: int | None) -> DeviceAlert:
    """Return an alert in the time its device's readings are in, else that of receipt."""
    if alert.time_source != TimeSource.DEVICE:
        return alert
    said, received_ms, source = alert.time_ms, alert.received_ms, TimeSource.DEVICE
    if skew_ms is not None and abs(skew_ms) > SKEW_MS_MIN:
        said, source = said + skew_ms, TimeSource.CORRECTED
        if said > received_ms + STEP_MS:
            said, source = received_ms, TimeSource.RECEIVED
    if not TIME_FLOOR_MS <= said <= received_ms + SKEW_MS_MIN:
        said, source = received_ms, TimeSource.RECEIVED
    return msgspec.structs.replace(alert, time_ms=said, time_source=int(source))
