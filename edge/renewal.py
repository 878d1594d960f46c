"""When a certificate is renewed, and what a technician sees of it.

Law: pure; times and jitter are given. The states are those of ENROL.md.
"""

import hashlib
from enum import StrEnum
from typing import Final

import msgspec

RETRY_S_MIN: Final = 60.0
RETRY_S_MAX: Final = 3600.0
"""Between two tries that failed."""

REFUSED_S: Final = 3600.0
"""A refusal may have been the operators' mistake: it is asked again, seldom."""

SPREAD: Final = 0.05
"""Of the life: gateways that were enrolled in one hour are not renewed in one hour."""

LEFT_SHARE: Final = 0.1
"""Of the time that is left, at most, is waited."""


class State(StrEnum):
    """A closed set."""

    NONE = "none"
    """Only a placeholder."""
    ENROLLING = "enrolling"
    """An enrolment was begun and not ended."""
    VALID = "valid"
    RENEWING = "renewing"
    """Past half of its life, and no answer yet."""
    EXPIRED = "expired"
    AWAITING = "awaiting"
    """Expired; an operator has to approve."""
    REFUSED = "refused"
    """The authority will not renew it."""


class View(msgspec.Struct, frozen=True):
    """What the keeper did last (CONTROL.md)."""

    state: State
    trouble: str = ""
    """Code of the last failure, empty after success."""
    told: bool | None = None
    """Whether HAProxy uses the file's certificate; None: it can not be asked."""
    proven: bool = True
    """False while the one before is kept."""
    failures: int = 0
    """In a row."""
    fingerprint: str = ""
    """Of the key that an operator has to approve."""


def due_ms(begins_ms: int, ends_ms: int, serial: str) -> int:
    """Return when renewal begins: half of the life, spread by the serial."""
    digest = hashlib.sha256(serial.encode()).digest()
    spread = int.from_bytes(digest[:4], "big") / (2**31) - 1.0  # -1..1
    return begins_ms + int((ends_ms - begins_ms) * (0.5 + SPREAD * spread))


def retry_s(failures: int, left_s: float, jitter: float) -> float:
    """Return the pause after failure number ``failures`` (from 1); ``jitter`` in 0..1.

    ``left_s``: until the certificate ends; negative when it has.
    """
    full = min(RETRY_S_MAX, RETRY_S_MIN * 2.0 ** min(failures - 1, 16))
    pause = full * (0.5 + 0.5 * jitter)
    if left_s > 0:
        pause = min(pause, left_s * LEFT_SHARE)
    return max(RETRY_S_MIN, pause)
