"""What the site knows of its devices and the devices do not say: which bed, which units.

Law: pure. It fills what nobody said and never contradicts what was said; a unit stands for a bare
number of one device, never for a number that carries its own. Association is by this map or by the
message, never by a patient's name.
"""

from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from edge.normalize import Measure
from vitals.columns import Source
from vitals.reading import Patient

DEVICES_MAX: Final = 10_000
"""Entries of one map: as many as a gateway has connections."""


class Known(NamedTuple):
    """One device."""

    bed: str = ""
    ward: str = ""
    units: Mapping[int, str] = {}
    """Vital -> UCUM unit of its bare numbers."""


_UNKNOWN: Final = Known()


class DeviceMap:
    """By device name; replaced whole."""

    __slots__ = ("_devices",)

    def __init__(self, devices: Mapping[str, Known] | None = None) -> None:
        """Know nothing unless told."""
        self._devices = devices or {}

    def __len__(self) -> int:
        return len(self._devices)

    def items(self) -> Iterable[tuple[str, Known]]:
        """Return every device that is known, with what is known of it."""
        return self._devices.items()

    def of(self, device: str) -> Known:
        """Return what is known of a device."""
        return self._devices.get(device, _UNKNOWN)

    def fill(self, device: str, said: Patient | None, ward: str) -> Patient | None:
        """Return ``said`` with the bed and ward that were not said; ``ward`` is the site's own.

        A device that is on the map has a bed though it says nothing; any other one that says
        nothing stays without a patient.
        """
        known = self._devices.get(device, _UNKNOWN)
        if said is None:
            if not known.bed:
                return None
            return Patient(bed=known.bed, ward=known.ward or ward)
        bed = said.bed or known.bed
        # The map's ward goes with the map's bed: a bed that was said may be of another ward. The
        # site's own stands for none: HL7 messages come with it filled in.
        its = known.ward if bed == known.bed else ""
        filled = said.ward if said.ward not in {"", ward} else its or ward
        if (bed, filled) == (said.bed, said.ward):
            return said
        return Patient(said.mrn, said.name, said.birth_date, said.sex, bed, filled)

    def source(self, device: str, said: Patient | None, ward: str) -> Source:
        """Return the source of what a device says."""
        return Source(device, patient=self.fill(device, said, ward))


def with_units(measures: Iterable[Measure], units: Mapping[int, str]) -> tuple[Measure, ...]:
    """Return measures in which a bare number has its device's unit."""
    return tuple(
        measure._replace(unit=units[measure.vital])
        if not measure.unit and measure.number is not None and measure.vital in units
        else measure
        for measure in measures
    )


NO_MAP: Final = DeviceMap()
