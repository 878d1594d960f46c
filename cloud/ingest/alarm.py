"""The alert that a gateway's frames are being set aside: somebody must look, today.

Law: pure. One alert an hour for a gateway and a reason, however many frames; its id is the same
whichever process raises it, so that the compacted topic holds it once.
"""

from typing import Final

from cloud.records import GATEWAY, AlertEvent

HOUR_MS: Final = 3_600_000
RAISED_MAX: Final = 4096
"""Alerts of this hour remembered; more gateways than these are told again."""

WORDS: Final = {
    "malformed": "frames that cannot be read",
    "forged": "frames that do not open: altered, or sealed under another key",
    "too-large": "frames over the limit",
    "epoch-unknown": "frames of an epoch it never announced",
    "epoch-key": "frames sealed to a cloud key that is not held here",
    "refused": "frames that Kafka will never take",
}


class Alarms:
    """What was raised within the hour."""

    def __init__(self) -> None:
        """Start with nothing."""
        self._raised: dict[tuple[str, str], int] = {}

    def forget(self) -> None:
        """Raise again what was raised: some record of it may not have arrived."""
        self._raised.clear()

    def set_aside(self, edge: str, reason: str, now_ms: int) -> AlertEvent | None:
        """Return the alert to publish, None when it was already raised this hour."""
        hour = now_ms // HOUR_MS
        if self._raised.get((edge, reason)) == hour:
            return None
        if len(self._raised) >= RAISED_MAX:
            self._raised.clear()
        self._raised[edge, reason] = hour
        return AlertEvent(
            episode=f"set-aside-{reason}-{hour}",
            subject=edge,
            kind=GATEWAY,
            vital="",
            priority="medium",
            state="active",
            text=f"the gateway sends {WORDS[reason]}; they are kept in quarantine",
            limit=0.0,
            worst=0.0,
            began_ms=now_ms,
            raised_ms=now_ms,
            at_ms=now_ms,
            policy="ingest",
        )
