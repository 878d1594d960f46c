"""Cuts a stream of bytes into lines.

Law: sans-IO; never holds more than one line's limit of an unfinished line, however long the
sender goes on without ending it; what comes after an oversize line is read as if it had not been.
"""

from collections.abc import Sequence
from typing import NamedTuple

from vitals import limits


class Oversize(NamedTuple):
    """A line over the limit: its head, and how many bytes it had in all."""

    head: bytes
    total_bytes: int


class LineReader:
    r"""Bytes in, lines out. Lines end in ``\n`` or ``\r\n``.

    Ten thousand of these are held at once: nothing in it but the unfinished line.
    """

    __slots__ = ("_half", "_max", "_over_bytes")

    def __init__(self, line_bytes_max: int = limits.LINE_BYTES_MAX) -> None:
        """Take the limit in bytes, without the line's end."""
        self._max = line_bytes_max
        self._half = b""
        self._over_bytes = 0  # bytes of the running oversize line; 0 when there is none

    def receive(self, data: bytes) -> Sequence[bytes | Oversize]:
        """Take bytes as they came; return the lines they end, each without its end."""
        # What nearly always comes: one whole line.
        end = data.find(b"\n")
        if 0 <= end == len(data) - 1 <= self._max and not self._half and data[-2:-1] != b"\r":
            return (data[:-1],)
        whole = data.split(b"\n")
        half = whole.pop()
        lines: list[bytes | Oversize]
        if self._half:
            if not whole:
                self._hold(half)
                return ()
            first: bytes | Oversize
            if self._over_bytes:
                total = self._over_bytes + len(whole[0])
                total -= (whole[0] or self._half)[-1:] == b"\r"
                first = Oversize(self._half[: self._max], total)
            else:
                first = self._ended(self._half + whole[0])
            self._half, self._over_bytes = b"", 0
            lines = [first, *[self._ended(line) for line in whole[1:]]]
        else:
            lines = [self._ended(line) for line in whole]
        if half:
            self._hold(half)
        return lines

    def _ended(self, line: bytes) -> bytes | Oversize:
        if line[-1:] == b"\r":
            line = line[:-1]
        return line if len(line) <= self._max else Oversize(line[: self._max], len(line))

    def _hold(self, data: bytes) -> None:
        r"""Keep what may become a line; of an oversize one its head and last byte, perhaps a \r."""
        if not self._over_bytes:
            self._half += data
            if len(self._half) <= self._max + 1:  # one more for a \r that may yet end the line
                return
            data, self._over_bytes = self._half, 0
        self._over_bytes += len(data)
        self._half = self._half[: self._max] + data[-1:]

    def held_bytes(self) -> int:
        """Return how many bytes are held of an unfinished line."""
        return len(self._half)

    def half(self) -> Oversize | None:
        """Return the unfinished line (its head and length so far), or None when between lines."""
        if not self._half:
            return None
        return Oversize(self._half[: self._max], self._over_bytes or len(self._half))
