r"""Cuts a stream of bytes into MLLP blocks (HL7 v2 transport, MLLP release 1).

Law: sans-IO; a block is ``\x0b`` content ``\x1c`` ``\r``; never holds more than one message's
limit, and once over it only what quarantine keeps. Line ends between blocks are tolerated, other
bytes there are reported as junk, and a new ``\x0b`` inside a block ends the cut-off one as junk:
neither takes the following block with it. The ``\r`` is not waited for: some senders leave it out.
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
        head_max = min(limits.QUARANTINE_RAW_BYTES_MAX, self._max)
        self._held_bytes += len(data)
        if self._inside and self._held_bytes <= self._max:
            self._held += data
            return
        room = head_max - len(self._held)
        if room > 0:
            self._held += data[:room]
        elif room < 0:
            del self._held[head_max:]  # over the limit now: no message any more

    def _drop(self) -> None:
        if self._held_bytes:
            self._held, self._held_bytes = bytearray(), 0

    def _junk(self) -> None:
        half = self.half()
        if half is not None:
            self._events.append(half)
        self._drop()

    def receive(self, data: bytes) -> None:
        """Take bytes as they came; each is looked at once, however many blocks they hold."""
        at, size = 0, len(data)
        start = end = -1  # the next mark of each kind; found anew once it lies behind
        while at < size:
            if start < at:
                start = _find(data, START, at)
            if not self._inside:
                self._between(data[at:start])
                if start < size:
                    self._junk()
                    self._inside = True
                at = start + 1
                continue
            if end < at:
                end = _find(data, END, at)
            stop = min(start, end)
            if stop == size:
                self._hold(data[at:])
            elif stop == end:
                self._finish(data[at:end])
            else:
                self._hold(data[at:start])
                self._junk()  # cut off by the next one, which has begun
            at = stop + 1

    def _between(self, data: bytes) -> None:
        if not self._held_bytes:
            data = data.lstrip(BETWEEN)
        if data:
            self._hold(data)

    def _finish(self, data: bytes) -> None:
        if not self._held_bytes and len(data) <= self._max:
            self._events.append(data)
        else:
            self._hold(data)
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

    def held_bytes(self) -> int:
        """Return how many bytes are held of an unfinished block, its mark included, or of junk."""
        return len(self._held) + self._inside

    def half(self) -> Junk | None:
        """Return what is held of an unfinished block or of junk, or None."""
        if not self._held_bytes:
            return None
        return Junk(bytes(self._held[: limits.QUARANTINE_RAW_BYTES_MAX]), self._held_bytes)


def _find(data: bytes, mark: bytes, at: int) -> int:
    """Return where a mark stands, or the end of the data."""
    place = data.find(mark, at)
    return len(data) if place < 0 else place


def block(message: bytes) -> bytes:
    """Return a message in MLLP framing."""
    return START + message + END + b"\r"
