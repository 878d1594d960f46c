r"""Cuts a stream of bytes into MLLP blocks (HL7 v2 transport, MLLP release 1).

Law: sans-IO; a block is ``\x0b`` content ``\x1c`` ``\r``; never holds more than one message's
limit. Line ends between blocks are tolerated, other bytes there are reported as junk, and a new
``\x0b`` inside a block ends the cut-off one as junk: neither takes the following block with it.
"""

from collections import deque
from typing import Final, NamedTuple

from vitals import limits

START: Final = b"\x0b"
END: Final = b"\x1c"
BETWEEN: Final = b"\r\n"


class Oversize(NamedTuple):
    """A block over the limit: its head, and how many bytes it had in all."""

    head: bytes
    total_bytes: int


class Junk(NamedTuple):
    """Bytes that are no block, cut to the limit of quarantine, and how many there were."""

    head: bytes
    total_bytes: int


class MllpReader:
    """Bytes in by `receive`, messages out by `next_event`."""

    __slots__ = ("_events", "_held", "_held_bytes", "_inside", "_max")

    def __init__(self, message_bytes_max: int = limits.HL7_MESSAGE_BYTES_MAX) -> None:
        """Take the limit of one message in bytes."""
        self._max = message_bytes_max
        self._inside = False
        self._held = bytearray()
        self._held_bytes = 0  # as sent; more than len(_held) once over the limit
        self._events: deque[bytes | Oversize | Junk] = deque()

    def _hold(self, data: bytes) -> None:
        cap = self._max if self._inside else limits.QUARANTINE_RAW_BYTES_MAX
        self._held_bytes += len(data)
        room = cap - len(self._held)
        if room > 0:
            self._held += data[:room]

    def _drop(self) -> None:
        self._held, self._held_bytes = bytearray(), 0

    def _junk(self) -> None:
        if self._held_bytes:
            head = bytes(self._held[: limits.QUARANTINE_RAW_BYTES_MAX])
            self._events.append(Junk(head, self._held_bytes))
        self._drop()

    def receive(self, data: bytes) -> None:
        """Take bytes as they came."""
        while data:
            if not self._inside:
                before, start, data = data.partition(START)
                if not self._held_bytes:
                    before = before.lstrip(BETWEEN)
                if before:
                    self._hold(before)
                if start:
                    self._junk()
                    self._inside = True
                continue
            content, end, rest = data.partition(END)
            cut, restart, again = content.partition(START)
            if restart:
                self._hold(cut)
                self._junk()
                data = again + end + rest
                continue
            self._hold(content)
            if end:
                self._finish()
            data = rest

    def _finish(self) -> None:
        if self._held_bytes > self._max:
            head = bytes(self._held[: limits.QUARANTINE_RAW_BYTES_MAX])
            self._events.append(Oversize(head, self._held_bytes))
        else:
            self._events.append(bytes(self._held))
        self._drop()
        self._inside = False

    def next_event(self) -> bytes | Oversize | Junk | None:
        """Return the next message without its framing, or what went wrong; None: need more."""
        return self._events.popleft() if self._events else None

    def half(self) -> Junk | None:
        """Return what is held of an unfinished block or of junk, or None."""
        if not self._held_bytes:
            return None
        return Junk(bytes(self._held[: limits.QUARANTINE_RAW_BYTES_MAX]), self._held_bytes)


def block(message: bytes) -> bytes:
    """Return a message in MLLP framing."""
    return START + message + END + b"\r"
