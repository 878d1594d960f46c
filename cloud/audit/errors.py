"""A stage that cannot be read: the audit then says nothing about it, and exits 2."""

from vitals.errors import VitalsError


class Unreachable(VitalsError):
    """Names the stage and the code of what went wrong."""

    def __init__(self, stage: str, why: str) -> None:
        """``why``: a code or a short text without data."""
        super().__init__(f"{stage} cannot be read: {why}")
        self.stage = stage
