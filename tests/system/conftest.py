from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.box import Box


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """One onebox for the whole session, driven through its real path."""
    running = Box(Path(tmp_path_factory.mktemp("onebox")) / "run")
    try:
        yield running
    finally:
        running.stop()
