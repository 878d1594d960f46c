"""Deliver's configuration file."""

from pathlib import Path
from typing import Annotated

import msgspec

from cloud.settings import Kafka, Metrics


class OAuth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """SMART Backend Services: client credentials, authenticated by a signed assertion."""

    client_id: str
    key_file: Path
    """PEM, readable by its owner only: EC P-384 signs ES384, RSA from 2048 bits RS384."""
    kid: str
    """The key's name in the key set that the server knows this client by."""
    token_url: str = ""
    """Empty: what ``.well-known/smart-configuration`` of the base URL says."""
    scope: str = "system/Observation.cu system/DetectedIssue.cu"
    """SMART v2. A PUT creates or updates: c and u. ``fhir`` holds Observations only."""


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``healthsync cloud deliver --config FILE``."""

    to: str
    """The FHIR server's base URL; ``--to URL`` stands instead."""
    kafka: Kafka
    metrics: Metrics
    ca: Path | None = None
    """Authorities of the servers' certificates; none: the system's."""
    oauth: OAuth | None = None
    """None: no token is sent."""
    answer_s: Annotated[float, msgspec.Meta(ge=1, le=300)] = 30.0
    """For one request, from its first byte to the answer's last."""
    give_up_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    """A resource that a server has answered with its own fault (500, not 502-504) for so long goes
    to the dead letters. 0: never; it holds its partition up until somebody acts."""
    instance: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Tells processes apart; no two that run at once may have the same."""

    def identity(self) -> str:
        """Return the client's name and the group's static member id."""
        return f"deliver-{self.instance}"
