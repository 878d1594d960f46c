"""Every device heard of late: when, how much, what was wrong, and its newest readings.

Law: memory only, bounded; nothing of it is ever written to disk in clear. Of a patient it keeps
the bed and whether a record number was said, never the number or the name. Filled by the
collector when the fate of an entry is known, read by the control socket for the technician.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Final

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
FOLDED: Final = (0, 0, 0)

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
        "kept",
        "last_ms",
        "name",
        "readings",
        "refused_ms",
        "rejects",
        "said",
        "told",
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
        self.said: dict[tuple[int, int, int], tuple[Reading, ...]] = {}
        """Layout (how many readings, first and last vital sign) -> its newest readings."""
        self.told = (0, 0, 0)
        """Inputs, readings and rejects that `Devices.counted` has told."""
        self.kept = 0
        """Readings in ``said``."""
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
        in one by one took 1 µs of a line's 18. Of two layouts that differ only in the middle the
        older is forgotten: a technician's table loses a row until it comes again.
        """
        found: dict[int, Reading] = {}
        for readings in sorted(self.said.values(), key=_received_ms):
            for reading in readings:
                at = kind(reading)
                found.pop(at, None)
                found[at] = reading
        return dict(list(found.items())[-KINDS_MAX:])

    def make_room(self, count: int) -> int:
        """Prepare for readings of a new layout; return how many more are kept then."""
        before = self.kept
        if len(self.said) >= LAYOUTS_MAX or self.kept + count > 2 * KINDS_MAX:
            newest = tuple(self.latest.values())
            self.said = {FOLDED: newest}
            self.kept = len(newest)
        self.kept += count
        return self.kept - before

    def count(self, received_ms: int) -> None:
        """Note one input with readings."""
        minute = received_ms // _MINUTE_MS
        if minute != self._minute:
            self._before = self._now if minute == self._minute + 1 else 0
            self._minute, self._now = minute, 0
        self._now += 1
        gap_ms = received_ms - self.last_ms
        if 0 < gap_ms <= GAP_MS_MAX:
            self.gap_ms = max(gap_ms, self.gap_ms - (self.gap_ms >> 3))
        self.last_ms = received_ms
        self.inputs += 1


def _received_ms(readings: tuple[Reading, ...]) -> int:
    return readings[0].received_ms if readings else 0


def kind(reading: Reading) -> int:
    """Return one small number for vital sign, site and channel together.

    Small, because CPython keeps integers up to 256 once: a key for each reading of each device
    would cost more than the dictionary.
    """
    return reading.vital + 32 * reading.site + 512 * reading.channel


class Devices:
    """By name, the least recently heard first."""

    def __init__(self, most: int = DEVICES_MAX, readings_most: int = READINGS_MAX) -> None:
        """Remember at most ``most`` devices and ``readings_most`` readings of them together."""
        self._devices: OrderedDict[str, Device] = OrderedDict()
        self._most, self._readings_most = most, readings_most
        self._readings = 0

    def __len__(self) -> int:
        return len(self._devices)

    def __iter__(self) -> Iterator[Device]:
        return iter(self._devices.values())

    def get(self, name: str) -> Device | None:
        """Return one device by name."""
        return self._devices.get(name)

    def heard(self, source: Source, readings: tuple[Reading, ...], via: str = "") -> None:
        """Note an entry that became durable; ``readings`` may not be empty."""
        received_ms = readings[0].received_ms
        device = self._of(source.device, received_ms)
        device.count(received_ms)
        device.readings += len(readings)
        device.via = via
        patient = source.patient
        device.bed = patient.bed if patient is not None else ""
        device.identified = patient is not None and patient.mrn != ""
        layout = len(readings), readings[0].vital, readings[-1].vital
        if layout not in device.said:
            self._readings += device.make_room(len(readings))
            while self._readings > self._readings_most and len(self._devices) > 1:
                self._forget()
        device.said[layout] = readings

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
        if device is None:
            device = self._devices[name] = Device(name, received_ms)
            if len(self._devices) > self._most:
                self._forget()
        else:
            self._devices.move_to_end(name)
        return device

    def _forget(self) -> None:
        _, device = self._devices.popitem(last=False)
        self._readings -= device.kept

    def counted(self) -> dict[str, DeviceCounts]:
        """Return what came from each device since the last call, for the spool's own counts.

        Called from the committer's thread while the collector goes on: what is counted at that
        very moment is told the next time.
        """
        found = {}
        for device in list(self._devices.values()):
            rejects = sum(list((device.rejects or {}).values()))
            inputs, readings, rejected = device.told
            device.told = device.inputs, device.readings, rejects
            if device.told != (inputs, readings, rejected):
                found[device.name] = DeviceCounts(
                    device.told[0] - inputs,
                    device.told[1] - readings,
                    rejects - rejected,
                    max(device.last_ms, device.refused_ms),
                )
        return found

    def heard_since(self, since_ms: int) -> int:
        """Return how many devices sent a reading since a moment."""
        return sum(device.last_ms >= since_ms for device in self._devices.values())
