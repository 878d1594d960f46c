"""Devices that promised a sign of life, and those that owe it (IHE PCD-04 watchdog messages).

Law: sans-IO; memory only, bounded. A device that sends watchdogs with a stated timeout and then
falls silent for longer is one technical alert, and one more when it comes back; one that says
before that it goes is none. What a restart of the gateway forgets is learned from the next
watchdog: a device that fell silent during it is not missed here.
"""

from collections import OrderedDict
from typing import Final

from vitals import limits
from vitals.codes import TimeSource
from vitals.columns import Source
from vitals.reading import DeviceAlert

LOST: Final = "HEALTHSYNC_WATCHDOG_LOST"
"""Name of the alert; it is this gateway's own, MDC has no code for it."""
LOST_ID: Final = "watchdog"

GRACE_MS: Final = 1_000
"""Over the stated timeout: a device that sends every 5 s and states 5 s is late by the network."""

WATCHED_MAX: Final = limits.CONNECTIONS_MAX
"""Devices watched at once; beyond it the one that was heard least recently is let go."""


class _Watched:
    __slots__ = ("heard_ms", "lost", "source", "timeout_ms")

    def __init__(self, source: Source, timeout_ms: int, heard_ms: int) -> None:
        self.source, self.timeout_ms, self.heard_ms = source, timeout_ms, heard_ms
        self.lost = False


class Watchdogs:
    """By device name. Call `heard` for each watchdog and `overdue` once a second."""

    __slots__ = ("_most", "_watched")

    def __init__(self, most: int = WATCHED_MAX) -> None:
        """Watch at most ``most`` devices."""
        self._watched: OrderedDict[str, _Watched] = OrderedDict()
        self._most = most

    def __len__(self) -> int:
        return len(self._watched)

    def heard(
        self, source: Source, timeout_ms: int, received_ms: int, *, leaving: bool
    ) -> DeviceAlert | None:
        """Note a sign of life; return the end of a loss, or None. ``leaving``: it is the last."""
        watched = self._watched.pop(source.device, None)
        if not leaving:
            self._watched[source.device] = _Watched(source, timeout_ms, received_ms)
            if len(self._watched) > self._most:
                self._watched.popitem(last=False)
        if watched is None or not watched.lost:
            return None
        return _alert("end", "inactive", received_ms)

    def overdue(self, now_ms: int) -> list[tuple[Source, DeviceAlert]]:
        """Return a loss for each device that has just become overdue; once for each silence."""
        lost = []
        for watched in self._watched.values():
            if watched.lost:
                continue
            if now_ms < watched.heard_ms:
                watched.heard_ms = now_ms  # the clock was set back: begin to wait again
            elif now_ms - watched.heard_ms > watched.timeout_ms + GRACE_MS:
                watched.lost = True
                lost.append((watched.source, _alert("start", "active", now_ms)))
        return lost


def _alert(phase: str, state: str, at_ms: int) -> DeviceAlert:
    return DeviceAlert(
        0,
        LOST,
        at_ms,
        at_ms,
        phase=phase,
        state=state,
        priority="medium",
        kind="technical",
        id=LOST_ID,
        time_source=int(TimeSource.RECEIVED),
    )
