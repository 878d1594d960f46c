"""The technician's terminal while the live table is on it.

Law: whatever ends the program (a key, Ctrl-C, SIGTERM, a lost connection, a defect), the terminal
is as it was before: its mode, its cursor, its text. Ctrl-Z gives it back too, and `fg` takes it
again. Signals set flags and wake the wait; nothing is done in their handlers.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import termios
import tty
from types import FrameType
from typing import Any, Final

_ENTER: Final = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
_LEAVE: Final = "\x1b[?7h\x1b[?25h\x1b[?1049l"
"""xterm's second screen, cursor, line wrap: what a terminal knows, or ignores."""

_KEYS: Final = {
    "\x1b[A": "k",
    "\x1b[B": "j",
    "\x1bOA": "k",
    "\x1bOB": "j",
    "\x1b[5~": "b",
    "\x1b[6~": " ",
    "\x1b[H": "g",
    "\x1b[F": "G",
}
"""Arrows and their like, as the letters that do the same."""


class Terminal:
    """A context; inside, `wait` for keys and `draw` lines."""

    def __init__(self) -> None:
        """Take standard input and output; they must be a terminal."""
        self._in, self._out = sys.stdin.fileno(), sys.stdout.fileno()
        self._mode: list[Any] | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._drawn: list[str] = []
        self.ended = False
        """True once asked to end by a signal, or when the terminal has gone."""
        self._suspended = self._resized = False
        self._waking, self._woken = socket.socketpair()
        self._wakeup = -1

    def __enter__(self) -> "Terminal":
        self._waking.setblocking(False)
        self._woken.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._waking.fileno(), warn_on_full_buffer=False)
        for number in (
            signal.SIGINT,
            signal.SIGTERM,
            signal.SIGHUP,
            signal.SIGWINCH,
            signal.SIGTSTP,
        ):
            self._before[number] = signal.signal(number, self._handle)
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give()
        for number, before in self._before.items():
            signal.signal(number, before)
        signal.set_wakeup_fd(self._wakeup)
        self._waking.close()
        self._woken.close()

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGWINCH:
            self._resized = True
        elif number == signal.SIGTSTP:
            self._suspended = True
        else:
            self.ended = True

    def _take(self) -> None:
        self._mode = termios.tcgetattr(self._in)
        tty.setcbreak(self._in)
        self._write(_ENTER)
        self._drawn = []

    def _give(self) -> None:
        mode, self._mode = self._mode, None
        if mode is None:
            return
        self._write(_LEAVE)
        with contextlib.suppress(termios.error):  # it has gone
            termios.tcsetattr(self._in, termios.TCSADRAIN, mode)

    def _suspend(self) -> None:
        self._suspended = False
        self._give()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # returns when it goes on
        signal.signal(signal.SIGTSTP, self._handle)
        self._take()

    def _write(self, text: str) -> None:
        data = text.encode(errors="replace")
        try:
            while data:
                data = data[os.write(self._out, data) :]
        except OSError:
            self.ended = True

    def size(self) -> tuple[int, int]:
        """Return columns and lines."""
        try:
            columns, lines = os.get_terminal_size(self._out)
        except OSError:
            columns, lines = 80, 24
        return max(columns, 20), max(lines, 5)

    def wait(self, seconds: float, *others: int) -> tuple[list[str], list[int]]:
        """Return the keys pressed and the descriptors of ``others`` that are ready."""
        ready, _, _ = select.select([self._in, self._woken, *others], [], [], max(0.0, seconds))
        if self._woken in ready:
            with contextlib.suppress(BlockingIOError):
                self._woken.recv(4096)
        if self._suspended:
            self._suspend()
        if self._resized:
            self._resized, self._drawn = False, []
            self._write("\x1b[2J")
        keys = self._keys() if self._in in ready else []
        return keys, [one for one in others if one in ready]

    def _keys(self) -> list[str]:
        try:
            text = os.read(self._in, 1024).decode(errors="replace")
        except OSError:
            text = ""
        if not text:
            self.ended = True
        for sequence, key in _KEYS.items():
            text = text.replace(sequence, key)
        return [] if text.startswith("\x1b") else list(text)

    def draw(self, lines: list[str]) -> None:
        """Show the lines from the top; only those that changed are written."""
        changed = []
        for at in range(max(len(lines), len(self._drawn))):
            new = lines[at] if at < len(lines) else ""
            old = self._drawn[at] if at < len(self._drawn) else None
            if new != old:
                changed.append(f"\x1b[{at + 1};1H{new}\x1b[K")
        self._drawn = list(lines)
        if changed:
            self._write("".join(changed))
