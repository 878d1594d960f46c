"""The scenario's two hosts."""

import pytest
import testinfra
from technician import Gateway
from testinfra.host import Host


@pytest.fixture(scope="session")
def host() -> Host:
    """Return the cloud's host."""
    return testinfra.get_host("podman://healthsync-cloud-1")


@pytest.fixture(scope="session")
def gateway() -> Gateway:
    """Return the ward's gateway."""
    return Gateway(testinfra.get_host("podman://healthsync-gateway-1"))
