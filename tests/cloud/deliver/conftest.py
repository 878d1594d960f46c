"""One FHIR server process a module; each test finds it empty and well-behaved."""

from collections.abc import Iterator

import pytest

from tests.cloud.deliver.rig import Desk, FhirServer


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FhirServer]:
    made = FhirServer(tmp_path_factory.mktemp("fhir"))
    made.start()
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def fhir(server: FhirServer) -> FhirServer:
    server.control(rules=[], forget_all=True, life_s=300, max_bytes=10_000_000)
    return server


@pytest.fixture
def desk(fhir: FhirServer) -> Iterator[Desk]:
    made = Desk(fhir.base)
    try:
        yield made
    finally:
        made.close()
