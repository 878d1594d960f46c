"""How far each device's clock is off, and the time a reading gets because of it.

Law: sans clock; every time is an argument, in milliseconds of UTC. A device's time is moved only
when its clock has been seen to run in step with receipt, so that a clock that is wrong by minutes
still rings, and stored history, which comes faster than it was measured, does not. What is moved
never lies further ahead of receipt than STEP_MS, and a time that is said again is not moved again.
The same value of the same signal with the same device time again is the same reading: it keeps the
time that the first one got, whatever became of the clock since.

The offset of a reading is receipt minus the device's time: skew (what the clock is off; positive
is slow) plus age plus delay. Age and delay only add; hence the asymmetries below.
"""

from array import array
from collections import OrderedDict
from typing import Final

from edge.moment import Moment
from vitals import limits
from vitals.codes import TimeSource
from vitals.reading import Reading

TIME_FLOOR_MS: Final = 978_307_200_000
"""2001-01-01: a device time before this is a clock that was never set (they wake in 1970, 1980 or
2000). What is after may be stored history, and keeps its time."""

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

KEPT_MAX: Final = 32_768
"""Signals of all devices whose last reading is remembered to know it again, some 250 bytes each:
8 MB. A clock that is right needs none for what it says as it measures it."""
KEPT_DEVICE_MAX: Final = 64
"""Signals of one device: no monitor has more, and none can push out those of the others."""

# Plain integers: looking up and comparing an enum's member costs four times as much.
_RECEIVED: Final = int(TimeSource.RECEIVED)
_DEVICE: Final = int(TimeSource.DEVICE)
_CORRECTED: Final = int(TimeSource.CORRECTED)

_Kept = tuple[int, float, int, int]
"""The last reading of a signal: device time, value, the time it got and that one's source."""

assert STEADY_MS >= 2 * STEP_MS  # noqa: S101
assert SKEW_MS_MIN > STEP_MS_MAX  # noqa: S101
assert SKEW_MS_MIN < limits.FUTURE_MS_MAX  # noqa: S101


