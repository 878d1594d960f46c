"""How far each device's clock is off, and the time a reading gets because of it.

Law: sans clock; every time is an argument, in milliseconds of UTC. A device's time is moved only
when its clock has been seen to run in step with receipt, so that a clock that is wrong by minutes
still rings, and stored history, which comes faster than it was measured, does not. What is moved
never lies further ahead of receipt than STEP_MS, and a time that is said again is not moved again.

The offset of a reading is receipt minus the device's time: skew (what the clock is off; positive
is slow) plus age plus delay. Age and delay only add; hence the asymmetries below.
"""

from array import array
from collections import OrderedDict
from typing import Final

from vitals import limits
from vitals.codes import TimeSource
from vitals.reading import Reading

TIME_FLOOR_MS: Final = 1_577_836_800_000
"""2020-01-01: a device time before this is a clock that was never set."""

SKEW_MS_MIN: Final = 5_000
"""A clock off by less is left alone: no alarm's delay or lane (60 s) turns on it, and it is of the
size of what a busy network and a device that writes whole seconds can feign."""

GATEWAY_OFF_MS_MAX: Final = 30_000
"""This gateway's clock may be off by this against the cloud's and still correct others: half of
what detect takes for late, so that what is corrected stays live."""

STEP_MS: Final = 2_000
"""Offsets that agree: whole seconds cost one second, delays on a ward's network another."""
STEP_PER_SPAN: Final = 100
STEP_MS_MAX: Final = 4_000
"""STEP_MS grows by 1/100 of the time between, up to this, for those that speak once a minute."""

STEADY_POINTS: Final = 3
STEADY_MS: Final = 4_000
"""In step: so many points, over so long a receipt. Twice STEP_MS, so that a clock that stands
still, or one that runs twice too fast, can not look in step."""

POINTS_MAX: Final = 32
"""Points kept of one device: half a minute of one that speaks every second."""
SPACING_MS: Final = 500
"""What is received closer together makes one point, of its least offset: a device that sends ten
seconds at once is judged by the newest of them."""

DRIFT_MS: Final = 1_000
"""A settled skew is moved only by more than this: within it, a device's times keep their order,
and a value that is sent again keeps its time."""

assert STEADY_MS >= 2 * STEP_MS  # noqa: S101
assert SKEW_MS_MIN > STEP_MS_MAX  # noqa: S101
assert SKEW_MS_MIN < limits.FUTURE_MS_MAX  # noqa: S101


