"""One MLLP connection: blocks in, entries and their acknowledgements out.

Law: sans-IO. Every message is judged alone and answered for itself; bytes that are no message are
quarantined and get no answer, because an answer without a control id could be taken for another
message's.
"""

from collections.abc import Iterator
from itertools import count
from typing import Final

from edge import hl7
from edge.admission import Caller
from edge.entry import Answer, Entry, accepted, rejection
from edge.mllp import Junk, MllpReader, Oversize, block
from edge.refusal import Reason, Refused
from edge.setting import Setting
from vitals import limits
from vitals.columns import Source

_own_ids: Final = count(1)
"""Control ids of answers: unique within a run, made longer by the time of receipt."""


class Hl7Talk:
    """One connection's reader. Feed `receive`, end with `leave`."""

    __slots__ = ("_caller", "_reader", "_setting")

    def __init__(self, caller: Caller, setting: Setting) -> None:
        """Take the caller: its address names the device if the message does not."""
        self._caller, self._setting = caller, setting
        self._reader = MllpReader()

    def receive(self, data: bytes, received_ms: int) -> Iterator[Entry]:
        """Yield one entry a message, or a stretch of junk."""
        self._reader.receive(data)
        while (event := self._reader.next_event()) is not None:
            if isinstance(event, Junk):
                yield self._junk(event, received_ms)
            elif isinstance(event, Oversize):
                detail = f"at most {limits.HL7_MESSAGE_BYTES_MAX} bytes a message"
                refused = Refused(Reason.HL7_TOO_LONG, "", detail)
                yield self._refuse(refused, event.head, event.total_bytes, received_ms)
            else:
                yield self._message(event, received_ms)

    def half(self) -> bool:
        """Tell whether a block has begun and not ended."""
        return self._reader.half() is not None

    def leave(self, received_ms: int) -> Entry | None:
        """Return the unfinished block as refused input, or None; the connection is over."""
        half = self._reader.half()
        return None if half is None else self._junk(half, received_ms)

    def _junk(self, junk: Junk, received_ms: int) -> Entry:
        refused = Refused(Reason.HL7_FRAMING, "", "send each message as 0x0B message 0x1C 0x0D")
        device = f"addr-{self._caller.address}"
        reject = rejection(refused, device, junk.head, junk.total_bytes, received_ms)
        return Entry(None, (), (reject,), len(reject.raw), message=True)

    def _refuse(self, refused: Refused, raw: bytes, raw_bytes: int, received_ms: int) -> Entry:
        device = f"addr-{self._caller.address}"
        reject = rejection(refused, device, raw, raw_bytes, received_ms)
        known = hl7.envelope(raw)
        answer = _answer(known, refused, received_ms)
        return Entry(None, (), (reject,), len(reject.raw), message=True, answer=answer)

    def _message(self, raw: bytes, received_ms: int) -> Entry:
        known = hl7.envelope(raw)
        report = hl7.decode(
            raw, known, self._caller.address, self._setting.ward, self._setting.zone, received_ms
        )
        if isinstance(report, Refused):
            return self._refuse(report, raw, len(raw), received_ms)
        source = Source(report.device, patient=report.patient)
        readings = self._setting.skews.date(report.device, report.readings)
        entry = accepted(source, readings, _answer(known, None, received_ms))
        entry.message, entry.ignored = True, report.ignored
        if report.refused:
            # One entry for the message: every conflict in it has the same whole raw input.
            first = report.refused[0]
            kept = rejection(first, report.device, raw, len(raw), received_ms)
            entry.rejected = (kept,)
            entry.size += len(kept.raw)
        return entry


def _answer(known: hl7.Envelope, refused: Refused | None, received_ms: int) -> Answer:
    own_id = f"{received_ms}-{next(_own_ids)}"

    def answer(failure: Reason | None) -> bytes:
        said = refused
        if failure is not None:
            said = Refused(failure, "", "nothing was kept; send it again later")
        return b"".join(block(one) for one in hl7.answer(known, said, own_id, received_ms))

    return answer
