"""Detect's configuration file."""

from pathlib import Path

import msgspec

from cloud.settings import Kafka, Metrics


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``healthsync cloud detect --config FILE``."""

    kafka: Kafka
    metrics: Metrics
    instance: int = 0
    """Tells processes apart; no two that run at once may have the same."""
    transactional_id: str = ""
    """Must begin with ``detect-`` (Kafka's ACL); empty: ``detect-{instance}``."""
    policy_file: Path | None = None
    """TOML of `cloud.policy` that holds until one is pushed; none: cloud/policy/default.toml."""

    def identity(self) -> str:
        """Return the transactional id, which is the group's static member id too."""
        return self.transactional_id or f"detect-{self.instance}"
