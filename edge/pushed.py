"""Settings that the cloud pushed: what they say, and how a gateway tries them (SETTINGS.md).

Law: pure. A document is understood whole or refused whole, with the key and the next step; it can
not name what decides alarms, ports, keys or quotas.
"""

import tomllib
from collections.abc import Mapping
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from edge import hl7_map
from edge.device_map import DEVICES_MAX, NO_MAP, DeviceMap, Known
from edge.hl7_map import Code, Spelling, VendorMap
from edge.normalize import UNITS, takes
from healthsync.runtime import config as files
from vitals import limits
from vitals.codes import BY_NAME, VITALS
from vitals.errors import ConfigError
from vitals.settings import DOCUMENT_BYTES_MAX

WHERE: Final = "settings"

TRIAL_S: Final = 60.0
"""Settings are kept after this long without trouble: a monitor has said everything by then."""

TRIAL_INPUTS: Final = 20
"""Inputs that must have come before a judgement, if any come at all."""

TROUBLE_SHARE: Final = 0.25
"""So much more of the inputs refused than before: it can only be the settings."""


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One ``[[device]]``."""

    name: str
    bed: str = ""
    ward: str = ""
    units: dict[str, str] = {}
    """Vital -> unit of its bare numbers."""


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What may be pushed."""

    ward: str | None = None
    site_zone: str | None = None
    device: tuple[Device, ...] = ()
    code: tuple[Code, ...] = ()
    unit: tuple[Spelling, ...] = ()


class Pushed(NamedTuple):
    """A document, understood. None where it says nothing: edge.toml's stands."""

    ward: str | None = None
    zone: ZoneInfo | None = None
    devices: DeviceMap = NO_MAP
    vendor: VendorMap | None = None


NOTHING: Final = Pushed()


def understand(document: bytes) -> Pushed:
    """Return what a document says; raise ConfigError."""
    if len(document) > DOCUMENT_BYTES_MAX:
        raise ConfigError(f"{WHERE}: over {DOCUMENT_BYTES_MAX} bytes; give a gateway its own")
    try:
        raw = tomllib.loads(document.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{WHERE}: not valid TOML ({type(error).__name__})") from error
    said = files.convert(raw, Document, WHERE)
    zone = None if said.site_zone is None else _zone(said.site_zone)
    if said.ward is not None:
        _text("ward", said.ward)
    devices = _devices(said.device)
    vendor = None
    if said.code or said.unit:
        vendor = hl7_map.build(hl7_map.File(said.code, said.unit), WHERE)
    return Pushed(said.ward, zone, DeviceMap(devices) if devices else NO_MAP, vendor)


def understood(pushed: Pushed) -> list[str]:
    """Return what a document means, a line each."""
    lines = []
    if pushed.ward is not None:
        lines.append(f"ward      {pushed.ward!r}")
    if pushed.zone is not None:
        lines.append(f"site_zone {pushed.zone.key}")
    for name, known in pushed.devices.items():
        units = [f"{VITALS[index].name} in {unit}" for index, unit in known.units.items()]
        said = [f"bed {known.bed!r}"] if known.bed else []
        said += [f"ward {known.ward!r}"] if known.ward else []
        lines.append(f"device    {name!r}: {', '.join([*said, *units]) or 'nothing'}")
    if pushed.vendor is not None:
        lines.append("hl7       codes and units of its own, instead of hl7_map's")
    return lines or ["nothing: edge.toml stands as it is"]


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigError(f"{WHERE}: site_zone is no IANA zone; write one like UTC") from None


def _text(key: str, text: str) -> None:
    if len(text) > limits.TEXT_CHARS_MAX or not text.isprintable():
        raise ConfigError(f"{WHERE}: {key} is at most {limits.TEXT_CHARS_MAX} printable characters")


def _devices(listed: tuple[Device, ...]) -> dict[str, Known]:
    if len(listed) > DEVICES_MAX:
        raise ConfigError(f"{WHERE}: over {DEVICES_MAX} devices; give a gateway its own")
    found: dict[str, Known] = {}
    for at, device in enumerate(listed, 1):
        where = f"[[device]] number {at}"
        for key in ("name", "bed", "ward"):
            _text(f"{where}: {key}", getattr(device, key))
        if not device.name:
            raise ConfigError(f"{WHERE}: {where}: name is empty; write it as the device does")
        if device.name in found:
            raise ConfigError(f"{WHERE}: {where}: this name stands twice; remove one")
        found[device.name] = Known(device.bed, device.ward, _units(where, device.units))
    return found


def _units(where: str, units: Mapping[str, str]) -> dict[int, str]:
    found = {}
    for name, spelling in units.items():
        vital = BY_NAME.get(name)
        if vital is None:
            raise ConfigError(f"{WHERE}: {where}: units has no vital sign of this name")
        unit = UNITS.get(spelling.lower(), "")
        if not takes(vital.index, unit):
            raise ConfigError(f"{WHERE}: {where}: {name} is not measured in that unit")
        found[vital.index] = unit
    return found


class Counts(NamedTuple):
    """Inputs so far, and how many of them were refused or held an impossible number."""

    inputs: int = 0
    refused: int = 0


class Verdict(NamedTuple):
    """What becomes of a trial."""

    over: bool
    trouble: str = ""
    """Why they are rolled back, empty when they are kept."""


class Trial:
    """Judges settings by what is refused while they are in use."""

    def __init__(self, before: Counts, now: Counts, now_s: float) -> None:
        """``before``: counts some time ago; ``now``: as they are taken in use."""
        self._share = _share(before, now)
        self._from, self._began_s = now, now_s

    def judge(self, now: Counts, now_s: float) -> Verdict:
        """Return the verdict so far."""
        inputs = now.inputs - self._from.inputs
        if inputs >= TRIAL_INPUTS:
            share = _share(self._from, now)
            if share > self._share + TROUBLE_SHARE:
                bad = f"{share:.0%} of {inputs} inputs were refused or impossible"
                return Verdict(over=True, trouble=f"{bad}, {self._share:.0%} before")
        return Verdict(over=now_s - self._began_s >= TRIAL_S)


def _share(before: Counts, now: Counts) -> float:
    inputs = now.inputs - before.inputs
    return (now.refused - before.refused) / inputs if inputs > 0 else 0.0