def agreement_ms(span_ms: int) -> int:
    """Return how far offsets may lie apart that were received within ``span_ms``."""
    return min(STEP_MS + span_ms // STEP_PER_SPAN, STEP_MS_MAX)


class Clock:
    """What is known of one device's clock. ``skew_ms`` is None until it was seen in step."""

    __slots__ = ("_at", "_off", "dated", "heard_ms", "newest_ms", "skew_ms")

    def __init__(self) -> None:
        """Start without any point."""
        self._at, self._off = array("q"), array("q")
        self.skew_ms: int | None = None
        self.newest_ms: int | None = None
        self.dated = (0, TimeSource.RECEIVED)
        """What ``newest_ms`` was made into."""
        self.heard_ms = 0

    def __len__(self) -> int:
        return len(self._at)

    def hear(self, device_ms: int, received_ms: int) -> None:
        """Learn from the newest time of one message; the same time again teaches nothing."""
        if device_ms == self.newest_ms:
            return
        self.newest_ms = device_ms
        off = received_ms - device_ms
        at, offs = self._at, self._off
        if at and 0 <= received_ms - at[-1] < SPACING_MS:
            offs[-1] = min(offs[-1], off)
            opened = False
        else:
            self._close()
            at.append(received_ms)
            offs.append(off)
            opened = True
        if opened or self.skew_ms is None:
            found = self._steady()
            if found is not None and (self.skew_ms is None or abs(found - self.skew_ms) > DRIFT_MS):
                self.skew_ms = found

    def _close(self) -> None:
        """Judge the last point, before another is added."""
        at, offs = self._at, self._off
        if not at:
            return
        if len(at) > 1 and abs(offs[-1] - offs[-2]) > agreement_ms(at[-1] - at[-2]):
            del at[:-1], offs[:-1]  # a clock that was set, or history: begin again
        if self.skew_ms is not None and offs[-1] < self.skew_ms - STEP_MS:
            self.skew_ms = None  # no delay makes an offset less: the clock is another one now
        if len(at) == POINTS_MAX:
            del at[0], offs[0]

    def _steady(self) -> int | None:
        """Return the median offset, or None when the points do not show a clock in step."""
        count = len(self._at)
        span_ms = self._at[-1] - self._at[0]
        if count < STEADY_POINTS or span_ms < STEADY_MS:
            return None
        offs = sorted(self._off)
        if offs[-1] - offs[0] > agreement_ms(span_ms):
            return None
        return offs[len(offs) // 2]


class Skews:
    """The clocks of every device of this gateway, by name; the least recently heard go first."""

    __slots__ = ("_clocks", "_most", "_trusted")

    def __init__(self, most: int = limits.CONNECTIONS_MAX) -> None:
        """Remember at most ``most`` devices."""
        self._clocks: OrderedDict[str, Clock] = OrderedDict()
        self._most = most
        self._trusted = True

    def __len__(self) -> int:
        return len(self._clocks)

    def gateway_off(self, off_ms: float) -> None:
        """Take the cloud's clock minus this gateway's: one that is wrong corrects nobody."""
        self._trusted = abs(off_ms) <= GATEWAY_OFF_MS_MAX

    def skew_ms(self, device: str) -> int | None:
        """Return how far a device's clock is behind this one's; None when not known."""
        clock = self._clocks.get(device)
        return None if clock is None else clock.skew_ms

    def worst_ms(self, since_ms: int) -> int:
        """Return the largest absolute skew of the devices heard since; 0 when there is none."""
        worst = 0
        for clock in reversed(self._clocks.values()):
            if clock.heard_ms < since_ms:
                break
            worst = max(worst, abs(clock.skew_ms or 0))
        return worst

    def date(self, device: str, readings: tuple[Reading, ...]) -> tuple[Reading, ...]:
        """Return one message's readings with the times and time sources they are kept with.

        Those marked DEVICE come with the device's time as it was said. Only the newest of them
        tells of the clock: a message may repeat what was measured long before.
        """
        said = [r.time_ms for r in readings if r.time_source == TimeSource.DEVICE]
        if not said:
            return readings
        newest, received_ms = max(said), readings[0].received_ms
        clock = self._clock(device)
        clock.heard_ms = received_ms
        again = newest == clock.newest_ms and clock.dated[1] != TimeSource.RECEIVED
        if newest >= TIME_FLOOR_MS:
            clock.hear(newest, received_ms)
            if not again:
                clock.dated = self._judge(clock, newest, received_ms)
        return tuple(self._dated(clock, reading) for reading in readings)

    def _clock(self, device: str) -> Clock:
        clock = self._clocks.get(device)
        if clock is None:
            clock = self._clocks[device] = Clock()
            if len(self._clocks) > self._most:
                self._clocks.popitem(last=False)
        else:
            self._clocks.move_to_end(device)
        return clock

    def _dated(self, clock: Clock, r: Reading) -> Reading:
        if r.time_source != TimeSource.DEVICE:
            return r
        if r.time_ms == clock.newest_ms:
            time_ms, source = clock.dated
        else:
            time_ms, source = self._judge(clock, r.time_ms, r.received_ms)
        if source == TimeSource.DEVICE:
            return r
        return Reading(
            r.vital, r.value, time_ms, r.received_ms, r.status, r.site, r.channel, int(source)
        )

    def _judge(self, clock: Clock, device_ms: int, received_ms: int) -> tuple[int, TimeSource]:
        if device_ms < TIME_FLOOR_MS:
            return received_ms, TimeSource.RECEIVED
        skew = clock.skew_ms
        if skew is not None and abs(skew) > SKEW_MS_MIN and self._trusted:
            moved = device_ms + skew
            if TIME_FLOOR_MS <= moved <= received_ms + STEP_MS:
                return moved, TimeSource.CORRECTED
        # Nothing is measured after its receipt. Without a trusted clock of one's own that is
        # known only of what lies far ahead.
        ahead_ms = SKEW_MS_MIN if self._trusted else limits.FUTURE_MS_MAX
        if device_ms > received_ms + ahead_ms:
            return received_ms, TimeSource.RECEIVED
        return device_ms, TimeSource.DEVICE
