"""Every device heard of late: when, how much, what was wrong, and its newest readings.

Law: memory only, bounded; nothing of it is ever written to disk in clear. Of a patient it keeps
the bed and whether a record number was said, never the number or the name. Filled by the
collector when the fate of an entry is known, read by the control socket for the technician.

Every line passes here and finds its device cold, so a device is small and lies in one place: the
newest line is kept as it came, and who was heard least recently is looked for only when somebody
has to go.
"""

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from typing import Final

from edge.moment import Moment
from edge.spool_devices import DeviceCounts
from vitals.columns import Source
from vitals.reading import Reading

DEVICES_MAX: Final = 20_000
"""Names kept; an attacker's made-up names push out the least recently heard."""

READINGS_MAX: Final = 200_000
"""Newest readings kept of all devices together (about 30 MB): ten for each of DEVICES_MAX."""

KINDS_MAX: Final = 64
"""Newest readings kept of one device: 17 vital signs with room for a second sensor of each."""

LAYOUTS_MAX: Final = 16
"""Kinds of lines kept apart of one device; more are folded into one."""
FOLDED: Final = -1

NOBODY: Final = -1
"""Speaker of a device of which nothing is known, or that is remembered no more."""

LEAVE_SHARE: Final = 20
"""When there are too many, one of so many goes at once: finding the oldest reads them all."""

Said = Moment | tuple[Reading, ...]
"""What one line or message said."""
Layout = int | tuple[int, int, int]
"""Of a line `edge.moment.layout_of`; of a message how many readings, first and last kind."""

GAP_MS_MAX: Final = 600_000
"""A longer silence is an outage, not the device's habit: spot checks come every few minutes."""

_MINUTE_MS: Final = 60_000
_SPAN_MS_MIN: Final = 10_000
"""A device first heard more recently has no rate worth the name: it counts as this old."""


