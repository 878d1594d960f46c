"""One unit of input on its way to the spool, and who waits for the answer.

Law: an entry is readings of one source, or one refused input, or both (a message with one bad
value); its answer is made only when its fate on disk is known.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from edge.moment import Moment
from edge.refusal import Reason, Refused
from vitals import limits
from vitals.columns import Source
from vitals.reading import DeviceAlert, Reading, Rejected

Answer = Callable[[Reason | None], bytes]
"""Makes the reply: None when the entry is durable, else why nothing was kept."""

_ROW_BYTES: Final = 16
"""Upper estimate of one reading in a frame's body before compression."""


class Entry(msgspec.Struct, gc=False):
    """What the collector hands to the committer. ``size``: estimated bytes in a frame's body."""

    source: Source | None
    own: tuple[Reading, ...]
    """Readings with a time each."""
    rejected: tuple[Rejected, ...]
    size: int
    message: bool = False
    """True for an HL7 message, False for a line."""
    part: bool = False
    """True for what is counted as no input of its own: another entry of the same message is."""
    answer: Answer | None = None
    connection: object = None
    ignored: int = 0
    """OBX that are no vital sign known here."""
    alerts: tuple[DeviceAlert, ...] = ()
    """Alarms that the device raised itself; they travel beside its readings."""
    turned_away: bool = False
    """Refused by the admission policy: answered and counted, nothing of it is kept."""
    moment: Moment | None = None
    """Readings of one time, in place of ``own``."""

    @property
    def readings(self) -> tuple[Reading, ...]:
        """Return the readings, whichever way they are held."""
        return self.own if self.moment is None else self.moment.readings


def accepted(source: Source, readings: tuple[Reading, ...], answer: Answer | None) -> Entry:
    """Return an entry of readings alone."""
    return Entry(source, readings, (), _ROW_BYTES * len(readings), answer=answer)


def noted(source: Source, moment: Moment, answer: Answer | None) -> Entry:
    """Return an entry of readings of one time; there is at least one."""
    size = _ROW_BYTES * len(moment.rows)
    # In the order of the fields: names would cost half as much again.
    return Entry(source, (), (), size, False, False, answer, None, 0, (), False, moment)


def rejection(
    refused: Refused, device: str, raw: bytes, raw_bytes: int, received_ms: int
) -> Rejected:
    """Return refused input as quarantine keeps it: whole up to the limit, its length noted."""
    return Rejected(
        refused.reason.value,
        refused.field,
        refused.detail,
        device,
        raw[: limits.QUARANTINE_RAW_BYTES_MAX],
        received_ms,
        raw_bytes,
    )
