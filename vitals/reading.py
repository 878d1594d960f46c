"""Readings, what stands beside them, and what was refused."""

import msgspec


class Patient(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=False):
    """Who a device says it is attached to. Sealed everywhere but in memory."""

    mrn: str = ""
    name: str = ""
    birth_date: str = ""
    """ISO 8601 calendar date, or empty."""
    sex: str = ""
    """FHIR administrative gender: male, female, other, unknown, or empty."""
    bed: str = ""
    ward: str = ""


class Reading(msgspec.Struct, frozen=True):
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
