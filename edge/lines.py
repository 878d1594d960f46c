"""Cuts a stream of bytes into lines.

Law: sans-IO; never holds more than one line's limit of an unfinished line, however long the
sender goes on without ending it; what comes after an oversize line is read as if it had not been.
"""

from collections import deque
from typing import NamedTuple

from vitals import limits


class Oversize(NamedTuple):
    """A line over the limit: its head, and how many bytes it had in all."""

    head: bytes
    total_bytes: int


class LineReader:
    r"""Bytes in by `receive`, lines out by `next_event`. Lines end in ``\n`` or ``\r\n``."""

    __slots__ = ("_events", "_half", "_max", "_over_bytes")

    def __init__(self, line_bytes_max: int = limits.LINE_BYTES_MAX) -> None:
        """Take the limit in bytes, without the line's end."""
        self._max = line_bytes_max
        self._half = b""
        self._over_bytes = 0  # bytes of the running oversize line; 0 when there is none
        self._events: deque[bytes | Oversize] = deque()

    def receive(self, data: bytes) -> None:
        """Take bytes as they came; holds them cut into lines until `next_event`."""
        head, newline, rest = data.partition(b"\n")
        if self._over_bytes:
            self._over_bytes += len(head)
            if not newline:
                return
            self._events.append(Oversize(self._half, self._over_bytes))
            self._half, self._over_bytes = b"", 0
            head, newline, rest = rest.partition(b"\n")
        if newline:
            self._end(self._half + head if self._half else head)
            whole = rest.split(b"\n")
            self._half = whole.pop()
            for line in whole:
                self._end(line)
        elif self._half:
            self._half += head
        else:
            self._half = head
        if len(self._half) > self._max + 1:  # one more for a \r that may yet end the line
            self._over_bytes = len(self._half)
            self._half = self._half[: self._max]

    def _end(self, line: bytes) -> None:
        line = line.removesuffix(b"\r")
        if len(line) > self._max:
            self._events.append(Oversize(line[: self._max], len(line)))
        else:
            self._events.append(line)

    def next_event(self) -> bytes | Oversize | None:
        """Return the next line without its end, or Oversize; None means "need more bytes"."""
        return self._events.popleft() if self._events else None

    def half(self) -> Oversize | None:
        """Return the unfinished line (its head and length so far), or None when between lines."""
        if not self._half and not self._over_bytes:
            return None
        return Oversize(self._half, self._over_bytes or len(self._half))
