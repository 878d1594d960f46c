"""What every connection shares: the ward, its time zone, its clocks, its codes, its guests.

Law: no I/O. One object for the life of the process; reading the configuration again, or settings
that the cloud pushed, replace its parts, and connections go on under the new ones with their next
line: ``version`` tells them that there are some.
"""

from datetime import UTC, tzinfo

from edge.admission import Admission
from edge.device_map import NO_MAP as NO_DEVICES
from edge.device_map import DeviceMap
from edge.hl7_map import NO_MAP, VendorMap
from edge.hl7_repeat import Repeats
from edge.hl7_watch import Watchdogs
from edge.skew import Skews


class Setting:
    """The parts that talks read for every line; assign to replace one."""

    __slots__ = (
        "_admission",
        "_devices",
        "_ward",
        "repeats",
        "skews",
        "vendor",
        "version",
        "watchdogs",
        "zone",
    )

    def __init__(
        self,
        ward: str = "",
        zone: tzinfo = UTC,
        admission: Admission | None = None,
        vendor: VendorMap = NO_MAP,
        skews: Skews | None = None,
        devices: DeviceMap = NO_DEVICES,
    ) -> None:
        """``zone`` is taken for device times that carry none."""
        self._ward = ward
        self.zone = zone
        self._admission = admission or Admission()
        self._devices = devices
        self.vendor = vendor
        self.skews = Skews() if skews is None else skews
        self.repeats = Repeats()
        self.watchdogs = Watchdogs()
        self.version = 0
        """Grows with every change of what a connection keeps from one line to the next."""

    @property
    def ward(self) -> str:
        """Ward of a patient who names none."""
        return self._ward

    @ward.setter
    def ward(self, ward: str) -> None:
        self._ward = ward
        self.version += 1

    @property
    def admission(self) -> Admission:
        """Who may speak."""
        return self._admission

    @admission.setter
    def admission(self, admission: Admission) -> None:
        self._admission = admission
        self.version += 1

    @property
    def devices(self) -> DeviceMap:
        """What the site knows of its devices."""
        return self._devices

    @devices.setter
    def devices(self, devices: DeviceMap) -> None:
        self._devices = devices
        self.version += 1
