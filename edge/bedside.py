"""What one line-protocol connection has said so far, and what its next line means with that.

Law: sans-IO. Readings go to the device and patient last named on this connection; whenever a
line that was refused may have named others, nothing named before is believed any more: better an
unassociated reading than one in the wrong record.
"""

import re
from collections.abc import Iterator
from typing import Final

from edge import normalize
from edge.admission import Caller
from edge.decode_line import Said, decode
from edge.entry import Answer, Entry, accepted, rejection
from edge.lines import LineReader, Oversize
from edge.refusal import Reason, Refuse, Refused
from edge.setting import Setting
from vitals import limits
from vitals.columns import Source
from vitals.reading import Patient

_NAMES_SOMEONE: Final = re.compile(rb"device|mrn|name|dob|birth|sex|gender|bed|\\u", re.IGNORECASE)
_ASKS_REPLY: Final = re.compile(rb'\breply"?\s*[=:]\s*"?(yes|true)\b', re.IGNORECASE)


def _ok(failure: Reason | None) -> bytes:
    return b"ok\n" if failure is None else f"rejected {failure}: nothing was kept\n".encode()


def _refusal(refused: Refused) -> Answer:
    text = f"rejected {refused.reason} {refused.field or '-'}: {refused.detail}\n".encode()

    def answer(failure: Reason | None) -> bytes:
        return text if failure is None else _ok(failure)

    return answer


class LineTalk:
    """One connection's reader, named device and patient. Feed `receive`, end with `leave`."""

    __slots__ = ("_caller", "_lines", "_replies", "_setting", "_source")

    def __init__(self, caller: Caller, setting: Setting) -> None:
        """Take the caller; its address names the device until the device does."""
        self._caller = caller
        self._setting = setting
        self._lines = LineReader()
        self._replies = False
        self._source = Source(f"addr-{caller.address}")

    def receive(self, data: bytes, received_ms: int) -> Iterator[Entry]:
        """Yield one entry a complete line; blank lines yield none."""
        self._lines.receive(data)
        next_event = self._lines.next_event
        while (event := next_event()) is not None:
            if isinstance(event, Oversize):
                detail = f"at most {limits.LINE_BYTES_MAX} bytes a line"
                refused = Refused(Reason.TOO_LONG, "", detail)
                yield self._refuse(refused, event.head, event.total_bytes, received_ms)
                continue
            said = decode(event)
            if isinstance(said, Said):
                yield self._take(said, event, received_ms)
            elif said is not None:
                yield self._refuse(said, event, len(event), received_ms)

    def half(self) -> bool:
        """Tell whether a line has begun and not ended."""
        return self._lines.half() is not None

    def leave(self, received_ms: int) -> Entry | None:
        """Return the unfinished line as refused input, or None; the connection is over."""
        half = self._lines.half()
        if half is None:
            return None
        refused = Refused(Reason.HALF_LINE, "", "end every line with a newline")
        return self._refuse(refused, half.head, half.total_bytes, received_ms)

    def _take(self, said: Said, line: bytes, received_ms: int) -> Entry:
        try:
            moment = None if said.time is None else normalize.to_ms(said.time, self._setting.zone)
            readings = normalize.readings(said.measures, moment, received_ms, said.status)
        except Refuse as refuse:
            return self._refuse(refuse.refused, line, len(line), received_ms)
        if said.reply is not None:
            self._replies = said.reply
        if said.device is not None or said.patient:
            self._source = self._attach(said)
        readings = self._setting.skews.date(self._source.device, readings)
        return accepted(self._source, readings, _ok if self._replies else None)

    def _attach(self, said: Said) -> Source:
        device, patient = self._source.device, self._source.patient or Patient()
        if said.device is not None and said.device != device:
            device, patient = said.device, Patient()
        mentioned = said.patient
        if "mrn" in mentioned and mentioned["mrn"] != patient.mrn:
            patient = Patient()
        fields = {name: getattr(patient, name) for name in patient.__struct_fields__} | mentioned
        if not any(fields.values()):
            return Source(device)
        fields["ward"] = fields["ward"] or self._setting.ward
        return Source(device, patient=Patient(**fields))

    def _refuse(self, refused: Refused, raw: bytes, raw_bytes: int, received_ms: int) -> Entry:
        said_by = self._source.device
        if raw_bytes > len(raw) or _NAMES_SOMEONE.search(raw):
            self._source = Source(f"addr-{self._caller.address}")
        if _ASKS_REPLY.search(raw):
            self._replies = True
        reject = rejection(refused, said_by, raw, raw_bytes, received_ms)
        answer = _refusal(refused) if self._replies else None
        return Entry(None, (), (reject,), len(raw), answer=answer)
