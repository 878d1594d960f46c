"""Stopping cleanly: SIGTERM and SIGINT set a flag that loops look at."""

import signal
from types import FrameType


class Stop:
    """True once the process was asked to stop. Make it in the main thread, before the loop."""

    def __init__(self) -> None:
        """Install the handlers."""
        self._asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True

    def __bool__(self) -> bool:
        return self._asked

    def ask(self) -> None:
        """Stop from inside."""
        self._asked = True
