import pytest

from cloud.ingest.known import KnownAssociations
from cloud.ingest.split import Pseudonyms
from cloud.ingest.unpack import Unpacker
from tests.cloud.ingest.frames import Edge, Keys
from vitals.reading import Patient


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def edge(keys: Keys) -> Edge:
    return Edge("ward-3", keys.private)


@pytest.fixture
def other_edge(keys: Keys) -> Edge:
    return Edge("ward-4", keys.private)


@pytest.fixture
def unpacker(keys: Keys) -> Unpacker:
    return Unpacker(Pseudonyms(keys.subject), keys.identity, keys.quarantine, KnownAssociations())


@pytest.fixture
def ada() -> Patient:
    return Patient(mrn="M000123", name="Ada Ng", bed="12", ward="3W")