class Device:
    """One device. Times are milliseconds of UTC by this gateway's clock, 0 for never."""

    __slots__ = (
        "_before",
        "_minute",
        "_now",
        "bed",
        "first_ms",
        "gap_ms",
        "identified",
        "inputs",
        "last_ms",
        "layout",
        "name",
        "newest",
        "others",
        "readings",
        "refused_ms",
        "rejects",
        "speaker",
        "told_inputs",
        "told_readings",
        "told_rejects",
        "via",
    )

    def __init__(self, name: str, first_ms: int) -> None:
        """Begin to count."""
        self.name = name
        self.first_ms = first_ms
        self.last_ms = 0
        """When it was last heard with readings."""
        self.inputs = 0
        """Lines and messages with readings."""
        self.readings = 0
        self.refused_ms = 0
        """When an input of it was last refused."""
        self.rejects: Counter[str] | None = None
        """Refused inputs by reason; None before the first."""
        self.newest: Said = ()
        """The last input's readings, and their layout."""
        self.layout: Layout = FOLDED
        self.others: dict[Layout, Said] | None = None
        """Other layouts -> their newest readings; most devices have none."""
        self.told_inputs = self.told_readings = self.told_rejects = 0
        """What `Devices.counted` has told."""
        self.speaker = NOBODY
        """Descriptor of the connection that spoke for it last, when that is known."""
        self.bed = ""
        self.identified = False
        """True when it named a patient's record number."""
        self.via = ""
        """How it is connected, as the collector says it: protocol and address."""
        self.gap_ms = 0
        """The pause between inputs that it usually makes, a decaying maximum; 0 when not known."""
        self._minute = self._now = self._before = 0

    def rate_per_min(self, now_ms: int) -> float:
        """Return inputs with readings in the last minute (two counters, interpolated)."""
        since = now_ms // _MINUTE_MS - self._minute
        if since == 0:
            now, before = self._now, self._before
        elif since == 1:
            now, before = 0, self._now
        else:
            return 0.0
        span_ms = now_ms - self.first_ms
        if span_ms < _MINUTE_MS:
            return (now + before) * _MINUTE_MS / max(span_ms, _SPAN_MS_MIN)
        return now + before * (1 - now_ms % _MINUTE_MS / _MINUTE_MS)

    @property
    def latest(self) -> dict[int, Reading]:
        """Return `kind` -> newest reading, KINDS_MAX of them.

        Made when somebody looks. A line's readings are kept as they came, by layout: sorting them
        in one by one took 1 µs of a line's 18. Of two layouts of messages that differ only in the
        middle the older is forgotten: a technician's table loses a row until it comes again.
        """
        found: dict[int, Reading] = {}
        others = () if self.others is None else self.others.values()
        listed = [_readings(said) for said in (*others, self.newest)]
        for readings in sorted(listed, key=_received_ms):
            for reading in readings:
                at = kind(reading)
                found.pop(at, None)
                found[at] = reading
        return dict(list(found.items())[-KINDS_MAX:])

    @property
    def kept(self) -> int:
        """Return how many readings are kept of it."""
        return sum(_count(said) for said in (self.newest, *(self.others or {}).values()))

    def turn(self, layout: Layout, count: int) -> int:
        """Prepare for ``count`` readings of another layout; return how many more are kept then."""
        before = self.kept
        if before:
            others = self.others = self.others or {}
            others[self.layout], self.newest = self.newest, ()
            if others.pop(layout, None) is None and (
                len(others) >= LAYOUTS_MAX or before + count > 2 * KINDS_MAX
            ):
                self.others = {FOLDED: tuple(self.latest.values())}
        self.layout = layout
        return self.kept + count - before

    def count(self, received_ms: int) -> None:
        """Note one input with readings."""
        if received_ms // _MINUTE_MS != self._minute:
            minute = _same(received_ms // _MINUTE_MS)
            self._before = self._now if minute == self._minute + 1 else 0
            self._minute, self._now = minute, 0
        self._now += 1
        gap_ms = received_ms - self.last_ms
        if 0 < gap_ms <= GAP_MS_MAX:
            fading_ms = self.gap_ms - (self.gap_ms >> 3)
            self.gap_ms = _same(max(fading_ms, gap_ms))
        self.last_ms = received_ms
        self.inputs += 1


@lru_cache(maxsize=64)
def _same(number: int) -> int:
    """Return one object for equal numbers, which ten thousand devices share."""
    return number


def _readings(said: Said) -> tuple[Reading, ...]:
    return said.readings if isinstance(said, Moment) else said


def _count(said: Said) -> int:
    return len(said.rows) if isinstance(said, Moment) else len(said)


def _received_ms(readings: tuple[Reading, ...]) -> int:
    return readings[0].received_ms if readings else 0


def kind(reading: Reading) -> int:
    """Return one small number for vital sign, site and channel together.

    Small, because CPython keeps integers up to 256 once: a key for each reading of each device
    would cost more than the dictionary.
    """
    return reading.vital + 32 * reading.site + 512 * reading.channel


class Devices:
    """By name."""

    def __init__(self, most: int = DEVICES_MAX, readings_most: int = READINGS_MAX) -> None:
        """Remember at most ``most`` devices and ``readings_most`` readings of them together."""
        self._devices: dict[str, Device] = {}
        self._most, self._readings_most = most, readings_most
        self._readings = 0

    def __len__(self) -> int:
        return len(self._devices)

    def __iter__(self) -> Iterator[Device]:
        return iter(self._devices.values())

    def get(self, name: str) -> Device | None:
        """Return one device by name."""
        return self._devices.get(name)

    def speaks(self, source: Source, received_ms: int, via: str) -> Device:
        """Return who speaks, with the bed and the way it is known by now."""
        device = self._of(source.device, received_ms)
        device.via, device.speaker = via, NOBODY
        patient = source.patient
        device.bed = patient.bed if patient is not None else ""
        device.identified = patient is not None and patient.mrn != ""
        return device

    def noted(self, device: Device, moment: Moment) -> None:
        """Note a line that became durable, of whom `speaks` returned."""
        received_ms = moment.received_ms
        device.count(received_ms)
        device.readings += len(moment.rows)
        if device.layout != moment.layout:
            self._turn(device, moment.layout, len(moment.rows))
        device.newest = moment

    def heard(self, source: Source, readings: tuple[Reading, ...], via: str = "") -> None:
        """Note a message that became durable; ``readings`` may not be empty."""
        received_ms = readings[0].received_ms
        device = self.speaks(source, received_ms, via)
        device.count(received_ms)
        device.readings += len(readings)
        layout = len(readings), kind(readings[0]), kind(readings[-1])
        if device.layout != layout:
            self._turn(device, layout, len(readings))
        device.newest = readings

    def _turn(self, device: Device, layout: Layout, count: int) -> None:
        self._readings += device.turn(layout, count)
        if self._readings > self._readings_most:
            self._forget()

    def rejected(self, name: str, reason: str, received_ms: int, via: str = "") -> None:
        """Note a refused input of a device that has a name, or of an address."""
        device = self._of(name, received_ms)
        if device.rejects is None:
            device.rejects = Counter()
        device.rejects[reason] += 1
        device.refused_ms = received_ms
        device.via = via or device.via

    def _of(self, name: str, received_ms: int) -> Device:
        device = self._devices.get(name)
        return self._new(name, received_ms) if device is None else device

    def _new(self, name: str, received_ms: int) -> Device:
        device = self._devices[name] = Device(name, received_ms)
        if len(self._devices) > self._most:
            self._forget()
        return device

    def _forget(self) -> None:
        """Let the least recently heard go, some at once, never the last that spoke."""
        devices_most = self._most - self._most // LEAVE_SHARE
        readings_most = self._readings_most - self._readings_most // LEAVE_SHARE
        oldest = sorted(self._devices.values(), key=_last_ms)
        for device in oldest[:-1]:
            if len(self._devices) <= devices_most and self._readings <= readings_most:
                break
            del self._devices[device.name]
            device.speaker = NOBODY
            self._readings -= device.kept

    def counted(self) -> Iterator[tuple[str, DeviceCounts]]:
        """Yield names with what came from them since the last call, for the spool's own counts.

        Called from the disk's thread while the collector goes on: what is counted at that very
        moment is told the next time. One after the other: ten thousand at once are 3 MB.
        """
        for device in list(self._devices.values()):
            inputs, readings = device.inputs, device.readings
            rejects = sum(list(device.rejects.values())) if device.rejects else 0
            found = DeviceCounts(
                inputs - device.told_inputs,
                readings - device.told_readings,
                rejects - device.told_rejects,
                max(device.last_ms, device.refused_ms),
            )
            if any(found[:3]):
                device.told_inputs, device.told_readings = inputs, readings
                device.told_rejects = rejects
                yield device.name, found

    def heard_since(self, since_ms: int) -> int:
        """Return how many devices sent a reading since a moment."""
        return sum(device.last_ms >= since_ms for device in self._devices.values())


def _last_ms(device: Device) -> int:
    return max(device.first_ms, device.last_ms, device.refused_ms)
