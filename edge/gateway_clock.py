"""The gateway's clock: the system's, moved by what the uplink measured, never before a floor.

Law: whoever asks for the time of receipt asks here. The system's clock is never set from here; what
it is off the cloud's is added to it, once that is more than STEP_MS. A gateway that wakes without a
clock goes on from the last time it knew (the floor) until somebody tells it better.

When the system's clock is set while a correction is in force (chrony has found its server), the
correction is taken back by as much: the monotonic clock tells a step from the passing of time.
"""

import time
from collections.abc import Callable
from typing import Final

STEP_MS: Final = 500.0
"""Less is left alone: it is what two good clocks and a busy network may be apart, and a correction
that follows every measurement would make times of receipt jump."""


def _monotonic_ms() -> float:
    return time.monotonic_ns() / 1e6


class GatewayClock:
    """Made once a process; `now_ms` is called for every look at the sockets."""

    __slots__ = ("_floor_ms", "_last_mono", "_last_system", "_mono", "_system", "correction_ms")

    def __init__(
        self,
        system_ms: Callable[[], int],
        floor_ms: int = 0,
        monotonic_ms: Callable[[], float] = _monotonic_ms,
    ) -> None:
        """``floor_ms``: a time that is certainly past, 0 when none is known."""
        self._system, self._mono = system_ms, monotonic_ms
        self._floor_ms = floor_ms
        self._last_system, self._last_mono = system_ms(), monotonic_ms()
        self.correction_ms = 0.0
        """Added to the system's clock."""
        if self._last_system < floor_ms:
            self.correction_ms = float(floor_ms - self._last_system)

    def now_ms(self) -> int:
        """Return milliseconds of UTC since 1970."""
        system, mono = self._system(), self._mono()
        if self.correction_ms:
            step = (system - self._last_system) - (mono - self._last_mono)
            if abs(step) > STEP_MS:
                left = self.correction_ms - step
                self.correction_ms = left if abs(left) > STEP_MS else 0.0
        self._last_system, self._last_mono = system, mono
        return max(int(system + self.correction_ms), self._floor_ms)

    def measured(self, off_ms: float, delay_ms: float = 0.0) -> bool:
        """Take the cloud's clock minus `now_ms`; return True when this clock was moved by it.

        A round trip of ``delay_ms`` can feign half of it.
        """
        if abs(off_ms) <= STEP_MS + delay_ms / 2:
            return False
        self.correction_ms = self.now_ms() + off_ms - self._last_system
        if abs(self.correction_ms) <= STEP_MS:
            self.correction_ms = 0.0  # the system's clock is right by now
        self._floor_ms = 0  # somebody knows better
        return True
