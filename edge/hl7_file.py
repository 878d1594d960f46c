"""HL7 v2 messages of a file, as a connection would bring them: in MLLP framing.

Law: sans-IO; bytes in, bytes out, none changed, none held but what may be the begin of a segment.
A file that starts with 0x0B is framed already and passes as it is. In any other, a message begins
with every segment MSH and ends before the next one or with the file.
"""

import re
from typing import Final

from edge.mllp import END, START

_BLANK: Final = b"\r\n\t \xef\xbb\xbf"
"""What may stand before the first message: ends of lines, and the mark that some editors write."""
_MESSAGE: Final = re.compile(rb"(?<=[\r\n])MSH(?![0-9A-Za-z])")
_HEAD: Final = b"MSH"


class Framing:
    """Feed `receive`, end with `end`; send on what both return."""

    __slots__ = ("_begun", "_framed", "_tail")

    def __init__(self) -> None:
        """Nothing has come yet."""
        self._begun = self._framed = False
        self._tail = b""

    def receive(self, data: bytes) -> bytes:
        """Return the bytes with framing, as far as they can be told."""
        if self._framed:
            return data
        start = b""
        if not self._begun:
            data = data.lstrip(_BLANK)
            if not data:
                return b""
            self._begun, self._framed = True, data.startswith(START)
            if self._framed:
                return data
            start = START
        data = self._tail + data
        cut = self._cut(data)
        data, self._tail = data[:cut], data[cut:]
        return start + _MESSAGE.sub(END + b"\r" + START + _HEAD, data)

    def _cut(self, data: bytes) -> int:
        """Return where the end begins that more bytes could make a segment MSH."""
        last = max(data.rfind(b"\r"), data.rfind(b"\n"))
        undecided = last >= 0 and _HEAD.startswith(data[last + 1 :])
        return last if undecided else len(data)

    def end(self) -> bytes:
        """Return what is left and the last message's end; the file is over."""
        if self._framed or not self._begun:
            return b""
        tail, self._tail = self._tail, b""
        return _MESSAGE.sub(END + b"\r" + START + _HEAD, tail) + END + b"\r"
