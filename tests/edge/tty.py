"""A terminal for tests: a pseudo terminal, and a small reader of what was written to it."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]

_CONTROL = re.compile(rb"\x1b\[([?0-9;]*)([A-Za-z])|([^\x1b]+)|\x1b")


class Screen:
    """What a person sees: lines of characters. Knows only what `edge.terminal` writes."""

    def __init__(self) -> None:
        self.lines: dict[int, str] = {}
        self.modes: dict[str, bool] = {}
        self.raw = b""
        self.strict = True
        self._row = self._column = 0

    def write(self, data: bytes) -> None:
        self.raw += data
        for match in _CONTROL.finditer(data):
            arguments, command, text = match.groups()
            if text is not None:
                self._text(text.decode(errors="replace"))
            elif command == b"H":
                row, _, column = (arguments or b"1;1").partition(b";")
                self._row, self._column = int(row) - 1, int(column) - 1
            elif command == b"K":
                self.lines[self._row] = self.lines.get(self._row, "")[: self._column]
            elif command == b"J":
                self.lines.clear()
            elif command in (b"h", b"l"):
                self.modes[arguments.decode()] = command == b"h"
            else:
                assert command == b"m" or not self.strict, match.group()

    def _text(self, text: str) -> None:
        old = self.lines.get(self._row, "").ljust(self._column)
        self.lines[self._row] = old[: self._column] + text + old[self._column + len(text) :]
        self._column += len(text)

    def text(self) -> str:
        last = max(self.lines, default=-1)
        return "\n".join(self.lines.get(at, "") for at in range(last + 1))


class Session:
    """A command on a pseudo terminal."""

    def __init__(self, child: "subprocess.Popen[bytes]", master: int) -> None:
        self.child, self.master, self.screen = child, master, Screen()

    def until(self, wanted: Callable[[Screen], bool], seconds: float = 10) -> Screen:
        ends = time.monotonic() + seconds
        while not wanted(self.screen):
            assert time.monotonic() < ends, self.screen.text()
            self._take(0.1)
        return self.screen

    def says(self, text: str) -> Screen:
        return self.until(lambda screen: text in screen.text())

    def prints(self, text: str) -> Screen:
        """Wait for text that was written anywhere, at any time."""
        return self.until(lambda screen: text.encode() in screen.raw)

    def press(self, keys: str) -> None:
        os.write(self.master, keys.encode())

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))

    def mode(self) -> list[object]:
        return termios.tcgetattr(self.master)

    def _take(self, seconds: float) -> None:
        if select.select([self.master], [], [], seconds)[0]:
            with contextlib.suppress(OSError):  # its other end is closed
                self.screen.write(os.read(self.master, 65536))

    def ended(self) -> int:
        ends = time.monotonic() + 10
        while self.child.poll() is None:
            assert time.monotonic() < ends
            self._take(0.05)
        self._take(0.05)
        return self.child.returncode


@contextmanager
def session(
    words: Sequence[str], columns: int = 80, lines: int = 24, **environment: str
) -> Iterator[Session]:
    """Run a command on a terminal of its own; kill what is left of it after."""
    master, slave = pty.openpty()
    try:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("4H", lines, columns, 0, 0))
        child = subprocess.Popen(
            words,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            cwd=ROOT,
            env=os.environ | {"TERM": "xterm"} | environment,
            start_new_session=True,
            # Its controlling terminal: Ctrl-C and a new size become signals.
            preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0),
        )
        try:
            yield Session(child, master)
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
            child.wait()
    finally:
        os.close(master)
        os.close(slave)
