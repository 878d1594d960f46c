"""How each device does, in one word, and its row on the technician's screen.

Law: pure; reads `edge.devices`, changes nothing. Patients' values leave only when asked to be
revealed; names and record numbers are not there to leave. Built piece by piece (`Survey.look`),
so that its caller can let the collector run in between.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from enum import IntEnum
from typing import Any, Final, NamedTuple

from edge.devices import Device
from edge.skew import SKEW_MS_MIN
from vitals.codes import VITALS, Site, Status, decimal_scale
from vitals.reading import Reading

ROWS_MAX: Final = 500
"""Rows of one answer, worst first: more than anybody pages through, under 1 MiB of JSON."""

HEARD_MS: Final = 5 * 60_000
"""Heard within this counts as there; a refusal older than this is history."""

GONE_MS: Final = 12 * 3600_000
"""Unheard for a shift: taken away or renamed; counted as remembered, shown no more."""

LATE_GAPS: Final = 3
LATE_MS_MIN: Final = 10_000
SILENT_GAPS: Final = 10
SILENT_MS_MIN: Final = 60_000
SILENT_MS_MAX: Final = 30 * 60_000
"""Late and silent are told by the device's own pause between inputs, within these bounds:
a monitor speaks every second, a spot check every few minutes."""


class State(IntEnum):
    """A closed set; the higher, the worse."""

    OK = 0
    CLOCK = 1
    """Its clock is off by over `edge.skew.SKEW_MS_MIN`, and corrected."""
    LATE = 2
    """Quiet for three of its own pauses."""
    SILENT = 3
    """Quiet for ten of its own pauses, at least a minute."""
    REFUSED = 4
    """Its last input was refused, within `HEARD_MS`."""


Skew = Callable[[str], "int | None"]
"""Device name -> milliseconds its clock is behind this one's, None when not known."""


def state(device: Device, now_ms: int, skew_ms: int | None) -> State:
    """Return the word for one device."""
    if device.refused_ms > device.last_ms and now_ms - device.refused_ms <= HEARD_MS:
        return State.REFUSED
    quiet_ms = now_ms - max(device.last_ms, device.refused_ms)
    if quiet_ms > min(max(SILENT_GAPS * device.gap_ms, SILENT_MS_MIN), SILENT_MS_MAX):
        return State.SILENT
    if quiet_ms > max(LATE_GAPS * device.gap_ms, LATE_MS_MIN):
        return State.LATE
    if skew_ms is not None and abs(skew_ms) > SKEW_MS_MIN:
        return State.CLOCK
    return State.OK


class Found(NamedTuple):
    """One device with what was found of it."""

    state: State
    device: Device
    skew_ms: int | None


class Survey:
    """Counts all devices by state and keeps the worst; feed it by `look`."""

    def __init__(self, now_ms: int, skew: Skew, rows_most: int = ROWS_MAX) -> None:
        """Judge by the clock ``now_ms``; keep at most ``rows_most`` devices for `worst`."""
        self._now_ms, self._skew, self._most = now_ms, skew, rows_most
        self._counts: Counter[State] = Counter()
        self._remembered = self._heard = 0
        self._rate = 0.0
        self._worst: list[Found] = []

    def look(self, devices: Iterable[Device]) -> None:
        """Take some more devices."""
        found = self._worst
        for device in devices:
            self._remembered += 1
            if self._now_ms - max(device.last_ms, device.refused_ms) > GONE_MS:
                continue
            skew_ms = self._skew(device.name)
            word = state(device, self._now_ms, skew_ms)
            self._counts[word] += 1
            self._heard += self._now_ms - device.last_ms <= HEARD_MS
            self._rate += device.rate_per_min(self._now_ms)
            found.append(Found(word, device, skew_ms))
        if len(found) > 4 * self._most:
            self._worst = heapq.nsmallest(self._most, found, key=_order)

    def counts(self) -> dict[str, int]:
        """Return the devices remembered, heard and in each state, and their inputs a minute."""
        states = {word.name.lower(): self._counts[word] for word in State}
        return {
            "remembered": self._remembered,
            "heard": self._heard,
            "rate_per_min": round(self._rate),
        } | states

    def worst(self) -> list[Found]:
        """Return the worst devices, worst first, those of one state by name."""
        return heapq.nsmallest(self._most, self._worst, key=_order)

    def row(self, found: Found, *, reveal: bool) -> dict[str, Any]:
        """Return one device's row; with its patient's values only when ``reveal``."""
        return _row(found, self._now_ms, reveal=reveal)


def _order(found: Found) -> tuple[int, str]:
    # By state, then by name: rows that keep their place are rows that can be read.
    return -found.state, found.device.name


def _row(found: Found, now_ms: int, *, reveal: bool) -> dict[str, Any]:
    device = found.device
    heard_ms = max(device.last_ms, device.refused_ms)
    return {
        "device": device.name,
        "bed": device.bed,
        "identified": device.identified,
        "via": device.via,
        "state": found.state.name.lower(),
        "rate_per_min": round(device.rate_per_min(now_ms), 1),
        "inputs": device.inputs,
        "seen_s": _age_s(now_ms, heard_ms),
        "skew_ms": found.skew_ms,
        "rejects": dict(device.rejects.most_common()) if device.rejects else {},
        "vitals": [
            _vital(reading, now_ms, reveal=reveal) for _, reading in sorted(device.latest.items())
        ],
    }


def _vital(reading: Reading, now_ms: int, *, reveal: bool) -> dict[str, Any]:
    vital = VITALS[reading.vital]
    shown: dict[str, Any] = {
        "vital": vital.name,
        "short": vital.short,
        "site": Site(reading.site).name.lower() if reading.site else "",
        "channel": reading.channel,
        # Of the measurement, not of the message: a cuff's value is sent again for minutes.
        "age_s": _age_s(now_ms, min(reading.time_ms, reading.received_ms)),
        "status": Status(reading.status).name.lower(),
    }
    if reveal:
        value = reading.value
        digits = len(str(decimal_scale(vital))) - 1
        shown["value"] = None if value is None else round(value, digits)
        shown["unit"] = vital.unit
    return shown


def _age_s(now_ms: int, then_ms: int) -> float:
    return max(0.0, round((now_ms - then_ms) / 1000, 1))
