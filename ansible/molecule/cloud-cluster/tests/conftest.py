"""The scenario's hosts."""

from collections.abc import Mapping

import pytest
import testinfra
from technician import Gateway
from testinfra.host import Host

NAMES = ("kafka-1", "kafka-2", "kafka-3", "app-1", "app-2")


@pytest.fixture(scope="session")
def cloud() -> Mapping[str, Host]:
    """Return the cloud's hosts by their short names."""
    return {name: testinfra.get_host(f"podman://healthsync-{name}") for name in NAMES}


@pytest.fixture(scope="session")
def gateway() -> Gateway:
    """Return the ward's gateway."""
    return Gateway(testinfra.get_host("podman://healthsync-gateway-3"))
