"""Readings, what stands beside them, and what was refused."""

import msgspec


class Patient(
    msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=False, gc=False
):
    """Who a device says it is attached to. Sealed everywhere but in memory."""

    mrn: str = ""
    name: str = ""
    birth_date: str = ""
    """ISO 8601 calendar date, or empty."""
    sex: str = ""
    """FHIR administrative gender: male, female, other, unknown, or empty."""
    bed: str = ""
    ward: str = ""


class Reading(msgspec.Struct, frozen=True, gc=False):
    """One value of one vital sign.

    ``time_ms`` is the best time of measurement and ``received_ms`` the gateway's own, both
    milliseconds of UTC since 1970. ``value`` is in the code table's unit; None unless status says
    there is one. ``vital``, ``status``, ``site`` and ``time_source`` are the indices of
    `vitals.codes`.
    """

    vital: int
    value: float | None
    time_ms: int
    received_ms: int
    status: int = 0
    site: int = 0
    channel: int = 0
    """Tells two sensors of one kind on one device apart; 0 is the first or only one."""
    time_source: int = 0
    """Whose clock ``time_ms`` is of: an index of `vitals.codes.TimeSource`."""
    reason: int = 0
    """Why there is no value: an index of `vitals.codes.Absence`."""


class DeviceAlert(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One step of an alarm that a device raised itself (IHE PCD-04, OBR-4 MDC_EVT_ALARM).

    Coded parts only: no text of the device stands in it, so it may leave the seal of identity.
    """

    event: int
    """MDC context-free code of what happened (196648 is MDC_EVT_HI), 0 when it has none."""
    name: str
    """MDC REFID of ``event``: capital letters, digits and underscores."""
    time_ms: int
    received_ms: int
    phase: str = ""
    """start, continue, end, update; empty when not said, as below."""
    state: str = ""
    """off, inactive, active, latched."""
    inactivation: str = ""
    """enabled, audio-paused, audio-off, alarm-paused, alarm-off, alert-acknowledged."""
    priority: str = ""
    """high, medium, low, none, unknown (IEC 60601-1-8 words of PH, PM, PL, PN and PI, PU)."""
    kind: str = ""
    """physiological, technical, advisory (SP, ST, SA)."""
    id: str = ""
    """The device's name of the alarm (OBR-3, or OBR-29 of an update), [A-Za-z0-9._-], cut."""
    source: int = 0
    """MDC code of the metric it is about, 0 when not said."""
    vital: int | None = None
    """Index in `vitals.codes` of ``source`` when it is a vital sign known here."""
    value: float | None = None
    """The measured value that raised it, in the table's unit."""
    low: float | None = None
    high: float | None = None
    """The device's limits, in the table's unit."""
    status: int = 0
    """TEST and CALIBRATION never ring: an index of `vitals.codes.Status`."""
    time_source: int = 0


class Sample(msgspec.Struct, frozen=True):
    """What one line or message said: one device, perhaps its patient, and the readings."""

    device: str
    readings: tuple[Reading, ...]
    patient: Patient | None = None


class Rejected(msgspec.Struct, frozen=True):
    """Input that became no reading, whole, with a reason from the closed set of its decoder."""

    reason: str
    field: str
    """Name of the offending field (never its content), or empty."""
    detail: str
    """A sentence for the sender: what is wrong and what would be right. No patient data."""
    device: str
    raw: bytes
    received_ms: int
    raw_bytes: int
    """Length before ``raw`` was cut to limits.QUARANTINE_RAW_BYTES_MAX."""
