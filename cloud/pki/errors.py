"""What the desk refuses, with the code that goes out and the status of HTTP."""

from typing import Final

from vitals.errors import VitalsError

STATUS: Final = {
    "token-unknown": 401,
    "token-used": 401,
    "token-expired": 401,
    "token-name": 401,
    "csr-malformed": 400,
    "csr-name": 400,
    "csr-key": 400,
    "csr-signature": 400,
    "certificate-unknown": 403,
    "certificate-revoked": 403,
    "grace-over": 403,
    "proof-wrong": 403,
    "too-many": 429,
}
"""Codes (edge/ENROL.md says what each means to a technician) and their status."""


class Refused(VitalsError):
    """No certificate; ``code`` is one of STATUS."""

    def __init__(self, code: str, step: str, retry_s: int = 0) -> None:
        """``step``: what whoever asked does next; ``retry_s``: for too-many."""
        super().__init__(f"{code}: {step}")
        self.code, self.step, self.retry_s = code, step, retry_s

    @property
    def status(self) -> int:
        """Return the status of HTTP."""
        return STATUS[self.code]


class Waiting(VitalsError):
    """An operator has to approve first: ask the same again after ``retry_s``."""

    def __init__(self, name: str, retry_s: int) -> None:
        """Say who waits, and when to ask again."""
        super().__init__("awaiting approval by an operator")
        self.name, self.retry_s = name, retry_s
