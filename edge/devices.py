"""Every device heard of late: when, how much, what was wrong, and its newest readings.

Law: memory only, bounded; nothing of it is ever written to disk in clear. Filled by the collector
when the fate of an entry is known, read by the control socket for the technician.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Final

from vitals.columns import Source
from vitals.reading import Reading

DEVICES_MAX: Final = 20_000
"""Names kept; an attacker's made-up names push out the least recently heard."""


class Device:
    """One device. Times are milliseconds of UTC by this gateway's clock, 0 for never."""

    __slots__ = (
        "first_ms",
        "inputs",
        "last_ms",
        "latest",
        "name",
        "patient",
        "readings",
        "rejects",
    )

    def __init__(self, name: str, first_ms: int) -> None:
        """Begin to count."""
        self.name = name
        self.first_ms = first_ms
        self.last_ms = 0
        self.inputs = 0
        """Lines and messages with readings."""
        self.readings = 0
        self.rejects: Counter[str] = Counter()
        """Refused inputs by reason."""
        self.latest: dict[tuple[int, int, int], Reading] = {}
        """(vital, site, channel) -> newest reading."""
        self.patient: Source | None = None
        """What it said last of device and patient together."""


class Devices:
    """By name, the least recently heard first."""

    def __init__(self, most: int = DEVICES_MAX) -> None:
        """Remember at most ``most`` devices."""
        self._devices: OrderedDict[str, Device] = OrderedDict()
        self._most = most

    def __len__(self) -> int:
        return len(self._devices)

    def __iter__(self) -> Iterator[Device]:
        return iter(self._devices.values())

    def get(self, name: str) -> Device | None:
        """Return one device by name."""
        return self._devices.get(name)

    def heard(self, source: Source, readings: tuple[Reading, ...]) -> None:
        """Note an entry that became durable; ``readings`` may not be empty."""
        received_ms = readings[0].received_ms
        device = self._of(source.device, received_ms)
        device.last_ms = received_ms
        device.inputs += 1
        device.readings += len(readings)
        device.patient = source
        latest = device.latest
        for reading in readings:
            latest[reading.vital, reading.site, reading.channel] = reading

    def rejected(self, name: str, reason: str, received_ms: int) -> None:
        """Note a refused input of a device that has a name, or of an address."""
        self._of(name, received_ms).rejects[reason] += 1

    def _of(self, name: str, received_ms: int) -> Device:
        device = self._devices.get(name)
        if device is None:
            device = self._devices[name] = Device(name, received_ms)
            if len(self._devices) > self._most:
                self._devices.popitem(last=False)
        else:
            self._devices.move_to_end(name)
        return device

    def heard_since(self, since_ms: int) -> int:
        """Return how many devices sent a reading since a moment."""
        return sum(device.last_ms >= since_ms for device in self._devices.values())
