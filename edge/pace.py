"""How many late bytes may be on their way, so that live frames hardly wait behind them.

Law: sans-IO, sans clock. Nothing is known of the line, of ingest or of Kafka but how long frames
took from commit to acknowledgement; so whichever of them is the narrow part, late frames give way.

The window grows as TCP's does (RFC 5681): by what was acknowledged until live frames first felt
it, then by one step for each window acknowledged; it halves when a live frame took QUEUE_S_MAX
longer than the quickest of late (as LEDBAT does, RFC 6817: what the line takes by itself is not
our doing), or longer than LIVE_S_MAX, at most once in the time that it takes to see what that did.
While nothing live is sent, late frames themselves may take LATE_S_MAX: the first live one would
wait that long.

Measured on two cores (`bench.uplink`): a folded frame is 5 KB of 5,000 readings, 7 ms of ingest's
work, so a window is small in bytes. With 80 ms for a live frame and 64 KiB to begin with, a day of
40 beds drained in 6 s and live frames took up to 190 ms; what is below drains it in some 15 s.
"""

from typing import Final

LIVE_S_MAX: Final = 0.08
"""From commit to acknowledgement of a live frame: what the goal of 100 ms to the ward page leaves
after the commit window and the ward page's own part."""

QUEUE_S_MAX: Final = 0.02
"""Of it, behind late frames."""

BASE_S: Final = 30.0
"""The quickest live frame of this long to twice as long ago is what the line takes by itself."""

LATE_S_MAX: Final = 0.25
"""From sending to acknowledgement of a late frame while nothing live is sent."""

QUIET_S: Final = 2.0
"""Without a live frame for this long, late ones tell what a live one would meet."""

WINDOW_BYTES_MIN: Final = 8 * 1024
"""A folded minute of a ward is 10 KiB: one is always on its way."""

WINDOW_BYTES_MAX: Final = 4 * 1024 * 1024
"""At 100 Mbit/s a third of a second."""

WINDOW_BYTES_FIRST: Final = 16 * 1024
STEP_BYTES: Final = 4 * 1024

DOUBLING_TO: Final = 64 * 1024
"""Up to here the window doubles: twelve folded frames, 80 ms of ingest's work. On a line of 100 ms
it is 700,000 readings a second, so nobody waits for the steps."""


CUT_S_MIN: Final = 0.1
"""Between two cuts at least: frames that were on their way before the first tell nothing new."""

RATE_S: Final = 5.0
"""Time constant of the pace that is shown."""


class Pace:
    """State of one session's late lane. Times are seconds of one monotonic clock."""

    __slots__ = (
        "_base_s",
        "_cut_s",
        "_frames",
        "_live_s",
        "_newer_s",
        "_rate",
        "_rated_s",
        "_slow_start_to",
        "_turned_s",
        "window",
    )

    def __init__(self, now_s: float) -> None:
        """Begin small: the first live frame of a session must not wait."""
        self.window = WINDOW_BYTES_FIRST
        """Late bytes that may be on their way."""
        self._slow_start_to = DOUBLING_TO
        self._cut_s = now_s - CUT_S_MIN
        self._live_s = now_s - QUIET_S
        self._base_s = self._newer_s = LIVE_S_MAX - QUEUE_S_MAX
        self._turned_s = now_s
        self._rate = 0.0
        self._frames = 0
        self._rated_s = now_s

    def live(self, took_s: float, now_s: float) -> None:
        """Note a live frame's time from commit to acknowledgement."""
        self._live_s = now_s
        if now_s - self._turned_s > BASE_S:
            self._base_s, self._newer_s, self._turned_s = self._newer_s, took_s, now_s
        self._newer_s = min(self._newer_s, took_s)
        self._base_s = min(self._base_s, took_s)
        if took_s > min(self._base_s + QUEUE_S_MAX, LIVE_S_MAX):
            self._cut(took_s, now_s)

    def late(self, took_s: float, size: int, now_s: float) -> None:
        """Note a late frame's time from sending to acknowledgement, and its bytes."""
        self._frames += 1
        if took_s > LATE_S_MAX and now_s - self._live_s > QUIET_S:
            self._cut(took_s, now_s)
        elif self.window < self._slow_start_to:
            self._grow(size)
        else:
            self._grow(max(1, STEP_BYTES * size // self.window))

    def _grow(self, more: int) -> None:
        self.window = min(self.window + more, WINDOW_BYTES_MAX)

    def _cut(self, took_s: float, now_s: float) -> None:
        if now_s - self._cut_s < max(took_s, CUT_S_MIN):
            return
        self._cut_s = now_s
        self.window = self._slow_start_to = max(self.window // 2, WINDOW_BYTES_MIN)

    def rate(self, now_s: float) -> float:
        """Return late frames acknowledged a second, of late."""
        span_s = now_s - self._rated_s
        if span_s >= 1.0:
            now = self._frames / span_s
            weight = min(1.0, span_s / RATE_S) if self._rate else 1.0
            self._rate += (now - self._rate) * weight
            self._frames, self._rated_s = 0, now_s
        return self._rate
