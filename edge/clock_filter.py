"""How far the cloud's clock is off this one's, from heartbeats.

Law: pure. The sample with the shortest round trip of the last few is believed (RFC 5905 section
10): a queue on the line delays one way more than the other, and adds at most half of its delay.
"""

from collections import deque
from typing import Final

from vitals.session import Pong

SAMPLES: Final = 8
"""As NTP keeps: 16 s of heartbeats."""


def offset_ms(pong: Pong, now_ms: int) -> float:
    """Return the cloud's clock minus this one's (RFC 5905 section 8: ((T2-T1)+(T3-T4))/2)."""
    return ((pong.arrived_ms - pong.sent_ms) + (pong.answered_ms - now_ms)) / 2


def delay_ms(pong: Pong, now_ms: int) -> float:
    """Return the round trip without ingest's own part ((T4-T1)-(T3-T2)), at least 0."""
    return max(0.0, (now_ms - pong.sent_ms) - (pong.answered_ms - pong.arrived_ms))


def _delay(sample: tuple[float, float]) -> float:
    return sample[0]


class ClockFilter:
    """The last heartbeats of any session."""

    __slots__ = ("_samples",)

    def __init__(self) -> None:
        """Know nothing yet."""
        self._samples: deque[tuple[float, float]] = deque(maxlen=SAMPLES)

    def measured(self, pong: Pong, now_ms: int) -> tuple[float, float]:
        """Take an answer; return (offset, delay) of the best of the last."""
        self._samples.append((delay_ms(pong, now_ms), offset_ms(pong, now_ms)))
        delay, offset = min(reversed(self._samples), key=_delay)  # the newest of equal ones
        return offset, delay

    def reset(self) -> None:
        """Forget: this clock was set, older samples are of another one."""
        self._samples.clear()
