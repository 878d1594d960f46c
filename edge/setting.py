"""What every connection shares: the ward, its time zone, its clocks, its codes, its guests.

Law: no I/O. One object for the life of the process; reading the configuration again replaces its
parts, so that connections go on under the new ones with their next line.
"""

from datetime import UTC, tzinfo

from edge.admission import Admission
from edge.hl7_map import NO_MAP, VendorMap
from edge.hl7_repeat import Repeats
from edge.hl7_watch import Watchdogs
from edge.skew import Skews


class Setting:
    """The parts that talks read for every line; assign to replace one."""

    __slots__ = ("admission", "repeats", "skews", "vendor", "ward", "watchdogs", "zone")

    def __init__(
        self,
        ward: str = "",
        zone: tzinfo = UTC,
        admission: Admission | None = None,
        vendor: VendorMap = NO_MAP,
        skews: Skews | None = None,
    ) -> None:
        """``zone`` is taken for device times that carry none."""
        self.ward = ward
        self.zone = zone
        self.admission = admission or Admission()
        self.vendor = vendor
        self.skews = Skews() if skews is None else skews
        self.repeats = Repeats()
        self.watchdogs = Watchdogs()