def agreement_ms(span_ms: int) -> int:
    """Return how far offsets may lie apart that were received within ``span_ms``."""
    return min(STEP_MS + span_ms // STEP_PER_SPAN, STEP_MS_MAX)


def _signal(r: Reading) -> int:
    return r.channel << 16 | r.site << 8 | r.vital


class Clock:
    """What is known of one device's clock. ``skew_ms`` is None until it was seen in step."""

    __slots__ = ("_at", "_off", "dated", "heard_ms", "kept", "newest_ms", "skew_ms")

    def __init__(self) -> None:
        """Start without any point."""
        self._at, self._off = array("q"), array("q")
        self.skew_ms: int | None = None
        self.newest_ms: int | None = None
        self.dated = (0, _RECEIVED)
        """What ``newest_ms`` was made into."""
        self.kept: dict[int, _Kept] | None = None
        """Signal -> its last reading, of those that would not get the same time again by itself."""
        self.heard_ms = 0

    def __len__(self) -> int:
        return len(self._at)

    @property
    def right(self) -> bool:
        """Tell whether the clock was seen in step and needs no correction."""
        return self.skew_ms is not None and -SKEW_MS_MIN <= self.skew_ms <= SKEW_MS_MIN

    def had(self, r: Reading) -> _Kept | None:
        """Return what was remembered of a reading when this is the same one again."""
        first = None if self.kept is None else self.kept.get(_signal(r))
        if first is None or first[0] != r.time_ms or first[1] != r.value:
            return None
        return first

    def keep(self, r: Reading, what: _Kept | None) -> None:
        """Remember a signal's last reading; None forgets the one before."""
        kept, signal = self.kept, _signal(r)
        if kept is None:
            self.kept = None if what is None else {signal: what}
        elif what is None:
            kept.pop(signal, None)
            self.kept = kept or None
        else:
            if len(kept) >= KEPT_DEVICE_MAX and signal not in kept:
                del kept[next(iter(kept))]
            kept[signal] = what

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

    __slots__ = ("_clocks", "_kept", "_most", "_remembering", "_trusted")

    def __init__(self, most: int = limits.CONNECTIONS_MAX) -> None:
        """Remember at most ``most`` devices."""
        self._clocks: OrderedDict[str, Clock] = OrderedDict()
        self._most = most
        self._trusted = True
        self._remembering: OrderedDict[str, Clock] = OrderedDict()
        """Devices with ``kept``, the least recently remembered first."""
        self._kept = 0
        """Entries of all of them."""

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
        said = [r.time_ms for r in readings if r.time_source == _DEVICE]
        if not said:
            return readings
        received_ms = readings[0].received_ms
        clock = self._clock(device)
        clock.heard_ms = received_ms
        if clock.kept is not None:
            said = [r.time_ms for r in readings if r.time_source == _DEVICE and not clock.had(r)]
        if said:
            self._hear(clock, max(said), received_ms)
        if (
            clock.kept is None
            and clock.right
            and max(said) <= received_ms + SKEW_MS_MIN
            and min(said) >= received_ms - SKEW_MS_MIN
        ):
            return readings  # as nearly always: a right clock, and nothing of it is old
        return self._date(device, clock, readings)

    def _date(
        self, device: str, clock: Clock, readings: tuple[Reading, ...]
    ) -> tuple[Reading, ...]:
        """Judge readings one by one, the clock having heard of them."""
        before = 0 if clock.kept is None else len(clock.kept)
        dated = tuple([self._dated(clock, reading) for reading in readings])
        self._count_kept(device, clock, before)
        return dated

    def date_moment(self, device: str, moment: Moment) -> tuple[Reading, ...] | None:
        """Return what `date` does for a moment marked DEVICE; None when its time stands."""
        clock = self._clocks.get(device)
        if clock is None or clock.kept is not None:
            return self.date(device, moment.readings)
        said_ms, received_ms = moment.time_ms, moment.received_ms
        self._clocks.move_to_end(device)
        clock.heard_ms = received_ms
        self._hear(clock, said_ms, received_ms)
        if clock.right and -SKEW_MS_MIN <= said_ms - received_ms <= SKEW_MS_MIN:
            return None
        return self._date(device, clock, moment.readings)

    def _hear(self, clock: Clock, newest: int, received_ms: int) -> None:
        again = newest == clock.newest_ms and clock.dated[1] != _RECEIVED
        if newest >= TIME_FLOOR_MS:
            clock.hear(newest, received_ms)
            if not again:
                clock.dated = self._judge(clock, newest, received_ms)

    def _clock(self, device: str) -> Clock:
        clock = self._clocks.get(device)
        if clock is None:
            clock = self._clocks[device] = Clock()
            if len(self._clocks) > self._most:
                name, oldest = self._clocks.popitem(last=False)
                self._forget(name, oldest)
        else:
            self._clocks.move_to_end(device)
        return clock

    def _count_kept(self, device: str, clock: Clock, before: int) -> None:
        """Keep the sum of what is remembered, and its bound."""
        after = 0 if clock.kept is None else len(clock.kept)
        self._kept += after - before
        if not after:
            self._remembering.pop(device, None)
            return
        self._remembering[device] = clock
        self._remembering.move_to_end(device)
        while self._kept > KEPT_MAX:
            name, oldest = next(iter(self._remembering.items()))
            self._forget(name, oldest)

    def _forget(self, device: str, clock: Clock) -> None:
        """Remember none of a device's readings."""
        if clock.kept is not None:
            self._kept -= len(clock.kept)
            clock.kept = None
            del self._remembering[device]

    def _dated(self, clock: Clock, r: Reading) -> Reading:
        if r.time_source != _DEVICE:
            return r
        said_ms, value = r.time_ms, r.value
        first = clock.had(r)
        if first is not None:
            _, _, time_ms, source = first
        else:
            if said_ms == clock.newest_ms:
                time_ms, source = clock.dated
            else:
                time_ms, source = self._judge(clock, said_ms, r.received_ms)
            fresh = source == _DEVICE and clock.right and said_ms >= r.received_ms - SKEW_MS_MIN
            # No value is none that could come again: it tells that there is still none.
            known = None if fresh or value is None else (said_ms, value, time_ms, source)
            clock.keep(r, known)
        if source == _DEVICE:
            return r
        return Reading(
            r.vital, value, time_ms, r.received_ms, r.status, r.site, r.channel, source, r.reason
        )

    def _judge(self, clock: Clock, device_ms: int, received_ms: int) -> tuple[int, int]:
        if device_ms < TIME_FLOOR_MS:
            return received_ms, _RECEIVED
        skew = clock.skew_ms
        if skew is not None and abs(skew) > SKEW_MS_MIN and self._trusted:
            moved = device_ms + skew
            if TIME_FLOOR_MS <= moved <= received_ms + STEP_MS:
                return moved, _CORRECTED
        # Nothing is measured after its receipt. Without a trusted clock of one's own that is
        # known only of what lies far ahead.
        ahead_ms = SKEW_MS_MIN if self._trusted else limits.FUTURE_MS_MAX
        if device_ms > received_ms + ahead_ms:
            return received_ms, _RECEIVED
        return device_ms, _DEVICE
