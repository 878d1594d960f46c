"""What a turn of a partition gives, and what may be wrong with what it is given."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from cloud.fhir import resources
from cloud.records import AlertEvent

_alert_encoder: Final = msgspec.json.Encoder()


class Poison(Exception):
    """A record that is no samples record, or not of this partition. Says why in a closed word."""

    def __init__(self, reason: str) -> None:
        """``reason``: malformed, range, subject, partition or unjudgeable."""
        super().__init__(reason)
        self.reason = reason


class Unjudged(Exception):
    """Judging a record failed in a way nobody foresaw: memory is not to be trusted any more."""

    def __init__(self, offset: int) -> None:
        """``offset`` of the record."""
        super().__init__(offset)
        self.offset = offset


class Message(NamedTuple):
    """One message to produce to the record's own partition."""

    key: bytes
    value: bytes


class Poisoned(NamedTuple):
    """A record that was set aside."""

    offset: int
    reason: str
    value: bytes


class Made:
    """What a turn gave."""

    __slots__ = ("alerts", "duplicates", "fhir", "late", "poison", "readings", "refused")

    def __init__(self) -> None:
        """Begin empty."""
        self.fhir: list[Message] = []
        self.alerts: list[AlertEvent] = []
        self.poison: list[Poisoned] = []
        self.readings = self.duplicates = self.late = self.refused = 0


def bundle(subject: str, built: Sequence[tuple[str, bytes]]) -> Message:
    """Return Observations (id, body) as one transaction Bundle."""
    entries = [(f"Observation/{ident}", body) for ident, body in built]
    return Message(subject.encode(), resources.transaction(entries))


def alert_message(alert: AlertEvent) -> Message:
    """Return an alert event as it lies in its topic."""
    key = f"{alert.subject}/{alert.episode}".encode()
    return Message(key, _alert_encoder.encode(alert))
